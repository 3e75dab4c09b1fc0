-- Commands, files and processes, as far as plain Lua reaches them: through the shell.
local lfs = require "lfs"

local eventually = require "spec.support.eventually"

local shell = {}

-- Runs a command in the background and leaves its pid and exit code in files, since only its parent
-- can ask for the code.
local BACKGROUND = [[
cd "$1" || exit 1; shift
"$@" >>"$OUTPUT" 2>&1 </dev/null & pid=$!
echo "$pid" >"$PID_FILE"
wait "$pid"; echo "$?" >"$EXIT_FILE"
]]

---@param text string
---@return string # quoted for the shell
function shell.quote(text)
  return "'" .. tostring(text):gsub("'", "'\\''") .. "'"
end

---@param words string[]
---@return string
function shell.join(words)
  local quoted = {}
  for i, word in ipairs(words) do
    quoted[i] = shell.quote(word)
  end
  return table.concat(quoted, " ")
end

---Runs a command line to its end: output (both streams) and exit code.
---@param command string
---@return string output
---@return integer code
function shell.run(command)
  local pipe = assert(io.popen("{ " .. command .. "\n} 2>&1 </dev/null"))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  return output, code
end

---As shell.run(), but raises when the command fails.
---@param command string
---@return string output
function shell.must(command)
  local output, code = shell.run(command)
  if code ~= 0 then
    error(("%s\nended with %d: %s"):format(command, code, output), 2)
  end
  return output
end

---@return string # path of a new folder
function shell.folder()
  return (shell.must("mktemp -d --tmpdir moonpool-spec-XXXXXXXXXX"):gsub("%s+$", ""))
end

---@param path string
---@return string? # nil if there is no such file
function shell.read(path)
  local file = io.open(path, "rb")
  if not file then
    return nil
  end
  local text = file:read("a")
  file:close()
  return text
end

---Writes a file as careful editors do: a new one takes the old one's place at once. Folders are made.
---@param path string
---@param text string
function shell.write(path, text)
  local folder, name = path:match("^(.*)/([^/]+)$")
  if not lfs.attributes(folder) then
    shell.must("mkdir -p " .. shell.quote(folder))
  end
  local temporary = folder .. "/." .. name .. ".new"
  local file = assert(io.open(temporary, "wb"))
  file:write(text)
  file:close()
  assert(os.rename(temporary, path))
end

---@class shell.Process
---@field pid integer
---@field exit_file string
local Process = {}
Process.__index = Process

---Starts a command in the background, its output appended to `folder`/`name`.log.
---@param words string[]
---@param folder string
---@param name string
---@param environment? table<string, string>
---@return shell.Process
function shell.start(words, folder, name, environment)
  local base = folder .. "/" .. name
  local settings = { OUTPUT = base .. ".log", PID_FILE = base .. ".pid", EXIT_FILE = base .. ".exit" }
  for key, value in pairs(environment or {}) do
    settings[key] = value
  end
  os.remove(settings.PID_FILE)
  os.remove(settings.EXIT_FILE)
  local line = { "env" }
  for key, value in pairs(settings) do
    line[#line + 1] = key .. "=" .. value
  end
  table.move({ "sh", "-c", BACKGROUND, "sh", folder }, 1, 5, #line + 1, line)
  table.move(words, 1, #words, #line + 1, line)
  os.execute(shell.join(line) .. " >/dev/null 2>&1 &")
  local pid = eventually("the start of " .. words[1], function()
    return tonumber(shell.read(settings.PID_FILE))
  end)
  return setmetatable({ pid = pid, exit_file = settings.EXIT_FILE }, Process)
end

---@param signal string
function Process:signal(signal)
  shell.run(("kill -%s %d"):format(signal, self.pid))
end

---@return integer? # nil while it runs; 128 + n if signal n ended it
function Process:exit_code()
  return tonumber(shell.read(self.exit_file))
end

---@param seconds? number
---@return integer
function Process:wait(seconds)
  return eventually(("process %d to end"):format(self.pid), function()
    return self:exit_code()
  end, seconds)
end

---@param pid integer
---@return integer[]
function shell.children(pid)
  local pids = {}
  local text = shell.run(("ps -o pid= --ppid %d"):format(pid))
  for child in text:gmatch("%d+") do
    pids[#pids + 1] = tonumber(child)
  end
  return pids
end

---How many files a process may have open from now on; those it has stay open.
---@param pid integer
---@param count integer
function shell.limit_files(pid, count)
  shell.must(("prlimit --pid %d --nofile=%d:"):format(pid, count))
end

---Bytes that belong to the process alone.
---@param pid integer
---@return integer
function shell.private_memory(pid)
  local sum = 0
  for kilobytes in assert(shell.read(("/proc/%d/smaps_rollup"):format(pid))):gmatch("Private_%a+: +(%d+)") do
    sum = sum + tonumber(kilobytes) * 1024
  end
  return sum
end

---Bytes that the process has had in memory at most.
---@param pid integer
---@return integer
function shell.peak_memory(pid)
  return tonumber(assert(shell.read(("/proc/%d/status"):format(pid))):match("VmHWM:%s+(%d+)")) * 1024
end

return shell
