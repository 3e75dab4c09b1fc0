-- The database as scripts see it: app.db, and the methods of a transaction that need no C.
local native = require "moonpool.db"
local native_group = require "moonpool.group"

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
  timeout = "number",
  serialize = "string",
}

local Db = {}

local function check_options(options, level)
  for name, value in pairs(options) do
    local wanted = OPTIONS[name]
    if not wanted then
      error(("a transaction has no option '%s'"):format(name), level + 1)
    elseif type(value) ~= wanted and not (name == "serialize" and type(value) == "table") then
      error(("the option '%s' of a transaction must be a %s"):format(name, wanted), level + 1)
    end
  end
  if options.timeout and options.timeout <= 0 then
    error("the option 'timeout' of a transaction must be more than 0 seconds", level + 1)
  end
  local retries = options.retries or 0
  if math.type(retries) ~= "integer" or retries < 0 then
    error("the option 'retries' of a transaction must be a whole number from 0 on", level + 1)
  end
end

-- Those that another attempt may well not meet: serialization failures, deadlocks, and DDL that has
-- changed what a statement returns.
local CONFLICTS = { ["40001"] = true, ["40P01"] = true, ["0A000"] = true }

local function is_conflict(err)
  return type(err) == "table" and err.code == "serialization" and CONFLICTS[err.sqlstate] == true
end

local function pause_before(attempt)
  local longest = math.min(FIRST_PAUSE * 2 ^ attempt, LONGEST_PAUSE)
  return longest * (0.5 + math.random() / 2)
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

local function time_left(give_up)
  return math.min(native.left(), give_up and give_up - native.now() or math.huge)
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
  local give_up = options.timeout and native.now() + options.timeout
  local attempt = 0
  while true do
    local results = run(native.begin(options, give_up and give_up - native.now()), fn)
    if results[1] then
      return table.unpack(results, 2, results.n)
    end
    local pause = pause_before(attempt)
    if attempt >= retries or not is_conflict(results[2]) or pause >= time_left(give_up) then
      error(results[2], 0)
    end
    native.sleep(pause)
    attempt = attempt + 1
  end
end

--- Begins a transaction that the script ends itself by tx:commit() or tx:rollback().
function Db:begin(options)
  options = options or {}
  check_options(options, 2)
  return native.begin(options, options.timeout)
end

-- The functions themselves: a wrapper would stand between an error and the script's line.
Db.query = native.query
Db.query_row = native.query_row
Db.exec = native.exec
Db.queue = native.queue
Db.send_batch = native.send_batch

-- Feeds a COPY until the rows end, or the server has refused one as it seems: true if there may be more.
local function feed(tx, rows)
  if type(rows) == "function" then
    for row in rows do
      if not tx:copy_row(row) then
        return true
      end
    end
  else
    for i = 1, #rows do
      if not tx:copy_row(rows[i]) then
        return true
      end
    end
  end
  return false
end

--- Stores many rows by COPY: `rows` is a list of rows or a function that returns the next one, each a
--- list with a value per column. Returns how many they were.
function Tx:copy_from(name, columns, rows)
  if type(rows) ~= "table" and type(rows) ~= "function" then
    error("copy_from needs a list of rows, or a function that returns the next row", 2)
  end
  self:copy_begin(name, columns)
  local fed, cut = pcall(feed, self, rows)
  if not fed then
    self:copy_refuse()
    error(cut, 0)
  end
  return self:copy_end(cut)
end

--- The same in a transaction of its own.
function Db:copy_from(name, columns, rows)
  return self:transaction(function(tx)
    return tx:copy_from(name, columns, rows)
  end)
end

-- What is still queued belongs to the savepoint: it is sent before that ends.
local function keep_sent(tx, ...)
  tx:send_rest()
  return ...
end

--- Runs `fn` behind a savepoint: what it did is undone, and the transaction goes on, when it raises.
--- The error is raised again, for the caller to catch.
function Tx:savepoint(fn)
  if type(fn) ~= "function" then
    error("a savepoint needs a function: tx:savepoint(function(tx) ... end)", 2)
  end
  self:exec("savepoint moonpool")
  local results = table.pack(pcall(function()
    return keep_sent(self, fn(self))
  end))
  if not results[1] then
    self:recover("rollback to savepoint moonpool")
    self:exec("release savepoint moonpool")
    error(results[2], 0)
  end
  self:exec("release savepoint moonpool")
  return table.unpack(results, 2, results.n)
end

-- Failures that are not a member's doing: to try its members one by one would not help.
local FINAL = {
  ["outcome-unknown"] = true,
  ["database-unavailable"] = true,
  ["deadline-exceeded"] = true,
  ["pool-timeout"] = true,
  ["queue-timeout"] = true,
}

local GROUP_OPTIONS = { max = "number", serialize = "string" }
local MOST_MEMBERS = 256

-- Runs the group's function on `inputs` and commits. nil if a member was answered meanwhile, which
-- must not be committed; `index` is that of the only member, nil for all. The outputs as text.
local function commit_group(group, tx, inputs, index)
  local results = group.fn(tx, inputs)
  local outputs = {}
  for i = 1, #inputs do
    if type(results) ~= "table" or results[i] == nil then
      error(("the group %s has no output for input %d"):format(group.name, i), 0)
    end
    outputs[i] = native_group.encode(results[i])
  end
  if not native_group.seal(index) then
    return nil
  end
  tx:commit()
  return outputs
end

local function refuse_all(count, err)
  for i = 1, count do
    native_group.refuse(i, err)
  end
end

local function try_one(group, input, index)
  local tx = native.begin { serialize = group.serialize }
  local done, outputs = pcall(commit_group, group, tx, { input }, index)
  tx:rollback()
  if not done then
    native_group.refuse(index, native_group.failure(outputs))
  elseif outputs then
    native_group.answer(index, outputs[1])
  end
end

-- What a member did alone would fail again, unless it was others' doing.
local function fail_group(group, inputs, err)
  local alone = #inputs == 1 and not is_conflict(err)
  if alone or (type(err) == "table" and FINAL[err.code]) then
    refuse_all(#inputs, err)
  else
    for i, input in ipairs(inputs) do
      try_one(group, input, i)
    end
  end
end

-- The lock is waited for before the inputs are taken: who comes meanwhile still joins.
local function lead(group)
  local tx = native.begin { serialize = group.serialize }
  local opened, err = pcall(tx.open, tx)
  if opened then
    native_group.gather(group.max)
  end
  local inputs = native_group.take(group.max)
  if not opened then
    tx:rollback()
    refuse_all(#inputs, err)
    return
  elseif #inputs == 0 then
    tx:rollback()
    return
  end
  local done, outputs = pcall(commit_group, group, tx, inputs)
  tx:rollback()
  if done and outputs then
    for i = 1, #inputs do
      native_group.answer(i, outputs[i])
    end
  elseif not done then
    fail_group(group, inputs, native_group.failure(outputs))
  end
end

local function check_group(name, options, fn)
  if type(name) ~= "string" then
    error("a group needs a name", 3)
  elseif type(fn) ~= "function" then
    error("a group needs a function(tx, inputs) that returns an output for each input", 3)
  end
  for option, value in pairs(options) do
    if not GROUP_OPTIONS[option] then
      error(("a group has no option '%s'"):format(option), 3)
    elseif type(value) ~= GROUP_OPTIONS[option] then
      error(("the option '%s' of a group must be a %s"):format(option, GROUP_OPTIONS[option]), 3)
    end
  end
  local max = options.max or 1
  if math.type(max) ~= "integer" or max < 1 or max > MOST_MEMBERS then
    error(("the option 'max' of a group must be a whole number from 1 to %d"):format(MOST_MEMBERS), 3)
  end
end

--- Makes a group-committed function: requests that call it at the same time, in whatever worker, are
--- handed together to `fn` in one transaction.
function Db:group(name, options, fn)
  if fn == nil then
    options, fn = {}, options
  end
  check_group(name, options, fn)
  local group = {
    name = name,
    fn = fn,
    serialize = options.serialize,
    max = options.max or 64,
  }
  native_group.register(name, function()
    lead(group)
  end)
  return function(input)
    return native_group.join(name, input)
  end
end

return setmetatable({}, { __index = Db, __name = "moonpool.database" })
