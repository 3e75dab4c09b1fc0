local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local VERSION = 1

app.get("/version", function() return 200, { version = VERSION } end)
app.get("/slow", { deadline = 60 }, function()
  app.db:query("select pg_advisory_xact_lock_shared(9)")
  return 200, { version = VERSION }
end)
]]

local WORKERS = 2

local function version_of(server)
  return server:get("/version"):json().version
end

-- Every connection may meet another worker: enough of them meet all.
local function everywhere(check)
  for _ = 1, 16 * WORKERS do
    if not check() then
      return false
    end
  end
  return true
end

local function wait_version(server, version)
  support.eventually("version " .. version .. " in all workers", function()
    return everywhere(function() return version_of(server) == version end)
  end)
end

local function stays(server, version)
  return everywhere(function() return version_of(server) == version end)
end

describe("a server whose files are edited", function()
  local server

  before_each(function()
    server = support.server.start {
      scripts = { ["spec.lua"] = SCRIPT }, flags = { "--workers", WORKERS },
    }
  end)
  after_each(function() server:stop() end)

  local function set_version(version)
    server:write("scripts/spec.lua", (SCRIPT:gsub("VERSION = 1", "VERSION = " .. version)))
  end

  it("takes over a saved script in all workers", function()
    set_version(2)
    wait_version(server, 2)
    server:wait_log("reloaded")
  end)

  it("takes over the formula", function()
    server:edit("scripts/score.lua", "return 1 + value + value / users_count", "return 7")
    server:wait_log("reloaded")
    local user = { username = "a", score = 1, profile = { firstname = "a", lastname = "b" } }
    assert.equal(7, server:post("/users", user):json().score)
  end)

  it("takes over a statement", function()
    server:edit("sql/actions.sql", "select id, description, created", "select id, 'changed' as description, created")
    server:wait_log("reloaded")
    server.db:exec("insert into actions (description) values ('x')")
    assert.is_true(everywhere(function()
      return server:get("/actions"):json()[1].description == "changed"
    end))
  end)

  it("takes over new and removed files", function()
    server:write("scripts/extra.lua", 'require "moonpool".get("/extra", function() return { extra = true } end)')
    support.eventually("the new route", function() return server:get("/extra").status == 200 end)
    assert(os.remove(server.folder .. "/scripts/extra.lua"))
    support.eventually("its end", function() return server:get("/extra").status == 404 end)
  end)

  it("finishes a request in flight on the version it began with", function()
    local lock = server.db:session()
    lock:exec("select pg_advisory_lock(9)")
    local slow = server:begin("GET", "/slow")
    server.db:wait_running("%pg_advisory_xact_lock_shared%")
    set_version(2)
    wait_version(server, 2)
    lock:close()
    assert.same({ version = 1 }, slow:receive():json())
    slow:close()
  end)

  for name, case in pairs {
    ["a syntax error"] = { path = "scripts/spec.lua", text = "local x = 1\nx = = 2\n", where = "scripts/spec.lua:2" },
    ["an error while loading"] = { path = "scripts/spec.lua", text = "error('no')\n", where = "scripts/spec.lua:1" },
    ["a misspelt column"] = { path = "sql/users.sql", text = "-- name: get_user :one\nselect nothing\nfrom users;\n",
      where = "sql/users.sql:" },
  } do
    it(("keeps the old version after %s, and says where it is"):format(name), function()
      local offset = #server:log()
      server:write(case.path, case.text)
      server:wait_log("where=" .. case.where:gsub("%p", "%%%0"), offset)
      server:wait_log("reload refused", offset)
      assert.is_true(stays(server, 1))
      assert.equal(200, server:get("/users").status)
    end)
  end

  it("goes on with the next good version after a broken one", function()
    local offset = #server:log()
    server:write("scripts/spec.lua", "nonsense nonsense")
    server:wait_log("refused", offset)
    set_version(3)
    wait_version(server, 3)
  end)

  it("gives the last good version to a worker that starts later", function()
    local offset = #server:log()
    server:write("scripts/spec.lua", "nonsense nonsense")
    server:wait_log("refused", offset)
    local old = server:workers()[1]
    support.shell.must("kill -KILL " .. old)
    support.eventually("a new worker", function()
      local workers = server:workers()
      return #workers == WORKERS and workers[1] ~= old and workers[2] ~= old
    end)
    server:wait_ready()
    assert.is_true(stays(server, 1))
  end)

  it("has no request fail while it takes over", function()
    for version = 2, 5 do
      set_version(version)
      support.eventually("version " .. version, function()
        local answer = server:get("/version")
        assert.equal(200, answer.status, answer.body)
        return answer:json().version == version
      end)
    end
  end)
end)

describe("a server that does not watch its files", function()
  local server, watching

  local function start(...)
    return support.server.start { scripts = { ["spec.lua"] = SCRIPT }, flags = { "--workers", WORKERS, ... } }
  end

  setup(function()
    server = start "--no-watch"
    watching = start()
  end)
  teardown(function()
    server:stop()
    watching:stop()
  end)

  it("takes them over at HUP", function()
    -- The one that watches is saved last: once it has taken its file over, the other would have too.
    for _, saved in ipairs { server, watching } do
      saved:write("scripts/spec.lua", (SCRIPT:gsub("VERSION = 1", "VERSION = 2")))
    end
    wait_version(watching, 2)
    assert.is_true(stays(server, 1))
    server.process:signal("HUP")
    wait_version(server, 2)
  end)
end)

describe("a reload of a server that is overloaded", function()
  local server

  setup(function()
    server = support.server.start {
      script = [[
        local app = require "moonpool"
        app.get("/hold", { deadline = 600 }, function()
          return 200, app.db:query_row("select pg_advisory_xact_lock_shared(9), pg_sleep(0.3)")
        end)
      ]],
      statements = "-- name: get_one :one\nselect 1 as one;\n",
      flags = { "--workers", "1", "--pool-max", "1", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  it("waits for a session to check the statements, instead of being refused", function()
    for _ = 1, 4 do -- uses to go by, for who waits
      assert.equal(200, server:get("/hold").status)
    end
    local lock = server.db:session()
    lock:exec("select pg_advisory_lock(9)")
    local connections = {}
    for i = 1, 180 do -- 54 s to go by
      connections[i] = server:begin("GET", "/hold")
    end
    support.eventually("all but one to wait", function() return server:metric("pool_waiting") == 179 end)
    local generation, offset = server:metric("generation"), #server:log()
    server.process:signal("HUP")
    support.eventually("the reload", function() return server:metric("generation") > generation end)
    for _ = 1, 3 do -- the worker has turned
      server:readyz()
    end
    for _, connection in ipairs(connections) do
      connection:close()
    end
    assert.matches(" reloaded ", server:wait_log(" reload", offset))
    lock:close()
  end)
end)
