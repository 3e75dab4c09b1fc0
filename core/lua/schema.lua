-- Validation of request bodies with a subset of JSON Schema. A definition is compiled once into
-- closures; a check then runs without allocating. Only when it fails is it run again, with a report
-- in hand that keeps the path and collects the faults.
--
-- Where this differs from JSON Schema: a keyword implies the type it applies to where `type` is
-- absent; `pattern` is a Lua pattern; strings with a NUL and numbers that are not finite are
-- refused everywhere, since PostgreSQL cannot store them; `default` fills in a missing member; an
-- integer written as 3.0 becomes 3.
local definitions = require "moonpool.schema_definition"
local faults = require "moonpool.schema_faults"
local FORMATS = require "moonpool.schema_formats"
local json = require "json"

local schema = {}

local NULL = json.null
local ARRAY = getmetatable(json.array({}))

local find, floor, math_type, tointeger = string.find, math.floor, math.type, math.tointeger
local utf8_length = utf8.len
local complain, contains = definitions.complain, definitions.contains
local enter, fail, fail_at, leave = faults.enter, faults.fail, faults.fail_at, faults.leave
local plural, show, with_article = faults.plural, faults.show, faults.with_article

-- What a value is, in JSON's terms: null, boolean, number, string, array, object, or Lua's type.
local function kind_of(value)
  local kind = type(value)
  if value == NULL then
    return "null"
  elseif kind ~= "table" then
    return kind
  elseif getmetatable(value) == ARRAY or value[1] ~= nil then
    return "array"
  end
  return "object"
end

-- Rules: functions of a value and a report, true if the value keeps to them. They are made by kind
-- of value from a definition, and are run only for values of that kind.

local function add(rules, rule)
  rules[#rules + 1] = rule
end

local function add_length_rules(rules, definition)
  local min, max = definition.minLength, definition.maxLength
  if min then
    add(rules, function(text, report)
      return (utf8_length(text) or #text) >= min
        or fail(report, "must have at least " .. plural(min, "character"))
    end)
  end
  if max then
    add(rules, function(text, report)
      return #text <= max or (utf8_length(text) or #text) <= max
        or fail(report, "must have at most " .. plural(max, "character"))
    end)
  end
end

local function add_pattern_rule(rules, pattern, where)
  local good, message = pcall(find, "", pattern)
  if not good then
    complain(where, "pattern is no Lua pattern: %s", message)
  end
  add(rules, function(text, report)
    return find(text, pattern) ~= nil or fail(report, "must match the pattern " .. pattern)
  end)
end

local function add_format_rule(rules, format, where)
  if not FORMATS[format] then
    complain(where, "unknown format %s", show(format))
  end
  local test, words = table.unpack(FORMATS[format])
  add(rules, function(text, report)
    return test(text) or fail(report, "must be " .. words)
  end)
end

local function string_rules(definition, where)
  local rules = {
    function(text, report)
      return not find(text, "\0", 1, true)
        or fail(report, "must not contain a NUL character: PostgreSQL cannot store it")
    end,
  }
  add_length_rules(rules, definition)
  if definition.pattern then
    add_pattern_rule(rules, definition.pattern, where)
  end
  if definition.format then
    add_format_rule(rules, definition.format, where)
  end
  return rules
end

local function is_multiple(value, unit)
  if math_type(value) == "integer" and math_type(unit) == "integer" then
    return value % unit == 0
  end
  local quotient = value / unit
  -- A quotient such as 0.3 / 0.1 is off by the rounding of its operands.
  return math.abs(quotient - floor(quotient + 0.5)) <= 1e-9 * math.max(1, math.abs(quotient))
end

-- Each bound: a test of a value against it, and the words for it.
local BOUNDS = {
  { "minimum", function(value, bound) return value >= bound end, "at least" },
  { "maximum", function(value, bound) return value <= bound end, "at most" },
  { "exclusiveMinimum", function(value, bound) return value > bound end, "greater than" },
  { "exclusiveMaximum", function(value, bound) return value < bound end, "less than" },
  { "multipleOf", is_multiple, "a multiple of" },
}

local function number_rules(definition)
  local rules = {
    function(value, report)
      return value - value == 0 or fail(report, "must be a finite number")
    end,
  }
  for _, row in ipairs(BOUNDS) do
    local keyword, test, words = table.unpack(row)
    local bound = definition[keyword]
    if bound then
      add(rules, function(value, report)
        return test(value, bound) or fail(report, ("must be %s %s"):format(words, bound))
      end)
    end
  end
  return rules
end

-- Checks a member of a table: table[key] by `child`, which turns 3.0 into 3 where an integer is due.
local function check_member(parent, key, step, child, report)
  local value = parent[key]
  enter(report, step)
  local good = child.check(value, report)
  leave(report)
  if child.to_integer and math_type(value) == "float" then
    parent[key] = tointeger(value) or value
  end
  return good
end

local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local result = {}
  for key, item in pairs(value) do
    result[key] = copy(item)
  end
  return setmetatable(result, getmetatable(value))
end

local compile_node

-- The declared members, by name, so that faults come in a stable order.
local function compile_properties(definition, where)
  local members = {}
  for name, property in pairs(definition.properties or {}) do
    if type(name) ~= "string" then
      complain(where, "properties must have names, not %s", show(name))
    end
    local child = compile_node(property, where .. "." .. name)
    child.name = name
    members[#members + 1] = child
    members[name] = child
  end
  table.sort(members, function(a, b) return a.name < b.name end)
  for _, name in ipairs(definition.required or {}) do
    if type(name) ~= "string" or not members[name] then
      complain(where, "required names %s, which is no property", show(name))
    end
    members[name].required = true
  end
  return members
end

local function check_declared(object, member, report)
  local name = member.name
  if object[name] == nil and member.default ~= nil then
    object[name] = copy(member.default)
  end
  if object[name] ~= nil then
    return check_member(object, name, name, member, report)
  end
  return not member.required or fail_at(report, name, "is required")
end

-- A value that nothing is declared about, the schema {}.
local anything

local function check_undeclared(object, key, closed, report)
  if type(key) == "string" and find(key, "\0", 1, true) then
    return fail_at(report, key, "must not have a NUL character in its name")
  elseif closed then
    return fail_at(report, key, "is not a known member")
  end
  return check_member(object, key, key, anything, report)
end

local function object_rules(definition, where)
  local members = compile_properties(definition, where)
  local closed = definition.additionalProperties == false
  return {
    function(object, report)
      local good = true
      for i = 1, #members do
        if not check_declared(object, members[i], report) then
          good = false
        end
        if not good and not report then
          return false
        end
      end
      return good
    end,
    function(object, report)
      local good = true
      for key in next, object do
        if not members[key] and not check_undeclared(object, key, closed, report) then
          good = false
        end
        if not good and not report then
          return false
        end
      end
      return good
    end,
  }
end

local function add_count_rules(rules, definition)
  local min, max = definition.minItems, definition.maxItems
  if min then
    add(rules, function(list, report)
      return #list >= min or fail(report, "must have at least " .. plural(min, "item"))
    end)
  end
  if max then
    add(rules, function(list, report)
      return #list <= max or fail(report, "must have at most " .. plural(max, "item"))
    end)
  end
end

-- Comparing tables with each other would take the square of their number.
local function add_unique_rule(rules, item, where)
  for _, kind in ipairs(item.kinds or { "object" }) do
    if kind == "object" or kind == "array" then
      complain(where, "uniqueItems needs items that are strings, numbers or booleans")
    end
  end
  add(rules, function(list, report)
    local places = {}
    for i, value in ipairs(list) do
      if places[value] then
        return fail_at(report, i - 1, ("is the same as item %d"):format(places[value] - 1))
      elseif value == value then
        places[value] = i
      end
    end
    return true
  end)
end

local function array_rules(definition, where)
  local item = definition.items and compile_node(definition.items, where .. "[]") or anything
  local rules = {}
  add_count_rules(rules, definition)
  add(rules, function(list, report)
    local good = true
    for i = 1, #list do
      if not check_member(list, i, i - 1, item, report) then
        good = false
      end
      if not good and (not report or #report.faults == faults.FAULTS_MAX) then
        return false
      end
    end
    return good
  end)
  if definition.uniqueItems then
    add_unique_rule(rules, item, where)
  end
  return rules
end

-- Rules for values of all kinds: enum and const.
local function common_rules(definition, where)
  local rules = {}
  if definition.enum then
    local allowed, words = {}, {}
    for i, value in ipairs(definition.enum) do
      if not definitions.is_scalar(value) or value ~= value then
        complain(where, "enum may hold strings, numbers, booleans and null")
      end
      allowed[value] = true
      words[i] = show(value)
    end
    local detail = "must be one of " .. table.concat(words, ", ")
    add(rules, function(value, report)
      return allowed[value] or fail(report, detail)
    end)
  end
  if definition.const ~= nil then
    local constant, detail = definition.const, "must be " .. show(definition.const)
    add(rules, function(value, report)
      return value == constant or fail(report, detail)
    end)
  end
  return rules
end

-- Runs all rules if there is a report, else as far as the first that is broken.
local function run(rules, value, report)
  local good = true
  for i = 1, #rules do
    if not rules[i](value, report) then
      if not report then
        return false
      end
      good = false
    end
  end
  return good
end

local function fail_type(value, kind, kinds, report)
  if not report then
    return false
  end
  local what = with_article(kind)
  if kind == "number" and contains(kinds, "integer") then
    if value - value ~= 0 then
      return fail(report, "must be a finite number")
    end
    what = tointeger(floor(value)) and "a number with a fraction" or "a number beyond 64 bits"
  end
  return fail(report, ("must be %s, not %s"):format(faults.join_kinds(kinds), what))
end

local function set_of(kinds)
  local set = {}
  for _, kind in ipairs(kinds) do
    set[kind] = true
  end
  return set
end

-- A check that a value is of one of the kinds; any value, if `kinds` is nil.
local function type_rule(kinds)
  if not kinds then
    return function()
      return true
    end
  end
  local set = set_of(kinds)
  local whole = set.integer and not set.number
  return function(value, kind, report)
    if set[kind] or whole and kind == "number" and tointeger(value) then
      return true
    end
    return fail_type(value, kind, kinds, report)
  end
end

-- The value of `default` has to pass its own schema.
local function check_default(node, definition, where)
  if definition.default == nil then
    return
  end
  local report = faults.new_report()
  if not node.check(definition.default, report) then
    complain(where, "default %s", report.faults[1].detail)
  end
  node.default = definition.default
end

-- A node: check(value, report), kinds (nil: all), to_integer, and as a member name, required, default.
function compile_node(definition, where)
  definitions.check_keywords(definition, where)
  local kinds = definitions.allowed_types(definition, where)
  local has_type = type_rule(kinds)
  local common = common_rules(definition, where)
  local by_kind = {
    string = string_rules(definition, where),
    number = number_rules(definition),
    object = object_rules(definition, where),
    array = array_rules(definition, where),
  }
  local node = { kinds = kinds }
  node.to_integer = kinds and contains(kinds, "integer") and not contains(kinds, "number")
  function node.check(value, report)
    local kind = kind_of(value)
    if not has_type(value, kind, report) then
      return false
    end
    local good = run(common, value, report)
    local rules = by_kind[kind]
    if not rules or not good and not report then
      return good
    end
    return run(rules, value, report) and good
  end
  check_default(node, definition, where)
  return node
end

-- A table first, since the rules of this very schema refer to it.
anything = {}
anything.check = compile_node({}, "schema").check

--- Compiles a definition into a function: check(value) returns true, or nil and a list of faults
--- { pointer = "/profile/firstname", detail = "is required" }, at most 100. Raises, naming `where`,
--- if the definition is wrong.
---@param definition table
---@param where? string
---@return fun(value: any): true?, table?
function schema.compile(definition, where)
  local root = compile_node(definition, where or "schema")
  return function(value)
    if root.check(value) then
      return true
    end
    local report = faults.new_report()
    root.check(value, report)
    return nil, report.faults
  end
end

return schema
