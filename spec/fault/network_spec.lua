-- A network that swallows what is sent: PostgreSQL runs in a network namespace of its own, and each
-- side is told a wrong hardware address of the other. Nothing is acknowledged and nothing refused, as
-- when a switch has failed.
local socket = require "socket"

local support = require "spec.support"

local MIGRATION = "create table notes (text text not null);"

local SCRIPT = [==[
local app = require "moonpool"
local db = app.db

app.get("/count", { deadline = 1 }, function() return 200, db:query_row("select count(*) as count from notes") end)
app.get("/lua", function() return 200, true end)
app.post("/notes/{text}", { deadline = 1 }, function(req)
  return 201, db:transaction(function(tx)
    tx:exec("insert into notes values ($1)", req.params.text)
    tx:exec("insert into notes values ($1)", req.params.text)
    return true
  end)
end)
app.post("/slowly", { deadline = 1 }, function()
  return 201, db:transaction(function(tx) return tx:query("select pg_sleep(60)") end)
end)
]==]

local BOUND = 10 -- seconds in which answers are there, whose deadline is 1: the machine may be slow
local BACK = 30 -- until the service is back when the network is

local network = {}

local function ip(...)
  return support.shell.must("ip " .. (...):format(select(2, ...)))
end

-- Makes the network; raises a string with why there can be none.
local function make_network()
  local tag = ("mp%x"):format(math.random(0x1000, 0xffff))
  network.namespace, network.near, network.far = tag, tag .. "n", tag .. "f"
  local subnet = "198.18." .. math.random(0, 255) -- for tests of networks, by RFC 2544
  network.here, network.there = subnet .. ".1", subnet .. ".2"
  local output, code = support.shell.run("ip netns add " .. tag)
  if code ~= 0 then
    error(output, 0)
  end
  ip("link add %s type veth peer name %s netns %s", network.near, network.far, tag)
  ip("addr add %s/30 dev %s", network.here, network.near)
  ip("link set %s up", network.near)
  ip("-n %s addr add %s/30 dev %s", tag, network.there, network.far)
  ip("-n %s link set %s up", tag, network.far)
  ip("-n %s link set lo up", tag)
end

local function cut()
  ip("neigh replace %s lladdr 02:00:00:00:00:01 dev %s nud permanent", network.there, network.near)
  ip("-n %s neigh replace %s lladdr 02:00:00:00:00:01 dev %s nud permanent", network.namespace, network.here,
    network.far)
end

local function mend()
  support.shell.run(("ip neigh del %s dev %s"):format(network.there, network.near))
  support.shell.run(("ip -n %s neigh del %s dev %s"):format(network.namespace, network.here, network.far))
end

describe("a network that swallows everything", function()
  local cluster, server, refusal

  setup(function()
    local made, why = pcall(make_network)
    refusal = not made and "there is no network namespace to be had here: " .. why or nil
    if refusal then
      return
    end
    cluster = support.cluster.create()
    cluster.namespace = network.namespace
    local rules = assert(io.open(cluster.folder .. "/data/pg_hba.conf", "a"))
    rules:write(("host all all %s/30 trust\n"):format(network.here))
    rules:close()
    cluster:start("-c listen_addresses=" .. network.there)
    local near = ("postgresql://postgres@/postgres?host=%s&port=%d"):format(cluster.folder, cluster.port)
    server = support.server.start {
      script = SCRIPT,
      migration = MIGRATION,
      database = (cluster.url:gsub("127%.0%.0%.1", network.there)),
      flags = { "--workers", "2", "--pool-max", "8", "--no-watch" },
    }
    server.db = support.db.at(near)
  end)
  teardown(function()
    if server then
      server:stop()
      cluster:destroy()
    end
    if not refusal then
      ip("link del " .. network.near)
      ip("netns del " .. network.namespace)
    end
  end)

  -- Often enough that both workers were asked.
  local function works()
    for _ = 1, 12 do
      if server:get("/count").status ~= 200 or server:post("/notes/other").status ~= 201 then
        return false
      end
    end
    return server:readyz().status == 200
  end

  -- Sends requests of all kinds and cuts the network while they are under way: how many were told that
  -- they were done, and how many that nobody knows.
  local function cut_under_load()
    local started = socket.gettime()
    local answers = support.http.at_once(server.url, 24, function(i)
      return i % 3 == 0 and "GET" or "POST", ({ [0] = "/count", "/notes/cut", "/slowly" })[i % 3]
    end, cut)
    assert.is_true(socket.gettime() - started < BOUND, "it took too long")
    local created, unknown = 0, 0
    for _, answer in ipairs(answers) do
      created = created + (answer.status == 201 and 1 or 0)
      unknown = unknown + (answer.body:find("outcome-unknown", 1, true) and 1 or 0)
      assert.is_true(answer.status < 300 or answer.status >= 503 or unknown > 0, answer.body)
    end
    return created, unknown
  end

  before_each(function()
    if server then
      support.eventually("the service", works)
      server.db:exec("truncate notes")
    end
  end)

  local function made(fn)
    return function()
      if refusal then
        pending(refusal)
      end
      finally(mend)
      fn()
    end
  end

  it("keeps no deadline from being kept, and is over when it is", made(function()
    local created, unknown = cut_under_load()
    assert.equal(200, server:get("/lua").status)
    mend()
    support.eventually("the service to be back", works, BACK)
    server.db:wait_running("%pg_sleep%", false)
    local kept = server.db:count("notes where text = 'cut'")
    assert.is_true(kept >= 2 * created and kept <= 2 * (created + unknown), kept .. " rows")
  end))

  it("is noticed by a server that nobody asks anything of the database, lanes and all", made(function()
    local quiet = support.server.start {
      app = false,
      script = SCRIPT,
      database = server.database,
      migrate = false,
      flags = { "--workers", "1", "--pool-health-check", "1s", "--no-watch" },
    }
    finally(function()
      mend()
      quiet:stop()
    end)
    support.eventually("a lane to be at rest", function()
      return quiet:get("/count").status == 200 and quiet:metric("pool_acquired_sessions") == 1
    end)
    cut()
    support.eventually("a red light", function() return quiet:readyz().status == 503 end, BACK)
    mend()
    support.eventually("a green light", function() return quiet:readyz().status == 200 end, BACK)
  end))

  it("is noticed: requests are refused at once, and it is not ready before it is over", made(function()
    cut_under_load()
    support.eventually("a red light", function()
      server:get("/count")
      return server:readyz().status == 503
    end, BACK)
    support.eventually("both workers to refuse at once", function()
      local started = socket.gettime()
      for _ = 1, 12 do
        local answer = server:post("/notes/other")
        if answer.status == 504 then
          return false -- its deadline and the end of its wait came at the same moment
        end
        support.problem(answer, 503)
      end
      return socket.gettime() - started < 1 -- the deadline of one of them
    end, BACK)
    mend()
    support.eventually("the service to be back", works, BACK)
  end))
end)
