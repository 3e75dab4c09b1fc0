-- /users: creates and shows users. Every create gives all users a new score.
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

local PAGE = {
  limit = { type = "integer", minimum = 1, maximum = 10000, default = 1000 },
  after = { type = "integer", minimum = 0, default = 0 },
}

-- A decimal column cannot hold what overflowed, so this create is refused instead.
local function checked_score(user, users_count)
  local value = score.formula(user.score, users_count)
  if value ~= value or value == math.huge or value == -math.huge then
    app.fail(422, ("the score of user %d would no longer be a finite number"):format(user.id))
  end
  return value
end

local function queue_scores(tx)
  local users = tx:query("get_user_scores")
  for _, user in ipairs(users) do
    tx:queue("update_user_score", user.id, checked_score(user, #users))
  end
end

-- A name that is taken is refused before an id is spent on it; the unique constraint stays behind
-- this for those who write without the lock.
local function insert_user(tx, user)
  local row = tx:query_row("create_user", user.username, user.score)
  if not row then
    app.fail(409, ("the username %s is in use"):format(user.username), {
      errors = { { pointer = "/username", detail = "is in use" } },
    })
  end
  return row
end

-- Creates take turns (`serialize`), since each writes the score of every user: two at once give the
-- result of one after the other.
app.post("/users", { deadline = 2.0, body = NEW_USER }, function(req)
  local user = req.body
  local created = app.db:transaction({ serialize = "users" }, function(tx)
    local row = insert_user(tx, user)
    tx:queue("create_user_profile", row.id, user.profile.firstname, user.profile.lastname)
    queue_scores(tx)
    tx:send_batch()
    tx:exec("log_action", ("new user created with id %d and username %s"):format(row.id, user.username))
    return tx:query_row("get_user", row.id)
  end)
  return 201, created, { Location = "/users/" .. created.id }
end)

app.get("/users", { query = PAGE }, function(req)
  return 200, app.db:query("get_users", req.query.after, req.query.limit)
end)

app.get("/users/{id}", { params = { id = { type = "integer" } } }, function(req)
  local user = app.db:query_row("get_user", req.params.id)
  if not user then
    app.fail(404, ("there is no user with the id %d"):format(req.params.id))
  end
  return 200, user
end)
