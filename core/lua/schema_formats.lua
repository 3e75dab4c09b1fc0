-- The formats that the keyword `format` knows.
local find = string.find

local function is_clock(hour, minute, second)
  return tonumber(hour) < 24 and tonumber(minute) < 60 and tonumber(second) <= 60
end

local function is_offset(text)
  local hour, minute = text:match("^[+-](%d%d):(%d%d)$")
  return text == "Z" or text == "z" or hour and is_clock(hour, minute, 0)
end

local SHORT_MONTHS = { [4] = true, [6] = true, [9] = true, [11] = true }

local function days_of(year, month)
  if month == 2 then
    return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0) and 29 or 28
  end
  return SHORT_MONTHS[month] and 30 or 31
end

local function is_date(year, month, day)
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  return month >= 1 and month <= 12 and day >= 1 and day <= days_of(year, month)
end

local function is_date_time(text)
  local year, month, day, hour, minute, second, rest =
    text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)[Tt](%d%d):(%d%d):(%d%d)(.+)$")
  if not year or not is_date(year, month, day) or not is_clock(hour, minute, second) then
    return false
  end
  return is_offset((rest:gsub("^%.%d+", "")))
end

local HEX = "%x%x%x%x"
local UUID = "^" .. HEX .. HEX .. ("%-" .. HEX):rep(4) .. HEX .. HEX .. "$"

--- Each format: a test, and the words for it.
return {
  ["date-time"] = { is_date_time, "a date and time such as 2024-02-29T12:00:00Z" },
  uuid = { function(text) return find(text, UUID) ~= nil end, "a UUID" },
  email = {
    function(text) return find(text, "^[^%s@]+@[^%s@.]+%.[^%s@]*[^%s@.]$") ~= nil end,
    "an e-mail address",
  },
}
