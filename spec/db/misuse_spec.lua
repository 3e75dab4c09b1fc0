-- Scripts that do what they should not: each fails by itself, and the worker goes on.
local support = require "spec.support"

local MIGRATION = "create table numbers (n integer not null primary key);"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db
local kept

app.get("/ping", function() return { ok = true } end)

app.get("/copy", { deadline = 0.3 }, function() db:query("copy (select pg_sleep(3)) to stdout") end)

app.get("/recursion", { deadline = 1 }, function()
  local function deeper() return 1 + deeper() end
  return { depth = deeper() }
end)

app.get("/circle", function()
  local circle = {}
  circle[1] = circle
  return db:query("select $1::int[]", circle)
end)

app.post("/retries", function(req)
  return { done = db:transaction({ retries = req.body.retries }, function() return true end) }
end)

app.post("/savepoint", function()
  return db:transaction(function(tx)
    local kept_ok = pcall(tx.savepoint, tx, function(inner) inner:queue("insert into numbers values (null)") end)
    tx:exec("insert into numbers values (7)")
    return { kept = kept_ok, count = tx:query_row("select count(*)::int as n from numbers").n }
  end)
end)

app.post("/status", function(req)
  local _, err = pcall(db.query, db, "select 1/0")
  err.status = req.body.status
  error(err)
end)

app.post("/after-commit", function()
  db:transaction(function(tx) tx:exec("insert into numbers values (1)") end)
  error("too late")
end)

app.get("/large", { deadline = 60 }, function()
  local length = 0
  for _ = 1, 40 do
    length = length + #db:query("select repeat('x', 10000000) as text")[1].text
  end
  return { length = length }
end)

app.get("/hoard", { deadline = 60 }, function()
  local results = {}
  for i = 1, 40 do
    results[i] = db:query("select repeat('x', 10000000) as text")
  end
  return { count = #results }
end)

app.get("/keep", function()
  kept = kept or db:query("select 1 as n union all select 2")
  return { n = kept[2].n }
end)

app.post("/batch-as-body", function()
  return 200, db:transaction(function(tx)
    tx:queue("insert into numbers values (1)")
    tx:queue("select 5 as five")
    return tx:send_batch()
  end)
end)
]]

describe("a script that", function()
  local server

  setup(function()
    server = support.server.start {
      app = false,
      scripts = { ["spec.lua"] = SCRIPT },
      sql = { ["migrations/0900_spec.sql"] = MIGRATION },
      flags = { "--workers", "1", "--pool-max", "4", "--lua-memory", "256MiB", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)
  before_each(function() server.db:exec("truncate numbers") end)

  local function assert_alive(worker)
    assert.equal(200, server:get("/ping").status)
    assert.equal(worker, server:workers()[1])
  end

  for path, status in pairs { ["/copy"] = 500, ["/recursion"] = 500, ["/circle"] = 500, ["/hoard"] = 500 } do
    it("calls " .. path .. " fails, and its worker does not", function()
      local worker = server:workers()[1]
      local answer = server:get(path)
      assert.is_true(answer.status == status or answer.status == 504, answer.body)
      assert_alive(worker)
    end)
  end

  it("reads much more than its memory, one result after the other, succeeds", function()
    assert.same({ length = 40 * 10000000 }, server:get("/large"):json())
  end)

  it("keeps a result across requests is told that it is over", function()
    assert.equal(200, server:get("/keep").status)
    support.problem(server:get("/keep"), 500)
    assert.is_truthy(server:log():find("belongs to a request that is over", 1, true))
  end)

  it("asks for retries that are no number of times is told so", function()
    for _, retries in ipairs { 1.5, -1 } do
      support.problem(server:post("/retries", { retries = retries }), 500)
    end
    assert.same({ done = true }, server:post("/retries", { retries = 1 }):json())
  end)

  it("queues what fails behind a savepoint goes on without it", function()
    assert.same({ kept = false, count = 1 }, server:post("/savepoint", {}):json())
  end)

  it("gives an error a status that is none answers with the error's own", function()
    for _, status in ipairs { 7, 100, 200 } do
      assert.is_true(server:post("/status", { status = status }).status >= 400)
    end
    assert.equal(418, server:post("/status", { status = 418 }).status)
  end)

  it("fails after its commit is not answered with a plain failure", function()
    local answer = server:post("/after-commit", {})
    assert.equal("/problems/outcome-unknown", answer:json().type)
    assert.equal(1, server.db:count("numbers"))
  end)

  it("returns the results of a batch answers with an array", function()
    assert.equal('[1,[{"five":5}]]', server:post("/batch-as-body", {}).body)
  end)
end)
