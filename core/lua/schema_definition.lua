-- Whether a definition is itself right: its keywords, what they are given, and its types.
local faults = require "moonpool.schema_faults"
local json = require "json"

local NULL = json.null

local math_type = math.type
local show, with_article = faults.show, faults.with_article

-- Raises that the definition at `where` is wrong.
local function complain(where, format, ...)
  error(("%s: %s"):format(where, format:format(...)), 0)
end

-- Whether a value can be told apart from others by comparing it.
local function is_scalar(value)
  local kind = type(value)
  return value == NULL or kind == "string" or kind == "number" or kind == "boolean"
end

local function is_list(value)
  return type(value) == "table" and (next(value) == nil or value[1] ~= nil)
end

-- What a keyword's argument may be: a test, and the words for it.
local ARGUMENTS = {
  any = { function() return true end, "anything" },
  boolean = { function(value) return type(value) == "boolean" end, "true or false" },
  count = {
    function(value) return math_type(value) == "integer" and value >= 0 end,
    "a whole number of at least 0",
  },
  list = { is_list, "a list" },
  number = { function(value) return type(value) == "number" and value == value end, "a number" },
  positive = { function(value) return type(value) == "number" and value > 0 end, "a number above 0" },
  scalar = { is_scalar, "a string, a number, a boolean or null" },
  schema = { function(value) return type(value) == "table" end, "a table" },
  string = { function(value) return type(value) == "string" end, "a string" },
}

-- Each keyword: what its argument is, and the kind of value it applies to (nil: all).
local KEYWORDS = {
  type = { "any" },
  nullable = { "boolean" },
  enum = { "list" },
  const = { "scalar" },
  default = { "any" },
  title = { "string" },
  description = { "string" },
  properties = { "schema", "object" },
  required = { "list", "object" },
  additionalProperties = { "boolean", "object" },
  items = { "schema", "array" },
  minItems = { "count", "array" },
  maxItems = { "count", "array" },
  uniqueItems = { "boolean", "array" },
  minLength = { "count", "string" },
  maxLength = { "count", "string" },
  pattern = { "string", "string" },
  format = { "string", "string" },
  minimum = { "number", "number" },
  maximum = { "number", "number" },
  exclusiveMinimum = { "number", "number" },
  exclusiveMaximum = { "number", "number" },
  multipleOf = { "positive", "number" },
}

local TYPES = {
  object = true, array = true, string = true, number = true, integer = true, boolean = true,
  null = true,
}

-- Raises for a keyword that there is not, or whose argument is of the wrong kind.
local function check_keywords(definition, where)
  if type(definition) ~= "table" then
    complain(where, "a schema must be a table, not %s", with_article(type(definition)))
  end
  for keyword, argument in pairs(definition) do
    local known = KEYWORDS[keyword]
    if not known then
      complain(where, "unknown keyword %s", show(keyword))
    end
    local test, words = table.unpack(ARGUMENTS[known[1]])
    if not test(argument) then
      complain(where, "%s must be %s", keyword, words)
    end
  end
end

local function declared_types(definition, where)
  local declared = definition.type
  local kinds = type(declared) == "table" and declared or { declared }
  for _, kind in ipairs(kinds) do
    if not TYPES[kind] then
      complain(where, "unknown type %s", show(kind))
    end
  end
  if declared ~= nil and #kinds == 0 then
    complain(where, "type must be a name or a list of names")
  end
  return table.move(kinds, 1, #kinds, 1, {})
end

local function contains(list, value)
  for _, item in ipairs(list) do
    if item == value then
      return true
    end
  end
  return false
end

-- The types a definition allows, in order; nil if all. Raises for a keyword that none of them uses.
local function allowed_types(definition, where)
  local kinds = declared_types(definition, where)
  local implied = #kinds == 0
  for keyword in pairs(definition) do
    local kind = KEYWORDS[keyword][2]
    if kind and not contains(kinds, kind) and not (kind == "number" and contains(kinds, "integer")) then
      if not implied then
        complain(where, "%s applies to %ss, which type does not allow", keyword, kind)
      end
      table.insert(kinds, kind)
    end
  end
  if #kinds == 0 then
    return nil
  end
  if definition.nullable and not contains(kinds, "null") then
    table.insert(kinds, "null")
  end
  return kinds
end

return {
  allowed_types = allowed_types,
  check_keywords = check_keywords,
  complain = complain,
  contains = contains,
  is_scalar = is_scalar,
}
