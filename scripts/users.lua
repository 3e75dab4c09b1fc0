-- /users: creates and shows users. Every create gives all users a new score.
local app = require "moonpool"
local score = require "score"

local NAME = { type = "string", minLength = 1, maxLength = 100 }

local NEW_USER = {
  type = "object",
  required = { "username", "score", "profile" },
  properties = {
    username = NAME,
    -- Far from where the scores of all users would overflow as others join.
    score = { type = "number", minimum = -1e300, maximum = 1e300 },
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

-- A decimal column cannot hold what overflowed, so such a create is refused instead.
local function check_score(user, value)
  if value ~= value or value == math.huge or value == -math.huge then
    app.fail(422, ("the score of user %d would no longer be a finite number"):format(user.id))
  end
end

-- Inserts the users with their profiles, in order. Gives the place of each new id among those created,
-- and the ids; a name that is in use has none: it is refused before an id is spent on it.
local function insert_users(tx, users)
  for _, user in ipairs(users) do
    tx:queue("create_user", user.username, user.score)
  end
  local rows = tx:send_batch()
  local places, ids = {}, {}
  for i, user in ipairs(users) do
    local row = rows[i]
    if row then
      ids[#ids + 1] = row.id
      places[row.id] = #ids
      tx:queue("create_user_profile", row.id, user.profile.firstname, user.profile.lastname)
      tx:queue("log_action", ("new user created with id %d and username %s"):format(row.id, user.username))
    end
  end
  return places, ids
end

-- Gives every user the scores that these creates, one after the other, would have given: a create
-- counts the users there are with it, and scores all of them, the new one included. Gives the score
-- that each new user had when its own create was done.
local function update_scores(tx, places, created)
  local users = tx:query("get_user_scores")
  local before = #users - created
  local first_scores = {}
  for _, user in ipairs(users) do
    local first = places[user.id] or 1
    local value = user.score
    for place = first, created do
      value = score.formula(value, before + place)
      if place == places[user.id] then
        first_scores[user.id] = value
      end
    end
    check_score(user, value)
    tx:queue("update_user_scores", user.id, value)
  end
  return first_scores
end

-- Creates that come at the same time are done together, in one transaction with one update of all
-- scores; the result is that of one after the other. `serialize` keeps the groups of other hosts, and
-- other writers that lock the table, apart.
local create_user = app.db:group("create_user", { max = 256, serialize = "users" }, function(tx, users)
  local places, ids = insert_users(tx, users)
  local stored = {}
  if #ids > 0 then
    local first_scores = update_scores(tx, places, #ids)
    for _, row in ipairs(tx:query("get_users_by_id", ids)) do
      row.score = first_scores[row.id]
      stored[row.username] = row
    end
  end
  local outputs = {}
  for i, user in ipairs(users) do
    outputs[i] = { created = stored[user.username] }
    -- The second of two with one name in a group finds it in use.
    stored[user.username] = nil
  end
  return outputs
end)

app.post("/users", { deadline = 2.0, body = NEW_USER }, function(req)
  local user = req.body
  local created = create_user({ username = user.username, score = user.score, profile = {
    firstname = user.profile.firstname,
    lastname = user.profile.lastname,
  } }).created
  if not created then
    app.fail(409, ("the username %s is in use"):format(user.username), {
      errors = { { pointer = "/username", detail = "is in use" } },
    })
  end
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
