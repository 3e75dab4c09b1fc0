-- The connection to PostgreSQL breaks at each message of a create in turn, in each way. Whatever the
-- client was told must be true, and the server must go on.
local support = require "spec.support"

local books = support.books

local SCRIPT = [[
local app = require "moonpool"
local score = require "score"

local function queue_profile(tx, id, profile)
  tx:queue("create_user_profile", id, profile.firstname, profile.lastname)
end

local function copy_profile(tx, id, profile)
  tx:copy_from("user_profile", { "user_id", "firstname", "lastname" }, { { id, profile.firstname, profile.lastname } })
end

-- What `finish` queues goes with COMMIT.
local function create(statement, add_profile, finish)
  return function(req)
    local user = req.body
    local id = app.db:transaction({ serialize = "users" }, function(tx)
      local row = tx:query_row("create_user", user.username, user.score)
      add_profile(tx, row.id, user.profile)
      local users = tx:query("get_user_scores")
      for _, other in ipairs(users) do
        tx:queue(statement, other.id, score.formula(other.score, #users))
      end
      finish(tx, "log_action", ("new user created with id %d and username %s"):format(row.id, user.username))
      return row.id
    end)
    return 201, { id = id }
  end
end

-- A statement of its own for each number: one that was slow on a lane is kept off it.
app.get("/read/{number}", function(req)
  return 200, app.db:query_row(("select username, '%d' as number,"
    .. " current_setting('default_transaction_read_only') as on_lane from users order by id limit 1"):format(
    req.params.number))
end)

app.post("/alone", function()
  return 201, { count = app.db:exec("log_action", "alone") }
end)

app.post("/batch", function()
  app.db:queue("log_action", "first")
  app.db:queue("do $$ begin insert into actions (description) values ('second'); end $$")
  app.db:queue("log_action", "third")
  app.db:send_batch()
  return 201, {}
end)

app.post("/rows", create("update_user_score", queue_profile, function(tx, ...)
  tx:send_batch()
  tx:exec(...)
end))
app.post("/bulk", create("update_user_scores", queue_profile, function(tx, ...) tx:queue(...) end))
app.post("/copy", create("update_user_scores", copy_profile, function(tx, ...) tx:queue(...) end))
]]

local STATEMENTS = [[
-- name: update_user_score :exec
update users set score = $2 where id = $1;
]]

local server
local session -- of psql, past the proxy

local function start(...)
  server = support.server.prepare {
    proxy = true,
    scripts = { ["spec.lua"] = SCRIPT },
    sql = { ["spec.sql"] = STATEMENTS },
    flags = { "--pool-max", "4", "--lanes", "1", "--no-watch", ... },
  }
  server:edit("scripts/users.lua", "deadline = 2.0, ", "")
  session = server.db:session()
  books.reset(session)
end

local function stop()
  session:close()
  server:stop()
end

local function assert_nothing_leaked()
  support.eventually("as many sessions as the pool knows of", function()
    local sessions = server:metric("pool_sessions")
    return sessions == server.db:sessions() and sessions == server.proxy:status().sessions
      and sessions <= 4 and server:metric("requests_in_flight") == 0 and server:metric("pool_waiting") == 0
  end)
  assert.equal(0, server:metric("worker_restarts_total"))
end

local function create_next(path, name)
  support.eventually("a create behind " .. name, function()
    return server:post(path, books.user(name .. ", next")).status == 201
  end)
end

-- Creates a user while the fault is armed, and another one behind it, and looks at the books: the
-- answer, what it said, and whether the fault came to pass. `meanwhile` is called when it is armed.
local function create_through(path, fault, meanwhile)
  local name = ("%s, %s %s at %d"):format(path, fault[1], fault[2], fault[3])
  server.proxy:arm(fault)
  if meanwhile then
    meanwhile()
  end
  local answer = server:post(path, books.user(name))
  local fired = server.proxy:status().fired
  local verdict = books.verdict(answer)
  if verdict == "unknown" then
    server.proxy:order("release") -- a COMMIT that stalls is waited for
  end
  server.proxy:settle()
  server.proxy:order("disarm")
  create_next(path, name)
  books.close(session, { [name] = verdict, [name .. ", next"] = "there" })
  return answer, verdict, fired
end

-- Breaks at the first message, the second, and so on, until there are no more: how many there were,
-- and the number of each verdict.
local function create_through_all(path, kind, way, trigger, meanwhile)
  local verdicts = { there = 0, absent = 0, unknown = 0 }
  for number = 1, math.huge do
    local answer, verdict, fired = create_through(path, { kind, way, number, trigger }, meanwhile)
    assert.is_true(verdict ~= "absent" or answer.status == 503, answer.body)
    verdicts[verdict] = verdicts[verdict] + 1
    if not fired then
      assert.equal("there", verdict)
      return number - 1, verdicts
    end
  end
end

local function assert_some_of_each(messages, verdicts)
  assert.is_true(messages > 20)
  assert.is_true(verdicts.absent > 0)
  assert.is_true(verdicts.unknown > 0)
end

local FORMS = {
  ["with a statement per row"] = "/rows",
  ["with rows in bulk"] = "/bulk",
  ["with rows by COPY"] = "/copy",
  ["in a group"] = "/users",
}

describe("a create whose connection to the database breaks at any message", function()
  setup(function()
    start()
    server:launch()
    assert.equal(201, server:post("/rows", books.user("warm")).status)
    books.reset(session)
  end)
  teardown(stop)
  after_each(assert_nothing_leaked)

  for form, path in pairs(FORMS) do
    for way, kind in pairs { forth = "cut", back = "reset" } do
      it(("%s, on the way %s, is done or not, as its client is told"):format(form, way), function()
        assert_some_of_each(create_through_all(path, kind, way, "sql begin"))
      end)
    end
  end

  for _, way in ipairs { "forth", "back" } do
    it(("while it is being opened, on the way %s, is done or not, as its client is told"):format(way), function()
      assert_some_of_each(create_through_all("/rows", "cut", way, "connect", function()
        server.proxy:order("cut")
        support.eventually("a new session", function() return server.proxy:status().triggered end)
      end))
    end)

    it(("because of garbage, on the way %s, is done or not, as its client is told"):format(way), function()
      assert_some_of_each(create_through_all("/rows", "corrupt", way, "sql begin"))
    end)
  end

  -- Whether the fault came to pass, and what the client was told. COMMIT is sent along with the rest.
  local function batch_through(fault)
    server.proxy:arm(fault)
    local verdict = books.verdict(server:post("/batch", {}))
    local fired = server.proxy:status().fired
    server.proxy:settle()
    server.proxy:order("disarm")
    local count = tonumber(session:exec("select count(*) from actions"))
    assert.is_true(count == 3 or count == 0, count .. " of 3 are there")
    assert.is_true(verdict == "unknown" or (verdict == "there") == (count == 3), verdict)
    support.eventually("a batch behind it", function() return server:post("/batch", {}).status == 201 end)
    books.reset(session)
    return fired, verdict
  end

  for way, kind in pairs { forth = "cut", back = "reset" } do
    it(("in a batch with a DO outside a transaction, on the way %s, is done or not, as its client is told"):format(way),
      function()
        local seen = {}
        local number, fired, verdict = 0, true, nil
        while fired do
          number = number + 1
          fired, verdict = batch_through { kind, way, number, "sql begin" }
          seen[verdict] = true
        end
        assert.equal("there", verdict)
        assert.same({ there = true, unknown = true }, seen)
      end)
  end

  -- How many messages come back when all statements have been prepared.
  local function count_back(path, trigger)
    assert.equal(201, server:post(path, books.user("first")).status)
    books.reset(session)
    server.proxy:arm { "none", "back", 0, trigger }
    assert.equal(201, server:post(path, books.user("counted")).status)
    books.reset(session)
    return server.proxy:status().back
  end

  -- COMMIT's tag comes as the last message but one: with it the outcome is known.
  it("behind COMMIT's tag is done", function()
    local last = count_back("/rows", "sql begin")
    local answer, _, fired = create_through("/rows", { "reset", "back", last, "sql begin" })
    assert.is_true(fired)
    assert.equal(201, answer.status, answer.body)
  end)

  -- The Sync commits it, and its answer may be that it could not.
  it("behind the result of a statement that stands for itself is of unknown outcome", function()
    local last = count_back("/alone", "sql insert into actions")
    server.proxy:arm { "reset", "back", last, "sql insert into actions" }
    support.problem(server:post("/alone", {}), 500, "outcome-unknown")
    assert.is_true(server.proxy:status().fired)
    books.reset(session)
  end)
end)

describe("a create whose connection to the database stands still", function()
  setup(function()
    start("--deadline", "250ms")
    server:launch()
  end)
  teardown(stop)
  after_each(assert_nothing_leaked)

  for form, path in pairs { ["with a statement per row"] = "/rows", ["in a group"] = "/users" } do
    for _, way in ipairs { "forth", "back" } do
      it(("%s, on the way %s, is done or not, as its client is told"):format(form, way), function()
        local stalled = 0
        for number = 1, 41, 10 do
          local _, _, fired = create_through(path, { "stall", way, number, "sql begin" })
          stalled = stalled + (fired and 1 or 0)
        end
        assert.is_true(stalled > 0)
      end)
    end
  end
end)

describe("a read on a lane whose connection to the database", function()
  setup(function()
    start()
    server:launch()
  end)
  teardown(stop)
  after_each(assert_nothing_leaked)

  local last = 0 -- number of a read

  local function read()
    last = last + 1
    return server:get("/read/" .. last)
  end

  -- Whether the fault came to pass: on a slow machine the read may have moved before it did.
  local function read_through(fault)
    support.eventually("a lane", function() return read():json().on_lane == "on" end)
    fault[4] = ("sql '%d' as number"):format(last + 1)
    server.proxy:arm(fault)
    local answer = read()
    assert.equal("seed 1", answer:value().username)
    local fired = server.proxy:status().fired
    server.proxy:order("disarm")
    return fired
  end

  for name, kind in pairs { breaks = "reset", ["stands still"] = "stall", ["brings garbage"] = "corrupt" } do
    for _, way in ipairs { "forth", "back" } do
      it(("%s at any message, on the way %s, is answered all the same"):format(name, way), function()
        for number = 1, 5 do
          support.eventually("the fault on a lane", function() return read_through { kind, way, number } end)
        end
      end)
    end
  end
end)
