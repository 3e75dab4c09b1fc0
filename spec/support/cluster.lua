-- A PostgreSQL cluster of a spec's own, for what cannot be tried on a shared one: being away.
local lfs = require "lfs"
local socket = require "socket"

local environment = require "spec.support.environment"
local shell = require "spec.support.shell"

---@class cluster.Cluster
---@field folder string
---@field port integer
---@field url string
local Cluster = {}
Cluster.__index = Cluster

local cluster = {}

local function free_port()
  local probe = assert(socket.bind("127.0.0.1", 0))
  local _, port = probe:getsockname()
  probe:close()
  return math.tointeger(tonumber(port))
end

-- PostgreSQL refuses to run as root; the package's own user takes its place.
local function as_postgres(words)
  local line = shell.join(words)
  if shell.run("id -u"):match("^0%s") then
    return "runuser -u postgres -- " .. line
  end
  return line
end

local function run(...)
  return shell.run("cd / && " .. as_postgres { ... })
end

local function must(...)
  return shell.must("cd / && " .. as_postgres { ... })
end

-- A folder and a port, without data.
local function prepare()
  local folder = shell.folder()
  if shell.run("id -u"):match("^0%s") then
    shell.must("chown postgres " .. shell.quote(folder))
  end
  local port = free_port()
  local self = setmetatable({ folder = folder, port = port }, Cluster)
  self.url = ("postgresql://postgres@127.0.0.1:%d/postgres"):format(port)
  return self
end

---Makes a cluster; it does not run yet.
---@return cluster.Cluster
function cluster.create()
  local self = prepare()
  must(
    environment.postgres_folder() .. "/initdb", "-D", self.folder .. "/data", "-U", "postgres",
    "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
  return self
end

---Makes a standby of a running cluster; it does not run yet.
---@return cluster.Cluster
function Cluster:create_standby()
  local standby = prepare()
  must(environment.postgres_folder() .. "/pg_basebackup", "-d", self.url, "-D", standby.folder .. "/data",
    "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
  return standby
end

function Cluster:control(...)
  return run(environment.postgres_folder() .. "/pg_ctl", "-D", self.folder .. "/data", "-w", ...)
end

---@param settings? string for the command line of postgres
function Cluster:start(settings)
  local options = ("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s -c fsync=off %s"):format(
    self.port, self.folder, settings or "")
  local output, code = self:control("start", "-l", self.folder .. "/log", "-o", options)
  assert(code == 0, output)
end

---Stops and starts it with the settings it has.
---@param mode string "fast" or "immediate"
function Cluster:restart(mode)
  local output, code = self:control("restart", "-m", mode, "-l", self.folder .. "/log")
  assert(code == 0, output)
end

---@return integer # the pid of the process that accepts connections
function Cluster:postmaster()
  return assert(math.tointeger(assert(shell.read(self.folder .. "/data/postmaster.pid")):match("^%d+")))
end

---Sends a signal to the postmaster, and with `everything` to its children too.
---@param name string
---@param everything? boolean
function Cluster:signal(name, everything)
  local pids = everything and shell.children(self:postmaster()) or {}
  shell.must(("kill -%s %d %s"):format(name, self:postmaster(), table.concat(pids, " ")))
end

---@param mode? string "fast" or "immediate"
function Cluster:stop(mode)
  if lfs.attributes(self.folder .. "/data/postmaster.pid") then
    self:control("stop", "-m", mode or "immediate")
  end
end

function Cluster:destroy()
  self:stop()
  shell.must("rm -rf " .. shell.quote(self.folder))
end

return cluster
