local support = require "spec.support"

local MIGRATION = [[
create table things (id integer primary key, price numeric, weight float8, name text, seen boolean, big bigint);
create table tokens (
  token uuid unique, weight float8 unique, name text unique, thing_id integer references things (id)
);
]]

local STATEMENTS = [[
-- name: add_things :bulk
insert into things (id, price, weight, name, seen, big)
select * from unnest($1::int[], $2::numeric[], $3::float8[], $4::text[], $5::boolean[], $6::bigint[]);

-- name: rename_things :bulk
update things t set name = v.name from unnest($1::int[], $2::text[]) v(id, name) where t.id = v.id;

-- name: add_tokens :bulk
insert into tokens (token, weight, name, thing_id)
select * from unnest($1::uuid[], $2::float8[], $3::text[], $4::integer[]);

-- name: get_things :many
select id, price, weight, name, seen, big from things order by id;

-- name: count_things :one
select count(*) as n from things;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.post("/types", function()
  return 200, db:transaction(function(tx)
    tx:queue("add_things", 1, 0.1, 1, 'it is "quoted", {braced} and \\', true, 9007199254740993)
    tx:queue("add_things", 2, 12345.678, -0.5, "NULL", false, -1)
    tx:queue("add_things", 3, nil, nil, nil, nil, nil)
    local results = tx:send_batch()
    return { n = results.n, count = results[1], rows = tx:query("get_things") }
  end)
end)

app.post("/order", function()
  return 200, db:transaction(function(tx)
    tx:queue("add_things", 1, 1, 1, "a", true, 1)
    tx:queue("count_things")
    tx:queue("add_things", 2, 1, 1, "b", true, 1)
    tx:queue("add_things", 3, 1, 1, "c", true, 1)
    tx:queue("count_things")
    local results = tx:send_batch()
    return { n = results.n, first = results[1], one = results[2].n, second = results[3], three = results[4].n }
  end)
end)

app.post("/many", { deadline = 60 }, function()
  return 200, db:transaction(function(tx)
    for i = 1, 50000 do
      tx:queue("add_things", i, i / 3, i, "name " .. i, true, i)
    end
    tx:send_batch()
    for i = 1, 50000 do
      tx:queue("rename_things", i, "new " .. i)
    end
    return { renamed = tx:send_batch()[1] }
  end)
end)

app.post("/range", function()
  return 200, db:transaction(function(tx)
    tx:queue("add_things", 1, 1, 1, "a", true, 1)
    tx:queue("add_things", 3000000000, 1, 1, "b", true, 1)
    tx:send_batch()
  end)
end)

app.post("/mismatch", function()
  return 200, db:transaction(function(tx)
    tx:queue("add_things", "one", 1, 1, "a", true, 1)
  end)
end)

app.post("/tokens", function(req)
  local ok, err = pcall(db.transaction, db, function(tx)
    tx:queue("count_things")
    for _, row in ipairs(req.body) do
      tx:queue("add_tokens", row.token, row.weight, row.name, row.thing) -- the row's call
    end
    tx:send_batch()
  end)
  err = err or {}
  return { ok = ok, item = err.item, row = err.row, where = err.where, statement = err.statement }
end)

app.post("/after-misfit", function()
  return db:transaction(function(tx)
    local ok, err = pcall(tx.queue, tx, "add_things", "one", 1, 1, "a", true, 1)
    tx:queue("add_things", 1, 1, 1, "a", true, 1)
    local results = tx:send_batch()
    return { ok = ok, row = err.row, n = results.n, count = results[results.n] }
  end)
end)

-- Each of these is refused by another part: its type in Lua, its value, its array.
local MISFITS = { print, 1.5, "one" }

app.post("/refused-first", function()
  return 200, db:transaction(function(tx)
    local rows = {}
    for i, misfit in ipairs(MISFITS) do
      local _, err = pcall(tx.queue, tx, "rename_things", misfit, "x")
      rows[i] = type(err) == "table" and err.row or 0
    end
    tx:queue("select 7 as n")
    local results = tx:send_batch()
    return { n = results.n, seven = results[results.n][1].n, rows = rows }
  end)
end)

app.post("/refused-between", function()
  return 200, db:transaction(function(tx)
    tx:exec("select 1") -- opens it, so that what stands before rows is sent ahead
    tx:queue("count_things")
    tx:queue("add_things", 1, 1, 1, "a", true, 1)
    for _, misfit in ipairs(MISFITS) do
      pcall(tx.queue, tx, "rename_things", misfit, "x")
    end
    tx:queue("add_things", 2, 1, 1, "b", true, 1)
    local results = tx:send_batch()
    return { n = results.n, count = results[2], rows = tx:query_row("count_things").n }
  end)
end)

app.post("/refused-failing", function()
  local _, err = pcall(db.transaction, db, function(tx)
    pcall(tx.queue, tx, "rename_things", "one", "x")
    tx:queue("select 1/0")
    tx:send_batch()
  end)
  return 200, { item = err.item, sqlstate = err.sqlstate }
end)

app.post("/duplicate", function()
  return 200, db:transaction(function(tx)
    tx:queue("add_things", 1, 1, 1, "a", true, 1)
    tx:queue("add_things", 1, 1, 1, "b", true, 1)
    tx:send_batch()
  end)
end)
]]

describe("a :bulk statement", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)
  before_each(function() server.db:exec("truncate things, tokens") end)

  it("takes its rows by tx:queue and sends them as one, whatever their types", function()
    local answer = server:post("/types", {})
    local seen = answer:value()
    assert.equal(1, seen.n)
    assert.equal(3, seen.count)
    for _, row in ipairs {
      [[{"id":1,"price":0.1,"weight":1,"name":"it is \"quoted\", {braced} and \\","seen":true,"big":9007199254740993}]],
      [[{"id":2,"price":12345.678,"weight":-0.5,"name":"NULL","seen":false,"big":-1}]],
      [[{"id":3,"price":null,"weight":null,"name":null,"seen":null,"big":null}]],
    } do
      assert.is_truthy(answer.body:find(row, 1, true), answer.body)
    end
  end)

  it("keeps its place among the statements around it", function()
    assert.same({ n = 4, first = 1, one = 1, second = 2, three = 3 }, server:post("/order", {}):json())
  end)

  it("carries as many rows as are queued", function()
    assert.same({ renamed = 50000 }, server:post("/many", {}):json())
  end)

  it("names the row's call when a value does not fit", function()
    local answer = server:post("/range", {})
    assert.equal(422, answer.status, answer.body)
    assert.equal(2, answer:json().row)
    assert.equal(0, server.db:count("things"))
    support.problem(server:post("/mismatch", {}), 422)
  end)

  it("fails as PostgreSQL says, and nothing is left behind", function()
    local answer = server:post("/duplicate", {})
    assert.equal(409, answer.status, answer.body)
    assert.equal("things_pkey", answer:json().constraint)
    assert.equal(0, server.db:count("things"))
  end)

  local function token(n)
    return ("00000000-0000-0000-0000-%012d"):format(n)
  end

  for name, case in pairs {
    ["a value of no such type"] = { { token = "no uuid" }, row = 3 },
    ["a key of text that is taken in the same run"] = { { name = "first" }, row = 3 },
    ["a key of another type"] = { { token = token(2) }, row = 3 },
    ["a key of numbers"] = { { weight = 0.1 }, row = 3 },
    ["a row that it refers to in vain"] = { { thing = 77 }, row = 3 },
    ["a key that two columns may mean"] = { { weight = 0.1 }, behind = "0.1", row = nil },
  } do
    it("names the row, where PostgreSQL lets it: " .. name, function()
      server.db:exec("insert into things (id) values (1)")
      local rows = {
        { token = token(1), weight = 0.1, name = "first", thing = 1 },
        { token = token(2), weight = 0.2, name = "second", thing = 1 },
        { token = token(3), weight = 0.3, name = "third", thing = 1 },
        { token = token(4), weight = 0.4, name = "fourth", thing = 1 },
      }
      for column, value in pairs(case[1]) do
        rows[3][column] = value
      end
      rows[4].name = case.behind or rows[4].name
      local seen = server:post("/tokens", rows):json()
      assert.is_false(seen.ok)
      assert.equal(2, seen.item)
      assert.equal(case.row, seen.row)
      assert.equal("add_tokens", seen.statement)
      assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- the row's call"), seen.where)
      assert.equal(0, server.db:count("tokens"))
    end)
  end

  it("says which row does not fit, and takes others behind it", function()
    local seen = server:post("/after-misfit", {}):json()
    assert.is_false(seen.ok)
    assert.equal(1, seen.row)
    assert.equal(1, seen.count)
    assert.equal(1, server.db:count("things"))
  end)

  it("is no part of the batch when its first row is refused", function()
    assert.same({ n = 1, seven = 7, rows = { 0, 1, 1 } }, server:post("/refused-first", {}):json())
    assert.same({ item = 1, sqlstate = "22012" }, server:post("/refused-failing", {}):json())
  end)

  it("gathers on behind the refused first row of another", function()
    assert.same({ n = 2, count = 2, rows = 2 }, server:post("/refused-between", {}):json())
  end)
end)

describe("a :bulk statement whose parameter is no array", function()
  it("stops the boot and says which", function()
    local server = support.server.prepare {
      sql = { ["broken.sql"] = "-- name: broken :bulk\nselect $1::int[], $2::int;\n" },
    }
    finally(function() server:stop() end)
    local output, code = server:run("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
    assert.equal(1, code, output)
    assert.matches("sql/broken%.sql:1", output)
    assert.matches("%$2", output)
  end)
end)
