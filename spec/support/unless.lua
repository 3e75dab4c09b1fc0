-- Specs of what not every machine lets one have: file systems, networks.
local busted = require "busted"

---The body of a spec that is pending where `refusal` gives a reason; else it is `fn`.
---@param refusal fun(): string?
---@param fn fun()
---@return fun()
local function unless(refusal, fn)
  return function()
    local reason = refusal()
    if reason then
      busted.pending(reason)
    else
      fn()
    end
  end
end

return unless
