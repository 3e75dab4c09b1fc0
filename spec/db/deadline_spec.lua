-- Deadlines: what is asserted is that an answer comes at all, long before the work would be done.
local socket = require "socket"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.get("/sleep/{seconds}", { deadline = 1 }, function(req)
  db:query("select pg_sleep($1)", tonumber(req.params.seconds))
  return 200, { slept = true }
end)

app.get("/sleep-in-time", { deadline = 30 }, function()
  db:query("select pg_sleep(0.1)")
  return 200, { slept = true }
end)

app.get("/sleep-beside", { deadline = 3 }, function()
  db:query("select pg_sleep(60)")
end)

app.get("/sleep-long", { deadline = 60 }, function()
  db:query("select pg_sleep(60)")
  return 200, { slept = true }
end)

app.get("/wait", { deadline = 60 }, function()
  return 200, db:transaction(function(tx) return tx:query_row("select 1 as one from pg_advisory_xact_lock(1)") end)
end)

app.get("/sleep-in-transaction", { deadline = 1 }, function()
  db:transaction(function(tx)
    tx:exec("insert into notes values ('left')")
    tx:query("select pg_sleep(60)")
  end)
end)

app.get("/locked", { deadline = 1 }, function()
  db:transaction(function(tx) tx:exec("insert into notes values ('locked')") end)
end)

app.get("/locked-alone", { deadline = 1 }, function()
  db:exec("insert into notes values ('locked')")
end)

app.get("/turn", { deadline = 1 }, function()
  db:transaction({ serialize = "notes" }, function(tx) tx:exec("insert into notes values ('turn')") end)
end)

app.get("/turn-long", { deadline = 60 }, function()
  db:transaction({ serialize = "notes" }, function(tx) tx:query("select pg_sleep(60)") end)
end)

app.get("/swallow", { deadline = 1 }, function()
  while true do
    pcall(db.query, db, "select pg_sleep(60)")
  end
end)

app.get("/spin", { deadline = 1 }, function()
  while true do end
end)

app.get("/compute", { deadline = 60 }, function()
  while true do end
end)

app.get("/woken", { deadline = 60 }, function()
  return 200, db:transaction(function(tx)
    tx:query("select pg_sleep(0.2)")
    return tx:query_row("select 1 as one")
  end)
end)

app.get("/crowd", { deadline = 60 }, function()
  local enough = os.clock() + 0.015
  while os.clock() < enough do end
  return {}
end)

app.get("/crowded", { deadline = 0.05 }, function()
  while true do end
end)

app.get("/spin-protected", { deadline = 1 }, function()
  while true do
    pcall(function() while true do end end)
  end
end)

app.get("/spin-inside", { deadline = 1 }, function()
  local inner = coroutine.wrap(function() while true do end end)
  inner()
end)

app.get("/spin-sort", { deadline = 1 }, function()
  table.sort({ 1, 2, 3 }, function() while true do end end)
end)

app.get("/limits", { deadline = 30 }, function(req)
  local left = req:left()
  return db:transaction(function(tx)
    local row = tx:query_row("select setting::int as servers from pg_settings where name = 'statement_timeout'")
    return { servers = row.servers, left_before = left, left_after = req:left() }
  end)
end)
app.get("/quick", function() return 200, db:query_row("select 1 as one") end)
app.get("/hurried", { deadline = 1 }, function() return 200, db:query_row("select 1 as one") end)
app.get("/lua", function() return 200, { lua = true } end)
app.get("/left", { deadline = 30 }, function(req) return 200, { left = req:left() } end)
]]

local BOUND = 10 -- seconds; a hang takes longer, and the work itself 60

describe("a deadline", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      migration = "create table notes (body text not null);",
      flags = { "--pool-max", "1", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  before_each(function() server.db:wait_running("%pg_sleep%", false) end)

  local function bounded(path)
    local started = socket.gettime()
    local answer = server:get(path)
    assert.is_true(socket.gettime() - started < BOUND, "it took too long")
    return answer
  end

  local function wait_usable()
    support.eventually("the connection to be usable", function()
      return server:get("/quick").status == 200
    end)
  end

  it("that is kept changes nothing", function()
    assert.same({ slept = true }, bounded("/sleep-in-time"):value())
  end)

  it("ends a statement with 504, on the server too", function()
    support.problem(bounded("/sleep/60"), 504, "deadline-exceeded")
    server.db:wait_running("%pg_sleep%", false)
    wait_usable()
  end)

  it("ends a transaction, which leaves nothing", function()
    support.problem(bounded("/sleep-in-transaction"), 504, "deadline-exceeded")
    wait_usable()
    assert.equal(0, server.db:count("notes"))
  end)

  it("ends the wait for a lock", function()
    local session = server.db:session()
    session:exec("begin; lock table notes")
    support.problem(bounded("/locked"), 504, "deadline-exceeded")
    -- Of a write that stands for itself nothing is known until it has been cancelled.
    local answer = bounded("/locked-alone")
    if answer.status ~= 500 then
      support.problem(answer, 504, "deadline-exceeded")
    else
      support.problem(answer, 500, "outcome-unknown")
    end
    wait_usable()
    session:close()
    assert.equal(0, server.db:count("notes"))
  end)

  it("ends the wait for a turn that the database keeps from it", function()
    local session = server.db:session()
    session:exec("begin; lock table notes")
    support.problem(bounded("/turn"), 504, "deadline-exceeded")
    wait_usable()
    session:close()
    assert.equal(0, server.db:count("notes"))
  end)

  it("ends the wait for a turn that another transaction of its worker has", function()
    local first = server:begin("GET", "/turn-long")
    server.db:wait_running("%pg_sleep%")
    local answer = bounded("/turn")
    support.problem(answer, 503, "queue-timeout")
    assert.is_not_nil(tonumber(answer.headers["retry-after"]))
    assert.is_true(server.db:is_running("%pg_sleep%"), "the first goes on")
    first:close()
    wait_usable()
    assert.equal(0, server.db:count("notes"))
  end)

  it("ends the wait for a connection with 503 and Retry-After", function()
    local session = server.db:session()
    session:exec("select pg_advisory_lock(1)")
    local busy = server:begin("GET", "/wait")
    server.db:wait_running("%pg_advisory_xact_lock%")
    local answer = bounded("/hurried")
    support.problem(answer, 503, "pool-timeout")
    assert.is_not_nil(tonumber(answer.headers["retry-after"]))
    session:close()
    assert.equal(200, busy:finish().status)
    wait_usable()
  end)

  -- The server's limit was set before `left_after`: so much more than what was left then has to be allowed.
  it("comes before the server's own limit, which is for when the worker is gone", function()
    local seen = server:get("/limits"):value()
    local elapsed = seen.left_before - seen.left_after
    local later = seen.servers / 1000 + elapsed - seen.left_before
    assert.is_true(later >= 0.045, later)
  end)

  it("cannot be swallowed by a pcall", function()
    support.problem(bounded("/swallow"), 504)
    wait_usable()
  end)

  for _, path in ipairs { "/spin", "/spin-protected", "/spin-inside", "/spin-sort" } do
    it(("ends Lua that never ends: %s"):format(path), function()
      support.problem(bounded(path), 504, "deadline-exceeded")
      assert.equal(200, server:get("/lua").status)
    end)
  end

  it("of one request does not keep the others from being served", function()
    local spinning = server:begin("GET", "/spin")
    for _ = 1, 10 do
      assert.equal(200, bounded("/lua").status)
      assert.equal(200, bounded("/quick").status)
    end
    assert.equal(504, spinning:receive().status)
    spinning:close()
  end)

  -- A slice each of all of them is three seconds and more.
  it("of one request is kept while many others compute", function()
    local busy = {}
    finally(function()
      for _, client in ipairs(busy) do client:close() end
    end)
    local late, offset = server:begin("GET", "/sleep-beside"), #server:log()
    server.db:wait_running("%pg_sleep%")
    for i = 1, 300 do busy[i] = server:begin("GET", "/compute") end
    support.problem(late:finish(), 504, "deadline-exceeded")
    local took = server:wait_log(" path=/sleep%-beside [^\n]*", offset):match("duration_ms=(%S+)")
    assert.is_true(tonumber(took) < 4500, took)
  end)

  it("is not for those alone that have just come: who has begun goes first", function()
    local crowd = {}
    finally(function()
      for _, client in ipairs(crowd) do client:close() end
    end)
    local woken, before = server:begin("GET", "/woken"), server:metric("requests_total")
    server.db:wait_running("%pg_sleep%")
    for i = 1, 300 do crowd[i] = server:begin("GET", "/crowd") end
    assert.same({ one = 1 }, woken:finish():value())
    local done = server:metric("requests_total") - before
    assert.is_true(done < 200, done)
  end)

  -- There is time for a slice of a few of them.
  it("that passes before a script could start is told by 503 and Retry-After", function()
    local never_started = 0
    for _, answer in ipairs(support.http.at_once(server.url, 100, function() return "GET", "/crowded" end)) do
      if answer.status == 503 then
        support.problem(answer, 503, "queue-timeout")
        assert.is_not_nil(tonumber(answer.headers["retry-after"]))
        never_started = never_started + 1
      else
        support.problem(answer, 504, "deadline-exceeded")
      end
    end
    assert.is_true(never_started > 0)
  end)

  it("can be asked for", function()
    local left = server:get("/left"):json().left
    assert.is_true(left > 20 and left <= 30, left)
  end)
end)

describe("a request that does not arrive", function()
  local server

  setup(function()
    server = support.server.start { flags = { "--deadline", "1s", "--no-watch" } }
  end)
  teardown(function() server:stop() end)

  it("whole is answered 408", function()
    local connection = support.http.connect(server.url)
    connection:raw("POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      .. "Content-Length: 100\r\n\r\n{")
    local answer = assert(connection:receive())
    assert.equal(408, answer.status)
    assert.equal("application/problem+json", answer.headers["content-type"])
    assert.is_nil(connection:receive())
    connection:close()
  end)
end)

describe("a client that hangs up", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT, flags = { "--pool-max", "1", "--no-watch" } }
  end)
  teardown(function() server:stop() end)

  it("has its statement cancelled", function()
    local connection = server:begin("GET", "/sleep-long")
    server.db:wait_running("%pg_sleep%")
    connection:close()
    server.db:wait_running("%pg_sleep%", false)
    assert.equal(200, server:get("/quick").status)
  end)
end)
