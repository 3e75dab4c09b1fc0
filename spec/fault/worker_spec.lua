-- Workers that die, eat memory or are told to end while requests are under way.
local socket = require "socket"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.get("/slow", { deadline = 30 }, function()
  app.db:query("select pg_sleep(0.1)")
  return 200, { slow = true }
end)

app.get("/held", { deadline = 60 }, function()
  app.db:transaction(function(tx) tx:query("lock table gate in access share mode") end)
  return 200, { slow = true }
end)

app.get("/quick", { deadline = 30 }, function() return 200, { quick = true } end)

app.get("/bomb", { deadline = 30 }, function()
  local kept = {}
  while true do
    kept[#kept + 1] = ("x"):rep(100000) .. #kept
  end
end)
]]

local server

local function stop()
  server:stop()
end

local function start(workers, ...)
  server = support.server.start {
    script = SCRIPT,
    migration = "create table gate ()",
    flags = { "--no-watch", "--workers", workers, ... },
  }
end

-- Ids begin with a number that is the worker's own.
local function worker_of(answer)
  return answer.headers["x-request-id"]:match("^(%x+)-")
end

-- Connections that have been served once, and stay open.
local function connect_all(count)
  local connections = {}
  for i = 1, count do
    local connection = support.http.connect(server.url)
    connections[i] = { connection = connection, worker = worker_of(connection:request("GET", "/quick")) }
  end
  return connections
end

local function send_all(connections, path)
  for _, each in ipairs(connections) do
    assert(each.connection:send("GET", path))
  end
end

-- Reads the answers; gives the connections that had none, which are closed.
local function receive_all(connections)
  local silent = {}
  for _, each in ipairs(connections) do
    local answer = each.connection:receive()
    if answer then
      assert.equal(200, answer.status, answer.body)
      assert.equal(each.worker, worker_of(answer))
    else
      each.connection:close()
      silent[#silent + 1] = each
    end
  end
  return silent
end

local function count_workers(connections)
  local seen, count = {}, 0
  for _, each in ipairs(connections) do
    count = count + (seen[each.worker] and 0 or 1)
    seen[each.worker] = true
  end
  return count
end

-- Asks for something on all connections; gives those whose worker lives.
local function without_dead(connections)
  local alive = {}
  for _, each in ipairs(connections) do
    each.connection:send("GET", "/quick")
    if #receive_all { each } == 0 then
      alive[#alive + 1] = each
    end
  end
  return alive
end

local function kill_all_but(survivor)
  local count = 0
  for _, pid in ipairs(server:workers()) do
    if pid ~= survivor then
      support.shell.run("kill -9 " .. pid)
      count = count + 1
    end
  end
  return count
end

local function signal_workers(name)
  for _, pid in ipairs(server:workers()) do
    support.shell.must(("kill -%s %d"):format(name, pid))
  end
end

local function get_at_once(count, path, meanwhile)
  return support.http.at_once(server.url, count, function() return "GET", path end, meanwhile)
end

local function assert_all_served(answers)
  for _, answer in ipairs(answers) do
    assert.equal(200, answer.status, answer.body)
  end
end

describe("a worker that is killed under load", function()
  setup(function() start(4, "--pool-max", "16") end)
  teardown(stop)

  it("is replaced, the others do not notice, and its listen queue is served", function()
    local gate = server.db:session()
    finally(function() gate:close() end)
    gate:exec("begin; lock table gate")
    local connections = connect_all(32)
    send_all(connections, "/held")
    support.eventually("requests in flight", function() return server:metric("requests_in_flight") == 32 end)
    local victim = server:workers()[1]
    support.shell.must("kill -9 " .. victim)
    assert_all_served(get_at_once(40, "/quick"))
    support.eventually("four workers", function() return server:metric("workers_ready") == 4 end)
    gate:exec("commit")
    assert.is_true(count_workers(receive_all(connections)) <= 1)
    assert.equal(1, server:metric("worker_restarts_total"))
  end)

  it("again and again keeps the server from nothing, nor is it started without a pause", function()
    local survivor = server:workers()[1]
    local connections = connect_all(48)
    local kills = 0
    local stop_at = socket.gettime() + 1.5
    while socket.gettime() < stop_at or kills < 4 do
      kills = kills + kill_all_but(survivor)
      connections = without_dead(connections)
    end
    assert.equal(1, count_workers(connections), "one worker was left alone")
    assert.is_true(kills <= 40, kills .. " kills")
    support.eventually("four workers", function() return server:metric("workers_ready") == 4 end)
    assert_all_served(get_at_once(40, "/quick"))
  end)
end)

describe("a server that is told to end under load", function()
  before_each(function() start(2, "--pool-max", "8", "--shutdown-timeout", "30s") end)
  after_each(stop)

  it("answers all requests that were sent before, also those that still wait to be accepted, and exits 0", function()
    assert_all_served(get_at_once(100, "/slow", function() server.process:signal("TERM") end))
    assert.equal(0, server.process:wait())
  end)

  it("answers requests that have arrived on connections it has, though it has not read them yet", function()
    local connections = connect_all(8)
    signal_workers("STOP")
    send_all(connections, "/slow")
    server.process:signal("TERM")
    server:wait_log("stopping")
    signal_workers("CONT")
    assert.same({}, receive_all(connections))
    assert.equal(0, server.process:wait())
  end)
end)

describe("a server that is told to end while a worker is being replaced", function()
  setup(function() start(1, "--shutdown-timeout", "30s") end)
  teardown(stop)

  it("answers those who wait for that worker, and exits 0", function()
    server:write("scripts/long.lua", [[
      local ends = os.clock() + 0.2
      while os.clock() < ends do end]])
    local offset = #server:log()
    server.process:signal("HUP")
    server:wait_log("reloaded", offset)
    local victim = server:workers()[1]
    support.shell.must("kill -9 " .. victim)
    support.eventually("another worker", function()
      local worker = server:workers()[1]
      return worker and worker ~= victim
    end)
    assert_all_served(get_at_once(20, "/quick", function() server.process:signal("TERM") end))
    assert.equal(0, server.process:wait())
  end)
end)

describe("memory that a script has eaten up", function()
  setup(function() start(1, "--lua-memory", "32MiB") end)
  teardown(stop)

  it("is given back, and the other requests are served", function()
    local refused = 0
    for _ = 1, 5 do
      local answers = support.http.at_once(server.url, 30, function(i)
        return "GET", i % 10 == 0 and "/bomb" or "/quick"
      end)
      for i, answer in ipairs(answers) do
        if i % 10 == 0 then
          support.problem(answer, 500, "out-of-memory")
        elseif answer.status ~= 200 then
          support.problem(answer, 500, "out-of-memory")
          refused = refused + 1
        end
      end
    end
    assert.is_true(refused < 45, refused .. " of 135 were refused")
    assert_all_served(get_at_once(30, "/quick"))
    assert.equal(0, server:metric("worker_restarts_total"))
  end)
end)
