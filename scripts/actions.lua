-- /actions: shows what was done, oldest first.
local app = require "moonpool"

local PAGE = {
  limit = { type = "integer", minimum = 1, maximum = 10000, default = 1000 },
  after = { type = "integer", minimum = 0, default = 0 },
}

app.get("/actions", { query = PAGE }, function(req)
  return 200, app.db:query("get_actions", req.query.after, req.query.limit)
end)
