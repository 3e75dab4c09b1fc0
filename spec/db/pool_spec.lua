-- The books: what must hold after any number of creates at once. Scores are compared with a serial
-- execution in the same arithmetic, so they must be equal, not close.
local support = require "spec.support"

-- A score with a fraction that no double has exactly, short enough for every JSON encoder.
local function first_score(i)
  return tonumber(("%.2f"):format(i * 0.37))
end

local function new_user(i)
  return "POST", "/users", {
    json = {
      username = "user " .. i, score = first_score(i), profile = { firstname = "First " .. i, lastname = "Last " .. i },
    },
  }
end

-- Creates take turns, so the order of ids is the order in which they were done.
-- `unknown` of them may be there or not.
local function check_books(server, created, unknown)
  local users = server.db:query("select id, username, score from users order by id")
  assert.is_true(#users >= created and #users <= created + (unknown or 0), #users)
  assert.equal(#users, server.db:count("user_profile"))
  assert.equal(#users, server.db:count("actions"))
  local initial = {}
  for i, user in ipairs(users) do
    initial[i] = first_score(tonumber(user.username:match("%d+")))
  end
  local expected = support.books.serial_scores(initial)
  for i, user in ipairs(users) do
    assert.equal(expected[i], user.score, user.username)
  end
end

local function count_statuses(answers)
  local counts = {}
  for _, answer in ipairs(answers) do
    counts[answer.status] = (counts[answer.status] or 0) + 1
  end
  return counts
end

local function patient_users(server)
  server:edit("scripts/users.lua", "deadline = 2.0", "deadline = 60.0")
  return server
end

for _, case in ipairs {
  { clients = 8, pool = 3, workers = 1 },
  { clients = 8, pool = 1, workers = 2 },
  { clients = 200, pool = 3, workers = 2 },
} do
  describe(("%d creates at once with %d sessions and %d workers"):format(
    case.clients, case.pool, case.workers), function()
    local server

    setup(function()
      server = patient_users(support.server.prepare {
        flags = { "--pool-max", case.pool, "--workers", case.workers, "--no-watch" },
      })
      server:launch()
    end)
    teardown(function() server:stop() end)

    it("are all answered 201, never with more sessions, and the books balance", function()
      local most = 0
      local answers = support.http.at_once(server.url, case.clients, new_user, function()
        for _ = 1, 5 do
          most = math.max(most, server.db:sessions())
        end
      end)
      assert.same({ [201] = case.clients }, count_statuses(answers))
      assert.is_true(most <= case.pool, most .. " sessions")
      check_books(server, case.clients)
      assert.equal(case.clients, #server:get("/users"):json())
    end)
  end)
end

describe("more creates at once than can be done in time", function()
  local server

  setup(function()
    server = support.server.prepare { flags = { "--pool-max", "1", "--workers", "2", "--no-watch" } }
    server:edit("scripts/users.lua", "deadline = 2.0", "deadline = 0.3")
    server:launch()
  end)
  teardown(function() server:stop() end)

  it("are all answered, and what was refused left nothing", function()
    local answers = support.http.at_once(server.url, 200, new_user)
    local counts = count_statuses(answers)
    local created, unknown = counts[201] or 0, counts[500] or 0
    assert.equal(200, created + unknown + (counts[503] or 0) + (counts[504] or 0))
    check_books(server, created, unknown)
    for _, answer in ipairs(answers) do
      assert.is_true(answer.status ~= 503 or answer.headers["retry-after"] ~= nil)
      assert.is_true(answer.status ~= 500 or answer.body:find("outcome-unknown", 1, true) ~= nil)
    end
  end)

  it("leave the server as it was", function()
    support.eventually("a create that is in time", function()
      local answer = server:post("/users", select(3, new_user(1000)).json)
      return answer.status == 201 or answer.status == 409
    end)
  end)
end)

describe("a session that was killed", function()
  it("is replaced without anyone noticing for long", function()
    local server = support.server.start { flags = { "--pool-max", "2" } }
    finally(function() server:stop() end)
    assert.equal(200, server:get("/users").status)
    server.db:exec([[select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid()]])
    support.eventually("an answer", function()
      local answer = server:get("/users")
      assert.is_true(answer.status == 200 or answer.status == 503, answer.body)
      return answer.status == 200
    end)
  end)
end)
