-- Requests byte by byte, as RFC 9110 and 9112 have them or not. Where the next request begins is in
-- doubt, the connection is closed.
local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.get("/show", function(req)
  return 200, { header = req.headers["X-Shown"], query = req.query, has_range = req.headers.range ~= nil }
end)
app.get("/path/{one}", function(req) return 200, { one = req.params.one } end)
app.get("/rest/{all*}", function(req) return 200, { all = req.params.all } end)
app.post("/body", function(req) return 200, { body = req.raw_body } end)
app.post("/small", { body_limit = 10 }, function(req) return 200, { body = req.raw_body } end)

app.get("/headers/{count}/{length}", function(req)
  local headers = {}
  for i = 1, tonumber(req.params.count) do
    headers["X-Header-" .. i] = ("x"):rep(tonumber(req.params.length))
  end
  return 200, { fine = true }, headers
end)
]]

local function get(headers)
  return "GET /show HTTP/1.1\r\nHost: x\r\n" .. headers .. "\r\n"
end

local function post(headers, body)
  return "POST /body HTTP/1.1\r\nHost: x\r\n" .. headers .. "\r\n" .. (body or "")
end

local function chunked(body)
  return post("Transfer-Encoding: chunked\r\n", body)
end

local function line(text)
  return text .. "\r\nHost: x\r\n\r\n"
end

local function many_headers(count)
  local lines = {}
  for i = 1, count do
    lines[i] = "X-" .. i .. ": x\r\n"
  end
  return get(table.concat(lines))
end

-- { what it is, the request, what is in the answer }
local GOOD = {
  { "an empty line before it", "\r\n" .. get(""), {} },
  { "blanks around a value", get("X-Shown: \t a b \t \r\n"), { header = "a b" } },
  { "an empty value", get("X-Shown:\r\n"), { header = "" } },
  { "text beyond ASCII in a header", get("X-Shown: ż\r\n"), { header = "ż" } },
  { "a header twice, the first of which counts", get("X-Shown: a\r\nX-Shown: b\r\n"), { header = "a" } },
  { "a header twice in different cases", get("x-shown: a\r\nX-Shown: b\r\n"), { header = "a" } },
  { "a header name in any case", get("x-sHOWN: a\r\n"), { header = "a" } },
  { "a query of many fields", line("GET /show?" .. ("a&"):rep(500) .. "b=c HTTP/1.1"),
    { query = { a = "", b = "c" } } },
  { "an absolute target", line("GET http://other/show?a=b HTTP/1.1"), { query = { a = "b" } } },
  { "an absolute target of https", line("GET HTTPS://other:1/show HTTP/1.1"), {} },
  { "a later minor version", line("GET /show HTTP/1.2"), {} },
  { "an empty host", "GET /show HTTP/1.1\r\nHost:\r\n\r\n", {} },
  { "%2F in a parameter", line("GET /path/a%2Fb HTTP/1.1"), { one = "a/b" } },
  { "%2F in the rest of a path", line("GET /rest/a%2fb/c HTTP/1.1"), { all = "a/b/c" } },
  { "%25 once decoded", line("GET /path/a%252F HTTP/1.1"), { one = "a%2F" } },
  { "a plus in a path", line("GET /path/a+b HTTP/1.1"), { one = "a+b" } },
  { "UTF-8 in a path", line("GET /path/%C5%BC HTTP/1.1"), { one = "ż" } },
  { "raw UTF-8 in a path", line("GET /path/ż HTTP/1.1"), { one = "ż" } },
  { "a body for GET", get("Content-Length: 3\r\n") .. "abc", {} },
  { "a body", post("Content-Length: 3\r\n", "abc"), { body = "abc" } },
  { "a blank behind a length", post("Content-Length: 3 \r\n", "abc"), { body = "abc" } },
  { "tabs around a length", post("Content-Length:\t3\t\r\n", "abc"), { body = "abc" } },
  { "a zero before a length", post("Content-Length: 03\r\n", "abc"), { body = "abc" } },
  { "no body", post("Content-Length: 0\r\n"), { body = "" } },
  { "neither length nor encoding", post(""), { body = "" } },
  { "a body that looks like a request", post("Content-Length: 18\r\n", "GET / HTTP/1.1\r\n\r\n"),
    { body = "GET / HTTP/1.1\r\n\r\n" } },
  { "chunks", chunked("1\r\na\r\n00002\r\nbc\r\n0\r\n\r\n"), { body = "abc" } },
  { "a chunk size in any case", chunked("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
    { body = "01234567890123456789" } },
  { "an encoding in any case, with a blank behind it", post("Transfer-Encoding: CHUNKED \r\n", "1\r\na\r\n0\r\n\r\n"),
    { body = "a" } },
  { "chunk extensions", chunked('1;a;b=c;d="e;f"\r\na\r\n0;z\r\n\r\n'), { body = "a" } },
  { "trailers", chunked("1\r\na\r\n0\r\nX-Trailer: x\r\nContent-Length: 7\r\n\r\n"), { body = "a" } },
  { "an expectation, which HTTP/1.0 has not", "POST /body HTTP/1.0\r\nConnection: keep-alive\r\n"
    .. "Expect: nothing\r\nContent-Length: 1\r\n\r\na", { body = "a" } },
}

-- { what it is, the request, status, the problem's type, the connection goes on }
local BAD = {
  { "no method", line(" /show HTTP/1.1"), 400, "malformed" },
  { "a method that is no token", line("G@T /show HTTP/1.1"), 400, "malformed" },
  { "no target", line("GET HTTP/1.1"), 400, "malformed" },
  { "two blanks in the line", line("GET  /show HTTP/1.1"), 400, "malformed" },
  { "a blank in the target", line("GET /show it HTTP/1.1"), 400, "malformed" },
  { "a blank behind the line", line("GET /show HTTP/1.1 "), 400, "malformed" },
  { "tabs in the line", line("GET\t/show\tHTTP/1.1"), 400, "malformed" },
  { "a fragment", line("GET /show#a HTTP/1.1"), 400, "malformed" },
  { "a control character in the target", line("GET /show\1 HTTP/1.1"), 400, "malformed" },
  { "a NUL in the target", line("GET /show\0/a HTTP/1.1"), 400, "malformed" },
  { "no version", line("GET /show"), 400, "malformed" },
  { "a version in lower case", line("GET /show http/1.1"), 400, "malformed" },
  { "a version of many digits", line("GET /show HTTP/1.10"), 400, "malformed" },
  { "HTTP/0.9", line("GET /show HTTP/0.9"), 505, "http-version-not-supported" },
  { "HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http-version-not-supported" },
  { "TLS", "\22\3\1\2\0\1\0\1\252\3\3" .. ("x"):rep(500), 400, "malformed" },
  { "a target that is no path", line("GET show HTTP/1.1"), 400, "malformed", true },
  { "the target of a proxy", line("CONNECT other:443 HTTP/1.1"), 400, "malformed", true },
  { "an asterisk for GET", line("GET * HTTP/1.1"), 400, "malformed", true },
  { "a bad percent-encoding", line("GET /path/%zz HTTP/1.1"), 400, "malformed", true },
  { "half a percent-encoding", line("GET /path/%2 HTTP/1.1"), 400, "malformed", true },
  { "%00", line("GET /path/a%00 HTTP/1.1"), 400, "malformed", true },
  { "overlong UTF-8", line("GET /path/%c0%af HTTP/1.1"), 400, "malformed", true },
  { "a surrogate in UTF-8", line("GET /path/%ed%a0%80 HTTP/1.1"), 400, "malformed", true },
  { "a target that is too long", line("GET /" .. ("x"):rep(9000) .. " HTTP/1.1"), 414, "uri-too-long" },
  { "an endless target", "GET /" .. ("x"):rep(200000), 414, "uri-too-long" },
  { "a header that is too long", get("X-Shown: " .. ("x"):rep(9000) .. "\r\n"), 431, "headers-too-large" },
  { "an endless header", get("X-Shown: " .. ("x"):rep(200000)), 431, "headers-too-large" },
  { "too many headers", many_headers(500), 431, "headers-too-large" },
  { "too many cookies", get("Cookie: " .. ("a=b;"):rep(1000) .. "\r\n"), 431, "headers-too-large" },
  { "no host", "GET /show HTTP/1.1\r\n\r\n", 400, "malformed" },
  { "two hosts", get("Host: x\r\n"), 400, "malformed" },
  { "a host that is none", "GET /show HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "malformed" },
  { "a header without a colon", get("nonsense\r\n"), 400, "malformed" },
  { "a header without a name", get(": a\r\n"), 400, "malformed" },
  { "a blank before the colon", get("X-Shown : a\r\n"), 400, "malformed" },
  { "a folded header", get("X-Shown: a\r\n b\r\n"), 400, "malformed" },
  { "a blank before the first header", "GET /show HTTP/1.1\r\n Host: x\r\n\r\n", 400, "malformed" },
  { "a NUL in a header", get("X-Shown: a\0b\r\n"), 400, "malformed" },
  { "a NUL in a name", get("X-Sho\0wn: a\r\n"), 400, "malformed" },
  { "a control character in a header", get("X-Shown: a\27\r\n"), 400, "malformed" },
  { "a lone CR in a header", get("X-Shown: a\rX-Other: b\r\n"), 400, "malformed" },
  { "a CR too many", get("X-Shown: a\r\r\n"), 400, "malformed" },
  { "a lone LF behind the request line", "GET /show HTTP/1.1\nHost: x\r\n\r\n", 400, "malformed" },
  { "a lone LF behind a header", get("X-Shown: a\n"), 400, "malformed" },
  { "a lone LF as the end", "GET /show HTTP/1.1\r\nHost: x\r\n\n", 400, "malformed" },
  { "two lengths", post("Content-Length: 2\r\nContent-Length: 3\r\n", "abc"), 400, "malformed" },
  { "the same length twice", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), 400, "malformed" },
  { "a list of lengths", post("Content-Length: 3, 3\r\n", "abc"), 400, "malformed" },
  { "a signed length", post("Content-Length: +3\r\n", "abc"), 400, "malformed" },
  { "a negative length", post("Content-Length: -3\r\n", "abc"), 400, "malformed" },
  { "a hexadecimal length", post("Content-Length: 0x3\r\n", "abc"), 400, "malformed" },
  { "an empty length", post("Content-Length:\r\n", "abc"), 400, "malformed" },
  { "a length and a blank within", post("Content-Length: 1 2\r\n", "abc"), 400, "malformed" },
  { "a length of 2^64", post("Content-Length: 18446744073709551616\r\n", "abc"), 413, "body-too-large" },
  { "a length and an encoding", post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400,
    "malformed" },
  { "another encoding", post("Transfer-Encoding: gzip\r\n"), 400, "malformed" },
  { "an encoding before chunks", post("Transfer-Encoding: gzip, chunked\r\n"), 400, "malformed" },
  { "the encoding twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 400, "malformed" },
  { "an encoding with a vertical tab", post("Transfer-Encoding: \vchunked\r\n"), 400, "malformed" },
  { "chunks in HTTP/1.0", "POST /body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "malformed" },
  { "a chunk without a size", chunked("\r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a chunk of a bad size", chunked("g\r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a chunk of a negative size", chunked("-1\r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a chunk of size 0x1", chunked("0x1\r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a blank behind a chunk's size", chunked("1 \r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a chunk of more than 2^60 bytes", chunked("ffffffffffffffff\r\na"), 413, "body-too-large" },
  { "a chunk that is longer than its size", chunked("1\r\nab\r\n0\r\n\r\n"), 400, "malformed" },
  { "a chunk that is not ended", chunked("1\r\na0\r\n\r\n"), 400, "malformed" },
  { "a lone LF behind a chunk's size", chunked("1\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a lone LF in a chunk extension", chunked("1;a\nb\r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "a lone CR in a chunk extension", chunked("1;a\rb\r\na\r\n0\r\n\r\n"), 400, "malformed" },
  { "an endless chunk extension", chunked("1;" .. ("x"):rep(200000)), 400, "malformed" },
  { "a trailer without a colon", chunked("0\r\nnonsense\r\n\r\n"), 400, "malformed" },
  { "an endless trailer", chunked("0\r\nX-Trailer: " .. ("x"):rep(200000)), 431, "headers-too-large" },
  { "an unknown expectation", post("Expect: miracles\r\nContent-Length: 3\r\n", "abc"), 417, "expectation-failed" },
}

describe("a request", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT, flags = { "--no-watch" } }
  end)
  teardown(function() server:stop() end)

  -- As support.problem(), but where the target is not known there is no path to say.
  local function check_refused(answer, status, slug)
    assert.equal(status, answer.status, answer.body)
    assert.equal("application/problem+json", answer.headers["content-type"])
    local document = answer:json()
    assert.equal("/problems/" .. slug, document.type)
    assert.equal(status, document.status)
    assert.is_string(document.detail)
    assert.equal(answer.headers["x-request-id"], document.request_id)
  end

  -- The connection goes on: the next request on it is answered as itself.
  local function check_next(connection)
    local answer = connection:request("GET", "/show?next=1")
    assert.same({ next = "1" }, answer:json().query)
  end

  local function check_closed(connection)
    assert.is_nil(connection:receive(), "the connection is closed")
  end

  for _, case in ipairs(GOOD) do
    local name, bytes, wanted = table.unpack(case)
    it("with " .. name .. " is served", function()
      local connection = support.http.connect(server.url)
      connection:raw(bytes)
      local answer = assert(connection:receive())
      local seen = answer:value()
      for key, value in pairs(wanted) do
        assert.same(value, seen[key])
      end
      check_next(connection)
      connection:close()
    end)
  end

  for _, case in ipairs(BAD) do
    local name, bytes, status, slug, goes_on = table.unpack(case, 1, 5)
    it(("with %s is refused with %d"):format(name, status), function()
      local connection = support.http.connect(server.url)
      connection:raw(bytes)
      check_refused(assert(connection:receive()), status, slug);
      (goes_on and check_next or check_closed)(connection)
      connection:close()
    end)
  end

  it("that comes byte by byte is served", function()
    local connection = support.http.connect(server.url)
    for byte in (post("Content-Length: 3 \t\r\n", "abc") .. chunked("1\r\na\r\n0\r\n\r\n")):gmatch(".") do
      connection:raw(byte)
    end
    assert.same({ body = "abc" }, assert(connection:receive()):json())
    assert.same({ body = "a" }, connection:finish():json())
  end)

  it("that is refused in pieces is refused as in one", function()
    for _, bytes in ipairs { get("nonsense\r\n"), post("Content-Length: x\r\n"), chunked("1\r\nab\r\n") } do
      local connection = support.http.connect(server.url)
      for byte in bytes:gmatch(".") do
        connection:raw(byte)
      end
      support.problem(assert(connection:receive()), 400, "malformed")
      check_closed(connection)
      connection:close()
    end
  end)

  it("before one that is refused is answered first", function()
    local connection = support.http.connect(server.url)
    connection:raw(line("GET /show?n=1 HTTP/1.1") .. post("Content-Length: 1\r\n", "b") .. get("nonsense\r\n")
      .. get(""))
    assert.same({ n = "1" }, assert(connection:receive()):json().query)
    assert.same({ body = "b" }, assert(connection:receive()):json())
    support.problem(assert(connection:receive()), 400, "malformed")
    check_closed(connection)
    connection:close()
  end)

  it("that is refused keeps its id, in the log too", function()
    local connection = support.http.connect(server.url)
    connection:raw(get("X-Request-Id: refused-1\r\nnonsense\r\n"))
    assert.equal("refused-1", support.problem(assert(connection:receive()), 400).request_id)
    assert.matches("method=GET path=/show status=400 .*error=malformed", server:wait_log("id=refused%-1"))
    connection:close()
  end)

  it("that is refused does not lose its answer while its client goes on sending", function()
    local connection = support.http.connect(server.url)
    connection:raw("GET /show HTTP/3.0\r\n" .. ("x"):rep(1024 * 1024))
    support.problem(connection:finish(), 505)
  end)

  it("of HTTP/1.0 is the last on its connection", function()
    local connection = support.http.connect(server.url)
    connection:raw("GET /show HTTP/1.0\r\n\r\n")
    assert.equal(200, assert(connection:receive()).status)
    check_closed(connection)
    connection:close()
  end)

  it("of HTTP/1.0 keeps its connection if it says so", function()
    local connection = support.http.connect(server.url)
    connection:raw("GET /show HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    local answer = assert(connection:receive())
    assert.equal(200, answer.status)
    assert.matches("[Kk]eep%-[Aa]live", answer.headers.connection)
    check_next(connection)
    connection:close()
  end)

  it("that expects 100-continue hears it before its body is read", function()
    local connection = support.http.connect(server.url)
    connection:raw(post("Content-Length: 3\r\nExpect: 100-continue\r\n"))
    assert.equal("HTTP/1.1 100 Continue", connection.socket:receive("*l"))
    assert.equal("", connection.socket:receive("*l"))
    connection:raw("abc")
    assert.same({ body = "abc" }, assert(connection:receive()):json())
    check_next(connection)
    connection:close()
  end)

  it("that expects 100-continue hears at once that its body is too large", function()
    local connection = support.http.connect(server.url)
    connection:raw("POST /small HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n")
    support.problem(assert(connection:receive()), 413, "body-too-large")
    check_closed(connection)
    connection:close()
  end)

  it("of OPTIONS * asks about the server", function()
    local connection = support.http.connect(server.url)
    connection:raw(line("OPTIONS * HTTP/1.1"))
    assert.equal(204, assert(connection:receive()).status)
    check_next(connection)
    connection:close()
  end)

  it("of an unknown method answers 405, and is read to its end", function()
    local connection = support.http.connect(server.url)
    local answer = connection:request("BREW", "/show", { body = "coffee" })
    support.problem(answer, 405, "method-not-allowed")
    assert.equal("GET, HEAD, OPTIONS", answer.headers.allow)
    check_next(connection)
    connection:close()
  end)

  it("of HEAD that fails has no body either", function()
    local connection = support.http.connect(server.url)
    connection:send("HEAD", "/nowhere")
    local answer = assert(connection:receive("HEAD"))
    assert.equal(404, answer.status)
    assert.is_true(tonumber(answer.headers["content-length"]) > 0)
    check_next(connection)
    connection:close()
  end)
end)

describe("an answer", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT, flags = { "--no-watch", "--header-limit", "16KiB" } }
  end)
  teardown(function() server:stop() end)

  it("has room for many headers", function()
    local answer = server:get("/headers/100/100")
    assert.equal(200, answer.status)
    assert.equal(("x"):rep(100), answer.headers["x-header-100"])
  end)

  it("with more headers than fit is a 500, and the log says what to do", function()
    local offset = #server:log()
    support.problem(server:get("/headers/200/100"), 500, "script-error")
    assert.matches("%-%-header%-limit", server:wait_log("response headers too large", offset))
  end)

  it("may be asked for with more headers under a higher --header-limit", function()
    local answer = server:get("/show", { headers = { ["X-Shown"] = ("x"):rep(12000) } })
    assert.equal(12000, #answer:json().header)
  end)
end)
