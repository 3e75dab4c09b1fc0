-- Scripts that do what they should not: each fails by itself, and the worker goes on.
local support = require "spec.support"

local MIGRATION = [[
create table numbers (n integer not null primary key);
create table documents (text text, json jsonb);
]]

local STATEMENTS = [[
-- name: add_documents :bulk
insert into documents (text, json) select * from unnest($1::text[], $2::jsonb[]);

-- name: echo :one
select $1::json[] as values;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

-- What a script may do to a transaction while a value for it is encoded.
local USES = {
  queue = function(tx) for _ = 1, 20 do tx:queue("select 1") end end,
  flush = function(tx) tx:flush() end,
  rollback = function(tx) tx:rollback() end,
}
local CALLS = {
  statement = function(tx, value) tx:queue("select $1::json", value) end,
  element = function(tx, value) tx:queue("echo", { 1, value }) end,
  row = function(tx, value) tx:queue("add_documents", "a rather long text", value) end,
  copy = function(tx, value) tx:copy_from("documents", { "text", "json" }, { { "a", value } }) end,
}
app.get("/use-in-json/{use}/{call}", { deadline = 5 }, function(req)
  local tx = db:begin()
  local value = setmetatable({}, { __json = function()
    USES[req.params.use](tx)
    return { 1 }
  end })
  tx:exec("select 1")
  tx:queue("add_documents", "a", { 1 })
  local ok, err = pcall(CALLS[req.params.call], tx, value)
  return { ok = ok, text = tostring(err) }
end)
app.get("/usable", { deadline = 5 }, function()
  return db:transaction(function(tx) return tx:query_row("select count(*) as count from documents") end)
end)
local kept
local group = db:group("misused", function(_, inputs) return inputs end)

app.get("/begin-in-json", function()
  local value = setmetatable({}, { __json = function()
    db:begin()
    return { 1 }
  end })
  local ok, err = pcall(db.query, db, "select $1::json", value)
  return { ok = ok, text = tostring(err) }
end)

-- Larger than any number there is, and PostgreSQL's text of it goes on as it is.
app.get("/unreadable-input", { deadline = 20 }, function()
  local ok, err = pcall(group, db:query_row("select '1e400'::jsonb as number"))
  return { ok = ok, text = tostring(err) }
end)
app.get("/readable-input", { deadline = 20 }, function() return group { number = 1 } end)

app.get("/refused-parameters", { deadline = 20 }, function()
  local large, refused = ("x"):rep(1000000), 0
  db:transaction(function(tx)
    tx:exec("select 1")
    for _ = 1, 600 do
      local _, err = pcall(tx.queue, tx, "select $1, $2", large, print)
      refused = refused + (type(err) == "table" and err.code == "out-of-memory" and 1 or 0)
    end
  end)
  return { refused = refused }
end)

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

-- What pcall caught, as text.
local function caught(ok, err)
  return { ok = ok, message = tostring(err) }
end

local function add(tx, n) return tx:exec("insert into numbers values ($1)", n) end

local misuses = {}

function misuses.committed()
  local tx
  db:transaction(function(inner) tx = inner end) -- begun here
  tx:query("select 1") -- used here
end

function misuses.rolled_back()
  local tx = db:begin() -- begun here, too
  tx:rollback()
  tx:rollback()
  tx:commit()
end

function misuses.nested()
  db:transaction(function() -- the outer one
    db:transaction(function() end)
  end)
end

function misuses.nested_begin()
  db:transaction(function() db:begin() end)
end

function misuses.past_it()
  db:transaction(function() db:query("select 1") end)
end

function misuses.grouped()
  db:transaction(function() group(1) end)
end

function misuses.sent_twice()
  db:transaction(function(tx)
    tx:queue("select 1")
    tx:send_batch() -- sent here
    tx:send_batch()
  end)
end

function misuses.sent_by_query()
  db:transaction(function(tx)
    tx:queue("select 1")
    tx:query("select 2") -- this sent it
    tx:send_batch()
  end)
end

function misuses.sent_twice_without()
  db:queue("select 1")
  db:send_batch()
  db:send_batch()
end

function misuses.after_failure()
  db:transaction(function(tx)
    pcall(add, tx, nil) -- fails first
    pcall(add, tx, 1)
    add(tx, 2)
  end)
end

function misuses.behind_failure()
  db:transaction(function(tx) pcall(tx.exec, tx, "insert into numbers values (1), (1)") end)
end

function misuses.committed_by_sql()
  db:transaction({ retries = 2 }, function(tx)
    add(tx, 1)
    tx:exec("commit;") -- not by SQL
    tx:exec("do $$ begin raise exception using errcode = 'serialization_failure'; end $$")
  end)
end

function misuses.savepoint_without()
  db:transaction(function(tx) tx:savepoint() end)
end

function misuses.savepoint_committed()
  db:transaction(function(tx)
    tx:savepoint(function() tx:commit() end)
  end)
end

function misuses.no_name()
  db:query("no_such_statement")
end

app.post("/batch-sql", function(req)
  db:queue("insert into numbers values (1)")
  db:queue(req.body.sql) -- in a batch
  db:queue("insert into numbers values (2)")
  db:send_batch()
  return 204
end)
app.post("/sql", function(req)
  db:transaction(function(tx)
    add(tx, 1)
    tx:exec("savepoint s")
    tx:exec(req.body.sql)
    add(tx, 2)
  end)
  return 204
end)

app.post("/misuse/{name}", function(req) return caught(pcall(misuses[req.params.name])) end)
app.post("/misuse-uncaught/{name}", function(req) misuses[req.params.name]() end)

app.post("/savepoint-swallowed", function()
  return db:transaction(function(tx)
    local seen = caught(pcall(tx.savepoint, tx, function() pcall(add, tx, nil) end))
    add(tx, 3)
    return seen
  end)
end)

app.post("/savepoints", function()
  return db:transaction(function(tx)
    tx:savepoint(function()
      add(tx, 1)
      pcall(tx.savepoint, tx, function()
        add(tx, 2)
        error("inner")
      end)
      add(tx, 3)
    end)
    return tx:query("select n from numbers order by n")
  end)
end)

app.post("/coroutine", function()
  return db:transaction(function(tx)
    local co = coroutine.wrap(function()
      for n = 1, 3 do
        coroutine.yield(add(tx, n))
      end
    end)
    return { added = co() + co() + co() }
  end)
end)

app.post("/empty-batches", function()
  return db:transaction(function(tx)
    local first = tx:send_batch().n
    tx:queue("select 1")
    return { first = first, second = tx:send_batch().n }
  end)
end)

local shared

app.post("/hold", { deadline = 60 }, function()
  shared = db:begin()
  shared:query("select pg_sleep(60)")
end)

app.post("/steal", function() return caught(pcall(shared.query, shared, "select 1")) end)

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
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
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

  for _, use in ipairs { "queue", "flush", "rollback" } do
    for _, call in ipairs { "statement", "element", "row", "copy" } do
      it(("uses its transaction while a value is encoded is told so: %s, of %s"):format(use, call), function()
        local worker = server:workers()[1]
        local told = server:get(("/use-in-json/%s/%s"):format(use, call)):value()
        assert.is_false(told.ok)
        local refused = told.text:find("__json must not", 1, true) or told.text:find("copy_from is under way", 1, true)
        assert.is_truthy(refused, told.text)
        -- By the session that it had, which is clean.
        for _ = 1, 2 do
          assert.same({ count = 0 }, server:get("/usable"):value())
        end
        assert_alive(worker)
      end)
    end
  end

  it("begins a transaction while a value is encoded is told so", function()
    local told = server:get("/begin-in-json"):value()
    assert.is_false(told.ok)
    assert.is_truthy(told.text:find("__json must not", 1, true), told.text)
  end)

  it("gives a group what nobody can read fails alone", function()
    local told = server:get("/unreadable-input"):value()
    assert.is_false(told.ok)
    assert.is_truthy(told.text:find("has to be JSON that can be read again", 1, true), told.text)
    assert.same({ number = 1 }, server:get("/readable-input"):value())
  end)

  it("goes on queueing what is refused gets no more memory for it", function()
    local refused = server:get("/refused-parameters"):value().refused
    assert.is_true(refused > 200, refused)
  end)

  it("reads much more than its memory, one result after the other, succeeds", function()
    assert.same({ length = 40 * 10000000 }, server:get("/large"):json())
  end)

  it("keeps a result across requests is told that it is over", function()
    assert.equal(200, server:get("/keep").status)
    support.problem(server:get("/keep"), 500)
    server:wait_log("belongs to a request that is over")
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

  local function line(text)
    return "scripts/spec.lua:" .. support.line_of(SCRIPT, text)
  end

  for name, expected in pairs {
    committed = { line("-- used here") .. ": ", line("-- begun here\n"), "was committed" },
    rolled_back = { line("-- begun here, too"), "was rolled back" },
    nested = { line("db:transaction(function() end)"), line("-- the outer one"), "savepoint" },
    nested_begin = { line("db:transaction(function() db:begin()"), "a transaction is open already" },
    past_it = { line("db:transaction(function() db:query"), "a transaction is open: use its own methods" },
    grouped = { line("db:transaction(function() group(1)"), "a transaction is open: a group cannot be joined" },
    sent_twice = { "nothing is queued", line("-- sent here") },
    sent_by_query = { "nothing is queued", line("-- this sent it") },
    sent_twice_without = { "nothing is queued" },
    after_failure = { line("local function add(tx, n)"), "has failed before", "null value in column" },
    behind_failure = { line("pcall(tx.exec, tx"), "duplicate key" },
    committed_by_sql = { line("-- not by SQL"), "must not be ended by SQL" },
    savepoint_without = { line("tx:savepoint() end"), "needs a function" },
    savepoint_committed = { "was committed" },
    no_name = { line('db:query("no_such_statement")'), "no statement named" },
  } do
    it("misuses the database hears where, and of what: " .. name, function()
      local seen = server:post("/misuse/" .. name, {}):json()
      assert.is_false(seen.ok)
      for _, text in ipairs(expected) do
        assert.is_truthy(seen.message:find(text, 1, true), text .. " in " .. seen.message)
      end
      assert.equal(0, server.db:count("numbers"))
      support.eventually("no transaction to be left open", function()
        return server.db:value("select count(*) from pg_stat_activity "
          .. "where datname = current_database() and state like 'idle in trans%'") == 0
      end)
    end)
  end

  for _, sql in ipairs { "Rollback;", "end work", "/* a */; abort", "prepare transaction 'a'", "commit and chain" } do
    it("ends its transaction by SQL is told so, and nothing is committed: " .. sql, function()
      local offset = #server:log()
      support.problem(server:post("/sql", { sql = sql }), 500, "script-error")
      server:wait_log("must not be ended by SQL", offset)
      assert.equal(0, server.db:count("numbers"))
    end)
  end

  for sql, message in pairs {
    ["commit;"] = "must not be ended by SQL",
    ["rollback;"] = "must not be ended by SQL",
    ["begin;"] = "must not be begun by SQL",
    ["START TRANSACTION read only"] = "must not be begun by SQL",
  } do
    it("has SQL for a transaction in a batch is told so, and nothing of it is stored: " .. sql, function()
      local offset = #server:log()
      support.problem(server:post("/batch-sql", { sql = sql }), 500, "script-error")
      assert.is_truthy(server:wait_log(message, offset):find("where=" .. line("-- in a batch"), 1, true))
      assert.equal(0, server.db:count("numbers"))
    end)
  end

  for _, sql in ipairs {
    "rollback to s", "begin;", "prepare ending as select 1", "prepare work as select 1",
    "prepare transaction as select 1", "prepare transaction (int) as select $1",
  } do
    it("does not end its transaction by SQL may go on: " .. sql, function()
      assert.equal(204, server:post("/sql", { sql = sql }).status)
      assert.equal(2, server.db:count("numbers"))
    end)
  end

  it("forgets a failed statement is answered with that failure, and nothing is committed", function()
    local document = support.problem(server:post("/misuse-uncaught/behind_failure", {}), 409, "conflict")
    assert.equal("numbers_pkey", document.constraint)
    assert.equal(0, server.db:count("numbers"))
  end)

  it("forgets a failed statement behind a savepoint goes back to it", function()
    local seen = server:post("/savepoint-swallowed", {}):json()
    assert.is_false(seen.ok)
    assert.matches("null value", seen.message)
    assert.equal(3, server.db:value("select n from numbers"))
  end)

  it("puts savepoints into each other undoes the inner one alone", function()
    assert.equal('[{"n":1},{"n":3}]', server:post("/savepoints", {}).body)
  end)

  it("uses a transaction in a coroutine may do so", function()
    assert.same({ added = 3 }, server:post("/coroutine", {}):json())
    assert.equal(3, server.db:count("numbers"))
  end)

  it("sends an empty batch gets no results", function()
    assert.same({ first = 0, second = 1 }, server:post("/empty-batches", {}):json())
  end)

  it("uses the transaction of another request is told so", function()
    local holding = server:begin("POST", "/hold", { json = {} })
    server.db:wait_running("%pg_sleep(60)%")
    local seen = server:post("/steal", {}):json()
    holding:close()
    server.db:wait_running("%pg_sleep(60)%", false)
    assert.is_false(seen.ok)
    assert.matches("belongs to another request", seen.message)
    assert.is_truthy(seen.message:find(line("shared = db:begin()"), 1, true), seen.message)
  end)

  it("uses a transaction whose request is over is told so", function()
    local holding = server:begin("POST", "/hold", { json = {} })
    server.db:wait_running("%pg_sleep(60)%")
    holding:close()
    server.db:wait_running("%pg_sleep(60)%", false)
    support.eventually("the request to be over", function()
      return server:post("/steal", {}):json().message:find("ended with its request", 1, true)
    end)
  end)
end)
