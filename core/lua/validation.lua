-- Checks of what comes with a request against the schemas of its route.
local native = require "moonpool.app"
local schema = require "moonpool.schema"

local validation = {}

local function refuse(detail, faults)
  native.fail(422, detail, { errors = faults })
end

-- What a converter takes for a value of its type, or nil.
local CONVERTERS = {
  integer = function(text)
    local value = text:match("^[+-]?%d+$") and tonumber(text)
    return math.type(value) == "integer" and value or nil -- a longer one is a float
  end,
  number = function(text)
    local digits = text:match("^[+-]?%d+%.?%d*$") or text:match("^[+-]?%d+%.?%d*[eE][+-]?%d+$")
    return digits and tonumber(digits)
  end,
  boolean = function(text)
    if text == "true" then
      return true
    elseif text == "false" then
      return false
    end
  end,
}

-- Types of which a converter takes only what is right.
local EXACT = { integer = true, boolean = true }

-- What is known of parameters before a request comes: the name and the converter of those that have
-- one, and whether being converted is all that their schemas ask of all parameters.
local function plan_conversion(properties)
  local plan = { plain = true }
  for name, property in pairs(properties) do
    local converter = CONVERTERS[property.type]
    if converter then
      plan[#plan + 1] = { name = name, converter = converter }
    end
    plan.plain = plan.plain and EXACT[property.type] and next(property, next(property)) == nil
  end
  return plan
end

local function count_members(values)
  local count = 0
  for _ in pairs(values) do
    count = count + 1
  end
  return count
end

-- Text that is no number stays text, so that the schema says what is wrong with it. True if there is
-- nothing left for it to say: most routes have one id, and ask for no more than a whole number.
local function convert(values, plan)
  local converted = 0
  for i = 1, #plan do
    local parameter = plan[i]
    local text = values[parameter.name]
    if type(text) == "string" then
      local value = parameter.converter(text)
      if value ~= nil then
        values[parameter.name] = value
        converted = converted + 1
      end
    end
  end
  return plan.plain and converted == #plan and converted == count_members(values)
end

-- The pointers of parameters are their names: they are members of nothing.
local function name_faults(faults)
  for _, fault in ipairs(faults) do
    fault.pointer = fault.pointer:gsub("^/", "")
  end
  return faults
end

--- A check of req[field], a table of strings, against one schema per name; nil needs none.
function validation.parameters(field, properties, where)
  if properties == nil then
    return nil
  end
  local required = {}
  if field == "params" then
    for name in pairs(properties) do
      required[#required + 1] = name
    end
  end
  local check = schema.compile({ type = "object", properties = properties, required = required }, where)
  local plan = plan_conversion(properties)
  return function(req)
    local values = req[field]
    if convert(values, plan) then
      return
    end
    local ok, faults = check(values)
    if not ok then
      refuse("a parameter is not valid", name_faults(faults))
    end
  end
end

local function explain_missing_body(req)
  if req.raw_body == "" then
    native.fail(400, "a JSON body is expected")
  end
  native.fail(415, ("the media type %s is not supported: send application/json"):format(req.media_type))
end

--- A check of req.body against a schema; nil needs none.
function validation.body(definition, where)
  if definition == nil then
    return nil
  end
  local check = schema.compile(definition, where)
  return function(req)
    local body = req.body
    if body == nil then
      explain_missing_body(req)
    end
    local ok, faults = check(body)
    if not ok then
      refuse("the body is not valid", faults)
    end
  end
end

return validation
