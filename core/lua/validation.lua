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
    return text:match("^[+-]?%d+$") and math.tointeger(tonumber(text))
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

-- Text that is no number stays text, so that the schema says what is wrong with it.
local function convert(values, properties)
  for name, property in pairs(properties) do
    local converter = CONVERTERS[property.type]
    local text = values[name]
    if converter and type(text) == "string" then
      local value = converter(text)
      if value ~= nil then
        values[name] = value
      end
    end
  end
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
  return function(req)
    local values = req[field]
    convert(values, properties)
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
