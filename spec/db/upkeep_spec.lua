-- What the pool does with its sessions while nobody uses them, and what it tells of it.
local lfs = require "lfs"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.get("/pid", function()
  return db:transaction(function(tx) return tx:query_row("select pg_backend_pid() as pid") end)
end)
app.get("/hold", { deadline = 60 }, function()
  db:transaction(function(tx) tx:query("lock table gate in access share mode") end)
  return {}
end)
app.get("/spin", { deadline = 60 }, function() while true do end end)
app.get("/late", { deadline = 0.2 }, function()
  db:transaction(function(tx) tx:query("select 1") end)
end)
]]

local HOLDING = "state = 'active' and query like 'lock table gate in access share%'"

local function start(...)
  return support.server.start {
    script = SCRIPT,
    migration = "create table gate ()",
    flags = { "--workers", 1, "--lanes", 0, "--no-watch", ... },
  }
end

local function sessions(server, condition)
  return server.db:query(([[
    select pid from pg_stat_activity where datname = current_database()
      and application_name = 'moonpool' and %s order by backend_start]]):format(condition or "true"))
end

-- Runs `fn` while `count` requests hold a session each.
local function holding(server, count, fn)
  local gate = server.db:session()
  gate:exec("begin; lock table gate")
  local answers = support.http.at_once(server.url, count, function() return "GET", "/hold" end, function()
    support.eventually("sessions to be held", function() return #sessions(server, HOLDING) == count end)
    fn()
    gate:exec("commit")
  end)
  gate:close()
  for _, answer in ipairs(answers) do
    assert.equal(200, answer.status, answer.body)
  end
end

describe("a session", function()
  it("is replaced when it is old, without anyone noticing", function()
    local server = start("--pool-max", 1, "--pool-max-lifetime", "1s")
    finally(function() server:stop() end)
    local first = server:get("/pid"):json().pid
    support.eventually("another session", function()
      return server:get("/pid"):value().pid ~= first
    end)
    assert.is_true(server:metric("pool_lifetime_closes_total") >= 1)
  end)

  it("is closed when nobody has used it for long, down to the minimum", function()
    local server = start("--pool-max", 4, "--pool-min-idle", 1, "--pool-max-idle-time", "1s")
    finally(function() server:stop() end)
    holding(server, 3, function() end)
    support.eventually("one session to be left", function() return #sessions(server) == 1 end)
    assert.is_true(server:metric("pool_idle_closes_total") >= 2)
    assert.equal(1, server:metric("pool_idle_sessions"))
  end)

  it("is there before anybody asks, and again when it was lost", function()
    local server = start("--pool-max", 4, "--pool-min-idle", 2)
    finally(function() server:stop() end)
    support.eventually("two sessions", function() return #sessions(server) == 2 end)
    local first = sessions(server)
    server.db:exec(("select pg_terminate_backend(%d)"):format(first[1].pid))
    support.eventually("two sessions again", function()
      local now = sessions(server)
      return #now == 2 and now[1].pid == first[2].pid
    end)
  end)

  local function see_ended_sessions(server)
    for _ = 1, 10 do
      local pid = server:get("/pid"):json().pid
      server.db:exec(("select pg_terminate_backend(%d)"):format(pid))
      -- Its connection has been closed then.
      support.eventually("it to be gone", function() return not lfs.attributes(("/proc/%d"):format(pid)) end)
      assert.not_equal(pid, server:get("/pid"):value().pid)
    end
  end

  it("that has ended is not lent", function()
    local server = start("--pool-max", 2)
    finally(function() server:stop() end)
    see_ended_sessions(server)
  end)

  it("that has ended is not lent where the worker had no time to hear of it", function()
    local server = start("--pool-max", 2)
    local busy = {}
    finally(function()
      for _, client in ipairs(busy) do client:close() end
      server:stop()
    end)
    for i = 1, 8 do busy[i] = server:begin("GET", "/spin") end
    see_ended_sessions(server)
  end)

  it("that does not answer is found while it is idle", function()
    local server = start("--pool-max", 2, "--pool-health-check", "1s")
    local pid = math.tointeger(server:get("/pid"):json().pid)
    support.shell.must("kill -STOP " .. pid)
    finally(function()
      support.shell.run("kill -CONT " .. pid)
      server:stop()
    end)
    server:wait_log("session lost.*did not answer")
    local answer = server:get("/pid")
    assert.not_equal(pid, answer:value().pid)
    assert.is_true(#sessions(server) <= 2)
    support.shell.must("kill -CONT " .. pid)
    support.eventually("it to be gone", function() return #sessions(server, "pid = " .. pid) == 0 end)
  end)

  it("that answers is kept by the check", function()
    local server = start("--pool-max", 2, "--pool-health-check", "1s")
    finally(function() server:stop() end)
    local pid = server:get("/pid"):json().pid
    local function last_change()
      return server.db:value("select state_change from pg_stat_activity where pid = " .. pid)
    end
    local before = last_change()
    support.eventually("a check", function() return last_change() ~= before end)
    assert.equal(pid, server:get("/pid"):json().pid)
    assert.equal(0, server:metric("pool_closes_total"))
  end)
end)

describe("the pool's metrics", function()
  it("add up", function()
    local server = start("--pool-max", 2)
    finally(function() server:stop() end)
    assert.equal(200, server:get("/pid").status)
    local acquires = server:metric("pool_acquires_total")
    holding(server, 2, function()
      assert.equal(2, server:metric("pool_max_sessions"))
      assert.equal(2, server:metric("pool_sessions"))
      assert.equal(2, server:metric("pool_acquired_sessions"))
      assert.equal(0, server:metric("pool_idle_sessions"))
      assert.equal(0, server:metric("pool_constructing_sessions"))
      assert.equal(acquires + 2, server:metric("pool_acquires_total"))
      support.problem(server:get("/late"), 503, "pool-timeout")
    end)
    support.eventually("both to be idle", function() return server:metric("pool_idle_sessions") == 2 end)
    assert.equal(0, server:metric("pool_acquired_sessions"))
    assert.equal(2, server:metric("pool_sessions"))
    assert.equal(2, server:metric("pool_connects_total"))
    assert.equal(1, server:metric("pool_timeouts_total"))
    assert.is_true(server:metric("pool_waits_total") >= 2)
    assert.is_true(server:metric("pool_wait_seconds_total") >= 0.19)
    assert.is_true(server:metric("pool_acquire_seconds_total") > 0)
  end)
end)
