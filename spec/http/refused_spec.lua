local support = require "spec.support"

local function user(changes)
  local value = { username = "johndoe", score = 1, profile = { firstname = "John", lastname = "Doe" } }
  for path, change in pairs(changes) do
    local parent, name = path:match("^(%w+)%.(%w+)$")
    local target = parent and value[parent] or value
    target[name or path] = change ~= "absent" and change or nil
  end
  return value
end

describe("POST /users refuses", function()
  local server

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  after_each(function()
    for _, name in ipairs { "users", "user_profile", "actions" } do
      assert.equal(0, server.db:count(name), name .. " is not empty")
    end
  end)

  for _, case in ipairs {
    { name = "no username", body = user { username = "absent" }, pointer = "/username" },
    { name = "no score", body = user { score = "absent" }, pointer = "/score" },
    { name = "no profile", body = user { profile = "absent" }, pointer = "/profile" },
    { name = "no firstname", body = user { ["profile.firstname"] = "absent" }, pointer = "/profile/firstname" },
    { name = "a number as username", body = user { username = 1 }, pointer = "/username" },
    { name = "a string as score", body = user { score = "1" }, pointer = "/score" },
    { name = "a boolean as score", body = user { score = true }, pointer = "/score" },
    { name = "an array as profile", body = user { profile = { 1 } }, pointer = "/profile" },
    { name = "an empty username", body = user { username = "" }, pointer = "/username" },
    { name = "a username of 101 characters", body = user { username = ("x"):rep(101) }, pointer = "/username" },
    { name = "a lastname of 101 characters", body = user { ["profile.lastname"] = ("ż"):rep(101) },
      pointer = "/profile/lastname" },
    { name = "null as username", body = '{"username":null,"score":1,"profile":{"firstname":"a","lastname":"b"}}',
      pointer = "/username" },
    { name = "a NUL in a username",
      body = '{"username":"a\\u0000b","score":1,"profile":{"firstname":"a","lastname":"b"}}',
      pointer = "/username" },
    { name = "a NUL in a member that is not asked for",
      body = '{"username":"a","score":1,"extra":"\\u0000","profile":{"firstname":"a","lastname":"b"}}',
      pointer = "/extra" },
    { name = "an array", body = "[]" },
    { name = "a string", body = '"johndoe"' },
  } do
    it(case.name .. " with 422", function()
      local document = support.problem(server:post("/users", case.body), 422, "invalid")
      assert.equal("/users", document.instance)
      if case.pointer then
        assert.equal(case.pointer, document.errors[1].pointer)
        assert.is_string(document.errors[1].detail)
      end
    end)
  end

  it("all faults at once", function()
    local answer = server:post("/users", { username = 1, score = "x", profile = {} })
    local document = support.problem(answer, 422, "invalid")
    local pointers = {}
    for i, fault in ipairs(document.errors) do
      pointers[i] = fault.pointer
    end
    table.sort(pointers)
    assert.same({ "/profile/firstname", "/profile/lastname", "/score", "/username" }, pointers)
  end)

  for _, text in ipairs {
    "{", '{"username":}', "{'username':'a'}", '{"username":"a",}', "", " ", "nonsense",
    '{"username":"a"} trailing', '{"a":01}', '{"a":NaN}', '{"a":Infinity}', '{"a":0x10}', '{"a":"\255"}',
    '{"a":"\\ud800"}', '{"a":"tab\there"}', '{"a":1,"a":2}', "\239\187\191{}",
  } do
    it(("malformed JSON %q with 400"):format(text), function()
      support.problem(server:post("/users", text), 400, "malformed")
    end)
  end

  it("a score beyond the range of a double with 422", function()
    support.problem(server:post("/users",
      '{"username":"a","score":1e999,"profile":{"firstname":"a","lastname":"b"}}'), 422, "invalid")
  end)

  it("a body that is not JSON with 415", function()
    support.problem(server:request("POST", "/users", { body = "username=johndoe" }), 415, "unsupported-media-type")
  end)

  it("no body at all with 400", function()
    local answer = server:request("POST", "/users", { headers = { ["Content-Length"] = 0 } })
    support.problem(answer, 400, "malformed")
  end)
end)

describe("a body over the limit", function()
  local server
  local LIMIT = 1024 * 1024

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  local function body_of(length)
    local frame = '{"username":"%s"}'
    return frame:format(("x"):rep(length - #frame + 2))
  end

  it("is refused with 413 before it is sent", function()
    local answer = support.http.raw(server.url, ("POST /users HTTP/1.1\r\nHost: x\r\n"
      .. "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n"):format(LIMIT + 1))
    support.problem(assert(answer), 413, "body-too-large")
  end)

  it("is refused with 413 when its length was not announced", function()
    local body = body_of(LIMIT + 1)
    local request = "POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      .. "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
    local answer = support.http.raw(server.url, request:format(#body, body))
    support.problem(assert(answer), 413, "body-too-large")
  end)

  it("is read when it is just within", function()
    local answer = server:post("/users", body_of(LIMIT))
    support.problem(answer, 422, "invalid")
  end)

  it("is what --body-limit says", function()
    local small = support.server.start { flags = { "--body-limit", "100" } }
    finally(function() small:stop() end)
    support.problem(small:post("/users", body_of(101)), 413, "body-too-large")
    support.problem(small:post("/users", body_of(100)), 422, "invalid")
  end)
end)

describe("GET /users/{id} refuses", function()
  local server

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  for _, id in ipairs { "0", "1", "-1", "2147483647", "2147483648", "9223372036854775807" } do
    it(("id %s, which no user has, with 404"):format(id), function()
      local document = support.problem(server:get("/users/" .. id), 404, "not-found")
      assert.equal("/users/" .. id, document.instance)
    end)
  end

  for _, id in ipairs { "x", "1x", "1.5", "0x1", "%20", "1e1" } do
    it(("id %s, which is no integer, with 422"):format(id), function()
      local document = support.problem(server:get("/users/" .. id), 422, "invalid")
      assert.equal("id", document.errors[1].pointer)
    end)
  end

  it("a NUL in the path with 400", function()
    support.problem(server:get("/users/%00"), 400, "malformed")
  end)

  it("bad UTF-8 in the path with 400", function()
    support.problem(server:get("/users/%ff"), 400, "malformed")
  end)
end)
