local support = require "spec.support"

local MIGRATION = [[
create table numbers (n integer not null primary key);
create table texts (text text not null);
create sequence seen;
create sequence flushed;
]]

local STATEMENTS = [[
-- name: add_number :exec
insert into numbers (n) values ($1);

-- name: add_text :exec
insert into texts (text) values ($1);

-- name: add_numbers :bulk
insert into numbers (n) select * from unnest($1::integer[]);

-- name: add_texts :bulk
insert into texts (text) select t || nextval('flushed') from unnest($1::text[]) t;

-- name: add_dates :bulk
insert into texts (text) select d::text from unnest($1::date[]) d;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local function report(err)
  return type(err) == "table" and
    { code = err.code, item = err.item, row = err.row, where = err.where, sqlstate = err.sqlstate } or
    { text = tostring(err) }
end

local function spin(seconds)
  local enough = os.clock() + seconds
  while os.clock() < enough do end
end

-- Opens the transaction, since only then is anything sent ahead.
local function run(fn)
  return db:transaction(function(tx)
    tx:exec("select 1")
    return fn(tx)
  end)
end

app.post("/mixed", function()
  return 200, run(function(tx)
    for n = 1, 600 do
      tx:queue("add_numbers", n)
      tx:queue("select $1::int as n", n)
    end
    for n = 601, 1000 do tx:queue("add_numbers", n) end
    local results = tx:send_batch()
    local sum = 0
    for i = 2, 1200, 2 do sum = sum + results[i][1].n end
    return { n = results.n, sum = sum, last = results[1201] }
  end)
end)

app.post("/gathered", function()
  return 200, run(function(tx)
    for n = 1, 128 do tx:queue("select repeat('x', 1000 + $1::int) as text", n) end
    for n = 1, 300 do
      tx:queue("add_numbers", n)
      spin(0.0003)
    end
    local results = tx:send_batch()
    return { n = results.n, last = results[results.n] }
  end)
end)

local enough = false

-- Gathers the rows of a run until it is told that this is enough.
app.post("/ahead", { deadline = 30 }, function()
  return 200, run(function(tx)
    tx:queue("select nextval('seen')")
    tx:queue("select nextval('seen')")
    local count = 0
    repeat
      count = count + 1
      tx:queue("add_numbers", count)
      spin(0.002)
    until enough
    local results = tx:send_batch()
    return { rows = results[3] == count }
  end)
end)

app.post("/enough", function()
  enough = true
  return 200, {}
end)

-- Flushes rows, and goes on with others when it is told that this is enough.
app.post("/flushed", { deadline = 30 }, function()
  enough = false
  return 200, run(function(tx)
    for _ = 1, 10 do tx:queue("add_texts", "x") end
    tx:flush()
    while not enough do spin(0.002) end
    for _ = 1, 5 do tx:queue("add_texts", "x") end
    tx:flush()
    tx:flush()
    return tx:send_batch()
  end)
end)

app.post("/flushed-unopened", function()
  return 200, db:transaction(function(tx)
    tx:flush()
    for day = 1, 3 do tx:queue("add_dates", "2026-01-0" .. day) end
    tx:flush()
    tx:queue("add_dates", "2026-01-04")
    return tx:send_batch()
  end)
end)

app.post("/flushed-failing", function()
  local ok, err = pcall(run, function(tx)
    for part = 0, 1 do
      for n = 1, 10 do tx:queue("add_numbers", part == 1 and n == 3 and 7 or part * 10 + n) end -- queued in parts
      tx:flush()
    end
    tx:send_batch()
  end)
  return 200, { ok = ok, report = report(err) }
end)

app.post("/wide/{count}/{size}", { deadline = 20 }, function(req)
  local count, size = math.tointeger(tonumber(req.params.count)), math.tointeger(tonumber(req.params.size))
  return 200, run(function(tx)
    for _ = 1, count do tx:queue("add_text", ("x"):rep(size)) end
    local results = tx:send_batch()
    local sum = 0
    for i = 1, results.n do sum = sum + results[i] end
    return { sum = sum }
  end)
end)

app.post("/failing/{slow}", function(req)
  local ok, err = pcall(run, function(tx)
    for n = 1, 2000 do
      tx:queue("add_number", n == 300 and 1 or n) -- queued here
      if req.params.slow == "slow" then spin(0.0005) end
    end
    tx:send_batch()
  end)
  return 200, { ok = ok, report = report(err) }
end)

app.post("/afterwards", function()
  local first, second
  local ok = pcall(run, function(tx)
    for n = 1, math.huge do
      local queued, err = pcall(tx.queue, tx, "add_number", n == 300 and 1 or n)
      if not queued then
        first = report(err)
        break
      end
      spin(0.0005)
    end
    local _, err = pcall(tx.queue, tx, "add_number", 5000)
    second = tostring(err)
  end)
  return 200, { ok = ok, first = first, second = second }
end)

app.post("/raising", function()
  local ok, err = pcall(run, function(tx)
    for n = 1, 1000 do tx:queue("add_number", n) end
    error("no more", 0)
  end)
  return 200, { ok = ok, text = err }
end)

app.post("/savepoint", function()
  run(function(tx)
    for _ = 1, 3 do
      pcall(tx.savepoint, tx, function()
        for n = 1, 1000 do tx:queue("add_number", n) end
        error("taken back")
      end)
    end
    tx:exec("add_number", 1)
    for n = 2, 500 do tx:queue("add_number", n) end
  end)
  return 200, {}
end)

app.post("/left-open", function()
  local tx = db:begin()
  tx:exec("select 1")
  for n = 1, 1000 do tx:queue("add_number", n) end
  return 200, {}
end)

app.post("/late", { deadline = 1.5 }, function()
  run(function(tx)
    for n = 1, 1000 do tx:queue("add_number", n) end
    while true do tx:queue("select pg_sleep(0.01)") end
  end)
end)

app.post("/broken", function()
  local ok, err = pcall(run, function(tx)
    tx:queue("select pg_terminate_backend(pg_backend_pid())")
    for n = 1, 2000 do
      tx:queue("add_number", n)
      spin(0.0002)
    end
    tx:send_batch()
  end)
  return 200, { ok = ok, report = report(err) }
end)
]]

-- Little of this can be seen from outside but by what goes wrong: a long batch is sent while it grows.
describe("a long batch of an open transaction", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--no-watch", "--pool-max", "2", "--workers", "1", "--lanes", "0" },
    }
  end)
  teardown(function() server:stop() end)

  before_each(function() server.db:exec("truncate numbers") end)

  local function assert_clean()
    assert.equal(0, server.db:count("numbers"))
    server:call("/savepoint")
    assert.equal(500, server.db:count("numbers"))
  end

  it("has its results in order, rows of :bulk statements among them", function()
    assert.same({ n = 1201, sum = 600 * 601 / 2, last = 400 }, server:call("/mixed"))
    assert.equal(1000, server.db:count("numbers"))
  end)

  -- More than the window takes, before the first answer would leave the server by itself.
  for count, size in pairs { [300] = 6000, [150] = 5000, [1000] = 2000, [5] = 700000 } do
    it(("may have %d statements of %d bytes"):format(count, size), function()
      assert.same({ sum = count }, server:call(("/wide/%d/%d"):format(count, size)))
    end)
  end

  it("leaves the rows of a run alone until all of them are there", function()
    for _ = 1, 2 do
      assert.same({ n = 129, last = 300 }, server:call("/gathered"))
      server.db:exec("truncate numbers")
    end
  end)

  it("is executed up to the rows of a run while these are gathered", function()
    local connection = server:begin("POST", "/ahead", { json = {} })
    support.eventually("what stands before the run to be executed", function()
      return server.db:value("select last_value from seen") == 2
    end)
    server:call("/enough")
    assert.same({ rows = true }, connection:finish():value())
  end)

  it("is executed up to where the script has flushed it, while that goes on", function()
    local connection = server:begin("POST", "/flushed", { json = {} })
    support.eventually("the flushed rows to be stored", function()
      return server.db:value("select last_value from flushed") == 10
    end)
    server:call("/enough")
    assert.same({ 10, 5 }, connection:finish():value())
  end)

  it("is made of the same parts where nothing can be sent yet", function()
    assert.same({ 3, 1 }, server:call("/flushed-unopened"))
  end)

  it("names the row within its part", function()
    local seen = server:call("/flushed-failing")
    assert.is_false(seen.ok)
    assert.equal("conflict", seen.report.code)
    assert.equal(2, seen.report.item)
    assert.equal(3, seen.report.row)
    assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- queued in parts"), seen.report.where)
    assert_clean()
  end)

  for _, pace in ipairs { "quick", "slow" } do
    it(("names the statement that failed, queued by a %s loop"):format(pace), function()
      local seen = server:call("/failing/" .. pace)
      assert.is_false(seen.ok)
      assert.equal("conflict", seen.report.code)
      assert.equal(300, seen.report.item)
      assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- queued here"), seen.report.where)
      assert_clean()
    end)
  end

  it("says it once, and from then on that only a rollback is left", function()
    local seen = server:call("/afterwards")
    assert.is_false(seen.ok)
    assert.equal("conflict", seen.first.code)
    assert.equal(300, seen.first.item)
    assert.is_truthy(seen.second:find("only a rollback is possible", 1, true), seen.second)
    assert_clean()
  end)

  it("is taken back when the script raises", function()
    assert.same({ ok = false, text = "no more" }, server:call("/raising"))
    assert_clean()
  end)

  it("is taken back to a savepoint", function()
    server:call("/savepoint")
    assert.equal(500, server.db:count("numbers"))
  end)

  it("is taken back when the transaction is left open", function()
    server:call("/left-open")
    assert_clean()
  end)

  it("ends at the deadline", function()
    assert.equal(504, server:post("/late", {}).status)
    assert_clean()
  end)

  it("hears of a lost session", function()
    local seen = server:call("/broken")
    assert.is_false(seen.ok)
    assert.equal("database-unavailable", seen.report.code)
    assert_clean()
  end)
end)
