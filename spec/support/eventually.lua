-- Waits for something to become true, instead of for a time to pass.
local socket = require "socket"

local FIRST_STEP, LONGEST_STEP = 0.001, 0.02 -- seconds between two looks
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
  local step = FIRST_STEP
  local late
  repeat
    late = socket.gettime() > give_up -- before the look, which has to be one behind the time
    local value = condition()
    if value then
      return value
    end
    socket.sleep(step)
    step = math.min(2 * step, LONGEST_STEP)
  until late
  error("waited in vain for " .. what, 2)
end

return eventually
