-- Everything that can happen to a session, at once: never more of them than the maximum, and
-- afterwards the pool is what it was.
local support = require "spec.support"

local MIGRATION = [[
create table notes (body text not null);
create table storm_over ();
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.get("/read", { deadline = 1 }, function() return db:query_row("select 1 as one") end)
app.get("/write", { deadline = 1 }, function()
  return { count = db:exec("insert into notes values ('written')") }
end)
app.get("/commit", { deadline = 1 }, function()
  db:transaction(function(tx) tx:exec("insert into notes values ('committed')") end)
  return {}
end)
app.get("/patient-commit", { deadline = 30 }, function()
  db:transaction(function(tx) tx:exec("insert into notes values ('committed')") end)
  return {}
end)
app.get("/late", { deadline = 0.3 }, function() db:query("select pg_sleep(60)") end)
app.get("/late-in-transaction", { deadline = 0.3 }, function()
  db:transaction(function(tx)
    tx:exec("insert into notes values ('late')")
    tx:query("select pg_sleep(60)")
  end)
end)
app.get("/raises", { deadline = 1 }, function()
  db:transaction(function(tx)
    tx:exec("insert into notes values ('raised')")
    error("as the spec says")
  end)
end)
app.get("/fails", { deadline = 1 }, function()
  db:transaction(function(tx)
    tx:exec("insert into notes values ('failed')")
    tx:exec("insert into notes values (null)")
  end)
end)
app.get("/dirty", { deadline = 1 }, function() return { count = db:exec("set work_mem = '1MB'") } end)
app.get("/copies", { deadline = 1 }, function() db:exec("copy notes from stdin") end)
app.get("/lasting", { deadline = 1 }, function() return { count = db:exec("load 'plpgsql'") } end)
app.get("/late-after-others", { deadline = 20 }, function()
  db:transaction(function(tx) tx:query("select pg_sleep(0.5)") end)
  app.fail(503, "as the spec says")
end)
app.get("/long", { deadline = 30 }, function() db:query("select pg_sleep(20)") end)
app.get("/hold", { deadline = 30 }, function()
  db:transaction(function(tx) tx:query("select pg_sleep(25), 'hold'") end)
end)
]]

local KINDS = {
  "/read", "/write", "/late", "/raises", "/late-in-transaction", "/fails", "/dirty", "/copies", "/lasting",
}

local FAILURES = { [422] = true, [500] = true, [503] = true, [504] = true }
local MAY_SUCCEED = { ["/read"] = true, ["/write"] = true, ["/dirty"] = true, ["/lasting"] = true }

-- Looks a thousand times a second, from inside, until the storm is over.
local SAMPLER = [[
do $$
declare most bigint := 0; here bigint;
begin
  loop
    perform pg_stat_clear_snapshot();
    select count(*) into here from pg_stat_activity
    where datname = current_database() and application_name = 'moonpool' and backend_type = 'client backend';
    most := greatest(most, here);
    exit when exists (select from storm_over);
    perform pg_sleep(0.001);
  end loop;
  raise notice 'most: %', most;
end $$
]]

local function count_sessions(server, condition)
  return server.db:value([[
    select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'moonpool' and ]] .. condition)
end

local function sample(server)
  local words = { "psql", "-XqAt", "-d", server.database, "-c", SAMPLER }
  local process = support.shell.start(words, server.folder, "sampler", { PGAPPNAME = "sampler" })
  server.db:wait_running("%pg_stat_clear_snapshot%")
  return function()
    server.db:exec("insert into storm_over default values")
    assert.equal(0, process:wait())
    return tonumber(support.shell.read(server.folder .. "/sampler.log"):match("most: (%d+)"))
  end
end

local function kill_sessions(server)
  server.db:exec [[
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name = 'moonpool']]
end

local function leave_at_once(server, count)
  for i = 1, count do
    server:begin("GET", i % 2 == 0 and "/long" or "/late-in-transaction"):close()
  end
end

local function kind_of(i)
  return KINDS[i % #KINDS + 1]
end

local function blow(server)
  return support.http.at_once(server.url, 3 * #KINDS, function(i)
    return "GET", kind_of(i)
  end, function()
    leave_at_once(server, 6)
    kill_sessions(server)
    leave_at_once(server, 6)
    kill_sessions(server)
  end)
end

-- What a storm may make of a request: what cannot succeed never does, and what fails says how.
local function assert_possible(kind, answer)
  if answer.status == 200 then
    assert.is_true(MAY_SUCCEED[kind], kind)
  else
    support.problem(answer, answer.status)
    assert.is_truthy(FAILURES[answer.status], kind .. ": " .. answer.body)
  end
end

-- A worker whose first session of the storm was killed refuses all until it has another one.
local function is_back(server)
  local log = server:log()
  return select(2, log:gsub(": database away ", "")) == select(2, log:gsub(": database back", ""))
end

-- So many can work at the same time.
local function assert_whole(server, count)
  support.eventually("the pool to be at rest", function()
    return is_back(server) and server:metric("pool_waiting") == 0 and server:metric("requests_in_flight") == 0
      and server:metric("pool_sessions") == count_sessions(server, "true")
  end)
  local answers = support.http.at_once(server.url, count, function() return "GET", "/hold" end, function()
    support.eventually("all permits to be in use", function()
      return count_sessions(server, "state = 'active' and query like '%''hold''%'") == count
    end)
    server.db:exec [[
      select pg_cancel_backend(pid) from pg_stat_activity
      where datname = current_database() and application_name = 'moonpool' and query like '%''hold''%']]
  end)
  for _, answer in ipairs(answers) do
    assert.equal(504, answer.status, answer.body)
  end
end

for _, case in ipairs { { workers = 2, pool = 2, lanes = 0 }, { workers = 3, pool = 7, lanes = 1 } } do
  describe(("a storm over %d workers and %d sessions"):format(case.workers, case.pool), function()
    local server

    setup(function()
      server = support.server.start {
        script = SCRIPT,
        migration = MIGRATION,
        flags = { "--workers", case.workers, "--pool-max", case.pool, "--lanes", case.lanes, "--no-watch" },
      }
    end)
    teardown(function() server:stop() end)

    it("never makes it more sessions, and all are usable afterwards", function()
      local workers = server:workers()
      local most = sample(server)
      for _ = 1, 2 do
        for i, answer in ipairs(blow(server)) do
          assert_possible(kind_of(i), answer)
        end
      end
      assert_whole(server, case.pool - case.workers * case.lanes)
      most = most()
      assert.is_true(most > 0 and most <= case.pool, most .. " sessions")
      assert.same(workers, server:workers())
    end)
  end)
end

describe("a worker that dies with busy sessions", function()
  it("does not make the server have more than the maximum, and its permits return", function()
    local server = support.server.start {
      script = SCRIPT,
      migration = MIGRATION,
      flags = { "--workers", 2, "--pool-max", 2, "--lanes", 0, "--no-watch" },
    }
    finally(function() server:stop() end)
    local most = sample(server)
    local connection = server:begin("GET", "/long")
    server.db:wait_running("%pg_sleep(20)%")
    for _, pid in ipairs(server:workers()) do
      support.shell.run("kill -KILL " .. pid)
    end
    support.eventually("workers again", function()
      local called, answer = pcall(server.get, server, "/write")
      return called and answer.status == 200
    end)
    connection:close()
    assert_whole(server, 2)
    most = most()
    assert.is_true(most > 0 and most <= 2, most .. " sessions")
  end)
end)

describe("sessions that PostgreSQL cannot end", function()
  local cluster, server

  setup(function()
    cluster = support.cluster.create()
    cluster:start()
    server = support.server.start {
      database = cluster.url,
      script = SCRIPT,
      migration = MIGRATION,
      flags = { "--workers", 2, "--pool-max", 4, "--lanes", 0, "--no-watch" },
    }
  end)
  teardown(function()
    server:stop()
    cluster:destroy()
  end)

  local function standby(name)
    server.db:exec(("alter system set synchronous_standby_names = '%s'"):format(name))
    server.db:exec("select pg_reload_conf()")
  end

  local function waiting_commits()
    return count_sessions(server, "wait_event = 'SyncRep'")
  end

  local function stop_backend()
    local connection = server:begin("GET", "/long")
    server.db:wait_running("%pg_sleep(20)%")
    local pid = server.db:value [[
      select pid from pg_stat_activity where state = 'active' and query like '%pg_sleep(20)%'
        and application_name = 'moonpool']]
    support.shell.must("kill -STOP " .. math.tointeger(pid))
    connection:close()
    support.eventually("its request to be over", function() return server:metric("requests_in_flight") == 0 end)
    return math.tointeger(pid)
  end

  local function cancel_waiting()
    server.db:exec "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
  end

  -- Begins requests, one after the other, until one is seen to wait for the standby.
  local function begin_waiting(path)
    local connection
    support.eventually("a commit that waits", function()
      connection = server:begin("GET", path)
      support.eventually("it to wait or end", function()
        return waiting_commits() > 0 or server:metric("requests_in_flight") == 0
      end)
      return waiting_commits() > 0
    end)
    return connection
  end

  it("because a standby is away are not said to have committed", function()
    finally(function() standby("") end)
    standby("nobody")
    support.problem(begin_waiting("/write"):finish(), 500, "outcome-unknown")
    support.eventually("nobody to wait", function() return waiting_commits() == 0 end)
  end)

  it("because a standby is away tell it when the wait is cancelled by hand", function()
    finally(function() standby("") end)
    standby("nobody")
    local connection = begin_waiting("/patient-commit")
    cancel_waiting()
    support.problem(connection:finish(), 500, "outcome-unknown")
  end)

  -- A COMMIT that waits for a standby, and a backend that is stopped.
  it("hold their permits until they have ended", function()
    standby("nobody")
    local offset = #server:log()
    local before, written = server.db:count("notes"), 0
    support.eventually("two commits to wait", function()
      local answer = server:get("/commit")
      if answer.status == 500 then
        support.problem(answer, 500, "outcome-unknown")
      end
      -- One that came too late to begin has written nothing.
      written = written + ((answer.status == 200 or answer.status == 500) and 1 or 0)
      return waiting_commits() == 2
    end)
    local stopped = stop_backend()
    finally(function() support.shell.run("kill -CONT " .. stopped) end)
    -- Longer than the server is waited for when it answers nobody.
    for _ = 1, 11 do
      assert.equal(503, server:get("/late-after-others").status)
    end
    support.http.at_once(server.url, 4, function() return "GET", "/late-after-others" end, function()
      support.eventually("four sessions", function() return count_sessions(server, "true") == 4 end)
    end)
    assert.equal(2, waiting_commits())
    assert.is_nil(server:log():find("session dropped.*session dropped", offset))
    support.shell.must("kill -CONT " .. stopped)
    standby("")
    assert_whole(server, 4)
    assert.equal(before + written, server.db:count("notes"))
  end)
end)
