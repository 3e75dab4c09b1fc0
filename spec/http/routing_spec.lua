local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.get("/things/{id}", function(req) return 200, { one = req.params.id } end)
app.get("/things/all", function() return 200, { all = true } end)
app.get("/files/{path*}", function(req) return 200, { path = req.params.path } end)
app.put("/things/{id}", function() return 204 end)
app.route("REPORT", "/things/{id}", function() return 200, { report = true } end)
app.delete("/things/{id}", function() end)
app.patch("/things/{id}", function(req) return { patched = req.params.id } end)

app.get("/inspect/{name}", function(req)
  return 200, {
    method = req.method, path = req.path, params = req.params, query = req.query,
    header = req.headers["X-THING"], id = req.id, client = req.client, left = req:left(),
  }
end)

app.get("/typed/{id}", {
  params = { id = { type = "integer" } },
  query = { ratio = { type = "number" }, flag = { type = "boolean" } },
}, function(req)
  return 200, { id = req.params.id, ratio = req.query.ratio, flag = req.query.flag }
end)

app.get("/text", function() return 200, "plain\n", { ["Content-Type"] = "text/plain", ["X-Extra"] = "yes" } end)
app.get("/closed", function()
  app.fail(503, "closed until nine", { opens = 9 }, { ["Retry-After"] = 3600, ["X-Why"] = "night" })
end)
app.get("/tired", function() app.fail(408, "too slow", nil, { ["retry-after"] = "7" }) end)
app.get("/rethrown", function()
  local _, err = pcall(app.fail, 409, "taken", nil, { Location = "/other" })
  err.headers["X-Split"] = "a\r\nX-More: b"
  err.headers["Content-Type"] = "text/plain"
  error(err)
end)
app.get("/bad-header/{name}", function(req)
  app.fail(503, "no", nil, { [req.params.name] = req.params.name == "X-Split" and "a\r\nX-More: b" or "x" })
end)
app.get("/teapot", function() app.fail(418, "short and stout", { spout = true }) end)
app.get("/broken", function() error("the inside of the script") end)
app.get("/nothing", function() return nil end)

local function guard(req, next)
  if req.headers["x-key"] ~= "secret" then
    app.fail(403, "the key is missing")
  end
  return next(req)
end

local private = app.group("/private", guard)
private.get("/hello", function() return 200, { hello = "friend" } end)
]]

describe("a route", function()
  local server

  setup(function()
    server = support.server.start { scripts = { ["spec.lua"] = SCRIPT }, flags = { "--deadline", "15s" } }
  end)
  teardown(function() server:stop() end)

  it("is found by its path and its parameters", function()
    assert.same({ one = "5" }, server:get("/things/5"):json())
    assert.same({ one = "a b/c" }, server:get("/things/a%20b%2Fc"):json())
  end)

  it("that is a literal comes before a parameter", function()
    assert.same({ all = true }, server:get("/things/all"):json())
  end)

  it("takes the rest of a path", function()
    assert.same({ path = "a/b/c.txt" }, server:get("/files/a/b/c.txt"):json())
  end)

  it("that is unknown answers 404", function()
    for _, path in ipairs { "/", "/nowhere", "/users/1/2", "/things", "/things/", "/Users" } do
      support.problem(server:get(path), 404, "not-found")
    end
  end)

  it("with another method answers 405 and says which are allowed", function()
    local answer = server:request("POST", "/things/5")
    support.problem(answer, 405, "method-not-allowed")
    assert.equal("DELETE, GET, HEAD, OPTIONS, PATCH, PUT, REPORT", answer.headers.allow)
    answer = server:request("DELETE", "/users")
    support.problem(answer, 405)
    assert.equal("GET, HEAD, OPTIONS, POST", answer.headers.allow)
  end)

  it("may have a method of its own", function()
    assert.same({ report = true }, server:request("REPORT", "/things/5"):json())
  end)

  it("answers HEAD as GET without a body", function()
    local got, headed = server:get("/things/5"), server:request("HEAD", "/things/5")
    assert.equal(200, headed.status)
    assert.equal("", headed.body)
    assert.equal(tostring(#got.body), headed.headers["content-length"])
    assert.equal(got.headers["content-type"], headed.headers["content-type"])
  end)

  it("answers OPTIONS with Allow", function()
    local answer = server:request("OPTIONS", "/users")
    assert.is_true(answer.status == 200 or answer.status == 204)
    assert.equal("GET, HEAD, OPTIONS, POST", answer.headers.allow)
  end)

  it("answers 204 without a body", function()
    for _, method in ipairs { "PUT", "DELETE" } do
      local answer = server:request(method, "/things/5")
      assert.equal(204, answer.status)
      assert.equal("", answer.body)
      assert.is_nil(answer.headers["content-type"])
    end
    assert.equal(204, server:get("/nothing").status)
  end)

  it("may return a body alone", function()
    local answer = server:request("PATCH", "/things/7")
    assert.equal(200, answer.status)
    assert.same({ patched = "7" }, answer:json())
  end)

  it("may return text and headers of its own", function()
    local answer = server:get("/text")
    assert.equal("plain\n", answer.body)
    assert.equal("text/plain", answer.headers["content-type"])
    assert.equal("yes", answer.headers["x-extra"])
  end)

  it("sees the request", function()
    local answer = server:get("/inspect/%C5%BC?a=1&b=x%20y+z&c", { headers = { ["x-thing"] = "thing" } })
    local seen = answer:json()
    assert.equal("GET", seen.method)
    assert.same({ name = "ż" }, seen.params)
    assert.equal("1", seen.query.a)
    assert.equal("x y z", seen.query.b)
    assert.equal("", seen.query.c)
    assert.equal("thing", seen.header)
    assert.equal(answer.headers["x-request-id"], seen.id)
    assert.equal("127.0.0.1", seen.client)
    assert.is_true(seen.left > 0 and seen.left <= 15)
  end)

  for target, expected in pairs {
    ["7"] = '"id":7', ["-9223372036854775808"] = '"id":-9223372036854775808', ["%2B5"] = '"id":5',
    ["9223372036854775807"] = '"id":9223372036854775807', ["007"] = '"id":7',
    ["1?ratio=0.1"] = '"ratio":0.1', ["1?ratio=1e%2B5"] = '"ratio":100000', ["1?ratio=-0.0"] = '"ratio":-0',
    ["1?ratio=1.7976931348623157e308"] = '"ratio":1.7976931348623157e+308', ["1?flag=true"] = '"flag":true',
    ["1?flag=false"] = '"flag":false',
  } do
    it(("takes /typed/%s for what its schema says"):format(target), function()
      local answer = server:get("/typed/" .. target)
      assert.equal(200, answer.status, answer.body)
      assert.matches(expected, answer.body, 1, true)
    end)
  end

  for _, target in ipairs {
    "x", "1.0", "1e3", "0x10", "%201", "1%20", "--1", "9223372036854775808", "-9223372036854775809",
    "99999999999999999999999999", "1?ratio=1e400", "1?ratio=-1e400", "1?ratio=" .. ("9"):rep(400), "1?ratio=nan",
    "1?ratio=inf", "1?ratio=0x1p4", "1?ratio=.5", "1?ratio=1e", "1?ratio=", "1?flag=1", "1?flag=TRUE", "1?flag",
  } do
    it(("refuses /typed/%.40s with 422"):format(target), function()
      support.problem(server:get("/typed/" .. target), 422, "invalid")
    end)
  end

  it("keeps a request id that came with the request", function()
    local answer = server:get("/things/5", { headers = { ["X-Request-Id"] = "abc-123.X_y" } })
    assert.equal("abc-123.X_y", answer.headers["x-request-id"])
  end)

  it("replaces a request id that is not sane", function()
    local answer = server:get("/things/5", { headers = { ["X-Request-Id"] = "a b\"c" } })
    assert.matches("^[%w%._%-]+$", answer.headers["x-request-id"])
  end)

  it("refuses with headers, which take the place of the server's", function()
    local answer = server:get("/closed")
    assert.equal(9, support.problem(answer, 503, "refused").opens)
    assert.equal("3600", answer.headers["retry-after"])
    assert.equal("night", answer.headers["x-why"])
    answer = server:get("/tired")
    support.problem(answer, 408, "request-timeout")
    assert.equal("7", answer.headers["retry-after"])
  end)

  it("refuses without headers that are none, even if they are put in later", function()
    local answer = server:get("/rethrown")
    support.problem(answer, 409, "conflict")
    assert.equal("/other", answer.headers.location)
    assert.is_nil(answer.headers["x-split"])
    assert.is_nil(answer.headers["x-more"])
    for _, name in ipairs { "X%20Bad", "X-Split", "Content-Type" } do
      support.problem(server:get("/bad-header/" .. name), 500, "script-error")
    end
    server:wait_log("the response header 'X Bad' has a bad name or value")
  end)

  it("fails as its script says", function()
    local document = support.problem(server:get("/teapot"), 418)
    assert.equal("short and stout", document.detail)
    assert.is_true(document.spout)
  end)

  it("answers 500 for an error in a script, and keeps the details for the log", function()
    local offset = #server:log()
    local answer = server:get("/broken")
    support.problem(answer, 500, "script-error")
    assert.is_nil(answer.body:find("the inside of the script", 1, true))
    local line = server:wait_log("the inside of the script", offset)
    assert.matches("scripts/spec.lua:" .. support.line_of(SCRIPT, "error(\"the inside"), line)
  end)

  it("in a group passes its middleware", function()
    support.problem(server:get("/private/hello"), 403)
    local answer = server:get("/private/hello", { headers = { ["X-Key"] = "secret" } })
    assert.same({ hello = "friend" }, answer:json())
  end)
end)

describe("middleware for every route", function()
  local server

  setup(function()
    server = support.server.start {
      script = [[
        local app = require "moonpool"
        app.use(function(req, next)
          local status, body, headers = next(req)
          headers = headers or {}
          headers["X-Seen"] = req.path
          return status, body, headers
        end)
        app.get("/hello", function() return 200, { hello = "world" } end)
      ]],
    }
  end)
  teardown(function() server:stop() end)

  it("may change the answer", function()
    local answer = server:get("/hello")
    assert.equal("/hello", answer.headers["x-seen"])
    assert.same({ hello = "world" }, answer:json())
  end)
end)

describe("an error in a script in development mode", function()
  it("is shown on the page", function()
    local server = support.server.start {
      scripts = { ["spec.lua"] = SCRIPT }, flags = { "--development" },
    }
    finally(function() server:stop() end)
    local document = support.problem(server:get("/broken"), 500, "script-error")
    assert.matches("the inside of the script", document.detail)
  end)
end)

describe("a connection", function()
  local server

  setup(function() server = support.server.start { scripts = { ["spec.lua"] = SCRIPT } } end)
  teardown(function() server:stop() end)

  it("carries many requests, whatever their answers are", function()
    local connection = support.http.connect(server.url)
    for i = 1, 20 do
      assert.equal(200, connection:request("GET", "/things/" .. i).status)
      assert.equal(404, connection:request("GET", "/nowhere").status)
      assert.equal(422, connection:request("POST", "/users", { json = { a = 1 } }).status)
      assert.equal(200, connection:request("HEAD", "/things/1").status)
    end
    connection:close()
  end)

  it("is closed when the client asks for it", function()
    local connection = support.http.connect(server.url)
    local answer = connection:request("GET", "/things/1", { headers = { Connection = "close" } })
    assert.equal(200, answer.status)
    assert.is_nil(connection:receive())
    connection:close()
  end)
end)
