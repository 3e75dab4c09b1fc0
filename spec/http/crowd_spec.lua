-- More connections than there is room for, and many that do nothing.
local socket = require "socket"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.get("/quick", function() return 200, { quick = true } end)
app.get("/sleep", function() return 200, app.db:query_row("select 'slept' as how from pg_sleep(1)") end)
]]

local REQUEST = "GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
local ROOM = 50 -- connections: half of the descriptors, where there are so few
local TICKS = 100 -- of CPU time in a second

local function start()
  return support.server.start { script = SCRIPT, flags = { "--no-watch" } }
end

-- The worker, once there is no other.
local function worker_of(server)
  return support.eventually("the worker", function()
    local pids = server:workers()
    return #pids == 1 and pids[1]
  end)
end

-- Leaves a process no descriptor: the lowest that is free may not be given out.
local function exhaust_files(pid)
  local used, lowest = {}, 0
  for number in support.shell.must(("ls /proc/%d/fd"):format(pid)):gmatch("%d+") do
    used[tonumber(number)] = true
  end
  while used[lowest] do
    lowest = lowest + 1
  end
  support.shell.limit_files(pid, lowest)
end

local function cpu_ticks(pid)
  local fields = support.shell.read(("/proc/%d/stat"):format(pid)):match("%) (.*)")
  local user, system = fields:match(("%S+ "):rep(11) .. "(%S+) (%S+)")
  return tonumber(user) + tonumber(system)
end

-- Connections that have each sent a request.
local function open(server, count)
  local connections = {}
  for i = 1, count do
    connections[i] = support.http.connect(server.url)
    connections[i]:raw(REQUEST)
  end
  return connections
end

local function close(connections)
  for _, connection in ipairs(connections) do
    connection:close()
  end
end

-- Takes the answers that have come: the connections that have none yet.
local function take_answers(connections)
  local waiting = {}
  for _, connection in ipairs(connections) do
    if #socket.select({ connection.socket }, nil, 0) > 0 then
      assert.equal(200, assert(connection:receive()).status)
    else
      waiting[#waiting + 1] = connection
    end
  end
  return waiting
end

describe("a worker with as many connections as it may have", function()
  local server, worker

  -- What a process may open is inherited: a worker that replaces another is made with less.
  setup(function()
    server = start()
    local first = worker_of(server)
    support.shell.limit_files(server.process.pid, 2 * ROOM)
    support.shell.must(("kill -KILL %d"):format(first))
    support.eventually("another worker", function()
      worker = worker_of(server)
      return worker ~= first
    end)
    support.eventually("it to serve", function()
      local connected, answer = pcall(server.get, server, "/quick")
      return connected and answer.status == 200
    end)
  end)
  teardown(function() server:stop() end)

  it("serves them, and the others when there is room again", function()
    local connections = open(server, ROOM + 10)
    local waiting = connections
    support.eventually("as many answers as there is room for", function()
      waiting = take_answers(waiting)
      return #waiting == 10
    end)
    server:wait_log("warn .*connections full .*as many connections as may be")
    assert.equal(200, connections[1]:request("GET", "/quick").status)
    assert.equal(10, #take_answers(waiting), "the others still wait")
    close(table.move(connections, 1, ROOM, 1, {}))
    support.eventually("the others to be answered", function()
      waiting = take_answers(waiting)
      return #waiting == 0
    end)
    close(connections)
  end)

  it("accepts again after all have left at once", function()
    local connections = open(server, ROOM)
    local waiting = connections
    support.eventually("all to be answered", function()
      waiting = take_answers(waiting)
      return #waiting == 0
    end)
    close(connections)
    assert.equal(200, server:get("/quick").status)
  end)
end)

describe("a worker that is out of file descriptors", function()
  local server, worker

  before_each(function()
    server = start()
    worker = worker_of(server)
  end)
  after_each(function() server:stop() end)

  it("serves the connections it has, does not spin, and accepts again", function()
    local held = open(server, 2)
    assert.equal(200, held[1]:receive().status)
    assert.equal(200, held[2]:receive().status)
    assert.equal("slept", held[1]:request("GET", "/sleep"):json().how)
    exhaust_files(worker)
    local new = open(server, 3)
    server:wait_log("warn .*connections full .*out of file descriptors")
    local before = cpu_ticks(worker)
    assert.equal("slept", held[1]:request("GET", "/sleep"):json().how)
    assert.is_true(cpu_ticks(worker) - before < TICKS / 2)
    assert.equal(3, #take_answers(new))
    support.shell.limit_files(worker, 1000)
    held[2]:close()
    for _, connection in ipairs(new) do
      assert.equal(200, assert(connection:receive()).status)
    end
    close(held)
    close(new)
  end)

  it("accepts again when it had no connection at all", function()
    server:get("/quick")
    support.eventually("the connection to be gone", function()
      return support.http.request(server.admin_url, "GET", "/metrics").body:match("client_connections 0\n")
    end)
    exhaust_files(worker)
    local new = open(server, 1)
    server:wait_log("warn .*connections full .*out of file descriptors")
    support.shell.limit_files(worker, 1000)
    assert.equal(200, assert(new[1]:receive()).status)
    close(new)
  end)
end)

describe("an idle connection", function()
  -- The sanitizers take memory of their own.
  local run = support.environment.is_sanitized() and pending or it

  run("takes less than 12 kB of memory, and gives it back", function()
    local server = start()
    finally(function() server:stop() end)
    local worker = worker_of(server)
    close(open(server, 1))
    local COUNT, SLACK = 600, 512 * 1024
    local before = support.shell.private_memory(worker)
    local connections = open(server, COUNT)
    for _, connection in ipairs(connections) do
      assert.equal(200, assert(connection:receive()).status)
    end
    local grown = support.shell.private_memory(worker) - before
    assert.is_true(grown < COUNT * 12000 + SLACK, "grown by " .. grown)
    close(connections)
    support.eventually("the memory to be given back", function()
      return support.shell.private_memory(worker) - before < grown / 4
    end)
  end)
end)
