local support = require "spec.support"

local MIGRATION = [[
create table notes (id serial primary key, body text not null unique check (body <> ''));
create table replies (note_id integer not null references notes (id));
create function complain(code text) returns integer language plpgsql as $$
begin
  raise exception 'asked for' using errcode = code;
end
$$;
]]

local STATEMENTS = [[
-- name: add_note :one
insert into notes (body) values ($1) returning id;

-- name: count_notes :one
select count(*) as count from notes;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

-- What pcall caught, as JSON.
local function caught(ok, err)
  if ok then
    return { ok = true }
  elseif type(err) ~= "table" then
    return { message = tostring(err) }
  end
  return {
    code = err.code, message = err.message, sqlstate = err.sqlstate, constraint = err.constraint,
    statement = err.statement, item = err.item, where = err.where,
  }
end

app.post("/commit", function()
  local id = db:transaction(function(tx) return tx:query_row("add_note", "commit").id end)
  return 201, { id = id }
end)

app.post("/values", function()
  local a, b, c = db:transaction(function() return 1, nil, "three" end)
  return 200, { a = a, c = c, b = b == nil }
end)

app.post("/error", function()
  db:transaction(function(tx)
    tx:query_row("add_note", "error")
    error("on purpose")
  end)
end)

app.post("/fail", function()
  db:transaction(function(tx)
    tx:query_row("add_note", "fail")
    app.fail(402, "pay first")
  end)
end)

app.post("/statement-fails", function()
  db:transaction(function(tx)
    tx:query_row("add_note", "twice")
    tx:query_row("add_note", "twice")
  end)
end)

app.post("/swallowed", function()
  db:transaction(function(tx)
    tx:query_row("add_note", "swallowed")
    pcall(tx.query_row, tx, "add_note", "swallowed")
  end)
  return 200, { committed = true }
end)

app.post("/after-failure", function()
  local first, second
  pcall(db.transaction, db, function(tx)
    first = caught(pcall(tx.query_row, tx, "add_note", ""))
    second = caught(pcall(tx.query_row, tx, "add_note", "after"))
  end)
  return 200, { first = first, second = second }
end)

app.post("/nested", function()
  return 200, caught(pcall(db.transaction, db, function(tx)
    tx:query_row("add_note", "nested")
    db:transaction(function() end)
  end))
end)

app.post("/dead-handle", function()
  local kept
  db:transaction(function(tx) kept = tx end)
  return 200, caught(pcall(kept.query, kept, "count_notes"))
end)

app.post("/left-open", function()
  local tx = db:begin()
  tx:query_row("add_note", "left open")
  return 200, { open = true }
end)

app.post("/by-hand/{end}", function(req)
  local tx = db:begin()
  tx:query_row("add_note", "by hand")
  if req.params["end"] == "commit" then
    tx:commit()
  else
    tx:rollback()
  end
  return 200, caught(pcall(tx.query, tx, "count_notes"))
end)

app.post("/savepoint", function()
  local seen
  db:transaction(function(tx)
    tx:query_row("add_note", "before")
    seen = caught(pcall(tx.savepoint, tx, function()
      tx:query_row("add_note", "inside")
      tx:query_row("add_note", "inside")
    end))
    tx:savepoint(function() tx:query_row("add_note", "second") end)
    tx:query_row("add_note", "behind")
  end)
  return 200, seen
end)

app.post("/settings", function(req)
  return 200, db:transaction(req.body, function(tx)
    return tx:query_row(
      "select current_setting('transaction_isolation') as isolation, "
      .. "current_setting('transaction_read_only') as read_only, "
      .. "current_setting('transaction_deferrable') as deferrable")
  end)
end)

app.post("/retry", function(req)
  local attempts = 0
  local ok = pcall(db.transaction, db, { retries = req.body.retries }, function(tx)
    attempts = attempts + 1
    tx:query_row("add_note", "attempt " .. attempts)
    if attempts <= req.body.failures then
      tx:query("select complain($1)", req.body.code)
    end
  end)
  return 200, { ok = ok, attempts = attempts }
end)

app.post("/complain/{code}", function(req)
  db:query("select complain($1)", req.params.code)
end)

app.post("/violate/{what}", function(req)
  local statements = {
    unique = "insert into notes (body) values ('same'), ('same')",
    not_null = "insert into notes (body) values (null)",
    check = "insert into notes (body) values ('')",
    foreign_key = "insert into replies values (0)",
    missing_table = "select * from no_such_table",
    syntax = "selekt 1",
  }
  db:exec(statements[req.params.what])
end)

app.post("/caught", function()
  db:query_row("add_note", "first")
  return 200, caught(pcall(db.query_row, db, "add_note", "first"))
end)

app.get("/pid", function() return 200, db:query_row("select pg_backend_pid() as pid") end)
]]

describe("a transaction", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--pool-max", "1", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  before_each(function() server.db:exec("truncate notes restart identity cascade") end)

  local function notes()
    return server.db:exec("select coalesce(string_agg(body, ',' order by id), '') from notes")
  end

  it("commits when its function returns, and gives what it returned", function()
    local answer = server:post("/commit", {})
    assert.equal(201, answer.status, answer.body)
    assert.equal(1, answer:json().id)
    assert.equal("commit", notes())
    assert.same({ a = 1, b = true, c = "three" }, server:call("/values"))
  end)

  it("is rolled back when its function raises", function()
    support.problem(server:post("/error", {}), 500, "script-error")
    assert.equal("", notes())
  end)

  it("is rolled back when its function fails the request", function()
    local document = support.problem(server:post("/fail", {}), 402)
    assert.equal("pay first", document.detail)
    assert.equal("", notes())
  end)

  it("is rolled back when a statement fails, and the client learns why", function()
    local document = support.problem(server:post("/statement-fails", {}), 409, "conflict")
    assert.equal("23505", document.sqlstate)
    assert.equal("notes_body_key", document.constraint)
    assert.equal("", notes())
  end)

  it("never commits when a failure was swallowed", function()
    local answer = server:post("/swallowed", {})
    assert.is_true(answer.status >= 400, answer.body)
    assert.equal("", notes())
  end)

  it("runs nothing after a statement that failed", function()
    local seen = server:call("/after-failure")
    assert.equal("23514", seen.first.sqlstate)
    assert.equal("notes_body_check", seen.first.constraint)
    assert.is_nil(seen.second.ok)
    assert.is_string(seen.second.message)
    assert.equal("", notes())
  end)

  it("inside another raises instead of waiting for ever", function()
    local seen = server:call("/nested")
    assert.is_nil(seen.ok)
    assert.matches("transaction", seen.message)
    assert.equal("", notes())
  end)

  it("raises when its handle is used after its end", function()
    local seen = server:call("/dead-handle")
    assert.is_nil(seen.ok)
    assert.is_string(seen.message)
  end)

  it("that a handler leaves open is rolled back and logged with the script's line", function()
    local offset = #server:log()
    server:post("/left-open", {})
    server:wait_log("scripts/spec.lua:" .. support.line_of(SCRIPT, "local tx = db:begin()"), offset)
    assert.equal(200, server:get("/pid").status)
    assert.equal("", notes())
  end)

  it("driven by hand commits", function()
    assert.is_nil(server:call("/by-hand/commit").ok)
    assert.equal("by hand", notes())
  end)

  it("driven by hand rolls back", function()
    assert.is_nil(server:call("/by-hand/rollback").ok)
    assert.equal("", notes())
  end)

  it("rolls back to a savepoint and goes on", function()
    local seen = server:call("/savepoint")
    assert.equal("23505", seen.sqlstate)
    assert.equal("before,second,behind", notes())
  end)

  for _, case in ipairs {
    { options = { isolation = "serializable" }, expected = { "serializable", "off", "off" } },
    { options = { isolation = "repeatable read" }, expected = { "repeatable read", "off", "off" } },
    { options = { isolation = "read committed" }, expected = { "read committed", "off", "off" } },
    { options = { read_only = true }, expected = { "read committed", "on", "off" } },
    { options = { isolation = "serializable", read_only = true, deferrable = true },
      expected = { "serializable", "on", "on" } },
  } do
    it("runs as its options say: " .. table.concat(case.expected, ", "), function()
      local seen = server:call("/settings", case.options)
      assert.same(case.expected, { seen.isolation, seen.read_only, seen.deferrable })
    end)
  end

  it("refuses an isolation that does not exist", function()
    support.problem(server:post("/settings", { isolation = "perfect" }), 500, "script-error")
  end)

  for _, code in ipairs { "40001", "40P01" } do
    it(("is tried again after %s, as often as it may"):format(code), function()
      assert.same({ ok = true, attempts = 3 }, server:call("/retry", { retries = 3, failures = 2, code = code }))
      assert.equal("attempt 3", notes())
    end)
  end

  it("is not tried again without leave, more often than said, or after other failures", function()
    assert.same({ ok = false, attempts = 1 }, server:call("/retry", { retries = 0, failures = 1, code = "40001" }))
    assert.same({ ok = false, attempts = 3 }, server:call("/retry", { retries = 2, failures = 9, code = "40001" }))
    assert.same({ ok = false, attempts = 1 }, server:call("/retry", { retries = 2, failures = 9, code = "23505" }))
    assert.equal("", notes())
  end)

  it("gives its connection back on every way out", function()
    for _, path in ipairs { "/commit", "/error", "/fail", "/statement-fails", "/nested", "/left-open" } do
      server:post(path, {})
      assert.equal(200, server:get("/pid").status, "after " .. path)
    end
    assert.is_true(server.db:sessions() <= 1)
  end)

  it("leaves no session in a transaction", function()
    server:post("/error", {})
    support.eventually("no session in a transaction", function()
      return server.db:value([[select count(*) from pg_stat_activity
        where datname = current_database() and state like 'idle in transaction%']]) == 0
    end)
  end)
end)

describe("a failure in the database", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
    }
  end)
  teardown(function() server:stop() end)

  for what, expected in pairs {
    unique = { 409, "conflict", "23505" },
    not_null = { 422, "invalid", "23502" },
    check = { 422, "invalid", "23514" },
    foreign_key = { 422, "invalid", "23503" },
  } do
    it(("of the kind %s answers %d"):format(what, expected[1]), function()
      local document = support.problem(server:post("/violate/" .. what, {}), expected[1], expected[2])
      assert.equal(expected[3], document.sqlstate)
    end)
  end

  for what, sqlstate in pairs { missing_table = "42P01", syntax = "42601" } do
    it(("of the kind %s answers 500, and only the log has the details"):format(what), function()
      local offset = #server:log()
      local document = support.problem(server:post("/violate/" .. what, {}), 500, "database-error")
      assert.is_nil(document.sqlstate)
      server:wait_log(sqlstate, offset)
    end)
  end

  it("that may pass answers 503 with Retry-After", function()
    for _, code in ipairs { "40001", "40P01" } do
      local answer = server:post("/complain/" .. code, {})
      support.problem(answer, 503, "serialization")
      assert.is_not_nil(tonumber(answer.headers["retry-after"]))
    end
  end)

  it("is a table with all that is known", function()
    local seen = server:post("/caught", {}):json()
    assert.equal("conflict", seen.code)
    assert.equal("23505", seen.sqlstate)
    assert.equal("notes_body_key", seen.constraint)
    assert.equal("add_note", seen.statement)
    assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "return 200, caught(pcall(db.query_row"), seen.where)
    assert.matches("duplicate key", seen.message)
  end)
end)
