local support = require "spec.support"
local score = require "scripts.score"

local function new_user(username, value)
  return {
    username = username,
    score = value or 0,
    profile = { firstname = "First " .. username, lastname = "Last " .. username },
  }
end

local TIMESTAMP = "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$"

describe("the users of an empty server", function()
  local server

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  it("are an empty array", function()
    local answer = server:get("/users")
    assert.equal(200, answer.status)
    assert.equal("application/json", answer.headers["content-type"])
    assert.equal("[]", answer.body)
  end)

  it("have done nothing", function()
    assert.equal("[]", server:get("/actions").body)
  end)
end)

describe("POST /users", function()
  local server, first

  setup(function()
    server = support.server.start()
    first = server:post("/users", {
      username = "johndoe", score = 5432, profile = { firstname = "John", lastname = "Doe" },
    })
  end)
  teardown(function() server:stop() end)

  it("answers 201 with the user as stored", function()
    assert.equal(201, first.status, first.body)
    assert.equal("/users/1", first.headers.location)
    local user = first:json()
    assert.equal(1, user.id)
    assert.equal("johndoe", user.username)
    assert.equal(score.formula(5432, 1), user.score)
    assert.matches(TIMESTAMP, user.created)
    assert.matches(TIMESTAMP, user.updated)
    assert.same({ firstname = "John", lastname = "Doe" }, user.profile)
  end)

  it("names the members in the order of the query", function()
    assert.matches('^{"id":1,"username":"johndoe","score":10865,"created":"[^"]+","updated":"[^"]+","profile":{',
      first.body)
  end)

  it("shows the user at its Location", function()
    local answer = server:get(first.headers.location)
    assert.equal(200, answer.status)
    assert.same(first:json(), answer:json())
  end)

  it("stores the user, the profile and the action", function()
    assert.same({ { id = 1, username = "johndoe", score = 10865 } },
      server.db:query("select id, username, score from users where id = 1"))
    assert.same({ { user_id = 1, firstname = "John", lastname = "Doe" } },
      server.db:query("select * from user_profile where user_id = 1"))
    assert.same({ { id = 1, description = "new user created with id 1 and username johndoe" } },
      server.db:query("select id, description from actions where id = 1"))
  end)

  it("gives everyone a new score, the new user included", function()
    local before = server.db:query("select id, score from users order by id")
    local answer = server:post("/users", new_user("janedoe", 10.25))
    assert.equal(201, answer.status, answer.body)
    local count = #before + 1
    before[count] = { id = answer:json().id, score = 10.25 }
    for _, user in ipairs(server.db:query("select id, score from users order by id")) do
      assert.equal(score.formula(before[user.id].score, count), user.score)
    end
  end)

  it("keeps what is not ASCII", function()
    local answer = server:post("/users", new_user("żółć 🌒 \"quoted\"\\", 1))
    assert.equal(201, answer.status, answer.body)
    assert.equal("żółć 🌒 \"quoted\"\\", answer:json().username)
    assert.equal("First żółć 🌒 \"quoted\"\\", server:get(answer.headers.location):json().profile.firstname)
  end)

  it("takes a name of 100 characters, however many bytes they are", function()
    local name = ("ż"):rep(100)
    local user = { username = name, score = 1, profile = { firstname = name, lastname = name } }
    local answer = server:post("/users", user)
    assert.equal(201, answer.status, answer.body)
    assert.same({ firstname = name, lastname = name }, answer:json().profile)
  end)
end)

describe("a username in use", function()
  local server

  setup(function()
    server = support.server.start()
    assert.equal(201, server:post("/users", new_user("taken", 1)).status)
  end)
  teardown(function() server:stop() end)

  it("is refused with 409 and leaves everything as it was", function()
    local before = server:get("/users").body
    local document = support.problem(server:post("/users", new_user("taken", 2)), 409, "conflict")
    assert.equal("/users", document.instance)
    assert.equal("/username", document.errors[1].pointer)
    assert.equal(before, server:get("/users").body)
    assert.equal(1, server.db:count("user_profile"))
    assert.equal(1, server.db:count("actions"))
  end)

  it("spends no id", function()
    server:post("/users", new_user("taken", 2))
    assert.equal(2, server:post("/users", new_user("free", 2)):json().id)
  end)
end)

describe("a score that grows beyond a double", function()
  local server

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  it("is refused with 422, and no row is left", function()
    local body = '{"username":"a","score":1.7e308,"profile":{"firstname":"a","lastname":"b"}}'
    support.problem(server:post("/users", body), 422)
    assert.equal(0, server.db:count("users"))
    assert.equal(0, server.db:count("user_profile"))
    assert.equal(0, server.db:count("actions"))
  end)
end)

describe("a list of users", function()
  local server

  setup(function()
    server = support.server.start()
    for i = 1, 5 do
      assert.equal(201, server:post("/users", new_user("user" .. i, i)).status)
    end
  end)
  teardown(function() server:stop() end)

  local function ids(path)
    local answer = server:get(path)
    assert.equal(200, answer.status, answer.body)
    local list = {}
    for i, row in ipairs(answer:json()) do
      list[i] = row.id
    end
    return list
  end

  for _, case in ipairs {
    { query = "", expected = { 1, 2, 3, 4, 5 } },
    { query = "?limit=2", expected = { 1, 2 } },
    { query = "?limit=2&after=2", expected = { 3, 4 } },
    { query = "?after=4", expected = { 5 } },
    { query = "?after=5", expected = {} },
    { query = "?after=9999999999", expected = {} },
    { query = "?limit=10000", expected = { 1, 2, 3, 4, 5 } },
    { query = "?unknown=1", expected = { 1, 2, 3, 4, 5 } },
  } do
    it(("is cut and continued by %q"):format(case.query), function()
      assert.same(case.expected, ids("/users" .. case.query))
      assert.same(case.expected, ids("/actions" .. case.query))
    end)
  end

  for _, case in ipairs {
    { query = "?limit=0", pointer = "limit" },
    { query = "?limit=10001", pointer = "limit" },
    { query = "?limit=ten", pointer = "limit" },
    { query = "?limit=", pointer = "limit" },
    { query = "?limit=1.5", pointer = "limit" },
    { query = "?after=-1", pointer = "after" },
    { query = "?after=x", pointer = "after" },
  } do
    it(("is refused for %q"):format(case.query), function()
      for _, path in ipairs { "/users", "/actions" } do
        local document = support.problem(server:get(path .. case.query), 422, "invalid")
        assert.equal(case.pointer, document.errors[1].pointer)
      end
    end)
  end

  it("shows each user as GET /users/{id} does", function()
    for _, user in ipairs(server:get("/users"):json()) do
      assert.same(user, server:get(("/users/%d"):format(user.id)):json())
    end
  end)

  it("shows actions with id, description and created", function()
    local action = server:get("/actions?limit=1"):json()[1]
    assert.equal("new user created with id 1 and username user1", action.description)
    assert.matches(TIMESTAMP, action.created)
  end)
end)
