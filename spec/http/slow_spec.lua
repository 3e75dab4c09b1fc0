-- Clients that take their time. What is asserted is that their request ends at all, or that it goes
-- on; a hang takes the minute after which support.http gives up.
local socket = require "socket"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.get("/quick", function() return 200, { quick = true } end)
app.post("/body", function(req) return 200, { bytes = #req.raw_body } end)
local LARGE = ("x"):rep(%d)
app.get("/download", function() return 200, LARGE end)
]]

local PACE = 0.1 -- seconds between two bytes
local PIECE = 512 * 1024 -- bytes read at that pace
local LARGE = 24 * 1024 * 1024 -- more than the kernel takes off the server's hands

local function start(flags)
  return support.server.start {
    script = SCRIPT:format(LARGE),
    flags = table.move(flags, 1, #flags, 2, { "--no-watch" }),
  }
end

-- Sends a text byte by byte, its last for ever, until the server says something: that answer.
local function trickle(connection, text)
  local at = 0
  repeat
    at = math.min(at + 1, #text)
    assert(connection:raw(text:sub(at, at)))
    local heard = socket.select({ connection.socket }, nil, PACE)
  until #heard > 0
  return connection:receive()
end

-- Reads up to `bytes`; how many came before the connection ended.
local function read(connection, bytes)
  local count = 0
  while count < bytes do
    local data, fault, part = connection.socket:receive(math.min(bytes - count, 256 * 1024))
    count = count + #(data or part)
    if fault then
      break
    end
  end
  return count
end

describe("a client that sends slowly", function()
  local server

  setup(function() server = start { "--deadline", "500ms" } end)
  teardown(function() server:stop() end)

  -- Of a request whose line has not come there is no path to say.
  local function check(connection, text)
    local answer = assert(trickle(connection, text))
    assert.equal(408, answer.status)
    assert.equal("application/problem+json", answer.headers["content-type"])
    assert.equal("1", answer.headers["retry-after"])
    assert.equal("/problems/request-timeout", answer:json().type)
    assert.is_nil(connection:receive(), "the connection is closed")
    connection:close()
    assert.equal(200, server:get("/quick").status)
  end

  it("is answered 408 within its request line", function()
    check(support.http.connect(server.url), "GET /quickkkkkkkkkkkkkkkkkkkkkkkkkk")
  end)

  it("is answered 408 within its headers", function()
    local connection = support.http.connect(server.url)
    connection:raw("GET /quick HTTP/1.1\r\nHost: x\r\n")
    check(connection, "X-Slow: slowwwwwwwwwwwwwwwwwwwwwwwwww")
  end)

  it("is answered 408 within the headers of its next request", function()
    local connection = support.http.connect(server.url)
    assert.equal(200, connection:request("GET", "/quick").status)
    check(connection, "GET /quick HTTP/1.1\r\nHost: x\r\nX-Slow: slow")
  end)

  it("is answered 408 within a request that came right behind another", function()
    local connection = support.http.connect(server.url)
    connection:raw("GET /quick HTTP/1.1\r\nHost: x\r\n\r\nGET /quick HT")
    assert.equal(200, connection:receive().status)
    assert.equal(408, assert(connection:receive()).status)
    assert.is_nil(connection:receive())
    connection:close()
  end)

  it("is answered 408 within its body", function()
    local connection = support.http.connect(server.url)
    connection:raw("POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
    check(connection, "slow")
  end)

  it("is answered 408 within its chunks", function()
    local connection = support.http.connect(server.url)
    connection:raw("POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n")
    check(connection, "slow")
  end)

  it("does not make the server hang up on one that is silent", function()
    local silent, used = support.http.connect(server.url), support.http.connect(server.url)
    assert.equal(200, used:request("GET", "/quick").status)
    check(support.http.connect(server.url), "GET /quickkkkkkkkkkkkkkkkkkkkkkkkkk")
    assert.equal(200, silent:request("GET", "/quick").status)
    assert.equal(200, used:request("GET", "/quick").status)
    silent:close()
    used:close()
  end)
end)

describe("a client that does not read its answer", function()
  it("is cut off at the deadline", function()
    local server = start { "--deadline", "1500ms" }
    finally(function() server:stop() end)
    local connection = server:begin("GET", "/download")
    local line = server:wait_log("request .*path=/download")
    assert.matches("status=200 .*error=deadline%-exceeded", line)
    assert.is_true(tonumber(line:match("duration_ms=(%S+)")) >= 1500)
    assert.is_true(read(connection, LARGE) < LARGE)
    connection:close()
    assert.equal(200, server:get("/quick").status)
  end)
end)

describe("a client that reads its answer slowly", function()
  it("may go on after the deadline, with --send-timeout", function()
    local server = start { "--deadline", "1500ms", "--send-timeout", "30s" }
    finally(function() server:stop() end)
    local connection = server:begin("GET", "/download")
    local left = LARGE
    while left > 0 do
      local count = read(connection, math.min(left, PIECE))
      assert.is_true(count > 0, "cut off with " .. left .. " bytes to go")
      left = left - count
      socket.sleep(PACE) -- this is what makes it slow
    end
    connection:close()
    local line = server:wait_log("request .*path=/download")
    assert.is_nil(line:find("error=", 1, true))
    assert.is_true(tonumber(line:match("duration_ms=(%S+)")) >= 1500)
  end)

  it("is cut off when it takes nothing any more", function()
    local server = start { "--deadline", "1500ms", "--send-timeout", "2s" }
    finally(function() server:stop() end)
    local connection = server:begin("GET", "/download")
    assert.equal(1000, read(connection, 1000))
    assert.matches("error=deadline%-exceeded", server:wait_log("request .*path=/download"))
    connection:close()
  end)
end)
