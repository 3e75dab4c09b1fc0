-- Checks the #include lines of the C files it is given:
--   blocks   own header, system, libraries, ours: each a block of its own, in this order and sorted
--   upwards  ours only from what stands above in the list of sources of core/meson.build
--   homes    a third-party header is included only in its home
-- Prints "file:line: fault" and ends with 1 if there are any.

local SOURCES = "core/meson.build"

-- Blocks in the order in which they stand in a file.
local OWN, SYSTEM, LIBRARY, OURS = 1, 2, 3, 4
local NAMES = { "own header", "system", "library", "ours" }

-- Third-party headers, and the files in which they may be included.
local LUA_FILES = { "^vm", "^coroutine", "^handling", "^bind_", "^load", "^generation", "^check" }
local HOMES = {
  ["microhttpd.h"] = { "^http[%w_]*%.c$" },
  ["libpq-fe.h"] = { "^pg", "^migrate%.c$" },
  ["lua.h"] = LUA_FILES,
  ["lauxlib.h"] = LUA_FILES,
  ["lualib.h"] = LUA_FILES,
  ["lua-cjson.h"] = LUA_FILES,
}

local function read(path)
  local file = io.open(path)
  if not file then
    return nil
  end
  local text = file:read("a")
  file:close()
  return text
end

local function base_name(path)
  return path:match("[^/]+$")
end

-- The includes of a text: a list of { line, name, system, block }, where `block` is counted up at
-- each line that is no include.
local function includes_of(text)
  local found, line, block = {}, 0, 0
  for content in (text .. "\n"):gmatch("(.-)\n") do
    line = line + 1
    local mark, name = content:match('^#include ([<"])([^>"]+)[>"]')
    if name then
      found[#found + 1] = { line = line, name = name, system = mark == "<", block = block }
    else
      block = block + 1
    end
  end
  return found
end

-- The modules' names and places in the order of dependence; main stands above nothing.
local function read_order()
  local order, count = {}, 0
  for name in assert(read(SOURCES), "no " .. SOURCES):gmatch("'([%w_]+)%.c'") do
    count = count + 1
    order[name] = order[name] or count
  end
  order.main = count + 1
  return order
end

-- The place of a header: its module's; one without a module stands right after what it includes.
local function rank(order, name, seen)
  local module = name:gsub("%.[ch]$", "")
  if order[module] then
    return order[module]
  end
  local text = read("core/" .. module .. ".h")
  if not text or seen[module] then
    return 0
  end
  seen[module] = true
  local highest = 0
  for _, include in ipairs(includes_of(text)) do
    if not include.system then
      highest = math.max(highest, rank(order, include.name, seen))
    end
  end
  return highest
end

-- The name of a file's own header: the one named as it is. A file that implements a part of another's
-- ("vm_watch" of "vm"), and a test ("test_vm"), may begin with that one's.
local function own_header(path, includes)
  local module = base_name(path):gsub("%.[ch]$", "")
  if read("core/" .. module .. ".h") then
    return module .. ".h"
  end
  local first = includes[1] and includes[1].name or ""
  local parent = first:gsub("%.h$", ""):gsub("^%.%./", "")
  local name = module:gsub("^test_", "")
  return (name == parent or name:sub(1, #parent + 1) == parent .. "_") and first or nil
end

local function block_kind(include, own)
  if not include.system then
    return include.name == own and OWN or OURS
  end
  return HOMES[include.name] and LIBRARY or SYSTEM
end

local function at_home(include, file)
  local homes = include.system and HOMES[include.name]
  if not homes then
    return true
  end
  for _, pattern in ipairs(homes) do
    if file:match(pattern) then
      return true
    end
  end
  return false
end

local function check_blocks(includes, own, fault)
  local last
  for _, include in ipairs(includes) do
    include.kind = block_kind(include, own)
    if last and include.kind < last.kind then
      fault(include, "%s belongs above %s (%s before %s)", include.name, last.name,
        NAMES[include.kind], NAMES[last.kind])
    elseif last and (include.kind == last.kind) ~= (include.block == last.block) then
      fault(include, "%s and %s: one block for each of own header, system, libraries and ours",
        last.name, include.name)
    elseif last and include.kind == last.kind and include.name <= last.name then
      fault(include, "%s is not sorted after %s", include.name, last.name)
    end
    last = include
  end
end

local function check_upwards(path, includes, fault)
  local order, file = read_order(), base_name(path)
  if file:match("%.c$") and not order[file:sub(1, -3)] then
    fault({ line = 1 }, "%s is not listed in %s", file, SOURCES)
    return
  end
  local own_rank = rank(order, file, {})
  for _, include in ipairs(includes) do
    if include.kind == OURS and rank(order, include.name, {}) > own_rank then
      fault(include, "%s stands below %s in %s", include.name, file, SOURCES)
    end
  end
end

local function check_homes(path, includes, fault)
  for _, include in ipairs(includes) do
    if not at_home(include, base_name(path)) then
      fault(include, "<%s> is included only in its home", include.name)
    end
  end
end

-- Prints the faults of one file and returns how many there are.
local function check_file(path)
  local count = 0
  local function fault(include, ...)
    count = count + 1
    print(("%s:%d: %s"):format(path, include.line, string.format(...)))
  end
  local includes = includes_of(assert(read(path), "cannot read " .. path))
  local is_test = path:match("/test/") or path:match("^fuzz/")
  check_blocks(includes, own_header(path, includes), fault)
  if not is_test then
    check_upwards(path, includes, fault)
    check_homes(path, includes, fault)
  end
  return count
end

local faults = 0
for _, path in ipairs(arg) do
  faults = faults + check_file(path)
end
os.exit(faults == 0)
