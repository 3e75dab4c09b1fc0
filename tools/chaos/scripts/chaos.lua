-- Routes that the chaos run asks for, beside those of the sample application.
local app = require "moonpool"
local score = require "score"

local db = app.db

local function add_profile(tx, id, user)
  local profile = user.profile
  if user.copy then
    tx:copy_from("user_profile", { "user_id", "firstname", "lastname" },
      { { id, profile.firstname, profile.lastname } })
  else
    tx:queue("create_user_profile", id, profile.firstname, profile.lastname)
  end
end

-- The sample's create without a group.
app.post("/chaos/users", function(req)
  local user = req.body
  local id = db:transaction({ serialize = "users" }, function(tx)
    local row = tx:query_row("create_user", user.username, user.score)
    add_profile(tx, row.id, user)
    local users = tx:query("get_user_scores")
    for _, other in ipairs(users) do
      tx:queue("update_user_scores", other.id, score.formula(other.score, #users))
    end
    tx:queue("log_action", ("new user created with id %d and username %s"):format(row.id, user.username))
    if user.raise then
      tx:send_batch()
      error("on purpose")
    end
    return row.id
  end)
  return 201, { id = id }
end)

app.get("/chaos/echo/{n}", { params = { n = { type = "integer" } } }, function(req)
  return 200, db:query_row("select $1::bigint as n", req.params.n)
end)

app.get("/chaos/slow", function()
  return 200, db:query_row("select pg_sleep(0.2), 1 as n")
end)

app.get("/chaos/late", { deadline = 0.5 }, function()
  return 200, db:query_row("select pg_sleep(60), 1 as n")
end)

app.get("/chaos/spin", { deadline = 0.3 }, function()
  while true do end
end)

app.get("/chaos/bomb", function()
  local kept = {}
  while true do
    kept[#kept + 1] = ("x"):rep(1e6) .. #kept
  end
end)
