-- Waits for something to become true, instead of for a time to pass.
local socket = require "socket"

local STEP = 0.02 -- seconds between two looks
local PATIENCE = 20 -- seconds; only what hangs takes this long

---Calls `condition` until it returns something true, and returns that. Raises when it has not after
---`seconds`, saying `what` was waited for.
---@generic T
---@param what string
---@param condition fun(): T?
---@param seconds? number
---@return T
local function eventually(what, condition, seconds)
  local give_up = socket.gettime() + (seconds or PATIENCE)
  repeat
    local value = condition()
    if value then
      return value
    end
    socket.sleep(STEP)
  until socket.gettime() > give_up
  error("waited in vain for " .. what, 2)
end

return eventually
