-- /metrics counts what was done, once, and tells waiting from working, as the access log does.
local page = require "spec.support.page"
local support = require "spec.support"

local MIGRATION = [[
create table notes (id integer not null, text text not null);
alter table notes add constraint notes_ids unique (id) deferrable initially deferred;
create table slow (n integer not null check (pg_sleep(n) is not null));
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local SLEEP = "select pg_sleep($1::float8)"

app.get("/fine", function() return {} end)
app.get("/raise", function() error("raised") end)
app.get("/fail", function() app.fail(503, "no") end)
app.get("/loop", { deadline = 0.2 }, function() while true do end end)

app.get("/commit/{count}", function(req)
  db:transaction(function(tx)
    for i = 1, tonumber(req.params.count) do tx:queue("select $1::int", i) end
    tx:send_batch()
  end)
end)
app.get("/read", function() return db:query("select 1") end)
-- A statement of its own for each number: one that was slow once is kept off the lanes.
app.get("/read-only/{number}", function(req)
  return db:query_row("select current_setting('default_transaction_read_only') as read_only, " .. req.params.number)
end)
app.get("/locked-read", { deadline = 60 }, function() return db:query("select pg_advisory_xact_lock_shared(8)") end)
app.get("/raise-in-transaction", function()
  db:transaction(function(tx)
    tx:query("select 1")
    error("raised")
  end)
end)
app.get("/raise-before-transaction", function()
  db:transaction(function(tx)
    tx:queue("select 1")
    error("raised")
  end)
end)
app.get("/rollback", function()
  local tx = db:begin()
  tx:query("select 1")
  tx:rollback()
end)
app.get("/left-open", function() db:begin():query("select 1") end)
app.get("/refused-commit", function()
  db:transaction(function(tx)
    for _ = 1, 2 do tx:exec("insert into notes values (1, '')") end
  end)
end)
app.get("/twice", function()
  db:transaction({ retries = 1 }, function(tx)
    tx:exec("select nextval('attempts')")
    tx:exec("do $$ begin if (select last_value = 1 from attempts) then raise sqlstate '40001'; end if; end $$")
  end)
end)
app.get("/lost-commit", function()
  db:transaction(function(tx)
    tx:exec("create temporary table doomed (id integer) on commit drop")
    tx:exec("create constraint trigger doom after insert on doomed deferrable initially deferred "
      .. "for each row execute function end_session()")
    tx:exec("insert into doomed values (1)")
  end)
end)

local keep = db:group("keep", { serialize = "notes" }, function(tx, inputs)
  tx:query("select 1")
  return inputs
end)
app.get("/group", { deadline = 60 }, function() return keep { 1 } end)

-- Each of these takes longer than anybody waits.
local slow = {}

function slow.read() db:query(SLEEP, 60) end
function slow.write() db:exec("insert into slow values (60)") end
function slow.transaction()
  db:transaction(function(tx) tx:query(SLEEP, 60) end)
end
function slow.stream()
  db:transaction(function(tx)
    tx:query("select 1")
    tx:queue(SLEEP, 60)
    for i = 1, 999 do tx:queue("select $1::int", i) end
    tx:send_batch()
  end)
end
function slow.copy()
  db:transaction(function(tx) tx:copy_from("slow", { "n" }, { { 60 } }) end)
end
function slow.turn()
  db:transaction({ serialize = "notes" }, function(tx) tx:query("select 1") end)
end
function slow.limited()
  db:transaction({ timeout = 0.3 }, function(tx) tx:query(SLEEP, 60) end)
end

for name, fn in pairs(slow) do
  app.get("/late/" .. name, { deadline = 0.3 }, fn)
  app.get("/long/" .. name, { deadline = 60 }, fn)
end
]]

local FUNCTIONS = [[
create sequence attempts;
create function end_session() returns trigger language plpgsql as
  $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
]]

local function start(...)
  return support.server.start {
    script = SCRIPT,
    migration = MIGRATION .. FUNCTIONS,
    flags = { "--workers", 1, ... },
  }
end

-- The requests that the log tells of behind `offset`, once there are `count`.
local function logged(server, count, offset)
  return support.eventually("the requests to be logged", function()
    local lines = {}
    for line in server:log():sub(offset + 1):gmatch(" request id=[^\n]+\n") do
      lines[#lines + 1] = line
    end
    return #lines >= count and lines
  end)
end

-- What `fn`, which makes `count` requests, adds to each figure, and the lines of the log about them. A
-- request counts when its answer has been sent, which its client may know before, and is logged then.
local function counted(server, count, fn)
  local before, offset = server:metrics(), #server:log()
  fn()
  local after = support.eventually("the requests to be counted", function()
    local now = server:metrics()
    return now.requests_total - before.requests_total >= count and now.requests_in_flight == 0 and now
  end)
  local changes = {}
  for name, value in pairs(after) do
    changes[name] = value - before[name]
  end
  assert.equal(count, changes.requests_total)
  return changes, logged(server, count, offset)
end

-- A field of a line, in microseconds.
local function microseconds(line, field)
  return math.tointeger((tonumber(line:match(field .. "=(%S+)")) * 1000 + 0.5) // 1)
end

local function assert_agree(changes, lines, field, metric)
  local sum = 0
  for _, line in ipairs(lines) do
    sum = sum + microseconds(line, field)
  end
  assert.is_true(math.abs(sum - changes[metric] * 1e6) <= #lines, ("%s: %d us in the log, %f s"):format(
    metric, sum, changes[metric]))
end

-- As counted(): the figures must agree with the lines.
local function added_to(server, count, fn)
  local changes, lines = counted(server, count, fn)
  assert.equal(count, #lines)
  for field, metric in pairs {
    queue_ms = "queue_wait_seconds_total", pool_ms = "pool_wait_seconds_total", db_ms = "database_seconds_total",
    group_ms = "group_wait_seconds_total",
  } do
    assert_agree(changes, lines, field, metric)
  end
  return changes, lines
end

describe("/metrics", function()
  local server

  setup(function() server = start("--pool-max", 1, "--lanes", 0) end)
  teardown(function() server:stop() end)

  local function added(count, fn)
    return added_to(server, count, fn)
  end

  local function added_by(path, status)
    return added(1, function()
      local answer = server:get(path)
      assert.equal(status, answer.status, answer.body)
    end)
  end

  local function begin_long(name)
    local connection = server:begin("GET", "/long/" .. name)
    server.db:wait_running(name == "write" and "insert into slow%" or name == "copy" and "copy %" or "%pg_sleep%")
    return connection
  end

  for _, case in ipairs {
    { "/fine", 200 }, { "/nothing", 404 },
    { "/raise", 500, failed = 1 }, { "/fail", 503, failed = 1 },
    { "/loop", 504, failed = 1, late = 1 }, { "/late/transaction", 504, failed = 1, late = 1 },
  } do
    it(("counts a request answered %d once: %s"):format(case[2], case[1]), function()
      local changes = added_by(case[1], case[2])
      assert.equal(case.failed or 0, changes.requests_failed_total)
      assert.equal(case.late or 0, changes.deadlines_total)
      assert.is_true(changes.request_seconds_total > 0)
    end)
  end

  for _, name in ipairs { "read", "write", "transaction", "stream", "copy" } do
    it("counts a request whose client has left once, what it did and that it was cancelled: " .. name, function()
      local changes = added(1, function() begin_long(name):close() end)
      assert.equal(0, changes.requests_failed_total)
      assert.equal(0, changes.deadlines_total)
      assert.equal(1, changes.cancels_total)
      assert.equal((name == "read" or name == "write") and 0 or 1, changes.transactions_rolled_back_total)
      assert.is_true(changes.statements_total > (name == "stream" and 1000 or 0))
      assert.is_true(changes.database_seconds_total > 0)
    end)
  end

  for _, name in ipairs { "read", "write" } do
    it(("counts a %s that was cancelled at its deadline"):format(name), function()
      local changes = added_by("/late/" .. name, 504)
      assert.equal(1, changes.deadlines_total)
      assert.equal(1, changes.cancels_total)
      assert.is_true(changes.database_seconds_total >= 0.1, changes.database_seconds_total)
    end)
  end

  for _, case in ipairs {
    { "/read", 200 },
    { "/commit/2", 204, committed = 1 },
    { "/raise-before-transaction", 500 },
    { "/raise-in-transaction", 500, rolled_back = 1 },
    { "/rollback", 204, rolled_back = 1 },
    { "/left-open", 204, rolled_back = 1 },
    { "/refused-commit", 409, rolled_back = 1 },
    { "/late/transaction", 504, rolled_back = 1 },
    { "/long/limited", 503, rolled_back = 1 },
    { "/twice", 204, committed = 1, rolled_back = 1 },
    { "/lost-commit", 500 },
  } do
    it("counts transactions by how they ended: " .. case[1], function()
      local changes = added_by(case[1], case[2])
      assert.equal(case.committed or 0, changes.transactions_committed_total)
      assert.equal(case.rolled_back or 0, changes.transactions_rolled_back_total)
    end)
  end

  it("does not count a transaction that never had a session as rolled back", function()
    added_by("/read", 200) -- there is a session
    local changes = added(2, function()
      local holding = begin_long("read")
      support.problem(server:get("/late/transaction"), 503, "pool-timeout")
      holding:close()
    end)
    assert.equal(0, changes.transactions_rolled_back_total)
    assert.equal(1, changes.pool_timeouts_total)
    assert.equal(1, changes.pool_waits_total)
    assert.equal(1, changes.deadlines_total)
    assert.is_true(changes.pool_wait_seconds_total >= 0.1)
  end)

  -- BEGIN, the time limit and COMMIT are the server's own.
  for _, count in ipairs { 1, 3, 1000 } do
    it(("counts %d statements of a transaction as so many"):format(count), function()
      assert.equal(3 + count, added_by("/commit/" .. count, 204).statements_total)
    end)
  end

  -- A request whose wait ends with the lock that another session holds, for 0.3 s at least, and the
  -- other request, if any, that it waits behind.
  for _, case in ipairs {
    { "whose statement is slow", "/long/turn", field = "db_ms", metric = "database_seconds_total" },
    { "that waits for the pool", "/read", behind = "/long/turn", field = "pool_ms",
      metric = "pool_wait_seconds_total" },
    { "that waits for its turn", "/long/turn", behind = "/long/turn", field = "queue_ms",
      metric = "queue_wait_seconds_total" },
  } do
    it(("tells a request %s, as its line in the log does"):format(case[1]), function()
      added_by("/read", 200) -- there is a session
      local count = case.behind and 2 or 1
      local changes, lines = added(count, function()
        local lock = server.db:session()
        lock:exec("begin; lock table notes in share row exclusive mode")
        local connections = {}
        for i, path in ipairs { case.behind or case[2], case.behind and case[2] } do
          connections[i] = server:begin("GET", path)
          server.db:wait_running("lock table%")
        end
        support.eventually("the requests", function() return server:metric("requests_in_flight") == count end)
        lock:exec("select pg_sleep(0.3); commit")
        lock:close()
        for _, connection in ipairs(connections) do
          assert.is_true(connection:finish().status < 300)
        end
      end)
      local line = lines[count]
      assert.is_true(changes[case.metric] >= 0.25, changes[case.metric])
      assert.is_true(microseconds(line, case.field) >= 250000, line)
      local all = microseconds(line, "queue_ms") + microseconds(line, "pool_ms") + microseconds(line, "db_ms")
      assert.is_true(all < microseconds(line, "duration_ms") + 250000, "it is counted twice: " .. line)
    end)
  end

  it("counts the wait for a turn that never came", function()
    local changes = added(2, function()
      local lock = server.db:session()
      lock:exec("begin; lock table notes in share row exclusive mode")
      local first = server:begin("GET", "/long/turn")
      server.db:wait_running("lock table%")
      support.problem(server:get("/late/turn"), 503, "queue-timeout")
      lock:close()
      assert.equal(204, first:finish().status)
    end)
    assert.is_true(changes.queue_wait_seconds_total >= 0.1)
    assert.equal(0, changes.transactions_rolled_back_total)
    assert.equal(1, changes.transactions_committed_total)
    assert.equal(1, changes.deadlines_total)
  end)

  it("counts a group once, however many requests it answers, and tells how long each waited for it", function()
    local changes, lines = counted(server, 3, function()
      local lock = server.db:session()
      lock:exec("begin; lock table notes in share row exclusive mode")
      local connections = {}
      for i = 1, 3 do
        connections[i] = server:begin("GET", "/group")
      end
      support.eventually("all of them", function() return server:metric("requests_in_flight") == 3 end)
      lock:exec("select pg_sleep(0.3); commit")
      lock:close()
      for _, connection in ipairs(connections) do
        assert.equal(200, connection:finish().status)
      end
    end)
    assert.equal(1, changes.transactions_committed_total)
    assert.equal(0, changes.transactions_rolled_back_total)
    assert.is_true(changes.database_seconds_total > 0)
    assert_agree(changes, lines, "group_ms", "group_wait_seconds_total")
    for _, line in ipairs(lines) do
      assert.is_true(microseconds(line, "group_ms") >= 250000, line)
    end
  end)

  it("counts a reload that was taken over, and none that was refused", function()
    local before = server:metrics()
    server:write("scripts/spec.lua", "nonsense nonsense")
    server:wait_log("reload refused")
    local refused = server:metrics()
    assert.is_true(refused.generation > before.generation)
    assert.equal(before.reloads_total, refused.reloads_total)
    server:write("scripts/spec.lua", SCRIPT)
    server:wait_log("reloaded")
    assert.equal(before.reloads_total + 1, server:metric("reloads_total"))
  end)

  it("has the figures that docs/operations.md explains", function()
    local names = {}
    for name in pairs(server:metrics()) do
      names[name] = true
    end
    local explained = page.names_in_tables("docs/operations.md", " Gauges:\n", "\nWho knows pgxpool")
    explained["moonpool_"] = nil -- the tables' heads
    assert.same(explained, names)
  end)

  it("has gauges of what there is", function()
    local figures = server:metrics()
    assert.equal(1, figures.database_up)
    assert.equal(1, figures.workers_ready)
    assert.equal(0, figures.requests_in_flight)
    assert.is_true(figures.lua_memory_bytes > 0)
  end)
end)

describe("/metrics of reads on a lane", function()
  local server

  setup(function() server = start("--pool-max", 4, "--lanes", 1) end)
  before_each(function()
    local last = 0
    support.eventually("a lane", function()
      local seen
      last = last + 1
      counted(server, 1, function() seen = server:get("/read-only/" .. last):value() end)
      return seen.read_only == "on"
    end)
  end)
  teardown(function() server:stop() end)

  it("count one statement for each that stays there", function()
    local changes = added_to(server, 3, function()
      for _ = 1, 3 do
        assert.equal(200, server:get("/read").status)
      end
    end)
    assert.is_true(changes.statements_total >= 3)
    assert.is_true(changes.database_seconds_total > 0)
    assert.equal(0, changes.transactions_committed_total)
  end)

  it("count the cancellation of one that is too slow for it, and all of its time", function()
    local changes = added_to(server, 1, function()
      local lock = server.db:session()
      lock:exec("select pg_advisory_lock(8)")
      local before = server:metric("cancels_total")
      local reading = server:begin("GET", "/locked-read")
      support.eventually("it to go elsewhere", function() return server:metric("cancels_total") > before end)
      lock:exec("select pg_sleep(0.3)")
      lock:close()
      assert.equal(200, reading:finish().status)
    end)
    assert.is_true(changes.statements_total >= 2)
    -- It may have to wait for the session on which it goes on.
    assert.is_true(changes.database_seconds_total + changes.pool_wait_seconds_total >= 0.3)
    assert.is_true(changes.database_seconds_total > 0)
  end)
end)
