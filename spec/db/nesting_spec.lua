local support = require "spec.support"

local SQL = [[
-- name: get_owners :many
select o.id, o.name, p.id as "pet.id", p.name as "pet.name", c.text as "pet.collar.text",
       c.weight as "pet.collar.weight", o.seen
from (values (1, 'Ann', true), (2, 'Bob', false), (3, 'Cid', null)) o (id, name, seen)
left join (values (7, 'Rex', 1), (8, null, 2)) p (id, name, owner) on p.owner = o.id
left join (values ('mine', 'NaN'::float8, 7)) c (text, weight, pet) on c.pet = p.id
where o.id = any ($1::int[])
order by o.id;

-- name: get_owner :one
select $1::int as id, $2::text as "pet.name", $3::text as "pet.collar.text", true as seen;

-- name: create_thing :one
insert into things (name, width, height) values ($1, $2, $3)
returning id, name, width as "size.width", height as "size.height";
]]

local MIGRATION = "create table things (id serial primary key, name text, width int, height int);"

local SCRIPT = [[
local app = require "moonpool"
local json = app.json
local ALL = { 1, 2, 3 }

app.get("/owners", function() return app.db:query("get_owners", ALL) end)
app.get("/owners-read", function()
  local rows = app.db:query("get_owners", ALL)
  for _, row in ipairs(rows) do assert(row.id) end
  return rows
end)
app.get("/one-owner-read", function()
  local rows = app.db:query("get_owners", ALL)
  assert(rows[2].name == "Bob")
  return rows
end)
app.get("/values", function()
  local rows = app.db:query("get_owners", ALL)
  local weight = rows[1].pet.collar.weight
  return { rows[1].pet.collar.text, weight ~= weight, rows[2].pet.id, rows[2].pet.collar == nil,
    rows[3].pet == nil, rows[3].seen == nil, rows[1]["pet.name"] == nil }
end)
app.get("/parts", function()
  local rows = app.db:query("get_owners", ALL)
  return { rows[1].pet, rows[1].pet.collar, json.encode(rows[2].pet) }
end)

app.get("/owner", function(req)
  return app.db:query_row("get_owner", 1, req.query.name, req.query.text)
end)
app.get("/owner-read", function(req)
  local row = app.db:query_row("get_owner", 1, req.query.name, req.query.text)
  assert(row.seen)
  return row
end)
app.get("/changed", function()
  local row = app.db:query_row("get_owner", 1, "Rex", "mine")
  row.pet.age = 3
  row.pet.collar = nil
  row.pet.name = "Max"
  return row
end)
app.get("/pairs", function()
  local found = {}
  for name, value in pairs(app.db:query_row("get_owner", 1, "Rex", "mine").pet) do
    found[#found + 1] = name .. " " .. type(value)
  end
  table.sort(found)
  return found
end)
app.get("/batch", function()
  return app.db:transaction(function(tx)
    tx:queue("get_owner", 1, "Rex", nil)
    tx:queue("get_owners", { 3 })
    tx:queue("select 1 as \"a.b\"")
    local results = tx:send_batch()
    return { results[1], results[2], results[3], results[1].pet.name }
  end)
end)
app.get("/stored", function()
  return app.db:query_row("select $1::json as stored", app.db:query_row("get_owner", 1, "Rex", nil))
end)

local group = app.db:group("owners", { max = 8 }, function(tx, inputs)
  local outputs = {}
  for i, input in ipairs(inputs) do
    local row = tx:query_row("get_owner", i, input.name, input.text)
    if input.read then assert(row.pet or row.id) end
    outputs[i] = row
  end
  return outputs
end)
app.get("/group", function(req)
  return group { name = req.query.name, text = req.query.text, read = req.query.read }
end)

app.post("/things", function(req)
  return 201, app.db:query_row("create_thing", req.body.name, req.body.width, req.body.height)
end)

app.post("/select", function(req) return app.db:query("select " .. req.raw_body) end)
app.post("/select-read", function(req)
  local rows = app.db:query("select " .. req.raw_body)
  for _, row in ipairs(rows) do assert(row) end
  return rows
end)
app.post("/select-row", function(req) return app.db:query_row("select " .. req.raw_body) end)

local BREAK = {
  columns = function(kind) kind.__columns = 1 end,
  names = function(kind) kind.__columns[2] = nil end,
  object = function(kind) kind[3] = nil end,
  finalizer = function(kind) kind[3].__gc = function() end end,
}
app.get("/broken/{what}", function(req)
  local rows = app.db:query("get_owners", ALL)
  BREAK[req.params.what](getmetatable(rows[1]))
  return { pcall(function() return rows[2].id end) }
end)
app.get("/broken-plain", function()
  local rows = app.db:query("select generate_series(1, 2) as n")
  getmetatable(rows[1]).__columns = 1
  return { pcall(function() return rows[2].n end) }
end)
]]

describe("columns with dots in their names", function()
  local server

  local function get(path)
    return server:get(path):good()
  end

  local function post(path, body)
    return server:request("POST", path, { body = body, headers = { ["Content-Type"] = "text/plain" } })
  end

  setup(function()
    server = support.server.start {
      app = false, scripts = { ["owners.lua"] = SCRIPT },
      sql = { ["owners.sql"] = SQL, ["migrations/0900_spec.sql"] = MIGRATION },
    }
  end)
  teardown(function() server:stop() end)

  local ANN = '{"id":1,"name":"Ann","pet":{"id":7,"name":"Rex","collar":{"text":"mine","weight":"NaN"}},"seen":true}'
  local BOB = '{"id":2,"name":"Bob","pet":{"id":8,"name":null,"collar":null},"seen":false}'
  local CID = '{"id":3,"name":"Cid","pet":null,"seen":null}'
  local OWNERS = "[" .. ANN .. "," .. BOB .. "," .. CID .. "]"

  it("are members of objects in JSON, which are null where all of theirs are", function()
    assert.equal(OWNERS, get("/owners").body)
  end)

  it("give the same JSON when a script has looked at the rows", function()
    assert.equal(OWNERS, get("/owners-read").body)
    assert.equal(OWNERS, get("/one-owner-read").body)
  end)

  it("are members of tables in Lua, which are absent where all of theirs are", function()
    assert.same({ "mine", true, 8, true, true, true, true }, get("/values"):json())
  end)

  it("make objects that can be returned by themselves, in the order of the columns", function()
    assert.equal('[{"id":7,"name":"Rex","collar":{"text":"mine","weight":"NaN"}},{"text":"mine","weight":"NaN"},' ..
      [["{\"id\":8,\"name\":null,\"collar\":null}"]] .. "]", get("/parts").body)
  end)

  for query, expected in pairs {
    ["?name=Rex&text=mine"] = '{"id":1,"pet":{"name":"Rex","collar":{"text":"mine"}},"seen":true}',
    ["?text=mine"] = '{"id":1,"pet":{"name":null,"collar":{"text":"mine"}},"seen":true}',
    ["?name=Rex"] = '{"id":1,"pet":{"name":"Rex","collar":null},"seen":true}',
    [""] = '{"id":1,"pet":null,"seen":true}',
  } do
    it("give a row of query_row the objects " .. expected:match('"pet":(.*),"seen'), function()
      assert.equal(expected, get("/owner" .. query).body)
      assert.equal(expected, get("/owner-read" .. query).body)
    end)

    it("go through a group as " .. expected:match('"pet":(.*),"seen'), function()
      assert.equal(expected, get("/group" .. query).body)
      assert.equal(expected, get("/group" .. query .. (query == "" and "?" or "&") .. "read=1").body)
    end)
  end

  it("make tables that can be walked, added to and taken from", function()
    assert.same({ "collar table", "name string" }, get("/pairs"):json())
    assert.equal('{"id":1,"pet":{"name":"Max","collar":null,"age":3},"seen":true}', get("/changed").body)
  end)

  it("give objects in the results of a batch", function()
    assert.equal('[{"id":1,"pet":{"name":"Rex","collar":null},"seen":true},[' .. CID .. '],[{"a":{"b":1}}],"Rex"]',
      get("/batch").body)
  end)

  it("give objects to a parameter that is JSON", function()
    assert.equal('{"stored":{"id":1,"pet":{"name":"Rex","collar":null},"seen":true}}', get("/stored").body)
  end)

  it("give objects by returning", function()
    local answer = server:post("/things", { name = "box", width = 3 })
    assert.equal(201, answer.status, answer.body)
    assert.equal('{"id":1,"name":"box","size":{"width":3,"height":null}}', answer.body)
  end)

  for sql, expected in pairs {
    ['1 as "a.b"'] = '{"a":{"b":1}}',
    ['1 as "a.b.c", 2 as "a.b.d", 3 as "a.e", 4 as "f.a", 5 as "ab.c", 6 as abc'] =
      '{"a":{"b":{"c":1,"d":2},"e":3},"f":{"a":4},"ab":{"c":5},"abc":6}',
    ['1 as "a.b.c.d.e.f.g.h.i", null as z'] =
      '{"a":{"b":{"c":{"d":{"e":{"f":{"g":{"h":{"i":1}}}}}}}},"z":null}',
    ['null as "a.b.c", null as "a.d", null as "e.f"'] = '{"a":null,"e":null}',
    [ [['[1, 2]'::json as "a.list", array['x"', null] as "a.array", ''::text as "ż ""q"".ö" ]] ] =
      '{"a":{"list":[1, 2],"array":["x\\"",null]},"ż \\"q\\"":{"ö":""}}',
  } do
    it("of SQL text give " .. expected, function()
      local read = expected:gsub("%[1, 2%]", "[1,2]")
      assert.equal("[" .. expected .. "]", post("/select", sql).body)
      assert.equal("[" .. read .. "]", post("/select-read", sql).body)
      assert.equal(expected, post("/select-row", sql).body)
    end)
  end

  for sql, message in pairs {
    ['1 as "a.b", 2 as id, 3 as "a.c"'] = "stands apart from the others of the object",
    ['1 as "a.b", 2 as a'] = "and another column is named that",
    ['1 as "a.b", 2 as "a.b"'] = "two columns are named",
    ['1 as "a..b"'] = "has a dot without a name on either side",
    ['1 as ".b"'] = "has a dot without a name on either side",
    ['1 as "a."'] = "has a dot without a name on either side",
    ['1 as "a.b.c.d.e.f.g.h.i.j"'] = "lies in more than 8 objects",
  } do
    it("are refused in SQL text: " .. sql, function()
      for _, path in ipairs { "/select", "/select-read", "/select-row" } do
        local mark = #server:log()
        support.problem(post(path, sql), 500, "script-error")
        local line = server:wait_log(message, mark)
        assert.matches("where=scripts/owners%.lua:%d+", line)
      end
    end)
  end

  it("do no harm when a script breaks the metatable of the rows", function()
    for what, message in pairs { columns = "taken the columns out", object = "taken an object out", names = "nil" } do
      local result = get("/broken/" .. what):json()
      assert.is_false(result[1])
      assert.matches(message, result[2])
    end
    assert.same({ true, 2 }, get("/broken/finalizer"):json())
    assert.matches("taken the columns out", get("/broken-plain"):json()[2])
  end)
end)

describe("the columns of a named statement that DDL has changed", function()
  local server

  setup(function()
    server = support.server.start {
      app = false,
      script = [[
        local app = require "moonpool"
        app.get("/rows", function() return app.db:query("get_all") end)
        app.get("/row", function() return app.db:query_row("get_all") end)
        app.get("/batch", function()
          app.db:queue("select 1 as one")
          app.db:queue("get_all")
          return app.db:send_batch()
        end)
      ]],
      statements = "-- name: get_all :many\nselect i.*, o.x from items i join others o using (id);",
      migration = [[
        create table items (id integer primary key, name text);
        create table others (id integer primary key, x text);
        insert into items values (1, 'a');
        insert into others values (1, 'o');
      ]],
      flags = { "--workers", "1" },
    }
  end)
  teardown(function() server:stop() end)

  it("are refused where they make no row any more, and taken again when they do", function()
    assert.equal('[{"id":1,"name":"a","x":"o"}]', server:get("/rows").body)
    for columns, message in pairs { x = "two columns are named", ['"name.len"'] = "makes an object of" } do
      server.db:exec(("alter table items add column %s text"):format(columns))
      for _, path in ipairs { "/rows", "/row", "/batch" } do
        local mark = #server:log()
        local document = support.problem(server:get(path), 500, "script-error")
        assert.equal(path == "/batch" and 2 or 1, document.item)
        local line = server:wait_log(message, mark)
        assert.matches("statement=get_all", line)
        assert.matches("where=scripts/spec%.lua:%d+", line)
      end
      server.db:exec(("alter table items drop column %s"):format(columns))
      assert.equal('[{"id":1,"name":"a","x":"o"}]', server:get("/rows").body)
    end
  end)
end)

describe("the objects of a named statement's columns", function()
  local server

  before_each(function() server = support.server.prepare() end)
  after_each(function() server:stop() end)

  for columns, message in pairs {
    ['1 as "a.b", 2 as id, 3 as "a.c"'] = "column .?\"a.c.?\" stands apart from the others of the object .?\"a",
    ['1 as a, 2 as "a.b"'] = "column .?\"a.b.?\" makes an object of .?\"a",
    ['1 as "a..b"'] = "column .?\"a%.%.b.?\" has a dot without a name on either side",
    ['1 as "a.b.c.d.e.f.g.h.i.j"'] = "lies in more than 8 objects",
  } do
    it("keep the server from starting, and it says where: " .. columns, function()
      server:write("sql/broken.sql", "\n-- name: broken :one\nselect " .. columns .. ";\n")
      local output, code = server:run("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
      assert.equal(1, code, output)
      assert.matches("sql/broken%.sql:2", output)
      assert.matches(message, output)
    end)
  end
end)
