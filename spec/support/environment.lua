-- Where the specs find things:
--   MOONPOOL_BIN            the server's binary; build/moonpool if it is not set
--   MOONPOOL_TEST_DATABASE  URL of a database on a cluster where this role may create databases
--   MOONPOOL_PG_BIN         folder of initdb and pg_ctl, for specs that need a cluster of their own
local lfs = require "lfs"

local environment = {}

local function absolute(path)
  return path:sub(1, 1) == "/" and path or lfs.currentdir() .. "/" .. path
end

---The checkout's root: specs are run from there.
---@return string
function environment.root()
  return lfs.currentdir()
end

---@return string
function environment.binary()
  return absolute(os.getenv("MOONPOOL_BIN") or "build/moonpool")
end

---@return string
function environment.maintenance_url()
  local url = os.getenv("MOONPOOL_TEST_DATABASE")
  if not url or url == "" then
    error("MOONPOOL_TEST_DATABASE is not set: run ./dev test, or give the URL of a scratch database", 0)
  end
  return url
end

---@return string
function environment.postgres_folder()
  return os.getenv("MOONPOOL_PG_BIN") or "/usr/lib/postgresql/15/bin"
end

---True if the binary carries AddressSanitizer, which needs more memory and time.
---@return boolean
function environment.is_sanitized()
  local pipe = assert(io.popen("ldd '" .. environment.binary() .. "' 2>/dev/null"))
  local libraries = pipe:read("a")
  pipe:close()
  return libraries:find("libasan", 1, true) ~= nil or libraries:find("libclang_rt.asan", 1, true) ~= nil
end

return environment
