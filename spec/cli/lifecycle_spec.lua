local cjson = require "cjson"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.get("/slow", { deadline = 60 }, function()
  app.db:query("select pg_advisory_xact_lock_shared(9)")
  return 200, { slow = true }
end)
app.get("/lua", function() return 200, { lua = true } end)
]]

describe("a server that is told to end", function()
  local server

  before_each(function()
    server = support.server.start {
      scripts = { ["spec.lua"] = SCRIPT }, flags = { "--workers", "2", "--shutdown-timeout", "60s" },
    }
  end)
  after_each(function() server:stop() end)

  for _, signal in ipairs { "TERM", "INT" } do
    it(("by %s answers the request in flight and exits 0"):format(signal), function()
      local lock = server.db:session()
      lock:exec("select pg_advisory_lock(9)")
      local slow = server:begin("GET", "/slow")
      server.db:wait_running("%pg_advisory_xact_lock_shared%")
      server.process:signal(signal)
      support.eventually("no more connections", function() return not pcall(support.http.connect, server.url) end)
      lock:exec("select pg_sleep(1)") -- who does not wait for the request has ended by then
      lock:close()
      local answer = assert(slow:receive())
      assert.equal(200, answer.status)
      assert.equal("close", answer.headers.connection:lower())
      assert.equal(0, server.process:wait())
      assert.is_false(pcall(support.http.connect, server.url))
      slow:close()
    end)
  end

  it("while connections are idle exits 0", function()
    local idle = support.http.connect(server.url)
    assert.equal(200, idle:request("GET", "/lua").status)
    assert.equal(0, server:halt())
    idle:close()
  end)

  it("leaves no session and no process", function()
    local workers = server:workers()
    assert.equal(2, #workers)
    assert.equal(0, server:halt())
    for _, pid in ipairs(workers) do
      local _, code = support.shell.run("kill -0 " .. pid)
      assert.is_true(code ~= 0)
    end
    support.eventually("no session", function() return server.db:sessions() == 0 end)
  end)

  it("starts again where it was", function()
    local user = { username = "a", score = 1, profile = { firstname = "a", lastname = "b" } }
    assert.equal(201, server:post("/users", user).status)
    assert.equal(0, server:halt())
    server:launch()
    assert.equal("a", server:get("/users"):json()[1].username)
  end)
end)

describe("a worker that dies", function()
  local server

  setup(function()
    server = support.server.start { scripts = { ["spec.lua"] = SCRIPT }, flags = { "--workers", "2" } }
  end)
  teardown(function() server:stop() end)

  it("is logged and replaced", function()
    local offset = #server:log()
    local before = server:workers()
    assert.equal(2, #before)
    support.shell.must("kill -KILL " .. before[1])
    support.eventually("two workers", function()
      local now = server:workers()
      return #now == 2 and now[1] ~= before[1] and now[2] ~= before[1]
    end)
    server:wait_log(("worker died .*pid=%d signal=KILL"):format(before[1]), offset)
    server:wait_ready()
    for _ = 1, 20 do
      assert.equal(200, server:get("/users").status)
    end
  end)
end)

describe("the admin listener", function()
  local server

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  local function admin(path)
    return support.http.request(server.admin_url, "GET", path)
  end

  it("says that the server lives and is ready", function()
    assert.equal(200, admin("/livez").status)
    assert.equal(200, admin("/readyz").status)
  end)

  it("is not the API, and the API is not it", function()
    assert.equal(404, admin("/users").status)
    assert.equal(404, server:get("/livez").status)
  end)
end)

describe("a database that is away", function()
  local cluster, server

  setup(function()
    cluster = support.cluster.create()
    server = support.server.prepare {
      database = cluster.url, migrate = false, wait = false, scripts = { ["spec.lua"] = SCRIPT },
    }
    server:launch()
    server:wait_serving()
  end)
  teardown(function()
    server:stop()
    cluster:destroy()
  end)

  local function count_in_log(event)
    return select(2, server:log():gsub(event, ""))
  end

  it("does not keep the server from starting: it answers 503 until the database comes, and goes", function()
    assert.equal(200, support.http.request(server.admin_url, "GET", "/livez").status)
    assert.equal(503, server:readyz().status)
    local answer = server:get("/users")
    support.problem(answer, 503)
    assert.is_not_nil(answer.headers["retry-after"])
    support.eventually("several attempts", function() return server:metric("pool_connect_failures_total") >= 3 end)
    server:wait_log(" error worker%-1: database away ")
    assert.equal(1, count_in_log("database away"))
    assert.equal(0, server:metric("database_up"))
    cluster:start()
    assert.equal(0, select(2, server:run("migrate")))
    server:wait_ready()
    support.eventually("an answer", function() return server:get("/users").status == 200 end)
    server:wait_log(" info worker%-1: database back")
    assert.equal(1, server:metric("database_up"))
    cluster:stop()
    support.eventually("a refusal", function() return server:get("/users").status == 503 end)
    support.eventually("a red light", function() return server:readyz().status == 503 end)
    cluster:start()
    support.eventually("an answer again", function() return server:get("/users").status == 200 end)
    server:wait_ready()
    support.eventually("the news", function() return count_in_log("database back") == 2 end)
    assert.equal(2, count_in_log("database away"))
  end)
end)

describe("the access log", function()
  local function one_request(...)
    local server = support.server.start { scripts = { ["spec.lua"] = SCRIPT }, flags = { ... } }
    finally(function() server:stop() end)
    local answer = server:get("/users?limit=1", { headers = { ["X-Request-Id"] = "spec-1" } })
    assert.equal(200, answer.status)
    return server:wait_log("spec%-1"), #answer.body
  end

  it("has a line per request, as key=value", function()
    local line, bytes = one_request()
    assert.matches(" request ", line)
    assert.matches("id=spec%-1", line)
    assert.matches("method=GET", line)
    assert.matches("path=\"?/users", line)
    assert.matches("status=200", line)
    assert.matches("bytes=" .. bytes, line)
    assert.matches("duration_ms=%d+%.%d+", line)
    assert.matches("client=127%.0%.0%.1", line)
  end)

  it("has a line per request, as JSON", function()
    local line, bytes = one_request("--log", "json")
    local entry = cjson.decode(line)
    assert.equal("request", entry.event)
    assert.equal("spec-1", entry.id)
    assert.equal("GET", entry.method)
    assert.equal(200, entry.status)
    assert.equal(bytes, entry.bytes)
    assert.is_number(entry.duration_ms)
  end)
end)

describe("the log", function()
  it("never shows the database's password", function()
    local server = support.server.prepare {
      database = "postgresql://someone:geheim@127.0.0.1:1/nowhere", migrate = false, wait = false,
    }
    finally(function() server:stop() end)
    server:launch()
    server:wait_serving()
    support.problem(server:get("/users"), 503)
    assert.is_nil(server:log():find("geheim", 1, true))
  end)
end)
