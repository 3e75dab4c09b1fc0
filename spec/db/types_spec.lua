local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local json = require "json"

-- The statement for a type is named after it, brackets and all made underscores.
local function roundtrip(req)
  local row = app.db:query_row("value_" .. req.params.type:gsub("%W", "_"), req.body[1])
  return row, row.value -- to look at it makes a Lua value of it
end

-- The value, in and out, as JSON.
app.post("/value/{type}", function(req)
  return 200, (roundtrip(req))
end)

-- What the value is in Lua.
app.post("/kind/{type}", function(req)
  local _, value = roundtrip(req)
  return 200, { kind = value == json.null and "json null" or math.type(value) or type(value) }
end)

-- What PostgreSQL says the value is.
app.post("/text/{type}", function(req)
  return 200, app.db:query_row("text_" .. req.params.type:gsub("%W", "_"), req.body[1])
end)

-- The same without a named statement: nothing is known of the type when the value is bound.
app.post("/unnamed/{type}", function(req)
  local row = app.db:query_row(("select $1::%s as value"):format(req.params.type), req.body[1])
  return 200, row, { kind = type(row.value) }
end)

app.get("/bytes", function()
  local bytes = "\0\1\xff\\'\n"
  local row = app.db:query_row("get_bytes", bytes)
  return 200, { same = row.value == bytes, hex = row.hex }
end)

-- The same columns in three rows: one that was looked at, one that was not, and one of a list.
app.post("/select", function(req)
  local sql = "select " .. req.raw_body
  local seen = app.db:query_row(sql)
  assert(next(seen) ~= nil)
  return 200, { seen, app.db:query_row(sql), app.db:query(sql)[1] }
end)

-- What a column is in Lua.
app.post("/lua", function(req)
  local value = app.db:query_row("select " .. req.raw_body .. " as value").value
  return 200, { math.type(value) or type(value), tostring(value) }
end)

-- A column that is an array, made of a value from Lua without JSON on the way.
app.get("/doubles", function()
  local doubles = { 0.1 + 0.2, 1e15, 3.0, 5e-324, math.huge, -math.huge, 2.0 ^ 53, json.null }
  local row = app.db:query_row("value_float8__", doubles)
  local same = 0
  for i, value in ipairs(doubles) do
    same = same + (row.value[i] == value and 1 or 0)
  end
  return 200, { same = same, nan = tostring(app.db:query_row("value_float8__", { 0 / 0 }).value[1]):match("nan") }
end)

app.get("/bytes-in-array", function()
  local bytes = { "\0\1\xff\\'\n", "", "x" }
  local row = app.db:query_row("value_bytea__", bytes)
  return 200, { row.value[1] == bytes[1], row.value[2] == "", row.value[3] == "x", #row.value }
end)

app.get("/row", function()
  local row = app.db:query_row("select 1 as one, null::text as nothing, 'x' as \"a b\"")
  return 200, { one = row.one, absent = row.nothing == nil, spaced = row["a b"] }
end)

app.get("/row-as-it-is", function()
  return 200, app.db:query_row("select 2 as z, null::int as y, true as x")
end)

app.get("/no-row", function()
  return 200, { none = app.db:query_row("select 1 where false") == nil, rows = #app.db:query("select 1 where false") }
end)

app.get("/rows", function()
  local rows = app.db:query("select n, n * 0.5 as half from generate_series(1, 3) n")
  local sum = 0
  for i, row in ipairs(rows) do
    assert(rows[i] == row)
    sum = sum + row.n + row.half
  end
  return 200, { count = #rows, sum = sum, rows = rows }
end)

app.get("/nil", function()
  local row = app.db:query_row("select $1::int is null as first, $2::text as second, $3::int is null as third",
    nil, "x", nil)
  return 200, row
end)
]]

local TYPES = {
  "int2", "int4", "int8", "float4", "float8", "numeric", "bool", "text", "varchar", "varchar(2)", "name", "json",
  "jsonb", "int4[]", "int8[]", "float8[]", "text[]", "bool[]", "uuid", "date", "timestamp", "timestamptz", "bytea",
  "int2[]", "numeric[]", "uuid[]", "date[]", "timestamptz[]", "jsonb[]", "bytea[]", "inet[]", "interval", "inet",
    "money",
  "bit(3)", "xml", "tsvector", "int4range", "point", "time", "timetz", '"char"',
}

-- Two statements for each type: one that gives the value back, one that gives PostgreSQL's text of it.
local function statements()
  local parts = { "-- name: get_bytes :one\nselect $1::bytea as value, encode($1::bytea, 'hex') as hex;\n" }
  for _, name in ipairs(TYPES) do
    local suffix = name:gsub("%W", "_")
    parts[#parts + 1] = ("-- name: value_%s :one\nselect $1::%s as value;\n"):format(suffix, name)
    parts[#parts + 1] = ("-- name: text_%s :one\nselect ($1::%s)::text as value;\n"):format(suffix, name)
  end
  return table.concat(parts)
end

-- A path with the name of a type, brackets and all.
local function path_of(prefix, type_name)
  return prefix .. type_name:gsub("%W", function(c) return ("%%%02X"):format(c:byte()) end)
end

describe("a value of type", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT, statements = statements() }
  end)
  teardown(function() server:stop() end)

  local function out(type_name, value)
    local answer = server:post(path_of("/value/", type_name), "[" .. value .. "]")
    assert.equal(200, answer.status, answer.body)
    return (answer.body:match('^{"value":(.*)}$'))
  end

  for _, case in ipairs {
    { "int2", "-32768" }, { "int2", "32767" },
    { "int4", "-2147483648" }, { "int4", "2147483647" }, { "int4", "0" },
    { "int8", "-9223372036854775808" }, { "int8", "9223372036854775807" }, { "int8", "9007199254740993" },
    { "float4", "0.5" }, { "float4", "-1" },
    { "float8", "0.1" }, { "float8", "0.30000000000000004" }, { "float8", "5e-324" },
    { "float8", "1.7976931348623157e+308" }, { "float8", "3" },
    { "numeric", "0.1" }, { "numeric", "5432" }, { "numeric", "-12.5" }, { "numeric", "1e+300" },
    { "bool", "true" }, { "bool", "false" },
    { "text", '"żółć 🌒 \\"\\\\"' }, { "text", '""' }, { "varchar", '"abc"' }, { "varchar(2)", '"ab"' },
    { "name", '"abc"' },
    { "json", '{"a":[1,null,{"b":"x"}],"c":[]}' }, { "jsonb", '{"a":[1,2.5,null]}' }, { "jsonb", "[]" },
    { "jsonb", "{}" }, { "json", "[1,2,3]" },
    { "int4[]", "[1,2,3]" }, { "int8[]", "[9223372036854775807,-1]" }, { "int4[]", "[]" },
    { "int4[]", "[1,null,3]" }, { "float8[]", "[0.1,1e+300,-2.5]" },
    { "text[]", '["a","b c","d,e","{f}","\\"g\\"","h\\\\i","","NULL"]' }, { "text[]", '["a",null]' },
    { "bool[]", "[true,false]" },
    { "uuid", '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"' },
    { "date", '"2026-01-31"' },
    { "timestamptz", '"2026-01-31T12:34:56Z"' }, { "timestamptz", '"2026-01-31T12:34:56.123456Z"' },
    { "timestamptz", '"1969-12-31T23:59:59.5Z"' },
    { "int4", "null" }, { "text", "null" }, { "float8", "null" }, { "bool", "null" }, { "timestamptz", "null" },
    { "int4[]", "null" },
  } do
    local type_name, value = case[1], case[2]
    it(("%s goes in and out as %s"):format(type_name, value), function()
      assert.equal(value, out(type_name, value))
    end)
  end

  for _, case in ipairs {
    { "int2[]", "[-32768,32767]" }, { "int4[]", "[[1,2],[3,4]]" }, { "int4[]", "[[[1]],[[null]]]" },
    { "float8[]", "[0.30000000000000004,5e-324,1.7976931348623157e+308]" }, { "float8[]", "[3,null,-0]" },
    { "numeric[]", "[0.1,12]" }, { "text[]", '[["a","b"],["c",null]]' }, { "text[]", '["żółć 🌒","\\n","\\\\","{"]' },
    { "uuid[]", '["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]' }, { "date[]", '["2026-01-31",null]' },
    { "timestamptz[]", '["2026-01-31T12:34:56Z"]' }, { "jsonb[]", '[{"a":[1,2]},null,[],1]' },
    { "inet[]", '["10.0.0.1","::1"]' },
    { "timestamptz", '"infinity"' }, { "timestamptz", '"-infinity"' }, { "timestamptz", '"12026-01-31T12:34:56Z"' },
    { "timestamptz", '"0044-03-15T10:00:00Z BC"' }, { "timestamptz", '"294276-12-31T23:59:59.999999Z"' },
    { "timestamptz", '"0001-01-01T00:00:00Z"' }, { "timestamp", '"9999-12-31T23:59:59.999999"' },
    { "timestamp", '"4713-01-01T00:00:00 BC"' }, { "timestamp", '"infinity"' },
    { "date", '"infinity"' }, { "date", '"0044-03-15 BC"' }, { "date", '"12026-01-31"' },
    { "time", '"12:34:56.5"' }, { "timetz", '"12:34:56+02"' }, { "interval", '"1 year 2 mons 3 days 04:05:06.5"' },
    { "inet", '"10.0.0.1/8"' }, { "money", '"$1,234.50"' }, { "bit(3)", '"101"' }, { "xml", '"<a b=\\"c\\"/>"' },
    { "tsvector", "\"'cat' 'fat'\"" }, { "int4range", '"[1,5)"' }, { "point", '"(1,2)"' }, { '"char"', '"x"' },
    { "float8", '"NaN"' }, { "float8", '"Infinity"' }, { "float8", '"-Infinity"' }, { "numeric", '"NaN"' },
    { "float8[]", '["NaN","-Infinity",1]' },
    { "numeric", '"12345678901234567890.123456789"', "1.2345678901234567e+19" },
  } do
    local type_name, value, expected = case[1], case[2], case[3] or case[2]
    it(("%s goes in as %s and comes out as %s"):format(type_name, value, expected), function()
      assert.equal(expected, out(type_name, value))
    end)
  end

  it("timestamptz with another offset comes out in UTC", function()
    assert.equal('"2026-01-31T11:34:56Z"', out("timestamptz", '"2026-01-31T12:34:56+01:00"'))
  end)

  it("timestamp comes out in the form of ISO 8601", function()
    assert.matches('^"2026%-01%-31T12:34:56Z?"$', out("timestamp", '"2026-01-31T12:34:56"'))
  end)

  it("uuid comes out in lower case", function()
    assert.equal('"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', out("uuid", '"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"'))
  end)

  for type_name, kinds in pairs {
    int2 = { "1", "integer" }, int4 = { "1", "integer" }, int8 = { "1", "integer" },
    float4 = { "1", "float" }, float8 = { "1", "float" }, numeric = { "1", "float" },
    bool = { "true", "boolean" }, text = { '"x"', "string" }, jsonb = { '{"a":1}', "table" },
    ["int4[]"] = { "[1]", "table" }, timestamptz = { '"2026-01-01T00:00:00Z"', "string" },
    date = { '"2026-01-01"', "string" }, uuid = { '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"', "string" },
    bytea = { '"x"', "string" },
  } do
    it(("%s is %s in Lua"):format(type_name, kinds[2]), function()
      local answer = server:post(path_of("/kind/", type_name), "[" .. kinds[1] .. "]")
      assert.equal(kinds[2], answer:json().kind, answer.body)
    end)
  end

  for _, case in ipairs {
    { "numeric", "0.1", "0.1" }, { "numeric", "5432", "5432" },
    { "numeric", "9223372036854775807", "9223372036854775807" }, { "float8", "1", "1" }, { "int4", "5.0", "5" },
    { "text", '"x"', "x" }, { "text[]", '["a\\"b","c"]', '{"a\\"b",c}' }, { "bool", "true", "true" },
  } do
    it(("%s reaches PostgreSQL from %s as %s"):format(case[1], case[2], case[3]), function()
      local answer = server:post(path_of("/text/", case[1]), "[" .. case[2] .. "]")
      assert.equal(case[3], answer:json().value, answer.body)
    end)
  end

  for _, case in ipairs {
    { "int4", "1" }, { "float8", "0.1" }, { "numeric", "12.5" }, { "bool", "true" }, { "text", '"x"' },
    { "int4[]", "[1,2]" }, { "text[]", '["a","b"]' }, { "jsonb", '{"a":[1]}' }, { "int4", "null" },
  } do
    it(("%s goes in and out as %s in SQL text too"):format(case[1], case[2]), function()
      local answer = server:post(path_of("/unnamed/", case[1]), "[" .. case[2] .. "]")
      assert.equal(('{"value":%s}'):format(case[2]), answer.body)
    end)
  end

  for _, case in ipairs {
    { "int2", "32768" }, { "int4", "2147483648" }, { "int4", '"abc"' }, { "int4", "1.5" }, { "bool", '"maybe"' },
    { "uuid", '"not-a-uuid"' }, { "date", '"2026-13-01"' }, { "text", '"a\\u0000b"' },
  } do
    it(("%s refuses %s with 422"):format(case[1], case[2]), function()
      support.problem(server:post(path_of("/value/", case[1]), "[" .. case[2] .. "]"), 422)
    end)
  end

  it("bytea keeps every byte", function()
    assert.same({ same = true, hex = "0001ff5c270a" }, server:get("/bytes"):json())
  end)
end)

-- SQL, and the JSON of its row; where they differ, first of a row that a script has looked at.
local COLUMNS = {
  { "'NaN'::float8 as v", '{"v":"NaN"}' },
  { "'Infinity'::float4 as a, '-Infinity'::numeric as b", '{"a":"Infinity","b":"-Infinity"}' },
  { "'{NaN,1}'::float8[] as v", '{"v":["NaN",1]}' },
  { "'NaN'::numeric as v, 1 as n", '{"v":"NaN","n":1}' },
  { "12345678901234567890.5::numeric as v", '{"v":1.2345678901234567e+19}', '{"v":12345678901234567890.5}' },
  { "repeat('9', 400)::numeric as v", '{"v":"Infinity"}', '{"v":' .. ("9"):rep(400) .. "}" },
  { "'[0:1]={1,2}'::int[] as v", '{"v":[1,2]}' },
  { "'[-1:0][2:2]={{1},{2}}'::int[] as v", '{"v":[[1],[2]]}' },
  { "'{}'::int[] as v, '{NULL}'::text[] as w", '{"v":[],"w":[null]}' },
  { "array[array[1,null],array[3,4]] as v", '{"v":[[1,null],[3,4]]}' },
  { "array['a'::\"char\", 'b'] as v, array['n'::name] as w", '{"v":["a","b"],"w":["n"]}' },
  { "array[int4range(1, 5), null] as v, array['1 day'::interval] as w", '{"v":["[1,5)",null],"w":["1 day"]}' },
  { "array['infinity', '0044-03-15 BC']::timestamptz[] as v", '{"v":["infinity","0044-03-15T00:00:00Z BC"]}' },
  { "'sad'::spec_mood as v, array['sad', 'ok']::spec_mood[] as w", '{"v":"sad","w":"{sad,ok}"}' },
  { "array['sad', 'ok']::spec_mood[]::text[] as v", '{"v":["sad","ok"]}' },
  { "7::spec_positive as v, array[1, 2]::spec_numbers as w", '{"v":7,"w":[1,2]}' },
  { "row(1, 'a b', null)::spec_pair as v", '{"v":"(1,\\"a b\\",)"}' },
  { "to_json(row(1, 'a b', null)::spec_pair) as v", '{"v":{"a":1,"b":"a b","c":null}}', nil, "unordered" },
  { "array[box '(3,4),(1,2)', box '(1,1),(0,0)'] as v", '{"v":"{(3,4),(1,2);(1,1),(0,0)}"}' },
  { "json '{\"a\":1,\"a\":2}' as v", '{"v":{"a":2}}', '{"v":{"a":1,"a":2}}' },
  { "json '[1e999,-1e999]' as v", '{"v":["Infinity","-Infinity"]}', '{"v":[1e999,-1e999]}' },
  { "json ' [ 1.0 , 9007199254740993 ] ' as v", '{"v":[1,9007199254740993]}', '{"v": [ 1.0 , 9007199254740993 ] }' },
  { "json 'null' as v, jsonb '\"x\"' as w, null::json as n", '{"v":null,"w":"x","n":null}' },
  { "decode('00ff', 'hex') as v", nil, '{"v":"\\\\x00ff"}' },
}

local TYPES_OF_THE_SPEC = [[
create type spec_mood as enum ('sad', 'ok');
create domain spec_positive as integer check (value > 0);
create domain spec_numbers as integer[];
create type spec_pair as (a integer, b text, c text);
]]

describe("a column", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT, statements = statements() }
    server.db:exec(TYPES_OF_THE_SPEC)
  end)
  teardown(function() server:stop() end)

  local function post(path, sql)
    return server:request("POST", path, { body = sql, headers = { ["Content-Type"] = "text/plain" } })
  end

  for _, case in ipairs(COLUMNS) do
    local sql, seen, unseen, unordered = case[1], case[2], case[3], case[4]
    it(("%s becomes JSON"):format(sql), function()
      local answer = post("/select", sql)
      if not seen then
        support.problem(answer, 500, "script-error")
        return
      end
      assert.equal(200, answer.status, answer.body)
      if unordered then
        assert.same(answer:json()[1], answer:json()[2])
      else
        assert.equal(("[%s,%s,%s]"):format(seen, unseen or seen, seen), answer.body)
      end
    end)
  end

  for _, case in ipairs {
    { "'NaN'::float8", "float" }, { "'Infinity'::float8", "float", "inf" }, { "1e400::numeric", "float", "inf" },
    { "'-Infinity'::numeric", "float", "-inf" }, { "'infinity'::timestamptz", "string", "infinity" },
    { "'1 2'::int2vector", "string", "1 2" }, { "'pg_class'::regclass", "string", "pg_class" },
    { "3::oid", "integer", "3" },
    { "'16/B374D848'::pg_lsn", "string", "16/B374D848" }, { "'ok'::spec_mood", "string", "ok" },
    { "row(1, 2)", "string", "(1,2)" }, { "json '1e999'", "float", "inf" }, { "jsonb '7'", "integer", "7" },
  } do
    it(("%s is %s in Lua"):format(case[1], case[2]), function()
      local answer = post("/lua", case[1])
      assert.equal(case[2], answer:json()[1], answer.body)
      if case[3] then
        assert.equal(case[3], answer:json()[2])
      end
    end)
  end

  it("of json that no script can read raises, and can be had as text", function()
    local deep = ("repeat('[', 200) || repeat(']', 200)")
    for _, value in ipairs { "json '\"\\ud800\"'", "(" .. deep .. ")::json" } do
      support.problem(post("/lua", value), 500, "script-error")
      assert.equal("string", post("/lua", "(" .. value .. ")::text"):json()[1])
    end
    server:wait_log("a json column cannot be read by a script: line 1, column 2: half of a surrogate pair")
  end)

  it("of an array keeps every double that a script made", function()
    assert.same({ same = 8, nan = "nan" }, server:get("/doubles"):json())
  end)

  it("of an array keeps every byte", function()
    assert.same({ true, true, true, 3 }, server:get("/bytes-in-array"):json())
  end)

  it("whose name another has too is refused, not lost", function()
    for _, sql in ipairs { "1 as id, 2 as id", "1, 2", "a.*, b.* from (select 1 as x) a, (select 2 as x) b" } do
      support.problem(post("/select", sql), 500, "script-error")
    end
    server:wait_log("two columns are named .?\"id.?\": give one another name")
  end)
end)

describe("a row", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT, statements = statements() }
  end)
  teardown(function() server:stop() end)

  it("has its columns as fields, and NULL is absent", function()
    assert.same({ one = 1, absent = true, spaced = "x" }, server:get("/row"):json())
  end)

  it("becomes JSON with its columns in the order of the query, and NULL is null", function()
    assert.equal('{"z":2,"y":null,"x":true}', server:get("/row-as-it-is").body)
  end)

  it("that is not there is nil, and no rows are an empty list", function()
    assert.same({ none = true, rows = 0 }, server:get("/no-row"):json())
  end)

  it("can be counted, walked and returned with the others", function()
    assert.equal('[{"n":1,"half":0.5},{"n":2,"half":1},{"n":3,"half":1.5}]',
      server:get("/rows").body:match('"rows":(%[.-%])'))
    local seen = server:get("/rows"):json()
    assert.equal(3, seen.count)
    assert.equal(9, seen.sum)
  end)

  it("takes nil for NULL in any place", function()
    assert.equal('{"first":true,"second":"x","third":true}', server:get("/nil").body)
  end)
end)
