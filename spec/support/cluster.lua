-- A PostgreSQL cluster of a spec's own, for what cannot be tried on a shared one: being away.
local lfs = require "lfs"
local socket = require "socket"

local environment = require "spec.support.environment"
local shell = require "spec.support.shell"

-- Below what the kernel gives to those who ask for any port, connections among them.
local FIRST_PORT, LAST_PORT = 10000, 19999
local LOG_LINES = 20 -- shown when PostgreSQL does not start

---@class cluster.Cluster
---@field folder string
---@field port integer
---@field reservation table keeps the port from others
---@field url string
---@field namespace? string of the network it is started in
local Cluster = {}
Cluster.__index = Cluster

local cluster = {}

local function is_free(port)
  local probe = socket.bind("127.0.0.1", port)
  if probe then
    probe:close()
  end
  return probe ~= nil
end

---A port that no other spec is given meanwhile, though nobody listens on it yet, or for a while: the
---same port of UDP, which nobody uses, is held for it.
---@return integer port
---@return table reservation for as long as it is not collected
function cluster.reserve_port()
  for _ = 1, LAST_PORT - FIRST_PORT do
    local port = math.random(FIRST_PORT, LAST_PORT)
    local reservation = assert(socket.udp())
    if reservation:setsockname("127.0.0.1", port) and is_free(port) then
      return port, reservation
    end
    reservation:close()
  end
  error(("no free port from %d to %d"):format(FIRST_PORT, LAST_PORT), 0)
end

-- PostgreSQL refuses to run as root; the package's own user takes its place.
local function as_postgres(words)
  local line = shell.join(words)
  if shell.run("id -u"):match("^0%s") then
    return "runuser -u postgres -- " .. line
  end
  return line
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
  local port, reservation = cluster.reserve_port()
  local self = setmetatable({ folder = folder, port = port, reservation = reservation }, Cluster)
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
  local line = as_postgres { environment.postgres_folder() .. "/pg_ctl", "-D", self.folder .. "/data", "-w", ... }
  return shell.run(("cd / && %s %s"):format(self.namespace and "ip netns exec " .. self.namespace or "", line))
end

-- As control(), but raises with the log when the command fails.
local function must_control(self, ...)
  local output, code = self:control(...)
  if code ~= 0 then
    local log = shell.run(("tail -n %d %s/log"):format(LOG_LINES, shell.quote(self.folder)))
    error(output .. log, 3)
  end
end

---Asks a role for its password over TCP; others are let in without. To be called before the start.
---@param role string
function Cluster:ask_password(role)
  local path = self.folder .. "/data/pg_hba.conf"
  local rules = assert(shell.read(path))
  local file = assert(io.open(path, "w"))
  file:write(("host all %s 127.0.0.1/32 scram-sha-256\n"):format(role), rules)
  file:close()
end

---@param settings? string for the command line of postgres
function Cluster:start(settings)
  local options = ("-p %d -c listen_addresses=127.0.0.1 -c unix_socket_directories=%s -c fsync=off %s"):format(
    self.port, self.folder, settings or "")
  must_control(self, "start", "-l", self.folder .. "/log", "-o", options)
end

---Stops and starts it with the settings it has.
---@param mode string "fast" or "immediate"
function Cluster:restart(mode)
  must_control(self, "restart", "-m", mode, "-l", self.folder .. "/log")
end

---@return integer # the pid of the process that accepts connections
function Cluster:postmaster()
  return assert(math.tointeger(assert(shell.read(self.folder .. "/data/postmaster.pid")):match("^%d+")))
end

---Sends a signal to the postmaster, and with `everything` to its children too.
---@param name string
---@param everything? boolean
function Cluster:signal(name, everything)
  local postmaster = self:postmaster()
  shell.must(("kill -%s %d"):format(name, postmaster))
  -- Those that are there now: it starts no others while it is stopped, and some may end meanwhile.
  for _, pid in ipairs(everything and shell.children(postmaster) or {}) do
    shell.run(("kill -%s %d"):format(name, pid))
  end
end

---@param mode? string "fast" or "immediate"
function Cluster:stop(mode)
  if lfs.attributes(self.folder .. "/data/postmaster.pid") then
    self:control("stop", "-m", mode or "immediate")
  end
end

function Cluster:destroy()
  self:stop()
  self.reservation:close()
  shell.must("rm -rf " .. shell.quote(self.folder))
end

return cluster
