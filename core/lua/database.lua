-- The database as scripts see it: app.db, and the methods of a transaction that need no C.
local native = require "moonpool.db"

local Tx = native.tx

-- Waits before a transaction is tried again: they grow, with jitter, so that two that got in each
-- other's way do not meet again. Seconds.
local FIRST_PAUSE = 0.002
local LONGEST_PAUSE = 0.1

local OPTIONS = {
  isolation = "string",
  read_only = "boolean",
  deferrable = "boolean",
  retries = "number",
  serialize = "string",
}

local Db = {}

local function check_options(options, level)
  for name, value in pairs(options) do
    local wanted = OPTIONS[name]
    if not wanted then
      error(("a transaction has no option '%s'"):format(name), level + 1)
    elseif type(value) ~= wanted then
      error(("the option '%s' of a transaction must be a %s"):format(name, wanted), level + 1)
    end
  end
end

local function is_conflict(err)
  return type(err) == "table" and err.code == "serialization"
end

local function pause(attempt)
  local longest = math.min(FIRST_PAUSE * 2 ^ attempt, LONGEST_PAUSE)
  native.sleep(longest * (0.5 + math.random() / 2))
end

-- What an error that is no table carries of its place is kept; Lua's own traceback would be lost with
-- the rollback, so it is not gathered.
local function run(tx, fn)
  local results = table.pack(pcall(fn, tx))
  if results[1] then
    results = table.pack(pcall(function(...)
      tx:commit()
      return ...
    end, table.unpack(results, 2, results.n)))
  end
  if not results[1] then
    tx:rollback()
  end
  return results
end

--- Runs `fn` in a transaction: committed when it returns, rolled back when it raises.
function Db:transaction(options, fn)
  if fn == nil then
    options, fn = {}, options
  end
  if type(fn) ~= "function" then
    error("a transaction needs a function: db:transaction([options,] function(tx) ... end)", 2)
  end
  check_options(options, 2)
  local retries = options.retries or 0
  for attempt = 0, retries do
    local results = run(native.begin(options), fn)
    if results[1] then
      return table.unpack(results, 2, results.n)
    elseif attempt == retries or not is_conflict(results[2]) then
      error(results[2], 0)
    end
    pause(attempt)
  end
end

--- Begins a transaction that the script ends itself by tx:commit() or tx:rollback().
function Db:begin(options)
  check_options(options or {}, 2)
  return native.begin(options or {})
end

function Db:query(...)
  return native.query(self, ...)
end

function Db:query_row(...)
  return native.query_row(self, ...)
end

function Db:exec(...)
  return native.exec(self, ...)
end

function Db:queue(...)
  return native.queue(self, ...)
end

function Db:send_batch()
  return native.send_batch(self)
end

--- Runs `fn` behind a savepoint: what it did is undone, and the transaction goes on, when it raises.
--- The error is raised again, for the caller to catch.
function Tx:savepoint(fn)
  self:exec("savepoint moonpool")
  local results = table.pack(pcall(fn, self))
  if not results[1] then
    self:recover("rollback to savepoint moonpool")
    self:exec("release savepoint moonpool")
    error(results[2], 0)
  end
  self:send_batch()
  self:exec("release savepoint moonpool")
  return table.unpack(results, 2, results.n)
end

return setmetatable({}, { __index = Db, __name = "moonpool.database" })
