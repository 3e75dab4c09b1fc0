-- More than can be done in time: what can be done is done, and the rest hears so at once.
local socket = require "socket"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local function sleep(tx, seconds) tx:query("select pg_sleep($1)", seconds) end

app.get("/pool", { deadline = 10 }, function()
  db:transaction(function(tx) sleep(tx, 0.1) end)
  return {}
end)
app.get("/turn", { deadline = 10 }, function()
  db:transaction({ serialize = "notes" }, function(tx) sleep(tx, 0.1) end)
  return {}
end)
app.get("/quick", { deadline = 30 }, function()
  db:transaction(function(tx) sleep(tx, 0.001) end)
  return {}
end)
app.get("/slow", { deadline = 60 }, function()
  db:transaction(function(tx) sleep(tx, 4) end)
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
  local statuses = {}
  for i, connection in ipairs(connections) do
    statuses[i] = connection:finish().status
  end
  return statuses
end

-- Takes `count` answers of each status, in the order in which answers come, and hangs up on who is left.
local function take_of_each(connections, count, ...)
  local sockets, owners, answers, missing = {}, {}, {}, 0
  for i, connection in ipairs(connections) do
    sockets[i], owners[connection.socket] = connection.socket, connection
  end
  for _, status in ipairs { ... } do
    answers[status], missing = {}, missing + count
  end
  while missing > 0 do
    assert.is_not_nil(next(owners), "there are no more answers")
    for _, readable in ipairs(socket.select(sockets, nil, 20)) do
      local answer = owners[readable]:finish()
      local alike = assert(answers[answer.status], answer.body)
      missing = missing - (#alike < count and 1 or 0)
      alike[#alike + 1] = answer
      owners[readable] = nil
    end
    sockets = {}
    for each in pairs(owners) do
      sockets[#sockets + 1] = each
    end
  end
  for _, connection in pairs(owners) do
    connection:close()
  end
  return answers
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

  -- A hundred of two hundred fit into the ten seconds.
  for _, path in ipairs { "/pool", "/turn" } do
    it("is told at once to those who cannot make it: waiting at " .. path, function()
      assert.equal(6, count_of(finish(begin(server, path, 6)), 200))
      local before = server:metric("shed_total")
      local started = socket.gettime()
      local answers = take_of_each(begin(server, path, 200), 10, 200, 503)
      assert.is_true(socket.gettime() - started < 8, "it was told at the deadline")
      for _, answer in ipairs(answers[503]) do
        support.problem(answer, 503, "overloaded")
        assert.is_not_nil(tonumber(answer.headers["retry-after"]))
      end
      assert.is_true(server:metric("shed_total") - before >= 10)
      support.eventually("the others to be gone", function() return server:metric("requests_in_flight") == 0 end)
    end)
  end

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
