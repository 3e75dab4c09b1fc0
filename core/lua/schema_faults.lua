-- What is wrong with a value: reports, which keep the path to the value at hand and the faults found so
-- far, and the words in which faults are told.
local json = require "json"

local NULL = json.null
local FAULTS_MAX = 100

local function escape(step)
  return (tostring(step):gsub("~", "~0"):gsub("/", "~1"))
end

local function pointer(report)
  local steps = {}
  for i = 1, report.depth do
    steps[i] = "/" .. escape(report.path[i])
  end
  return table.concat(steps)
end

-- A report without any fault yet, at the root of a value.
local function new_report()
  return { path = {}, depth = 0, faults = {} }
end

-- Notes a fault if there is a report; always returns false.
local function fail(report, detail)
  if report and #report.faults < FAULTS_MAX then
    table.insert(report.faults, { pointer = pointer(report), detail = detail })
  end
  return false
end

local function enter(report, step)
  if report then
    report.depth = report.depth + 1
    report.path[report.depth] = step
  end
end

local function leave(report)
  if report then
    report.depth = report.depth - 1
  end
end

local function fail_at(report, step, detail)
  enter(report, step)
  fail(report, detail)
  leave(report)
  return false
end

-- Words.

local ARTICLES = { array = "an ", integer = "an ", object = "an ", null = "" }

local function with_article(kind)
  return (ARTICLES[kind] or "a ") .. kind
end

local function join_kinds(kinds)
  local names = {}
  for i, kind in ipairs(kinds) do
    names[i] = with_article(kind)
  end
  local last = table.remove(names)
  return #names > 0 and table.concat(names, ", ") .. " or " .. last or last
end

local function plural(count, noun)
  return ("%d %s%s"):format(count, noun, count == 1 and "" or "s")
end

-- How a value of an enumeration is written in a message.
local function show(value)
  if value == NULL then
    return "null"
  end
  return type(value) == "string" and '"' .. value .. '"' or tostring(value)
end

return {
  FAULTS_MAX = FAULTS_MAX,
  new_report = new_report,
  enter = enter,
  fail = fail,
  fail_at = fail_at,
  join_kinds = join_kinds,
  leave = leave,
  plural = plural,
  show = show,
  with_article = with_article,
}
