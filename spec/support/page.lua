-- What a page of docs/ says, for the specs that hold it to the code, and the code to it.
local shell = require "spec.support.shell"

local page = {}

---The names in the first columns of the tables between two of the page's texts.
---@param path string
---@param first string
---@param last string
---@return table<string, true>
function page.names_in_tables(path, first, last)
  local text = assert(shell.read(path))
  local from = assert(text:find(first, 1, true), "there is no " .. first)
  local to = assert(text:find(last, from, true), "there is no " .. last)
  local names = {}
  for cell in text:sub(from, to):gmatch("\n| ([^|]+) |") do
    for name in cell:gmatch("`([^`]+)`") do
      names[name] = true
    end
  end
  return names
end

return page
