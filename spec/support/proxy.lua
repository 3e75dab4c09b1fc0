-- A proxy between the server and PostgreSQL that breaks what a spec tells it to, at the message it
-- tells it to: spec/support/pg_proxy.py says what there is.
--
--   server = support.server.start { proxy = true }
--   server.proxy:arm { "cut", "back", 3, "sql begin" }
local socket = require "socket"

local environment = require "spec.support.environment"
local eventually = require "spec.support.eventually"
local shell = require "spec.support.shell"

local PROGRAM = "spec/support/pg_proxy.py"
local PATIENCE = 20 -- seconds; only what hangs takes this long

---@class proxy.Proxy
---@field url string of the database, through the proxy
local Proxy = {}
Proxy.__index = Proxy

---@class proxy.Status
---@field triggered boolean the fault counts messages
---@field fired boolean it has come to pass
---@field forth integer messages counted on their way to PostgreSQL
---@field back integer messages counted on their way back
---@field sessions integer
---@field message string type of the message that the fault hit

local proxy = {}

-- The ports on which the program says that it listens.
local function wait_listening(self, folder)
  local line = eventually("the proxy to listen", function()
    local log = shell.read(folder .. "/proxy.log") or ""
    if self.process:exit_code() then
      error("the proxy ended:\n" .. log, 0)
    end
    return log:match("listening %d+ %d+\n")
  end)
  return line:match("(%d+) (%d+)")
end

---Starts a proxy for the database at `url`; its log is in `folder`.
---@param url string
---@param folder string
---@return proxy.Proxy
function proxy.start(url, folder)
  local head, host, port, tail = url:match("^(postgres%w*://[^@/]*@)([^:/]+):(%d+)(.*)$")
  assert(head, "not a URL with user, host and port: " .. url)
  local self = setmetatable({}, Proxy)
  local program = environment.root() .. "/" .. PROGRAM
  self.process = shell.start({ "python3", program, host, port }, folder, "proxy")
  local listening, control = wait_listening(self, folder)
  self.url = ("%s127.0.0.1:%s%s"):format(head, listening, tail)
  self.control = assert(socket.connect("127.0.0.1", tonumber(control)))
  self.control:setoption("tcp-nodelay", true)
  self.control:settimeout(PATIENCE)
  return self
end

---Gives an order and returns the answer.
---@param ... string|number
---@return string
function Proxy:order(...)
  local order = table.concat({ ... }, " ")
  assert(self.control:send(order .. "\n"))
  local answer = assert(self.control:receive("*l"))
  if answer:find("unknown order", 1, true) or answer:find("wrong arguments", 1, true) then
    error(("the proxy says to '%s': %s"):format(order, answer), 2)
  end
  return answer
end

---Arms the next fault: { fault, way, number, trigger }.
---@param fault table
function Proxy:arm(fault)
  self:order("arm", table.unpack(fault))
end

---@return proxy.Status
function Proxy:status()
  local status = {}
  for name, value in self:order("status"):gmatch("(%w+)=(%S+)") do
    status[name] = math.tointeger(tonumber(value)) or value
  end
  status.triggered = status.triggered == 1
  status.fired = status.fired == 1
  return status
end

---Waits until PostgreSQL has ended each session that a fault cut off, with all that it had begun.
function Proxy:settle()
  self:order("settle")
end

function Proxy:stop()
  self.control:close()
  self.process:signal("TERM")
  self.process:wait()
end

return proxy
