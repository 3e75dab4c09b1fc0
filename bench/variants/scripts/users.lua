-- POST /users without group commit: a transaction per create, an update per user in one batch. What the
-- update is, a statement per row or one for all, is for the folder of statements to say.
local app = require "moonpool"
local score = require "score"

local NAME = { type = "string", minLength = 1, maxLength = 100 }

local NEW_USER = {
  type = "object",
  required = { "username", "score", "profile" },
  properties = {
    username = NAME,
    score = { type = "number" },
    profile = {
      type = "object",
      required = { "firstname", "lastname" },
      properties = { firstname = NAME, lastname = NAME },
    },
  },
}

-- Two trips: one that inserts the user and reads the scores, one with all that depends on them, which
-- goes with COMMIT.
local function insert_user(tx, user)
  tx:queue("create_user", user.username, user.score)
  tx:queue("get_user_scores")
  local results = tx:send_batch()
  return results[1], results[2]
end

local function update_scores(tx, row, users)
  for _, user in ipairs(users) do
    local value = score.formula(user.score, #users)
    tx:queue("update_user_score", user.id, value)
    if user.id == row.id then
      row.score = value
    end
  end
end

app.post("/users", { deadline = 2.0, body = NEW_USER }, function(req)
  local user = req.body
  local created = app.db:transaction({ serialize = "users" }, function(tx)
    local row, users = insert_user(tx, user)
    if not row then
      app.fail(409, ("the username %s is in use"):format(user.username))
    end
    tx:queue("create_user_profile", row.id, user.profile.firstname, user.profile.lastname)
    update_scores(tx, row, users)
    tx:queue("log_action", ("new user created with id %d and username %s"):format(row.id, user.username))
    return row
  end)
  created.profile = user.profile
  return 201, created, { Location = "/users/" .. created.id }
end)

app.get("/users", function()
  return 200, app.db:query("get_user_scores")
end)

app.get("/users/{id}", { params = { id = { type = "integer" } } }, function(req)
  return 200, app.db:query_row("get_user", req.params.id)
end)
