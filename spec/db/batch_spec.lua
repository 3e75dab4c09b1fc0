local support = require "spec.support"

local MIGRATION = "create table numbers (n integer not null primary key);"

local STATEMENTS = [[
-- name: add_number :exec
insert into numbers (n) values ($1);

-- name: add_returning :one
insert into numbers (n) values ($1) returning n, '' as empty, null::text as "null";

-- name: get_kind :one
select 'of number' as kind;

-- name: get_number :one
select n from numbers where n = $1;

-- name: get_numbers :many
select n from numbers where n <= $1 order by n;

-- name: raise_numbers :exec
update numbers set n = n + $1;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local function report(err)
  return {
    code = err.code, message = err.message, item = err.item, statement = err.statement, where = err.where,
    sqlstate = err.sqlstate, constraint = err.constraint,
  }
end

app.post("/order", function()
  return 200, db:transaction(function(tx)
    for n = 1, 3 do
      tx:queue("add_number", n)
    end
    tx:queue("get_number", 2)
    tx:queue("get_number", 99)
    tx:queue("get_numbers", 2)
    tx:queue("raise_numbers", 100)
    local results = tx:send_batch()
    local many = results[6]
    return {
      n = results.n, added = results[1], found = results[4].n, absent = results[5] == nil, count = #many,
      first = many[1].n, raised = results[7],
    }
  end)
end)

app.post("/failing", function()
  local ok, err = pcall(db.transaction, db, function(tx)
    tx:queue("add_number", 1)
    tx:queue("add_number", 2)
    tx:queue("add_number", 1) -- this one fails
    tx:queue("add_number", 3)
    tx:send_batch()
  end)
  return 200, { ok = ok, report = report(err) }
end)

app.post("/empty", function()
  return 200, db:transaction(function(tx) return { n = tx:send_batch().n } end)
end)

app.post("/without-transaction", function()
  db:queue("add_number", 1)
  db:queue("add_number", 1)
  local ok, err = pcall(db.send_batch, db)
  return 200, { ok = ok, report = report(err) }
end)

app.post("/without-transaction-well", function()
  db:queue("add_number", 1)
  db:queue("get_numbers", 10)
  local results = db:send_batch()
  return 200, { n = results.n, count = #results[2] }
end)

app.post("/never-sent", function()
  db:transaction(function(tx) tx:queue("add_number", 1) end)
  return 200, {}
end)

app.post("/many/{count}", { deadline = 100 }, function(req)
  local count = math.tointeger(tonumber(req.params.count))
  return 200, db:transaction(function(tx)
    for n = 1, count do
      tx:queue("add_number", n)
    end
    local results = tx:send_batch()
    local sum = 0
    for i = 1, results.n do
      sum = sum + results[i]
    end
    return { n = results.n, sum = sum }
  end)
end)

app.post("/returning/{count}", { deadline = 100 }, function(req)
  return 200, db:transaction(function(tx)
    for n = 1, math.tointeger(tonumber(req.params.count)) do
      tx:queue("add_returning", n)
      tx:queue("get_kind")
    end
    local results = tx:send_batch()
    local seen = { n = results.n, sum = 0, empty = 0, null = 0, kind = 0 }
    for i = 1, results.n, 2 do
      local row = results[i]
      seen.sum = seen.sum + row.n
      seen.empty = seen.empty + (row.empty == "" and 1 or 0)
      seen.null = seen.null + (row.null == nil and 1 or 0)
      seen.kind = seen.kind + (results[i + 1].kind == "of number" and 1 or 0)
    end
    return seen
  end)
end)

app.post("/failing-with-commit", function()
  local ok, err = pcall(db.transaction, db, function(tx)
    tx:queue("add_number", 1)
    tx:queue("add_number", 1) -- fails with COMMIT
  end)
  return 200, { ok = ok, report = report(err) }
end)

app.post("/hoard", { deadline = 30 }, function()
  db:transaction(function(tx)
    for n = 1, 10000000 do
      tx:queue("add_number", n)
    end
  end)
end)

app.post("/large", { deadline = 30 }, function()
  return db:transaction(function(tx)
    for _ = 1, 2 do
      tx:queue("select length($1) as n", ("x"):rep(2000000))
      tx:send_batch()
    end
    return { ok = true }
  end)
end)

app.post("/wide", { deadline = 30 }, function()
  return 200, db:transaction(function(tx)
    for _ = 1, 50 do
      tx:queue("select repeat('x', 100000) as text")
    end
    local results = tx:send_batch()
    local length = 0
    for i = 1, results.n do
      length = length + #results[i][1].text
    end
    return { length = length }
  end)
end)
]]

describe("a batch", function()
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

  before_each(function() server.db:exec("truncate numbers") end)

  it("gives its results in the order of the queue, each in its kind", function()
    assert.same({ n = 7, added = 1, found = 2, absent = true, count = 2, first = 1, raised = 3 }, server:call("/order"))
  end)

  it("names the statement that failed", function()
    local seen = server:call("/failing")
    assert.is_false(seen.ok)
    assert.equal(3, seen.report.item)
    assert.equal("add_number", seen.report.statement)
    assert.equal("23505", seen.report.sqlstate)
    assert.equal("numbers_pkey", seen.report.constraint)
    assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- this one fails"), seen.report.where)
    assert.equal(0, server.db:count("numbers"))
  end)

  it("may be empty", function()
    assert.same({ n = 0 }, server:call("/empty"))
  end)

  it("outside a transaction is one of its own", function()
    local seen = server:call("/without-transaction")
    assert.is_false(seen.ok)
    assert.equal(2, seen.report.item)
    assert.equal(0, server.db:count("numbers"))
    assert.same({ n = 2, count = 1 }, server:call("/without-transaction-well"))
    assert.equal(1, server.db:count("numbers"))
  end)

  it("that was not sent goes with COMMIT", function()
    server:call("/never-sent")
    assert.equal(1, server.db:count("numbers"))
  end)

  it("may have results that are larger than any buffer", function()
    assert.same({ length = 50 * 100000 }, server:call("/wide"))
  end)

  local function assert_peak_below(most)
    local peak = support.shell.peak_memory(server:workers()[1])
    assert.is_true(support.environment.is_sanitized() or peak < most, peak .. " bytes")
  end

  it("may have 300,000 statements, in bounded memory", function()
    assert.same({ n = 300000, sum = 300000 }, server:call("/many/300000"))
    assert.equal(300000, server.db:count("numbers"))
    assert_peak_below(96 << 20)
  end)

  it("may have very many rows in its results", function()
    local seen = server:call("/returning/25000")
    assert.same({ n = 50000, sum = 312512500, empty = 25000, null = 25000, kind = 25000 }, seen)
    assert_peak_below(128 << 20)
  end)

  it("that fails with COMMIT names its statement too", function()
    local seen = server:call("/failing-with-commit")
    assert.is_false(seen.ok)
    assert.equal(2, seen.report.item)
    assert.equal("add_number", seen.report.statement)
    assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- fails with COMMIT"), seen.report.where)
  end)
end)

local MIXED_MIGRATION = [[
create table numbers (n integer not null primary key);
create table parts (n integer references numbers deferrable initially deferred);
create procedure add_and_commit(added integer) language plpgsql as $$
begin
  insert into numbers values (added);
  commit;
end $$;
create procedure add(added integer, inout count integer) language plpgsql as $$
begin
  insert into numbers values (added);
  select count(*) into count from numbers;
end $$;
create function add(added integer) returns integer language sql as
  'insert into numbers values (added) returning n';
create function sleep_until_cancelled() returns void language plpgsql as $$
begin
  perform pg_sleep(600);
exception when query_canceled then
  begin
    perform pg_sleep(0.1); -- a cancel may come twice
  exception when query_canceled then
    return;
  end;
end $$;
create function add_slowly(added integer) returns void language plpgsql as $$
begin
  insert into numbers values (added);
  if added = 1 then
    perform sleep_until_cancelled();
  end if;
end $$;
]]

local MIXED_SCRIPT = [[
local app = require "moonpool"
local db = app.db

local function report(err)
  return {
    code = err.code, item = err.item, statement = err.statement, where = err.where, sqlstate = err.sqlstate,
    constraint = err.constraint,
  }
end

app.post("/ending", function(req)
  db:queue("add_number", 1)
  db:queue(req.body.sql) -- the one that ends it
  db:queue("add_number", 2)
  db:queue("add_number", 2) -- the one that fails
  local ok, err = pcall(db.send_batch, db)
  return { ok = ok, report = report(err) }
end)

app.post("/mixed", function()
  db:queue("add_number", 1)
  db:queue("call add($1, 0)", 2)
  db:queue("get_number", 2)
  db:queue("do $do$ begin insert into numbers values (3); end $do$")
  local results = db:send_batch()
  db:queue("call add($1, 0)", 4)
  local rows = db:query("get_numbers", 10)
  return { n = results.n, added = results[1], count = results[2][1].count, found = results[3].n, rows = #rows }
end)

app.post("/failing-at-its-end", function()
  db:queue("do $do$ begin insert into numbers values (1); end $do$")
  db:queue("add_part", 2) -- the last one
  local ok, err = pcall(db.send_batch, db)
  return { ok = ok, report = report(err) }
end)

local big = {}

function big.statements()
  db:queue("add_number", 1)
  db:queue("select sleep_until_cancelled()")
  for n = 2, 1500 do
    db:queue("add_number", n)
  end
end

function big.calls()
  for n = 1, 1500 do
    db:queue("select add_slowly($1)", n)
  end
end

function big.values()
  db:queue("add_number", 1)
  db:queue("select sleep_until_cancelled()")
  for n = 2, 30 do
    db:queue("insert into numbers values ($1::int + length($2) - 100000)", n, ("x"):rep(100000))
  end
end

app.post("/big/{kind}", { deadline = 60 }, function(req)
  big[req.params.kind]()
  db:send_batch()
  return 204
end)

app.post("/growing/{count}", function(req)
  local function add_all()
    for n = 1, math.tointeger(tonumber(req.params.count)) do
      db:queue("select add($1) as n", n)
    end
  end
  add_all()
  db:queue("select add(1) as n") -- there already
  local ok, err = pcall(db.send_batch, db)
  add_all()
  return { ok = ok, report = report(err), rows = #db:query("get_numbers", 10000) }
end)

app.post("/alone", function(req)
  if req.body.queued then
    db:queue(req.body.sql)
    db:send_batch()
  else
    db:exec(req.body.sql)
  end
  return 204
end)
]]

describe("a batch outside a transaction", function()
  local server

  setup(function()
    server = support.server.start {
      script = MIXED_SCRIPT,
      statements = STATEMENTS .. "\n-- name: add_part :exec\ninsert into parts (n) values ($1);\n",
      migration = MIXED_MIGRATION,
      flags = { "--workers", "1", "--pool-max", "1", "--lanes", "0", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  before_each(function() server.db:exec("truncate numbers, parts") end)

  local function line(text) return "scripts/spec.lua:" .. support.line_of(MIXED_SCRIPT, text) end

  for _, sql in ipairs {
    "do $$ begin commit; end $$",
    "do $$ begin rollback; end $$",
    "call add_and_commit(7)",
    "; /* a */; CALL add_and_commit(7)",
  } do
    it("is not ended by what one of its statements does: " .. sql, function()
      local seen = server:call("/ending", { sql = sql })
      assert.is_false(seen.ok)
      assert.equal("2D000", seen.report.sqlstate)
      assert.equal(2, seen.report.item)
      assert.equal(line("-- the one that ends it"), seen.report.where)
      assert.equal(0, server.db:count("numbers"))
    end)

    it("leaves what stands alone to end its own transaction: " .. sql, function()
      for _, queued in ipairs { true, false } do
        server.db:exec("truncate numbers, parts")
        assert.equal(204, server:post("/alone", { sql = sql, queued = queued }).status)
        assert.equal(sql:lower():find("call", 1, true) and 1 or 0, server.db:count("numbers"))
      end
    end)
  end

  it("cannot have what runs in no transaction", function()
    local seen = server:call("/ending", { sql = "vacuum numbers" })
    assert.equal("25001", seen.report.sqlstate)
    assert.equal(2, seen.report.item)
    assert.equal(204, server:post("/alone", { sql = "vacuum numbers" }).status)
  end)

  it("has the results of CALL and DO among the others", function()
    assert.same({ n = 4, added = 1, count = 2, found = 2, rows = 4 }, server:call("/mixed"))
    assert.equal(4, server.db:count("numbers"))
  end)

  it("names the statement that fails behind CALL or DO, and stores nothing", function()
    for _, sql in ipairs { "do $$ begin end $$", "call add(7, 0)", "create table other ()" } do
      local seen = server:call("/ending", { sql = sql })
      assert.equal(4, seen.report.item)
      assert.equal("add_number", seen.report.statement)
      assert.equal("23505", seen.report.sqlstate)
      assert.equal(line("-- the one that fails"), seen.report.where)
      assert.equal(0, server.db:count("numbers"))
    end
  end)

  local function sessions(condition)
    return server.db:value("select count(*) from pg_stat_activity where datname = current_database() "
      .. "and pid <> pg_backend_pid() and " .. condition)
  end

  for _, kind in ipairs { "statements", "calls", "values" } do
    it("is not stored in part when its client hangs up, however large: " .. kind, function()
      local connection = server:begin("POST", "/big/" .. kind, { json = {} })
      support.eventually("the batch to sleep", function() return sessions("wait_event = 'PgSleep'") == 1 end)
      connection:close()
      support.eventually("no session at work", function() return sessions("state <> 'idle'") == 0 end)
      assert.equal(0, server.db:count("numbers"))
    end)
  end

  it("has its results, and says where it fails, however large", function()
    for _, count in ipairs { 1, 998, 999, 1000, 1500 } do
      server.db:exec("truncate numbers, parts")
      local seen = server:call("/growing/" .. count)
      assert.is_false(seen.ok)
      assert.equal(count + 1, seen.report.item)
      assert.equal(line("-- there already"), seen.report.where)
      assert.equal(count, seen.rows)
      assert.equal(count, server.db:count("numbers"))
    end
  end)

  it("names its last statement where it fails at its end, be CALL or DO in it", function()
    local seen = server:call("/failing-at-its-end")
    assert.is_false(seen.ok)
    assert.equal(2, seen.report.item)
    assert.equal("add_part", seen.report.statement)
    assert.equal("23503", seen.report.sqlstate)
    assert.equal("parts_n_fkey", seen.report.constraint)
    assert.equal(line("-- the last one"), seen.report.where)
    assert.equal(0, server.db:count("numbers"))
  end)
end)

describe("a batch that is larger than Lua's memory", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--lua-memory", "16MiB", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  it("fails while it is queued, and the next one is not charged for it", function()
    for _ = 1, 3 do
      support.problem(server:post("/hoard", {}), 500, "out-of-memory")
      assert.equal(0, server.db:count("numbers"))
    end
    for _ = 1, 20 do
      assert.equal(200, server:post("/large", {}).status)
    end
  end)
end)
