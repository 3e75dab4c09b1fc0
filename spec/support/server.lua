-- Starts moonpool for a spec: its own database, free ports, and a temporary folder with scripts and SQL
-- which the spec may edit.
local busted = require "busted"

local db = require "spec.support.db"
local environment = require "spec.support.environment"
local eventually = require "spec.support.eventually"
local http = require "spec.support.http"
local proxy = require "spec.support.proxy"
local shell = require "spec.support.shell"

local server = {}

local PATIENCE = 60 -- seconds that a command may take
local LOG_LINES = 40 -- of each server, shown when a spec fails
local DEADLINE = "20s" -- of requests for which a spec says nothing: the machine may be slow

---@class server.Options
---@field script? string the only script: scripts/spec.lua, without the sample application
---@field statements? string sql/spec.sql
---@field migration? string sql/migrations/0900_spec.sql, which comes behind those of the application
---@field app? boolean false leaves out the sample application; its schema is there either way
---@field scripts? table<string, string> more scripts, by path below scripts/
---@field sql? table<string, string> more SQL files, by path below sql/, migrations too
---@field flags? string[] more flags for `moonpool serve`
---@field environment? table<string, string>
---@field database? string URL; by default a new database, dropped by stop()
---@field migrate? boolean false leaves the database empty
---@field proxy? boolean true puts a proxy between server and database: server.proxy
---@field wait? boolean false returns before the server is ready

---@class server.Server
---@field folder string
---@field database string URL
---@field db db.Database
---@field url string
---@field admin_url string
---@field worker_count integer
---@field process shell.Process
---@field proxy? proxy.Proxy
local Server = {}
Server.__index = Server

local running = {} -- set of servers whose logs are shown when a spec fails
local last_log = "" -- of the server that ended last

local function log_tail(self)
  local log = shell.run(("tail -n %d %s"):format(LOG_LINES, shell.quote(self.log_path)))
  return ("log of the server in %s:\n%s\n"):format(self.folder, log)
end

---The last lines that the servers of this spec have logged, those that still run last.
---@return string
function server.logs()
  local logs = { last_log }
  for self in pairs(running) do
    logs[#logs + 1] = log_tail(self)
  end
  return table.concat(logs)
end

local function dump_logs()
  io.stderr:write("\n", server.logs())
  return nil, true -- others are to hear of the failure too
end

busted.subscribe({ "failure" }, dump_logs)
busted.subscribe({ "error" }, dump_logs)

local function write_spec(self, options)
  for path, text in pairs {
    ["scripts/spec.lua"] = options.script,
    ["sql/spec.sql"] = options.statements,
    ["sql/migrations/0900_spec.sql"] = options.migration,
  } do
    self:write(path, text)
  end
end

local function copy_sources(self, options)
  local root = environment.root()
  shell.must(("mkdir -p %s/scripts && cp -r %s/sql %s/sql"):format(
    shell.quote(self.folder), shell.quote(root), shell.quote(self.folder)))
  if options.app == false or options.script then
    shell.must(("rm -f %s/sql/*.sql"):format(shell.quote(self.folder)))
  else
    shell.must(("cp %s/scripts/*.lua %s/scripts/"):format(shell.quote(root), shell.quote(self.folder)))
  end
  for name, text in pairs(options.scripts or {}) do
    self:write("scripts/" .. name, text)
  end
  for name, text in pairs(options.sql or {}) do
    self:write("sql/" .. name, text)
  end
  write_spec(self, options)
end

local function open_database(self, options)
  if options.database then
    self.database = options.database
    self.db = db.at(options.database)
    return
  end
  local name = self.folder:match("[^/]+$"):gsub("%-", "_")
  self.db = db.create(environment.maintenance_url(), name)
  self.database_name = name
  self.database = self.db.url
end

local function fill(self, options)
  copy_sources(self, options)
  open_database(self, options)
  if options.proxy then
    self.proxy = proxy.start(self.database, self.folder)
    self.database = self.proxy.url
  end
  if options.migrate ~= false then
    local output, code = self:run("migrate")
    if code ~= 0 then
      error("moonpool migrate ended with " .. code .. ": " .. output, 0)
    end
  end
end

-- Calls a step of the start; when it fails, nothing is left behind.
local function step(self, fn, ...)
  local ok, err = pcall(fn, self, ...)
  if not ok then
    pcall(self.stop, self)
    error(err, 0)
  end
end

---Everything but the process: folder, sources and database.
---@param options? server.Options
---@return server.Server
function server.prepare(options)
  options = options or {}
  local self = setmetatable({ folder = shell.folder(), options = options }, Server)
  self.log_path = self.folder .. "/server.log"
  step(self, fill, options)
  return self
end

---@param options? server.Options
---@return server.Server
function server.start(options)
  local self = server.prepare(options)
  step(self, self.launch)
  return self
end

function Server:words(command, ...)
  return { environment.binary(), command, "--database", self.database, "--scripts", "scripts", "--sql", "sql", ... }
end

---Runs another command of moonpool on the same folders and database: output and exit code. One that
---does not end is ended, with exit code 124.
---@param command string
---@param ... string flags
---@return string output
---@return integer code
function Server:run(command, ...)
  local words = { "timeout", "-k", "5", PATIENCE, table.unpack(self:words(command, ...)) }
  return shell.run("cd " .. shell.quote(self.folder) .. " && " .. shell.join(words))
end

---Starts the process. server.start() does; a spec that stopped it may do it again.
function Server:launch()
  local words = self:words("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
    "--workers", "1", "--pool-max", "4", "--deadline", DEADLINE)
  for _, flag in ipairs(self.options.flags or {}) do
    words[#words + 1] = flag
  end
  local offset = #self:log()
  self.process = shell.start(words, self.folder, "server", self.options.environment)
  running[self] = true
  if self.options.wait ~= false then
    self:wait_serving(offset)
    self:wait_ready()
  end
end

---@return string
function Server:log()
  return shell.read(self.log_path) or ""
end

---Waits until the log has a line with this pattern behind `offset`, and returns that line.
---@param pattern string a Lua pattern, tried on each line
---@param offset? integer bytes of the log to pass over
---@return string
function Server:wait_log(pattern, offset)
  return eventually("a line like " .. pattern .. " in the log", function()
    for line in self:log():sub((offset or 0) + 1):gmatch("[^\n]+") do
      if line:find(pattern) then
        return line
      end
    end
    if self.process:exit_code() then
      error("the server ended:\n" .. self:log(), 0)
    end
  end)
end

---Learns the addresses from the log, in text or JSON.
---@param offset? integer
function Server:wait_serving(offset)
  local line = self:wait_log("[ \"]serving[ \"]", offset)
  self.url = assert(line:match("[ \"]url\"?[=:]\"?(http://[^%s\"]+)"), line)
  self.admin_url = assert(line:match("[ \"]admin\"?[=:]\"?(http://[^%s\"]+)"), line)
  self.worker_count = assert(tonumber(line:match("[ \"]workers\"?[=:](%d+)")), line)
end

---Waits until the server is ready, and all of its workers are.
function Server:wait_ready()
  eventually("/readyz", function()
    return self:readyz().status == 200
  end)
  eventually("all workers", function() return self:metric("workers_ready") == self.worker_count end)
end

---@return http.Answer
function Server:readyz()
  return http.request(self.admin_url, "GET", "/readyz")
end

---All figures of /metrics, by their names without "moonpool_".
---@return table<string, number>
function Server:metrics()
  local figures = {}
  local text = http.request(self.admin_url, "GET", "/metrics").body
  for name, value in text:gmatch("\nmoonpool_([%w_]+) (%S+)") do
    figures[name] = tonumber(value)
  end
  return figures
end

---@param name string e.g. "pool_waiting"
---@return number
function Server:metric(name)
  return assert(self:metrics()[name], name)
end

---@param method string
---@param path string
---@param options? http.Options
---@return http.Answer
function Server:request(method, path, options)
  return http.request(self.url, method, path, options)
end

---@param path string
---@param options? http.Options
---@return http.Answer
function Server:get(path, options)
  return self:request("GET", path, options)
end

---Posts a value as JSON; a string is the body as it is, said to be JSON too.
---@param path string
---@param body any
---@return http.Answer
function Server:post(path, body)
  if type(body) == "string" then
    return self:request("POST", path, { body = body, headers = { ["Content-Type"] = "application/json" } })
  end
  return self:request("POST", path, { json = body })
end

---Posts a value, {} if there is none, and gives what the answer says, which has to be a 200.
---@param path string
---@param body any
---@return any
function Server:call(path, body)
  return self:post(path, body or {}):value()
end

---Sends a request and leaves the answer for later: connection:receive().
---@param method string
---@param path string
---@param options? http.Options
---@return http.Connection
function Server:begin(method, path, options)
  local connection = http.connect(self.url)
  assert(connection:send(method, path, options))
  return connection
end

---Writes a file below the server's folder, e.g. "scripts/score.lua".
---@param path string
---@param text string
function Server:write(path, text)
  shell.write(self.folder .. "/" .. path, text)
end

---@param path string
---@return string
function Server:read(path)
  return assert(shell.read(self.folder .. "/" .. path), path)
end

---Replaces plain text in a file below the server's folder; raises if it is not there.
---@param path string
---@param old string
---@param new string
function Server:edit(path, old, new)
  local text = self:read(path)
  local first, last = text:find(old, 1, true)
  assert(first, path .. " has no " .. old)
  self:write(path, text:sub(1, first - 1) .. new .. text:sub(last + 1))
end

---@return integer[] # pids of the workers
function Server:workers()
  return shell.children(self.process.pid)
end

local function check_sanitizers(self)
  local log = self:log()
  local found = log:match("[^\n]*ERROR: %w+Sanitizer[^\n]*") or log:match("[^\n]*runtime error:[^\n]*")
  if found then
    error(found .. "\n" .. log_tail(self), 0)
  end
end

---Ends the process, killing it only if it does not end by itself: its exit code.
---@param signal? string
---@return integer
function Server:halt(signal)
  if not self.process:exit_code() then
    self.process:signal(signal or "TERM")
  end
  local ended, code = pcall(self.process.wait, self.process, 30)
  if not ended then
    self.process:signal("KILL")
    error(code, 0)
  end
  return code
end

local function clean_up(self)
  if running[self] then
    last_log = log_tail(self)
  end
  running[self] = nil
  if self.proxy then
    self.proxy:stop()
  end
  if self.database_name then
    db.drop(environment.maintenance_url(), self.database_name)
  end
  shell.must("rm -rf " .. shell.quote(self.folder))
end

---Ends the server and removes what it had; raises if it did not end well. Returns its exit code.
---@return integer
function Server:stop()
  local ended, code = true, 0
  if self.process then
    ended, code = pcall(self.halt, self)
  end
  local clean, report = pcall(check_sanitizers, self)
  clean_up(self)
  assert(ended, code)
  assert(clean, report)
  return code
end

return server
