-- A small HTTP/1.1 client. It sends what it is told to, malformed requests too, and reads answers as
-- they are on the wire.
local assert = require "luassert"
local cjson = require "cjson"
local socket = require "socket"

local http = {}

local TIMEOUT = 60 -- seconds; only what hangs takes this long

---@class http.Answer
---@field status integer
---@field reason string
---@field headers table<string, string> names in lower case; several of one name joined by ", "
---@field body string
local Answer = {}
Answer.__index = Answer

---@return any
function Answer:json()
  return cjson.decode(self.body)
end

---Itself, which has to be a 200.
---@return http.Answer
function Answer:good()
  assert.equal(200, self.status, self.body)
  return self
end

---What an answer says that has to be a 200: its body, decoded.
---@return any
function Answer:value()
  return self:good():json()
end

---@class http.Connection
---@field socket table
local Connection = {}
Connection.__index = Connection

---@param url string "http://127.0.0.1:8608"
---@return http.Connection
function http.connect(url)
  local host, port = url:match("^http://%[?([^/]-)%]?:(%d+)")
  local connection, fault
  if host then
    connection, fault = socket.connect(host, tonumber(port))
  end
  if not connection then
    error(("cannot connect to %s: %s"):format(url, fault or "not a URL"), 2)
  end
  connection:settimeout(TIMEOUT)
  connection:setoption("tcp-nodelay", true)
  return setmetatable({ socket = connection }, Connection)
end

function Connection:close()
  self.socket:close()
end

---Sends bytes as they are.
---@param bytes string
function Connection:raw(bytes)
  return self.socket:send(bytes)
end

---@class http.Options
---@field headers? table<string, string|number>
---@field body? string
---@field json? any encoded by cjson as the body

local function with_body(options)
  if options.json == nil then
    return options.body, "text/plain"
  end
  return cjson.encode(options.json), "application/json"
end

local function format_request(method, path, options)
  local body, media_type = with_body(options)
  local headers = { Host = "localhost" }
  if body then
    headers["Content-Length"] = #body
    headers["Content-Type"] = media_type
  end
  for name, value in pairs(options.headers or {}) do
    headers[name] = value
  end
  local lines = { ("%s %s HTTP/1.1"):format(method, path) }
  for name, value in pairs(headers) do
    lines[#lines + 1] = name .. ": " .. value
  end
  return table.concat(lines, "\r\n") .. "\r\n\r\n" .. (body or "")
end

---@param method string
---@param path string
---@param options? http.Options
function Connection:send(method, path, options)
  return self:raw(format_request(method, path, options or {}))
end

local function read_headers(connection)
  local headers = {}
  while true do
    local line = assert(connection:receive("*l"))
    if line == "" then
      return headers
    end
    local name, value = line:match("^([^:%s]+):%s*(.-)%s*$")
    assert(name, "not a header: " .. line)
    name = name:lower()
    headers[name] = headers[name] and headers[name] .. ", " .. value or value
  end
end

local function read_chunks(connection)
  local parts = {}
  repeat
    local size = tonumber(assert(connection:receive("*l")):match("^%x+"), 16)
    parts[#parts + 1] = size > 0 and assert(connection:receive(size)) or ""
    assert(connection:receive("*l"))
  until size == 0
  return table.concat(parts)
end

local function read_body(connection, method, status, headers)
  if method == "HEAD" or status == 204 or status == 304 then
    return ""
  elseif headers["transfer-encoding"] == "chunked" then
    return read_chunks(connection)
  elseif headers["content-length"] then
    local length = tonumber(headers["content-length"])
    return length == 0 and "" or assert(connection:receive(length))
  end
  return assert(connection:receive("*a"))
end

---Reads one answer. nil and why if the connection ends before it.
---@param method? string of the request: an answer to HEAD has no body
---@return http.Answer?
---@return string?
function Connection:receive(method)
  local status_line, fault = self.socket:receive("*l")
  if not status_line then
    return nil, fault
  end
  local status, reason = status_line:match("^HTTP/1%.[01] (%d%d%d) ?(.*)$")
  assert(status, "not a status line: " .. status_line)
  local headers = read_headers(self.socket)
  status = tonumber(status)
  local body = read_body(self.socket, method, status, headers)
  return setmetatable({ status = status, reason = reason, headers = headers, body = body }, Answer)
end

---Reads the last answer, which there has to be, and closes the connection.
---@param method? string
---@return http.Answer
function Connection:finish(method)
  local answer, fault = self:receive(method)
  self:close()
  return assert(answer, fault)
end

---One request and its answer; the connection stays open.
---@param method string
---@param path string
---@param options? http.Options
---@return http.Answer
function Connection:request(method, path, options)
  assert(self:send(method, path, options))
  return assert(self:receive(method))
end

---One request on a connection of its own.
---@param url string
---@param method string
---@param path string
---@param options? http.Options
---@return http.Answer
function http.request(url, method, path, options)
  local connection = http.connect(url)
  assert(connection:send(method, path, options))
  return connection:finish(method)
end

---Bytes as they are on a connection of their own, and the answer to them.
---@param url string
---@param bytes string
---@return http.Answer?
---@return string?
function http.raw(url, bytes)
  local connection = http.connect(url)
  connection:raw(bytes)
  local answer, fault = connection:receive()
  connection:close()
  return answer, fault
end

---Sends `count` requests at once, each on a connection of its own, before it reads the first answer.
---@param url string
---@param count integer
---@param make fun(i: integer): string, string, http.Options? method, path and options
---@param meanwhile? fun() called when all are sent
---@return http.Answer[]
function http.at_once(url, count, make, meanwhile)
  local connections, methods, answers = {}, {}, {}
  for i = 1, count do
    connections[i] = http.connect(url)
  end
  for i = 1, count do
    local method, path, options = make(i)
    methods[i] = method
    assert(connections[i]:send(method, path, options))
  end
  if meanwhile then
    meanwhile()
  end
  for i = 1, count do
    answers[i] = connections[i]:finish(methods[i])
  end
  return answers
end

return http
