local support = require "spec.support"

local MIGRATION = [[
create table things (id integer primary key, price numeric, weight float8, name text, seen boolean, big bigint);
]]

local STATEMENTS = [[
-- name: add_things :bulk
insert into things (id, price, weight, name, seen, big)
select * from unnest($1::int[], $2::numeric[], $3::float8[], $4::text[], $5::boolean[], $6::bigint[]);

-- name: rename_things :bulk
update things t set name = v.name from unnest($1::int[], $2::text[]) v(id, name) where t.id = v.id;

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
      app = false,
      scripts = { ["spec.lua"] = SCRIPT },
      sql = { ["spec.sql"] = STATEMENTS, ["migrations/0900_spec.sql"] = MIGRATION },
      flags = { "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)
  before_each(function() server.db:exec("truncate things") end)

  it("takes its rows by tx:queue and sends them as one, whatever their types", function()
    local answer = server:post("/types", {})
    assert.equal(200, answer.status, answer.body)
    local seen = answer:json()
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
    assert.equal(0, server.db:count("things"))
    support.problem(server:post("/mismatch", {}), 422)
  end)

  it("fails as PostgreSQL says, and nothing is left behind", function()
    local answer = server:post("/duplicate", {})
    assert.equal(409, answer.status, answer.body)
    assert.equal("things_pkey", answer:json().constraint)
    assert.equal(0, server.db:count("things"))
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
