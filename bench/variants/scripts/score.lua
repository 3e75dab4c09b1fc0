-- The score formula: arithmetic alone, so that a spec can call it without a server. Saving this file
-- changes the formula of a running server.
local score = {}

---Gives a user's score after one more user was created. It is called once for every user, the new
---one included.
---@param value number the user's score until now
---@param users_count integer how many users there are, the new one included
---@return number
function score.formula(value, users_count)
  return 1 + value + value / users_count
end

return score
