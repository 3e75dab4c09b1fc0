local support = require "spec.support"

local MIGRATION = [[
create domain money_amount as numeric(12, 2);
create table items (id integer primary key, name text, price float8);
create table everything (
  id bigint, small smallint, price numeric, amount money_amount, ratio float8, seen boolean, name text, data jsonb,
  tags text[], numbers integer[], at timestamptz, bytes bytea, token uuid
);
create schema other;
create table other."odd ""name" ("a column" integer, b text);
create table slow (id integer);
create function hesitate() returns trigger language plpgsql as $$
begin
  perform pg_sleep(60);
  return new;
end
$$;
create trigger slow before insert on slow for each row execute function hesitate();
create table loud (id integer);
create function shout() returns trigger language plpgsql as $$
begin
  raise warning 'row % %', new.id, repeat('x', 1000);
  return new;
end
$$;
create trigger loud before insert on loud for each row execute function shout();
]]

local STATEMENTS = [[
-- name: get_everything :many
select *, encode(bytes, 'hex') as hex from everything order by id;
]]

local SCRIPT = [[
local app = require "moonpool"
local db, json = app.db, app.json
local COLUMNS = { "id", "name", "price" }

local function report(ok, err)
  if ok then
    return { ok = true, count = err }
  elseif type(err) ~= "table" then
    return { message = tostring(err) }
  end
  return {
    code = err.code, message = err.message, sqlstate = err.sqlstate, constraint = err.constraint, row = err.row,
    where = err.where,
  }
end

local function rows_up_to(count, change)
  local n = 0
  return function()
    n = n + 1
    if n <= count then
      local row = { n, "name " .. n, n / 4 }
      return change and change(n, row) or row
    end
  end
end

app.post("/table", function()
  return { count = db:copy_from("items", COLUMNS, { { 1, "one", 0.5 }, { 2, nil, 1 }, { 3, json.null, nil } }) }
end)

app.post("/none", function()
  return { list = db:copy_from("items", COLUMNS, {}), iterator = db:copy_from("items", COLUMNS, function() end) }
end)

app.post("/many/{count}", { deadline = 60 }, function(req)
  return { count = db:copy_from("items", COLUMNS, rows_up_to(math.tointeger(tonumber(req.params.count)))) }
end)

app.post("/around", function()
  return db:transaction(function(tx)
    tx:queue("insert into items values (1, 'queued before', 1)")
    local count = tx:copy_from("items", COLUMNS, { { 2, "copied", 2 } })
    tx:queue("insert into items values (3, 'queued behind', 3)")
    return { count = count, seen = tx:query_row("select count(*) as n from items").n }
  end)
end)

app.post("/twice", function()
  return db:transaction(function(tx)
    local first = tx:copy_from("items", COLUMNS, rows_up_to(10))
    local second = tx:copy_from("items", { "id" }, { { 11 }, { 12 } })
    return { first = first, second = second }
  end)
end)

app.post("/everything", function()
  db:copy_from("everything", { "id", "small", "price", "amount", "ratio", "seen", "name", "data", "tags", "numbers",
    "at", "bytes", "token" }, {
    { 9007199254740993, 2.0, 0.1, 12.5, 1e300, true, "tab\there\\ line\nfeed\r \\N \\.", { a = { 1, 2 } },
      { 'with "quotes"', "and, comma", "{}", "\\" }, { 1, json.null, 3 }, "2026-11-23T10:00:00Z", "\0\1\\\xff",
      "6f0e6a2c-43d6-4b4a-8df0-9d2f8a0f3c11" },
    { -1, -5, 12345.678, 0, 0 / 0, false, "", "null", {}, json.empty_array, "infinity", "", nil },
    { 5 },
  })
  return db:query("get_everything")
end)

app.post("/odd", function()
  return { count = db:copy_from('other.odd "name', { "a column", "b" }, { { 1, "x" } }) }
end)

app.post("/bad/{row}/{count}", { deadline = 60 }, function(req)
  local bad, count = math.tointeger(tonumber(req.params.row)), math.tointeger(tonumber(req.params.count))
  local made = 0
  local seen = report(pcall(db.copy_from, db, "items", COLUMNS, rows_up_to(count, function(n, row) -- bad
    made = n
    if n == bad then
      row[3] = "not a number"
    end
    return row
  end)))
  seen.made = made
  return seen
end)

app.post("/taken", function()
  db:copy_from("items", COLUMNS, { { 1, "a", 1 }, { 2, "b", 1 }, { 1, "c", 1 } })
end)

app.post("/missing/{table}/{column}", function(req)
  return report(pcall(db.copy_from, db, req.params.table, { req.params.column }, { { 1 } }))
end)

local REFUSED = {
  fraction = { { 1, "a", 1 }, { 1.5, "b", 1 } },
  nul = { { 1, "a\0b", 1 } },
  ["function"] = { { 1, print, 1 } },
  wide = { { 1, "a", 1 }, { 2, "b", 1 }, { 3, "c", 1, 9 } },
  named = { { id = 1, name = "a" } },
  number = { { 1, "a", 1 }, 5 },
}

app.post("/refused/{what}", function(req)
  return report(pcall(db.copy_from, db, "items", COLUMNS, REFUSED[req.params.what]))
end)

app.post("/arguments", function()
  local seen = {}
  for i, arguments in ipairs {
    { "items", COLUMNS }, { "items", COLUMNS, 5 }, { nil, COLUMNS, {} }, { "items", {}, {} }, { "items", "id", {} },
    { "items", { "id", 5 }, {} }, { "", COLUMNS, {} },
  } do
    seen[i] = report(pcall(db.copy_from, db, table.unpack(arguments, 1, 3))).message
  end
  return seen
end)

app.post("/raising", function()
  return report(pcall(db.copy_from, db, "items", COLUMNS, rows_up_to(100000, function(n, row)
    return n < 50000 and row or error("no more") -- raised here
  end)))
end)

app.post("/savepoint", function()
  return db:transaction(function(tx)
    tx:copy_from("items", COLUMNS, { { 1, "kept", 1 } })
    local raised = pcall(tx.savepoint, tx, function()
      tx:copy_from("items", COLUMNS, rows_up_to(10, function() error("no more") end))
    end)
    local refused = pcall(tx.savepoint, tx, function()
      tx:copy_from("items", COLUMNS, { { 1, "taken", 1 } })
    end)
    return { raised = raised, refused = refused, count = tx:copy_from("items", COLUMNS, { { 2, "kept", 2 } }) }
  end)
end)

app.post("/meanwhile/{what}", function(req)
  local seen
  local ok = pcall(db.transaction, db, function(tx)
    tx:copy_from("items", COLUMNS, rows_up_to(3, function(n, row)
      if n == 2 then
        local attempts = {
          query = function() tx:query("select 1") end,
          queue = function() tx:queue("select 1") end,
          commit = function() tx:commit() end,
          copy = function() tx:copy_from("items", COLUMNS, {}) end,
          db = function() db:query("select 1") end,
        }
        seen = report(pcall(attempts[req.params.what]))
      end
      return row
    end))
  end)
  return { ok = ok, message = seen.message }
end)

app.post("/rolled-back", function()
  return report(pcall(db.transaction, db, function(tx)
    tx:copy_from("items", COLUMNS, rows_up_to(3, function(n, row)
      tx:rollback()
      return row
    end))
  end))
end)

app.post("/coroutine", function()
  local rows = coroutine.wrap(function()
    for n = 1, 3 do
      coroutine.yield { n, "from a coroutine", n }
    end
  end)
  return { count = db:copy_from("items", COLUMNS, rows) }
end)

app.post("/slow", { deadline = 1 }, function() db:copy_from("slow", { "id" }, { { 1 } }) end)

app.post("/endless", { deadline = 1 }, function()
  db:copy_from("items", COLUMNS, rows_up_to(math.huge))
end)

app.post("/endless-refused", { deadline = 60 }, function()
  db:copy_from("items", COLUMNS, rows_up_to(math.huge, function(n, row)
    if n == 1000 then
      row[1] = 1
    end
    return row
  end))
end)

app.post("/loud", { deadline = 30 }, function()
  return { count = db:copy_from("loud", { "id" }, rows_up_to(5000, function(n) return { n } end)) }
end)

app.post("/slow-long", { deadline = 60 }, function() db:copy_from("slow", { "id" }, { { 1 } }) end)

app.get("/pid", function()
  return db:transaction(function(tx) return tx:query_row("select pg_backend_pid() as pid") end)
end)
]]

describe("copy_from", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--pool-max", "1", "--lanes", "0", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)
  before_each(function() server.db:exec("truncate items, everything, slow, loud") end)

  local function pid()
    return server:get("/pid"):json().pid
  end

  it("stores a list of rows, and says how many", function()
    assert.same({ count = 3 }, server:call("/table"))
    assert.equal("1 one 0.5|2 - 1|3 - -", server.db:value([[select string_agg(concat_ws(' ', id, coalesce(name, '-'),
      coalesce(price::text, '-')), '|' order by id) from items]]))
  end)

  it("stores no rows at all", function()
    assert.same({ list = 0, iterator = 0 }, server:call("/none"))
  end)

  it("stores 100,000 rows from an iterator", function()
    assert.same({ count = 100000 }, server:call("/many/100000"))
    assert.equal(100000, server.db:count("items"))
    assert.equal("name 77777", server.db:value("select name from items where id = 77777 and price = 19444.25"))
  end)

  it("holds few of them in memory", function()
    server:call("/many/1000")
    local worker = server:workers()[1]
    local before = support.shell.peak_memory(worker)
    server.db:exec("truncate items")
    server:call("/many/300000")
    if not support.environment.is_sanitized() then
      local grown = support.shell.peak_memory(worker) - before
      assert.is_true(grown < 16 << 20, grown .. " bytes more")
    end
  end)

  it("keeps its place among the statements around it", function()
    assert.same({ count = 1, seen = 3 }, server:call("/around"))
    assert.equal(3, server.db:count("items"))
  end)

  it("may be called again in the same transaction", function()
    assert.same({ first = 10, second = 2 }, server:call("/twice"))
  end)

  it("stores values of every type exactly", function()
    local answer = server:post("/everything", {})
    assert.equal(200, answer.status, answer.body)
    for _, expected in ipairs {
      [=["id":9007199254740993,"small":2,"price":0.1,"amount":12.50,"ratio":1e+300,"seen":true]=],
      [=["name":"tab\there\\ line\nfeed\r \\N \\.","data":{"a": [1, 2]}]=],
      [=["tags":["with \"quotes\"","and, comma","{}","\\"],"numbers":[1,null,3],"at":"2026-11-23T10:00:00Z"]=],
      [=["token":"6f0e6a2c-43d6-4b4a-8df0-9d2f8a0f3c11","hex":"00015cff"]=],
      [=["id":-1,"small":-5,"price":12345.678,"amount":0.00,"ratio":"NaN","seen":false,"name":""]=],
      [=["id":5,"small":null,"price":null,"amount":null,"ratio":null,"seen":null,"name":null,"data":null,"tags":null]=],
    } do
      assert.is_truthy(answer.body:find(expected, 1, true), expected .. " in " .. answer.body)
    end
  end)

  it("takes names literally, with or without their schema", function()
    assert.same({ count = 1 }, server:call("/odd"))
    assert.equal("x", server.db:value([[select b from other."odd ""name" where "a column" = 1]]))
  end)

  it("names the row that PostgreSQL refuses, and stores none", function()
    local seen = server:call("/bad/70000/100000")
    assert.equal("invalid", seen.code)
    assert.equal("22P02", seen.sqlstate)
    assert.equal(70000, seen.row)
    assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- bad"), seen.where)
    assert.equal(0, server.db:count("items"))
    assert.equal(70000, server:call("/bad/70000/70000").row)
    assert.equal(1, server:call("/bad/1/1").row)
  end)

  it("answers 409 with the row and the constraint where a row is there already", function()
    local document = support.problem(server:post("/taken", {}), 409, "conflict")
    assert.equal("items_pkey", document.constraint)
    assert.equal(3, document.row)
    assert.equal(0, server.db:count("items"))
  end)

  it("stops soon after the row that was refused, though there is no last one", function()
    assert.equal(409, server:post("/endless-refused", {}).status)
    assert.equal(0, server.db:count("items"))
  end)

  it("is not disturbed by warnings that come on the way", function()
    assert.same({ count = 5000 }, server:call("/loud"))
  end)

  it("says that there is no such table or column", function()
    assert.equal("42P01", server:call("/missing/nothing/id").sqlstate)
    local column = server:call("/missing/items/nothing")
    assert.equal("42703", column.sqlstate)
    assert.matches("spec.lua", column.where)
  end)

  for what, expected in pairs {
    fraction = { 2, "fraction" }, nul = { 1, "NUL" }, ["function"] = { 1, "function" }, wide = { 3, "more values" },
    named = { 1, "no sequence" }, number = { 2, "no table" },
  } do
    it("names the row that it cannot take: " .. what, function()
      local seen = server:call("/refused/" .. what)
      assert.equal(expected[1], seen.row)
      assert.matches(expected[2], seen.message)
      assert.equal(0, server.db:count("items"))
    end)
  end

  it("explains what it was called with in vain", function()
    local seen = server:call("/arguments")
    assert.equal(7, #seen)
    for _, message in ipairs(seen) do
      assert.matches("copy_from needs", message)
    end
  end)

  it("stores nothing when its iterator raises, and the error goes on", function()
    local seen = server:call("/raising")
    assert.equal("scripts/spec.lua:" .. support.line_of(SCRIPT, "-- raised here") .. ": no more", seen.message)
    assert.equal(0, server.db:count("items"))
    assert.same({ count = 3 }, server:call("/table"))
  end)

  it("is taken back by a savepoint, and the transaction goes on", function()
    assert.same({ raised = false, refused = false, count = 1 }, server:call("/savepoint"))
    assert.equal("kept,kept", server.db:value("select string_agg(name, ',') from items"))
  end)

  for _, what in ipairs { "query", "queue", "commit", "copy", "db" } do
    it("lets nothing else be done in between: " .. what, function()
      local seen = server:call("/meanwhile/" .. what)
      assert.matches(what == "db" and "a transaction is open" or "a copy_from is under way", seen.message)
      assert.matches("^scripts/spec.lua:%d+: ", seen.message)
      assert.is_true(seen.ok)
      assert.equal(3, server.db:count("items"))
    end)
  end

  it("ends when its iterator rolls the transaction back", function()
    assert.matches("was rolled back", server:call("/rolled-back").message)
    assert.equal(0, server.db:count("items"))
    assert.same({ count = 3 }, server:call("/table"))
  end)

  it("takes its rows from a coroutine", function()
    assert.same({ count = 3 }, server:call("/coroutine"))
  end)

  it("ends at the deadline while the server is at a row", function()
    support.problem(server:post("/slow", {}), 504, "deadline-exceeded")
    server.db:wait_running("copy%", false)
    assert.equal(0, server.db:count("slow"))
    assert.same({ count = 3 }, server:call("/table"))
  end)

  it("ends at the deadline while rows are made", function()
    support.problem(server:post("/endless", {}), 504, "deadline-exceeded")
    server.db:wait_running("copy%", false)
    assert.equal(0, server.db:count("items"))
    assert.same({ count = 3 }, server:call("/table"))
  end)

  it("is cancelled when its client hangs up", function()
    local connection = server:begin("POST", "/slow-long", { json = {} })
    server.db:wait_running("copy%")
    connection:close()
    server.db:wait_running("copy%", false)
    assert.same({ count = 3 }, server:call("/table"))
  end)

  it("fails with its connection, and the next one works", function()
    local connection = server:begin("POST", "/slow-long", { json = {} })
    server.db:wait_running("copy%")
    server.db:exec([[select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and query like 'copy%']])
    support.problem(connection:receive(), 503, "database-unavailable")
    connection:close()
    support.eventually("a session", function() return server:get("/pid").status == 200 end)
    assert.same({ count = 3 }, server:call("/table"))
  end)

  it("leaves the session as it was", function()
    local before = pid()
    for _, path in ipairs { "/table", "/taken", "/raising", "/rolled-back", "/bad/1/10", "/refused/nul" } do
      server:post(path, {})
      server.db:exec("truncate items")
    end
    assert.equal(before, pid())
    -- One whose cancellation takes too long is replaced.
    support.eventually("a session to be kept when its copy_from is cancelled", function()
      before = pid()
      support.problem(server:post("/slow", {}), 504, "deadline-exceeded")
      return pid() == before
    end)
    support.eventually("one session at most", function() return server.db:sessions() <= 1 end)
  end)
end)
