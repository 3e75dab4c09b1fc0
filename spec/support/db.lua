-- PostgreSQL as the specs see it: through psql, so that no client of ours stands between the spec and
-- the truth.
local cjson = require "cjson"

local environment = require "spec.support.environment"
local eventually = require "spec.support.eventually"
local shell = require "spec.support.shell"

local db = {}

-- The program itself: Debian's psql is a script that looks for it, and takes longer than most queries.
local PSQL = environment.postgres_folder() .. "/psql -XqAt -v ON_ERROR_STOP=1 -d "

---@class db.Database
---@field url string
local Database = {}
Database.__index = Database

---@param url string
---@return db.Database
function db.at(url)
  return setmetatable({ url = url }, Database)
end

---The URL of another database on the same cluster.
---@param url string
---@param name string
---@return string
function db.sibling_url(url, name)
  local authority, options = url:match("^(postgres%w*://[^/?]*)/?[^?]*(.*)$")
  if not authority then
    error("not a URL of PostgreSQL: " .. url, 2)
  end
  return authority .. "/" .. name .. options
end

---Makes a database beside the one at `url`.
---@param url string
---@param name string
---@return db.Database
function db.create(url, name)
  db.at(url):exec(('create database "%s"'):format(name))
  return db.at(db.sibling_url(url, name))
end

---Drops a database made by db.create(), whoever is still connected to it.
---@param url string
---@param name string
function db.drop(url, name)
  db.at(url):exec(('drop database if exists "%s" with (force)'):format(name))
end

---Runs SQL, several statements if need be, and returns what psql prints.
---@param sql string
---@return string
function Database:exec(sql)
  return (shell.must(PSQL .. shell.quote(self.url) .. " -c " .. shell.quote(sql)):gsub("\n$", ""))
end

---The rows of one query; numbers as cjson reads them, NULL as cjson.null.
---@param sql string
---@return table[]
function Database:query(sql)
  local text = self:exec(("select coalesce(json_agg(row_to_json(q)), '[]') from (%s) q"):format(sql))
  return cjson.decode(text)
end

---The only column of the only row, as a number where it is one.
---@param sql string
---@return number|string
function Database:value(sql)
  local text = self:exec(sql)
  return tonumber(text) or text
end

---@param table_name string
---@return integer
function Database:count(table_name)
  return math.tointeger(self:value("select count(*) from " .. table_name))
end

---Client sessions on this database but for psql's own.
---@return integer
function Database:sessions()
  return math.tointeger(self:value([[
    select count(*) from pg_stat_activity
    where datname = current_database() and backend_type = 'client backend'
      and pid <> pg_backend_pid() and application_name <> 'psql']]))
end

---True while a session other than psql's runs a statement that is like `pattern`.
---@param pattern string
---@return boolean
function Database:is_running(pattern)
  return self:value(([[
    select count(*) from pg_stat_activity
    where datname = current_database() and state = 'active'
      and application_name <> 'psql' and query like '%s']]):format(pattern)) > 0
end

---Waits until a statement like `pattern` runs, or no longer runs.
---@param pattern string
---@param running? boolean
function Database:wait_running(pattern, running)
  local wanted = running ~= false
  eventually(("%s to %s"):format(pattern, wanted and "run" or "end"), function()
    return self:is_running(pattern) == wanted
  end)
end

---@class db.Session
---@field pipe file*
---@field path string of the file to which psql writes
---@field read integer bytes of it that belong to earlier calls
---@field count integer
local Session = {}
Session.__index = Session

---A session that stays open: it holds locks while the spec does something else, and is quicker than
---one for each statement.
---@return db.Session
function Database:session()
  local path = os.tmpname()
  local command = PSQL .. shell.quote(self.url) .. " >" .. shell.quote(path) .. " 2>&1"
  local pipe = assert(io.popen(command, "w"))
  pipe:setvbuf("no")
  return setmetatable({ pipe = pipe, path = path, read = 0, count = 0 }, Session)
end

---Runs SQL in the session, waits until it is done, and returns what psql prints.
---@param sql string
---@return string
function Session:exec(sql)
  self.count = self.count + 1
  local mark = ("done %d\n"):format(self.count)
  self.pipe:write(sql, ";\n\\echo ", mark)
  return eventually("the session to run " .. sql, function()
    local output = shell.read(self.path):sub(self.read + 1)
    local place = output:find(mark, 1, true)
    if place then
      self.read = self.read + #output
      return output:sub(1, place - 1)
    end
  end)
end

---Ends the session; what it had not committed is rolled back. Processes started meanwhile have the
---pipe too, so that closing it would not tell psql.
function Session:close()
  self.pipe:write("\\q\n")
  self.pipe:close()
  os.remove(self.path)
end

return db
