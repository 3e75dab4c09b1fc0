-- More than can be done in time: what can be done is done, and the rest hears so at once.
local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local function sleep(tx, seconds) tx:query("select pg_sleep($1)", seconds) end

app.get("/pool", { deadline = 3 }, function()
  db:transaction(function(tx) sleep(tx, 0.1) end)
  return {}
end)
app.get("/turn", { deadline = 3 }, function()
  db:transaction({ serialize = "notes" }, function(tx) sleep(tx, 0.1) end)
  return {}
end)
app.get("/quick", { deadline = 15 }, function()
  db:transaction(function(tx) sleep(tx, 0.001) end)
  return {}
end)
app.get("/slow", { deadline = 30 }, function()
  db:transaction(function(tx) sleep(tx, 2) end)
  return {}
end)
]]

local function begin(server, path, count)
  local connections = {}
  for i = 1, count do
    connections[i] = server:begin("GET", path)
  end
  return connections
end

local function finish(connections)
  local statuses, overloaded = {}, 0
  for i, connection in ipairs(connections) do
    local answer = assert(connection:receive())
    statuses[i] = answer.status
    overloaded = overloaded + (answer.body:find("/overloaded", 1, true) and 1 or 0)
    connection:close()
  end
  return statuses, overloaded
end

local function count_of(statuses, wanted)
  local count = 0
  for _, status in ipairs(statuses) do
    count = count + (status == wanted and 1 or 0)
  end
  return count
end

describe("an overload", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      migration = "create table notes (body text)",
      flags = { "--workers", 1, "--pool-max", 1, "--lanes", 0, "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  -- Thirty fit into the three seconds of sixty.
  for _, path in ipairs { "/pool", "/turn" } do
    it("is told at once to those who cannot make it: waiting at " .. path, function()
      assert.equal(0, count_of(finish(begin(server, path, 6)), 503))
      local before = server:metrics()
      local first = begin(server, path, 5)
      support.eventually("all five to be there, or gone again", function()
        local now = server:metrics()
        return now.requests_in_flight + now.requests_total - before.requests_total >= 5
      end)
      local connections = begin(server, path, 55)
      local answer = assert(connections[55]:receive())
      support.problem(answer, 503, "overloaded")
      assert.is_not_nil(tonumber(answer.headers["retry-after"]))
      assert.is_true(server:metric("requests_in_flight") > 0, "it was told when all was over")
      connections[55]:close()
      connections[55] = nil
      local statuses, overloaded = finish(connections)
      assert.equal(5, count_of(finish(first), 200))
      assert.is_true(count_of(statuses, 200) >= 10, table.concat(statuses, " "))
      assert.is_true(overloaded >= 10, table.concat(statuses, " "))
      assert.is_true(server:metric("shed_total") - before.shed_total > overloaded - 1)
    end)
  end

  -- The server goes by what took how long lately: here by forty quick ones, more than it remembers. With
  -- the slow one counted, the last of 300 would seem to wait 300 * 2 s / 32, which is more than its 15 s.
  it("is not seen in a slow request among quick ones", function()
    for _ = 1, 5 do
      assert.equal(8, count_of(finish(begin(server, "/quick", 8)), 200))
    end
    local slow = begin(server, "/slow", 1)
    server.db:wait_running("%pg_sleep%")
    assert.equal(300, count_of(finish(begin(server, "/quick", 300)), 200))
    assert.equal(1, count_of(finish(slow), 200))
    assert.equal(300, count_of(finish(begin(server, "/quick", 300)), 200))
  end)
end)
