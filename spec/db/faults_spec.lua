-- What happens to a database happens to the cluster of this file, with reads on lanes, transactions
-- and groups under way. What is asserted is that each is answered, rightly, long before its deadline,
-- and that the service comes back by itself.
local lfs = require "lfs"
local socket = require "socket"

local support = require "spec.support"

local MIGRATION = [[
create table notes (text text not null);
create table slow (n integer not null);
]]

local STATEMENTS = [[
-- name: count_notes :one
select count(*) as count from notes;

-- name: add_note :exec
insert into notes (text) values ($1);
]]

local SCRIPT = [==[
local app = require "moonpool"
local db = app.db

local keep = db:group("keep", { serialize = "notes" }, function(tx, inputs)
  for _, input in ipairs(inputs) do
    tx:queue("add_note", input.text)
  end
  tx:send_batch()
  return inputs
end)

local function add(tx, text, seconds)
  tx:exec("add_note", text)
  tx:queue("add_note", text)
  tx:queue("select pg_sleep($1::float8)", seconds)
  tx:queue("add_note", text)
  tx:send_batch()
  return { text = text }
end

app.get("/count", { deadline = 20 }, function() return 200, db:query_row("count_notes") end)
app.get("/hurried", { deadline = 1 }, function() return 200, db:query_row("count_notes") end)
-- A statement that was slow once is kept from lanes for a while: each attempt has one of its own.
app.get("/lane/{attempt}", { deadline = 1 }, function(req)
  return 200, db:query_row([[
    select pg_backend_pid() as pid, current_setting('default_transaction_read_only') as read_only -- ]]
    .. req.params.attempt)
end)
app.get("/batch", { deadline = 20 }, function()
  db:queue("count_notes")
  db:queue("select current_setting('transaction_read_only') as read_only")
  return 200, { read_only = db:send_batch()[2][1].read_only }
end)
app.get("/lua", function() return 200, { lua = true } end)
app.post("/notes/{text}", { deadline = 20 }, function(req)
  db:exec("add_note", req.params.text)
  return 201, { text = req.params.text }
end)
app.post("/together/{text}", { deadline = 20 }, function(req) return 201, keep { text = req.params.text } end)
app.post("/slowly/{text}", { deadline = 20 }, function(req)
  return 201, db:transaction(function(tx) return add(tx, req.params.text, 60) end)
end)
app.post("/transaction/{text}", { deadline = 20 }, function(req)
  return 201, db:transaction(function(tx) return add(tx, req.params.text, 0) end)
end)
app.post("/briefly/{text}", { deadline = 1 }, function(req)
  return 201, db:transaction(function(tx) return add(tx, req.params.text, 0) end)
end)
app.post("/hurriedly/{text}", { deadline = 1 }, function(req)
  return 201, db:transaction(function(tx) return add(tx, req.params.text, 60) end)
end)
app.post("/still/{text}", { deadline = 3 }, function(req)
  return 201, db:transaction(function(tx)
    tx:exec("add_note", req.params.text)
    tx:query("select stand_still()")
  end)
end)
]==]

-- Stops the process of the session that calls it.
local STAND_STILL = [[
create function stand_still() returns void language plpgsql security definer as $$
begin
  copy (select 1) to program 'kill -STOP $PPID';
end $$;
]]

-- Seconds. What hangs takes 20, the deadline of these requests, or 60, for which they sleep.
local BOUND = 12
local HURRIED_BOUND = 10 -- where the deadline is 1, or 3
local BACK = 12 -- until the service is back when the database is; it takes a second at most
local BACK_FROM_CRASH = 15 -- with the time that PostgreSQL takes

describe("a database fault", function()
  local cluster, server, url

  local function start(proxy, ...)
    return support.server.start {
      database = (url:gsub("postgres@", "app:right@")),
      proxy = proxy,
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--no-watch", ... },
    }
  end

  setup(function()
    cluster = support.cluster.create()
    cluster:ask_password("app")
    cluster:start("-c max_connections=20 -c max_prepared_transactions=1")
    support.db.at(cluster.url):exec("create role app login password 'right'")
    support.db.at(cluster.url):exec("create database app owner app")
    url = support.db.sibling_url(cluster.url, "app")
    server = start(false, "--workers", "2", "--pool-max", "12", "--connect-timeout", "2s")
    server.db = support.db.at(url) -- as the superuser
    server.db:exec(STAND_STILL)
  end)
  teardown(function()
    server:stop()
    cluster:destroy()
  end)

  -- Often enough that both workers were asked.
  local function serves()
    for _ = 1, 8 do
      if server:get("/count").status ~= 200 or server:post("/transaction/check").status ~= 201 then
        return false
      end
    end
    return server:readyz().status == 200
  end

  local function wait_service(seconds)
    support.eventually("the service to be back", serves, seconds)
  end

  local function end_sessions()
    server.db:exec([[
      select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = 'moonpool']])
  end

  -- A session that was being opened may have got in before nobody could any more, and a worker may
  -- not know yet that one has ended.
  local function wait_red_without_sessions()
    support.eventually("a red light, and no sessions", function()
      end_sessions()
      server:get("/count")
      local figures = server:metrics()
      return figures.pool_idle_sessions + figures.pool_acquired_sessions == 0 and server:readyz().status == 503
    end)
  end

  local function backend_of(pattern)
    server.db:wait_running(pattern)
    return server.db:value(([[select pid from pg_stat_activity
      where state = 'active' and application_name <> 'psql' and query like '%s' limit 1]]):format(pattern))
  end

  -- Until PostgreSQL knows of it: from then on nobody is let in before all others have ended, too.
  local function crash(pid)
    support.shell.must("kill -9 " .. pid)
    support.eventually("the process to be gone", function() return not lfs.attributes("/proc/" .. pid) end)
  end

  local function wait_database()
    support.eventually("the database to be back", function() return pcall(server.db.exec, server.db, "select 1") end)
  end

  before_each(function()
    wait_service()
    server.db:exec("truncate notes")
  end)

  after_each(function()
    assert.equal(0, server:metric("worker_restarts_total"))
    support.eventually("no request in flight", function() return server:metric("requests_in_flight") == 0 end)
  end)

  -- Reads, transactions and groups, all of which are waiting for PostgreSQL when this returns: for a lock
  -- that no session has, since that session could be the first to be ended, and one of these be done.
  local function begin_all()
    server.db:exec("begin; lock table notes; prepare transaction 'gate'")
    finally(function() pcall(server.db.exec, server.db, "rollback prepared 'gate'") end)
    local connections = {}
    for i = 1, 4 do
      connections[#connections + 1] = server:begin("GET", "/count")
      connections[#connections + 1] = server:begin("POST", "/together/fault")
      connections[#connections + 1] = i < 3 and server:begin("POST", "/slowly/fault") or nil
    end
    -- Reads each on a session of their own by now, transactions, and the group's leader for its members.
    support.eventually("all to wait for the lock", function()
      local figures = server:metrics()
      return figures.requests_in_flight == 10 and figures.pool_waiting == 0 and server.db:value([[
        select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock']]) == 7
    end)
    return connections
  end

  local function open_gate()
    support.eventually("the lock to be let go", function()
      return pcall(server.db.exec, server.db, "rollback prepared 'gate'")
    end)
  end

  -- The answers, all of them in time and all of them refusals that may be tried again.
  local function assert_refused(connections)
    local started = socket.gettime()
    for _, connection in ipairs(connections) do
      local answer = assert(connection:receive())
      support.problem(answer, 503, "database-unavailable")
      assert.is_not_nil(answer.headers["retry-after"])
      connection:close()
    end
    assert.is_true(socket.gettime() - started < BOUND, "it took too long")
  end

  for _, mode in ipairs { "fast", "immediate" } do
    it(("like a restart (%s) refuses what is under way, and is over when the database is back"):format(mode),
      function()
        local connections = begin_all()
        cluster:restart(mode)
        open_gate()
        wait_service(BACK)
        assert_refused(connections)
        assert.equal(0, server.db:count("notes where text = 'fault'"))
      end)
  end

  it("like a crash of one session refuses what is under way", function()
    local connections = begin_all()
    crash(backend_of("insert into notes%"))
    open_gate()
    wait_service(BACK_FROM_CRASH)
    assert_refused(connections)
    assert.equal(0, server.db:count("notes where text = 'fault'"))
  end)

  -- Sends a request with a short deadline: its answer and how long that took.
  local function hurried(method, path)
    local started = socket.gettime()
    local answer = server:request(method, path)
    return answer, socket.gettime() - started
  end

  it("like a crash in the middle of a batch leaves nothing of it", function()
    local connection = server:begin("POST", "/slowly/fault")
    crash(backend_of("%pg_sleep%"))
    assert_refused { connection }
    wait_database()
    wait_service(BACK_FROM_CRASH)
    assert.equal(0, server.db:count("notes where text = 'fault'"))
  end)

  -- A standby that is waited for and never comes keeps COMMIT from returning.
  local function with_stuck_commits(fn)
    server.db:exec("alter system set synchronous_standby_names = 'nobody'")
    server.db:exec("select pg_reload_conf()")
    support.eventually("the setting", function()
      return server.db:value("show synchronous_standby_names") == "nobody"
    end)
    -- It is the checkpointer that tells the others of it, before it does what it is asked for next: it may
    -- have begun the first of these before.
    server.db:exec("checkpoint; checkpoint")
    local ok, err = pcall(fn)
    support.eventually("the database to take the setting back", function()
      return pcall(server.db.exec, server.db, "alter system reset synchronous_standby_names")
    end)
    server.db:exec("select pg_reload_conf()")
    assert(ok, err)
  end

  local function committing()
    return support.eventually("COMMIT to wait", function()
      local pid = server.db:value("select max(pid) from pg_stat_activity where wait_event = 'SyncRep'")
      return pid ~= "" and pid
    end)
  end

  for _, path in ipairs { "/transaction/fault", "/together/fault", "/notes/fault" } do
    it("like a crash in the middle of COMMIT is never told as a plain failure: " .. path, function()
      with_stuck_commits(function()
        local connection = server:begin("POST", path)
        crash(committing())
        support.problem(assert(connection:receive()), 500, "outcome-unknown")
        connection:close()
      end)
      wait_service(BACK_FROM_CRASH)
      assert.is_true(server.db:count("notes where text = 'fault'") > 0)
    end)
  end

  it("like a COMMIT that never returns is told by the deadline", function()
    with_stuck_commits(function()
      support.eventually("one of which nobody knows", function()
        local answer, took = hurried("POST", "/briefly/fault")
        assert.is_true(took < HURRIED_BOUND, took)
        if answer.body:find("/outcome-unknown", 1, true) then
          return support.problem(answer, 500)
        end
        -- Its deadline passed before it came to COMMIT: it is not stored.
        assert.is_true(answer.status == 503 or answer.status == 504, answer.body)
      end)
    end)
    wait_service(BACK_FROM_CRASH)
    support.eventually("its rows, and no others", function()
      return server.db:count("notes where text = 'fault'") == 3
    end)
  end)

  it("like a session that stands still costs its request, and not the next one", function()
    local answer, took = hurried("POST", "/still/fault")
    local pid = backend_of("%stand_still%")
    finally(function() support.shell.run("kill -CONT " .. pid) end)
    support.problem(answer, 504, "deadline-exceeded")
    assert.is_true(took < HURRIED_BOUND, took)
    assert.equal(200, server:get("/count").status)
    assert.equal(201, server:post("/transaction/other").status)
    support.shell.must("kill -CONT " .. pid)
    server.db:wait_running("%stand_still%", false)
    assert.equal(0, server.db:count("notes where text = 'fault'"))
  end)

  -- Of one worker of the server.
  local function lane_of(that)
    local attempt = 0
    return support.eventually("a lane", function()
      attempt = attempt + 1
      local lane = that:get("/lane/" .. attempt):json()
      return lane.read_only == "on" and math.tointeger(lane.pid)
    end)
  end

  it("like a lane that stands still moves its reads elsewhere", function()
    local pid = lane_of(server)
    finally(function() support.shell.must("kill -CONT " .. pid) end)
    support.shell.must("kill -STOP " .. pid)
    local answers = support.http.at_once(server.url, 20, function() return "GET", "/count" end)
    for _, answer in ipairs(answers) do
      assert.equal(200, answer.status, answer.body)
    end
  end)

  local function wait_checked(pid)
    local function last_change()
      return server.db:value("select state_change from pg_stat_activity where pid = " .. pid)
    end
    local before = last_change()
    support.eventually("a check", function() return last_change() ~= before end)
  end

  it("like a session that stands still is over when a lane at rest has answered", function()
    local other = start(true, "--workers", "1", "--pool-max", "2", "--pool-health-check", "1s")
    finally(function() other:stop() end)
    local lane = lane_of(other)
    support.problem(other:post("/still/fault"), 504, "deadline-exceeded")
    local pid = backend_of("%stand_still%")
    finally(function()
      support.shell.run("kill -CONT " .. pid)
      other:stop()
    end)
    other:wait_log("session dropped")
    support.shell.must("kill -CONT " .. pid)
    wait_checked(lane)
    wait_checked(lane) -- what came of the one before is known by then
    other.proxy:arm { "delay:1900", "back", 1, "connect" }
    server.db:exec(("select pg_terminate_backend(%d, 10000)"):format(lane))
    assert.equal(201, other:post("/transaction/other").status)
    assert.is_nil(other:log():find("database away", 1, true))
  end)

  it("like a postmaster that stands still keeps no deadline from being kept", function()
    finally(function() cluster:signal("CONT") end)
    assert.equal(201, server:post("/transaction/before").status)
    cluster:signal("STOP")
    for _ = 1, 2 do
      local started = socket.gettime()
      local answers = support.http.at_once(server.url, 12, function() return "POST", "/hurriedly/fault" end)
      for _, answer in ipairs(answers) do
        assert.is_true(answer.status == 504 or answer.status == 503, answer.body)
      end
      assert.is_true(socket.gettime() - started < HURRIED_BOUND)
      assert.equal(200, server:get("/lua").status)
    end
    cluster:signal("CONT")
    wait_service(BACK)
    server.db:wait_running("%pg_sleep%", false)
    assert.equal(0, server.db:count("notes where text = 'fault'"))
  end)

  it("like a postmaster that stands still does not keep the server from ending", function()
    finally(function() cluster:signal("CONT") end)
    cluster:signal("STOP")
    local answers = support.http.at_once(server.url, 12, function() return "POST", "/hurriedly/fault" end)
    for _, answer in ipairs(answers) do
      assert.is_true(answer.status == 504 or answer.status == 503, answer.body)
    end
    assert.equal(0, server:halt())
    cluster:signal("CONT")
    server:launch()
  end)

  it("like a machine that stands still keeps no deadline from being kept", function()
    finally(function() cluster:signal("CONT", true) end)
    cluster:signal("STOP", true)
    for _ = 1, 2 do
      local started = socket.gettime()
      local answers = support.http.at_once(server.url, 12, function(i)
        return i % 2 == 0 and "POST" or "GET", i % 2 == 0 and "/hurriedly/fault" or "/hurried"
      end)
      for _, answer in ipairs(answers) do
        assert.is_true(answer.status == 504 or answer.status == 503, answer.body)
      end
      assert.is_true(socket.gettime() - started < HURRIED_BOUND)
    end
    support.eventually("a red light", function()
      server:get("/lane/red")
      return server:readyz().status == 503
    end)
    cluster:signal("CONT", true)
    wait_service(BACK)
    server.db:wait_running("%pg_sleep%", false)
    assert.equal(0, server.db:count("notes where text = 'fault'"))
  end)

  it("like too few sessions for all shares those there are", function()
    server.db:exec("alter role app connection limit 0")
    finally(function() server.db:exec("alter role app connection limit -1") end)
    wait_red_without_sessions()
    server.db:exec("alter role app connection limit 3")
    support.eventually("a session", function() return server:post("/transaction/first").status == 201 end)
    local created = 0
    -- A worker that has got none of them refuses, be it all of these requests.
    support.eventually("some to be created", function()
      local answers = support.http.at_once(server.url, 30, function() return "POST", "/transaction/shared" end)
      for _, answer in ipairs(answers) do
        assert.is_true(answer.status == 201 or answer.headers["retry-after"] ~= nil, answer.body)
        created = created + (answer.status == 201 and 1 or 0)
      end
      return created > 0
    end)
    assert.equal(3 * created, server.db:count("notes where text = 'shared'"))
  end)

  it("like too many clients refuses at once, without a storm of attempts", function()
    server.db:exec("alter role app connection limit 0")
    finally(function() server.db:exec("alter role app connection limit -1") end)
    wait_red_without_sessions()
    local before, started = server:metric("pool_connect_failures_total"), socket.gettime()
    for _ = 1, 100 do
      support.problem(server:get("/count"), 503, "database-unavailable")
    end
    local attempts = server:metric("pool_connect_failures_total") - before
    local took = socket.gettime() - started
    -- In each of two workers one after 50 ms at the soonest, with jitter.
    assert.is_true(attempts <= 4 + 2 * took / 0.035, attempts)
    server.db:exec("alter role app connection limit -1")
    wait_service(BACK)
  end)

  it("like a server that turns read-only refuses what writes, and reads on", function()
    server.db:exec("alter system set default_transaction_read_only = on")
    finally(function()
      server.db:exec("alter system reset default_transaction_read_only")
      server.db:exec("select pg_reload_conf()")
    end)
    server.db:exec("select pg_reload_conf()")
    support.eventually("the setting", function()
      return server.db:value("show default_transaction_read_only") == "on"
    end)
    for _, path in ipairs { "/notes/fault", "/transaction/fault", "/together/fault" } do
      local answer = server:post(path)
      support.problem(answer, 503, "database-unavailable")
    end
    assert.equal(200, server:get("/count").status)
  end)

  it("aside, PostgreSQL logs no warning of reads on sessions of their own", function()
    assert.same({ read_only = "on" }, server:get("/batch"):json())
    local log = assert(support.shell.read(cluster.folder .. "/log"))
    assert.is_nil(log:match("[^\n]*SET TRANSACTION[^\n]*"))
  end)

  it("like a table that is gone and back is over with the table", function()
    server.db:exec("alter table notes rename to away")
    for _, request in ipairs { "GET /count", "POST /notes/fault", "POST /transaction/fault", "POST /together/fault" } do
      local method, path = request:match("(%S+) (%S+)")
      local answer = server:request(method, path)
      support.problem(answer, 500, "database-error")
    end
    server.db:exec("alter table away rename to notes")
    assert.is_true(serves())
    server.db:exec("set role app; drop table notes; create table notes (text text not null)")
    assert.is_true(serves())
  end)

  it("like a full disk refuses what needs space, and is over when there is some", function()
    local folder = cluster.folder .. "/full"
    lfs.mkdir(folder)
    local output, code = support.shell.run("mount -t tmpfs -o size=1m,mode=0777 tmpfs " .. folder)
    if code ~= 0 then
      pending("a small file system cannot be mounted here: " .. output)
      return
    end
    finally(function()
      server.db:exec("set role app; drop table notes; create table notes (text text not null)")
      server.db:exec("drop tablespace small")
      -- A process may have a file open for a moment.
      support.eventually("nobody to use it", function()
        return select(2, support.shell.run("umount " .. folder)) == 0
      end)
    end)
    support.shell.must("chown $(stat -c %u " .. cluster.folder .. ") " .. folder)
    server.db:exec(("create tablespace small location '%s'"):format(folder))
    server.db:exec("alter table notes set tablespace small")
    support.eventually("the disk to be full", function()
      return not pcall(server.db.exec, server.db, [[
        insert into notes select repeat('x', 1000) from generate_series(1, 100)]])
    end)
    for _, folder_of in ipairs { "/notes/", "/transaction/", "/together/" } do
      local path = folder_of .. ("x"):rep(2000)
      support.eventually("a refusal", function()
        local answer = server:post(path)
        assert.is_true(answer.status == 201 or answer.headers["retry-after"] ~= nil, answer.body)
        return answer.status == 503
      end)
    end
    assert.equal(200, server:get("/count").status)
    support.shell.must("mount -o remount,size=8m " .. folder)
    assert.is_true(serves())
  end)

  -- As long as there are sessions nobody notices; then all is refused until it is put right.
  local function assert_refused_between(spoil, put_right)
    -- Lanes may take sessions for themselves, one that waits too; then one worker has a session at rest.
    support.eventually("nobody to wait for a session", function() return server:metric("pool_waiting") == 0 end)
    local connection = support.http.connect(server.url)
    assert.equal(201, connection:request("POST", "/transaction/check").status)
    spoil()
    finally(put_right)
    assert.equal(201, connection:request("POST", "/transaction/check").status)
    connection:close()
    wait_red_without_sessions()
    for _, path in ipairs { "/notes/fault", "/transaction/fault", "/together/fault" } do
      support.problem(server:post(path), 503, "database-unavailable")
    end
    assert.equal(200, server:get("/lua").status)
    put_right()
    wait_service(BACK)
  end

  it("like a password that was changed is over when it is changed back", function()
    local function change_back() server.db:exec("alter role app password 'right'") end
    assert_refused_between(function() server.db:exec("alter role app password 'wrong'") end, change_back)
    assert.is_nil(server:log():find("right", 1, true))
  end)

  it("like a role that may no longer connect is over when it may", function()
    local function allow() server.db:exec("grant connect on database app to app, public") end
    assert_refused_between(function()
      server.db:exec("revoke connect on database app from app, public")
    end, allow)
  end)

  it("like a right that is missing is the server's fault, and the log names the statement", function()
    local function allow() server.db:exec("alter table notes owner to app") end
    server.db:exec("alter table notes owner to postgres")
    finally(allow)
    for _, request in ipairs { "GET /count", "POST /notes/fault", "POST /transaction/fault", "POST /together/fault" } do
      local method, path = request:match("(%S+) (%S+)")
      local offset = #server:log()
      local problem = support.problem(server:request(method, path), 500, "database-error")
      assert.is_nil(problem.detail:find("notes", 1, true))
      -- A group is refused the lock, which is no statement of the script's.
      local named = path:find("together", 1, true) and "" or " where=scripts/spec%.lua:%d+ statement=%w+_notes?"
      server:wait_log("request failed .*permission denied for table notes\"" .. named .. " sqlstate=42501", offset)
    end
    assert.equal(200, server:readyz().status)
    allow()
    assert.is_true(serves())
  end)

  it("like a database that is dropped is over when it is there again, with its tables", function()
    local admin = support.db.at(cluster.url)
    local connections = { server:begin("POST", "/slowly/fault"), server:begin("POST", "/slowly/fault") }
    server.db:wait_running("%pg_sleep%")
    admin:exec("drop database app with (force)")
    assert_refused(connections)
    support.eventually("a red light", function() return server:readyz().status == 503 end)
    support.problem(server:get("/count"), 503, "database-unavailable")
    admin:exec("create database app owner app")
    local answer = support.eventually("the server to be ready, without tables", function()
      local read = server:get("/count")
      return read.status == 500 and server:readyz().status == 200 and read
    end, BACK)
    support.problem(answer, 500, "database-error")
    local output, code = server:run("migrate")
    assert.equal(0, code, output)
    wait_service(BACK)
  end)

  it("like a role that may no longer log in is over when it may", function()
    server.db:exec("alter role app nologin")
    finally(function() server.db:exec("alter role app login") end)
    wait_red_without_sessions()
    support.problem(server:post("/transaction/fault"), 503, "database-unavailable")
    server.db:exec("alter role app login")
    wait_service(BACK)
  end)
end)
