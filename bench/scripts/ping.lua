-- The route without a database of the benchmark (W4).
local app = require "moonpool"

app.get("/ping", function()
  return 200, { pong = true }
end)
