-- Transactions that meet others: the conflicts are real, made with sessions that wait at a gate, an
-- advisory lock which the spec holds.
local support = require "spec.support"

local MIGRATION = [[
create table counters (id integer primary key, n integer not null);
create table logs (id serial primary key, text text);
create table places (id integer primary key, place integer not null unique deferrable initially deferred,
  log_id integer references logs (id) deferrable initially deferred);
create function complain() returns void language plpgsql as $$
begin
  raise exception 'asked for' using errcode = '40001';
end
$$;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db
local GATE = "select pg_advisory_xact_lock_shared(1)"

local function report(ok, err)
  if ok then
    return { ok = true }
  elseif type(err) ~= "table" then
    return { message = tostring(err) }
  end
  return { code = err.code, message = err.message, sqlstate = err.sqlstate }
end

app.post("/add", { deadline = 30 }, function(req)
  return db:transaction(req.body, function(tx)
    local row = tx:query_row("select n from counters where id = 1")
    tx:exec("update counters set n = $1 where id = 1", row.n + 1)
    return row
  end)
end)

app.post("/read-twice", { deadline = 30 }, function(req)
  return db:transaction(req.body, function(tx)
    local before = tx:query_row("select n from counters where id = 1").n
    tx:query(GATE)
    return { before = before, after = tx:query_row("select n from counters where id = 1").n }
  end)
end)

app.post("/conflict/{retries}", { deadline = 30 }, function(req)
  local attempts = 0
  local options = { isolation = "repeatable read", retries = math.tointeger(tonumber(req.params.retries)) }
  local n = db:transaction(options, function(tx)
    attempts = attempts + 1
    local n = tx:query_row("select n from counters where id = 1").n
    tx:query(GATE)
    tx:exec("update counters set n = $1 where id = 1", n + 1)
    return n
  end)
  return { attempts = attempts, n = n }
end)

app.post("/deadlock/{retries}", { deadline = 30 }, function(req)
  local attempts = 0
  db:transaction({ retries = math.tointeger(tonumber(req.params.retries)) }, function(tx)
    attempts = attempts + 1
    -- Not at the rows again before the other one is done.
    tx:query(attempts > 1 and "select pg_advisory_xact_lock(2)" or "select 1")
    tx:exec("set local deadlock_timeout = '10ms'")
    tx:exec("update counters set n = n + 10 where id = 1")
    tx:query(GATE)
    tx:exec("update counters set n = n + 10 where id = 2")
  end)
  return { attempts = attempts }
end)

local function never(req)
  local attempts, left = 0, req:left()
  local options = { retries = 1000000, timeout = req.body.timeout }
  local seen = report(pcall(db.transaction, db, options, function(tx)
    attempts = attempts + 1
    tx:query("select complain()")
  end))
  seen.attempts, seen.took = attempts, left - req:left()
  return seen
end
app.post("/never", { deadline = 30 }, never)
app.post("/never-in-time", { deadline = 2 }, never)

app.get("/count", { deadline = 30 }, function()
  return db:transaction({ isolation = "serializable", read_only = true, deferrable = true }, function(tx)
    return tx:query_row("select n from counters where id = 1")
  end)
end)

app.post("/write", function(req)
  db:transaction(req.body, function(tx) tx:exec("insert into logs (text) values ('written')") end)
  return { ok = true }
end)

app.post("/key", { deadline = 30 }, function(req)
  return db:transaction({ serialize = { key = req.body.key } }, function(tx)
    return tx:query_row("select n from counters where id = 1")
  end)
end)

-- Leaves an idle session, so that a short time is not refused as too short to wait for one.
local function warm() db:query("select 1") end

app.post("/slow", { deadline = 30 }, function(req)
  warm()
  local seen = report(pcall(db.transaction, db, req.body.options, function(tx)
    tx:exec("insert into logs (text) values ('slow')")
    tx:query("select pg_sleep(60)")
  end))
  seen.logs = db:query_row("select count(*) as n from logs").n
  return seen
end)

app.post("/slow-lua", { deadline = 30 }, function()
  warm()
  local seen
  pcall(db.transaction, db, { timeout = 0.1 }, function(tx)
    seen = report(pcall(function()
      tx:exec("insert into logs (text) values ('slow')")
      local start = os.clock()
      while os.clock() - start < 0.5 do end
      tx:query("select 1")
    end))
  end)
  return seen
end)

app.post("/slow-uncaught", { deadline = 30 }, function()
  warm()
  db:transaction({ timeout = 0.1 }, function(tx) tx:query("select pg_sleep(60)") end)
end)

app.post("/slow-savepoint", { deadline = 30 }, function()
  warm()
  return report(pcall(db.transaction, db, { timeout = 0.1 }, function(tx)
    tx:savepoint(function() tx:query("select pg_sleep(60)") end)
  end))
end)

app.post("/slow-by-hand", { deadline = 30 }, function()
  warm()
  local tx = db:begin { timeout = 0.1 }
  local seen = report(pcall(tx.query, tx, "select pg_sleep(60)"))
  tx:rollback()
  return seen
end)

app.post("/past-deadline", { deadline = 1 }, function()
  warm()
  pcall(db.transaction, db, { timeout = 60 }, function(tx) tx:query("select pg_sleep(60)") end)
  return { ok = true }
end)

app.post("/in-time", function()
  return db:transaction({ timeout = 15 }, function(tx) return tx:query_row("select 1 as one") end)
end)

app.post("/place", function(req)
  db:transaction(function(tx)
    tx:exec("insert into places values ($1, $2, $3)", req.body.id, req.body.place, req.body.log_id)
  end)
  return 201, { ok = true }
end)

app.post("/place-by-hand", function(req)
  local tx = db:begin()
  tx:queue("insert into places values ($1, $2)", req.body.id, req.body.place)
  tx:commit()
  return 201, { ok = true }
end)

app.post("/place-alone", function(req)
  db:exec("insert into places values ($1, $2, $3)", req.body.id, req.body.place, req.body.log_id)
  return 201, { ok = true }
end)

app.post("/places-alone", function(req)
  local function pid() return db:query_row("select pg_backend_pid() as pid").pid end
  local before = pid()
  local seen = report(pcall(db.exec, db, "insert into places values (8, $1)", req.body.place))
  db:queue("insert into places values (9, 9)")
  db:queue("insert into places values (10, $1)", req.body.place)
  local batch = report(pcall(db.send_batch, db))
  return { alone = seen.sqlstate, batch = batch.sqlstate, kept = before == pid() }
end)

app.post("/options", function(req) return { ok = db:transaction(req.body, function() return true end) } end)

app.get("/ping", function() return db:query_row("select 1 as one") end)
]]

describe("a transaction among others", function()
  local server, gate

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      migration = MIGRATION,
      flags = { "--workers", "2", "--pool-max", "6", "--lanes", "0", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  before_each(function()
    server.db:exec("truncate counters, logs, places restart identity; insert into counters values (1, 0), (2, 0)")
    gate = server.db:session()
    gate:exec("begin; select pg_advisory_xact_lock(1)")
  end)
  after_each(function() gate:close() end)

  local function wait_at_gate(count)
    support.eventually("requests at the gate", function()
      return server.db:value([[select count(*) from pg_locks where locktype = 'advisory' and not granted
        and database = (select oid from pg_database where datname = current_database())]]) == count
    end)
  end

  local function begin(path, body)
    return server:begin("POST", path, { json = body or {} })
  end

  it("sees what others commit meanwhile, or does not, as its isolation says", function()
    local committed, repeatable = begin("/read-twice"), begin("/read-twice", { isolation = "repeatable read" })
    wait_at_gate(2)
    server.db:exec("update counters set n = 5 where id = 1")
    gate:exec("commit")
    assert.same({ before = 0, after = 5 }, committed:finish():value())
    assert.same({ before = 0, after = 0 }, repeatable:finish():value())
  end)

  it("is tried again when another one wrote the same row", function()
    local connection = begin("/conflict/1")
    wait_at_gate(1)
    server.db:exec("update counters set n = 5 where id = 1")
    gate:exec("commit")
    assert.same({ attempts = 2, n = 5 }, connection:finish():value())
    assert.equal(6, server.db:value("select n from counters where id = 1"))
  end)

  it("answers 503 with Retry-After when it may not be tried again", function()
    local connection = begin("/conflict/0")
    wait_at_gate(1)
    server.db:exec("update counters set n = 5 where id = 1")
    gate:exec("commit")
    local answer = connection:finish()
    assert.equal("40001", support.problem(answer, 503, "serialization").sqlstate)
    assert.is_not_nil(tonumber(answer.headers["retry-after"]))
    assert.equal(5, server.db:value("select n from counters where id = 1"))
  end)

  it("is tried again after a deadlock", function()
    local other = server.db:session()
    finally(function() other:close() end)
    local connection = begin("/deadlock/1")
    wait_at_gate(1)
    other:exec("begin; set local deadlock_timeout = '60s'; select pg_advisory_xact_lock(2);"
      .. "update counters set n = n + 1 where id = 2")
    other.pipe:write("update counters set n = n + 1 where id = 1;\n")
    support.eventually("the other session to wait", function()
      return server.db:value([[select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'
          and query like 'update counters set n = n + 1 where id = 1%']]) == 1
    end)
    gate:exec("commit")
    other:exec("commit")
    assert.equal(2, connection:finish():value().attempts)
    assert.equal("11,11", server.db:exec("select string_agg(n::text, ',') from counters"))
  end)

  it("is tried again only as long as there is time", function()
    -- The time may be over between two attempts or within one, even the first if the machine stood still.
    local seen = server:call("/never", { timeout = 1.5 })
    assert.is_true(seen.code == "serialization" or seen.code == "transaction-timeout", seen.code)
    assert.is_true(seen.attempts > 1 or seen.took > 0.5, seen.took)
    local answer = server:post("/never-in-time", { timeout = 60 })
    assert.is_true(answer.status == 504 or answer:json().code == "serialization", answer.body)
  end)

  it("that is deferrable waits until nothing can disturb it", function()
    local other = server.db:session()
    finally(function() other:close() end)
    other:exec("begin isolation level serializable; update counters set n = 7 where id = 1")
    local connection = server:begin("GET", "/count")
    support.eventually("the transaction to wait for a safe snapshot", function()
      return server.db:value([[select count(*) from pg_stat_activity
        where datname = current_database() and wait_event = 'SafeSnapshot']]) == 1
    end)
    other:exec("commit")
    assert.same({ n = 0 }, connection:finish():value())
  end)

  it("that is read-only cannot write, which is the script's mistake", function()
    local offset = #server:log()
    support.problem(server:post("/write", { read_only = true }), 500, "database-error")
    server:wait_log("25006", offset)
    assert.same({ ok = true }, server:call("/write", {}))
    assert.equal(1, server.db:count("logs"))
  end)

  it("loses no update while it is serialised by a key", function()
    local requests = {}
    for i = 1, 24 do
      requests[i] = { method = "POST", path = "/add", json = { serialize = { key = "counter 1" } } }
    end
    for _, request in ipairs(requests) do
      request.connection = begin(request.path, request.json)
    end
    for _, request in ipairs(requests) do
      assert.equal(200, request.connection:finish().status)
    end
    assert.equal(24, server.db:value("select n from counters where id = 1"))
  end)

  it("waits for its key alone, without keeping sessions from others", function()
    gate:exec("select pg_advisory_xact_lock(hashtextextended('account:17', 0))")
    local waiting = {}
    for i = 1, 10 do
      waiting[i] = begin("/key", { key = "account:17" })
    end
    server.db:wait_running("%hashtextextended%")
    assert.same({ n = 0 }, server:call("/key", { key = "account:18" }))
    assert.equal(200, server:get("/ping").status)
    assert.is_true(server.db:value("select count(*) from pg_stat_activity where query like '%hashtextextended%' "
      .. "and datname = current_database() and state = 'active' and pid <> pg_backend_pid()") <= 2)
    server.db:exec("update counters set n = 9 where id = 1")
    gate:exec("commit")
    for _, connection in ipairs(waiting) do
      assert.same({ n = 9 }, connection:finish():value())
    end
  end)

  for name, options in pairs {
    ["no key"] = { serialize = {} }, ["an empty key"] = { serialize = { key = "" } },
    ["a snapshot older than the wait"] = { serialize = { key = "a" }, isolation = "serializable" },
    ["a timeout of none"] = { timeout = 0 }, ["a timeout in words"] = { timeout = "soon" },
    ["an option that is none"] = { tries = 1 },
  } do
    it("refuses " .. name, function()
      local offset = #server:log()
      support.problem(server:post("/options", options), 500, "script-error")
      server:wait_log("scripts/spec.lua:" .. support.line_of(SCRIPT, 'app.post("/options"'), offset)
    end)
  end

  it("ends at its timeout, and its request goes on", function()
    local seen = server:call("/slow", { options = { timeout = 0.2 } })
    assert.equal("transaction-timeout", seen.code)
    assert.equal(0, seen.logs)
    server.db:wait_running("%pg_sleep%", false)
  end)

  it("ends at its timeout while it waits for its turn", function()
    gate:exec("lock table logs in share row exclusive mode")
    local seen = server:call("/slow", { options = { timeout = 0.2, serialize = "logs" } })
    assert.equal("transaction-timeout", seen.code)
  end)

  it("has ended by its timeout when Lua took it", function()
    assert.equal("transaction-timeout", server:call("/slow-lua").code)
    assert.equal(0, server.db:count("logs"))
  end)

  it("ends at its timeout behind a savepoint, and driven by hand", function()
    assert.equal("transaction-timeout", server:call("/slow-savepoint").code)
    assert.equal("transaction-timeout", server:call("/slow-by-hand").code)
  end)

  it("answers 503 with Retry-After when nobody catches its timeout", function()
    local answer = server:post("/slow-uncaught", {})
    support.problem(answer, 503, "transaction-timeout")
    assert.is_not_nil(tonumber(answer.headers["retry-after"]))
  end)

  it("cannot outlive the deadline of its request by a timeout", function()
    support.problem(server:post("/past-deadline", {}), 504, "deadline-exceeded")
  end)

  it("is not touched by a timeout that it keeps", function()
    assert.same({ one = 1 }, server:call("/in-time"))
  end)

  it("whose COMMIT is refused answers with why, and not with success", function()
    assert.equal(201, server:post("/place", { id = 1, place = 1 }).status)
    for _, path in ipairs { "/place", "/place-by-hand" } do
      local document = support.problem(server:post(path, { id = 2, place = 1 }), 409, "conflict")
      assert.equal("places_place_key", document.constraint)
    end
    support.problem(server:post("/place", { id = 3, place = 3, log_id = 99 }), 422, "invalid")
    assert.equal(1, server.db:count("places"))
  end)

  it("is none, but a statement alone that is refused behind its end: it answers the same", function()
    assert.equal(201, server:post("/place-alone", { id = 1, place = 1 }).status)
    local document = support.problem(server:post("/place-alone", { id = 2, place = 1 }), 409, "conflict")
    assert.equal("places_place_key", document.constraint)
    support.problem(server:post("/place-alone", { id = 3, place = 3, log_id = 99 }), 422, "invalid")
    assert.same({ alone = "23505", batch = "23505", kept = true }, server:call("/places-alone", { place = 1 }))
    assert.equal(1, server.db:count("places"))
  end)
end)
