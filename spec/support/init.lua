-- What specs stand on, ours and those of people who write scripts:
--
--   local support = require "spec.support"
--
--   describe("GET /hello", function()
--     local server
--
--     setup(function()
--       server = support.server.start {
--         scripts = { ["hello.lua"] = [[
--           local app = require "moonpool"
--           app.get("/hello", function() return 200, { hello = "world" } end)
--         ]] },
--       }
--     end)
--
--     teardown(function() server:stop() end)
--
--     it("greets", function()
--       local answer = server:get("/hello")
--       assert.equal(200, answer.status)
--       assert.equal("world", answer:json().hello)
--     end)
--   end)
--
-- Each server has a database, ports and a temporary folder of its own, so that spec files may run at
-- the same time. Where to find things is said by the environment, see spec/support/environment.lua;
-- ./dev test sets it.
local support = {
  books = require "spec.support.books",
  cluster = require "spec.support.cluster",
  db = require "spec.support.db",
  environment = require "spec.support.environment",
  eventually = require "spec.support.eventually",
  http = require "spec.support.http",
  problem = require "spec.support.problem",
  proxy = require "spec.support.proxy",
  server = require "spec.support.server",
  shell = require "spec.support.shell",
}

---The number of the line of `text` in which `plain` stands, to compare with file:line in messages.
---@param text string
---@param plain string
---@return integer
function support.line_of(text, plain)
  local position = assert(text:find(plain, 1, true), "there is no " .. plain)
  local _, newlines = text:sub(1, position):gsub("\n", "")
  return newlines + 1
end

return support
