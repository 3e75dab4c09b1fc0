-- The books of the sample application: after faults, each user is whole or absent, as its client was
-- told, and the scores are those that one create after the other would have given.
local assert = require "luassert"
local cjson = require "cjson"

local score = require "scripts.score"

local books = {}

local SEEDS = { 10, 20, 30 } -- scores of the users that are there before
local NEW_SCORE = 100

local RESET = [[
  delete from user_profile; delete from users; delete from actions;
  insert into users (username, score) select 'seed ' || n, n * 10 from generate_series(1, 3) n;
  insert into user_profile select id, 'First', 'Last' from users;
]]

local STORED = [[
  select json_build_object(
    'profiles', (select count(*) from user_profile),
    'actions', (select count(*) from actions),
    'users', (select json_agg(u order by u.id) from (
      select id, username, score,
        (select count(*) from user_profile where user_id = users.id) as profiles,
        (select count(*) from actions where description =
          format('new user created with id %s and username %s', users.id, username)) as actions
      from users) u));
]]

---Puts the tables back to a few users that no request has created.
---@param db db.Database|db.Session
function books.reset(db)
  db:exec(RESET)
end

---What creates a user of that name.
---@param name string
---@return table
function books.user(name)
  return { username = name, score = NEW_SCORE, profile = { firstname = "First", lastname = "Last" } }
end

---What an answer, or none, says about the user it was to create.
---@param answer? http.Answer
---@return "there"|"absent"|"unknown"
function books.verdict(answer)
  if not answer then
    return "unknown"
  elseif answer.status == 201 then
    return "there"
  elseif answer.body:find("/outcome-unknown", 1, true) then
    return "unknown"
  end
  return "absent"
end

---The scores of all users, in the order in which they were created, if that was one after the other.
---@param initial number[] with which they were created
---@param seeds? integer how many of them were there before, without a create
---@return number[]
function books.serial_scores(initial, seeds)
  local scores = { table.unpack(initial, 1, seeds or 0) }
  for count = #scores + 1, #initial do
    scores[count] = initial[count]
    for i = 1, count do
      scores[i] = score.formula(scores[i], count)
    end
  end
  return scores
end

local function check_scores(users)
  local initial, scores = {}, {}
  for i, user in ipairs(users) do
    initial[i] = SEEDS[i] or NEW_SCORE
    scores[i] = user.score
  end
  assert.same(books.serial_scores(initial, #SEEDS), scores)
end

-- Gives how many times each name is there.
local function check_whole(users)
  local seen = {}
  for i, user in ipairs(users) do
    seen[user.username] = (seen[user.username] or 0) + 1
    assert.equal(1, user.profiles, user.username .. " has no profile, or several")
    assert.equal(i > #SEEDS and 1 or 0, user.actions, "actions of " .. user.username)
  end
  return seen
end

---Checks what is stored against what clients were told, name -> verdict, and puts the tables back to
---what books.reset() makes them.
---@param db db.Database|db.Session
---@param verdicts table<string, string>
function books.close(db, verdicts)
  local stored = cjson.decode(db:exec(STORED .. RESET))
  local users = stored.users
  local seen = check_whole(users)
  check_scores(users)
  local known = #SEEDS
  for name, verdict in pairs(verdicts) do
    local count = seen[name] or 0
    known = known + count
    assert.is_true(count <= 1, name .. " is there twice")
    assert.is_true(verdict == "unknown" or (verdict == "there") == (count == 1),
      ("%s was said to be %s, and is stored %d times"):format(name, verdict, count))
  end
  assert.equal(known, #users, "there are users that nobody asked for")
  assert.equal(#users - #SEEDS, stored.actions, "actions")
  assert.equal(#users, stored.profiles, "profiles")
end

return books
