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

local LEAST_PART = 50000 -- calls of the formula; fewer are not worth a statement of their own

local PAGE = {
  limit = { type = "integer", minimum = 1, maximum = 10000, default = 1000 },
  after = { type = "integer", minimum = 0, default = 0 },
}

-- A decimal column cannot hold what overflowed, so such a create is refused instead.
local function check_score(user, value)
  if value - value ~= 0 then -- infinite, or not a number
    app.fail(422, ("the score of user %d would no longer be a finite number"):format(user.id))
  end
end

-- Inserts the users, in order, and gives what it made of each, nil for a name that is in use: that is
-- refused before an id is spent on it. Behind these rows, what the formula needs of everyone.
local function insert_users(tx, users)
  for _, user in ipairs(users) do
    tx:queue("create_user", user.username, user.score)
  end
  tx:queue("get_user_scores")
  return tx:send_batch()
end

-- Queues the profiles and the records of those that were inserted. Gives the place of each new id among
-- them, and the ids.
local function queue_profiles(tx, users, rows)
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

-- Queues for everyone in `scores` the score that these creates, one after the other, would have given: a
-- create counts the users there are with it, and scores all of them, the new one included. PostgreSQL
-- stores a part of them while the next is computed. Gives the score that each new user had when its own
-- create was done.
local function queue_scores(tx, scores, places, created)
  local formula, count = score.formula, #scores
  local before = count - created
  local part = math.max(count // 8, LEAST_PART // created)
  local first_scores = {}
  for i, user in ipairs(scores) do
    local id, value = user.id, user.score
    local place = places[id]
    if place then
      value = formula(value, before + place)
      first_scores[id] = value
    end
    for users_count = before + (place or 0) + 1, count do
      value = formula(value, users_count)
    end
    check_score(user, value)
    tx:queue("update_user_scores", id, value)
    if i % part == 0 then
      tx:flush()
    end
  end
  return first_scores
end

-- Creates that come at the same time are done together, in one transaction that updates each score
-- once; the result is that of one after the other. `serialize` keeps the groups of other hosts, and
-- other writers that lock the table, apart.
local create_user = app.db:group("create_user", { max = 256, serialize = "users" }, function(tx, users)
  local rows = insert_users(tx, users)
  local places, ids = queue_profiles(tx, users, rows)
  local stored = {}
  if #ids > 0 then
    local first_scores = queue_scores(tx, rows[rows.n], places, #ids)
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
