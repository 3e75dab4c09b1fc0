-- What a worker keeps of the memory that requests needed.
local support = require "spec.support"

local FILLING = [[
local app = require "moonpool"
app.get("/fill", { deadline = 30 }, function()
  local t = {}
  for i = 1, 2e5 do t[i] = { i } end
  return 200, { kilobytes = collectgarbage "count" }
end)
]]

describe("the memory of a worker", function()
  -- The sanitizers keep what is freed for themselves.
  local run = support.environment.is_sanitized() and pending or it

  run("comes back when it has become idle after load", function()
    local server = support.server.start { script = FILLING, flags = { "--no-watch" } }
    local pid = server:workers()[1]
    local idle = support.shell.private_memory(pid)
    for _ = 1, 5 do
      assert.is_true(server:get("/fill"):json().kilobytes > 10000)
    end
    support.eventually("the memory to come back", function()
      return support.shell.private_memory(pid) < 1.5 * idle + 512 * 1024
    end)
    server:stop()
  end)
end)
