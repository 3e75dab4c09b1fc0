-- A primary with a standby, both in the URL: what is asserted is that the server finds the one that
-- takes writes by itself.
local support = require "spec.support"

local BACK = 10 -- seconds; the share of the connect timeout that falls to the first host, and slack

local SCRIPT = [[
local app = require "moonpool"

app.get("/read", function() return 200, app.db:query_row("select 1 as one") end)
app.post("/write", function()
  return 200, app.db:transaction(function(tx) return tx:exec("create table if not exists written ()") end)
end)
app.post("/copy", function()
  return 200, app.db:transaction(function(tx) return tx:copy_from("copied", { "n" }, { { 1 } }) end)
end)
app.post("/refused", function()
  return 200, app.db:transaction(function(tx)
    tx:exec("set transaction read only")
    return tx:exec("create table if not exists written ()")
  end)
end)
app.post("/refused-copy", function()
  return 200, app.db:transaction(function(tx)
    tx:exec("create table if not exists copied (n integer)")
    tx:exec("set transaction read only")
    return tx:copy_from("copied", { "n" }, { { 1 } })
  end)
end)
]]

-- Lets a cluster refuse all writes; returns what undoes it.
local function refuse_writes(cluster)
  local db = support.db.at(cluster.url)
  local function set(value)
    db:exec("alter system set default_transaction_read_only = " .. value)
    db:exec("select pg_reload_conf()")
    support.eventually("the setting", function()
      return db:value("show default_transaction_read_only") == value
    end)
  end
  set("on")
  return function() set("off") end
end

describe("a server with two hosts in its URL", function()
  local primary, standby, server

  before_each(function()
    primary = support.cluster.create()
    primary:start()
    standby = primary:create_standby()
    standby:start()
    server = support.server.start {
      database = ("postgresql://postgres@127.0.0.1:%d,127.0.0.1:%d/postgres?target_session_attrs=read-write"):format(
        primary.port, standby.port),
      flags = { "--workers", "2", "--pool-max", "6", "--connect-timeout", "2s", "--no-watch" },
    }
    server.db = support.db.at(standby.url)
  end)

  after_each(function()
    server:stop()
    primary:destroy()
    standby:destroy()
  end)

  local function create(name)
    return server:post("/users", {
      username = name, score = 1, profile = { firstname = "First", lastname = "Last" },
    })
  end

  local function wait_standby()
    support.eventually("the standby to have it", function()
      local there, count = pcall(server.db.count, server.db, "users") -- the table, too, is not there at first
      return there and count == 1
    end)
  end

  local function promote()
    local output, code = standby:control("promote")
    assert(code == 0, output)
  end

  local function wait_created(name, seconds)
    support.eventually("a create", function()
      local status = create(name).status
      return status == 201 or status == 409 -- by one that could not be answered in time
    end, seconds)
  end

  local function wait_service()
    wait_created("after", BACK)
    -- The worker that created it tells the other one.
    support.eventually("both of them to be read", function()
      local read = server:get("/users")
      return read.status == 200 and #read:json() == 2
    end, BACK)
    server:wait_ready()
    assert.equal(2, server.db:count("users"))
  end

  it("goes to the standby when that is promoted because the primary is gone", function()
    wait_created("before")
    wait_standby()
    primary:stop()
    local refusal = support.eventually("a create to be refused", function()
      local answer = create("between")
      assert.is_true(answer.status >= 500, answer.body)
      return answer.body:find("/database-unavailable", 1, true) and answer
    end)
    support.problem(refusal, 503)
    support.eventually("a red light", function() return server:readyz().status == 503 end)
    promote()
    wait_service()
  end)

  it("goes to the standby when the primary stands still and does not even refuse", function()
    finally(function() primary:signal("CONT", true) end)
    wait_created("before")
    wait_standby()
    primary:signal("STOP", true)
    assert.is_true(create("between").status >= 500)
    promote()
    wait_service()
  end)

  it("goes to the standby when that is promoted because the primary takes no writes any more", function()
    wait_created("before")
    wait_standby()
    refuse_writes(primary)
    promote()
    wait_service()
  end)
end)

describe("a server with one host in its URL that is to take writes", function()
  local cluster, server

  setup(function()
    cluster = support.cluster.create()
    cluster:start()
    server = support.server.start {
      app = false,
      script = SCRIPT,
      database = cluster.url .. "?target_session_attrs=read-write",
      flags = { "--workers", "2", "--pool-max", "8", "--no-watch" },
    }
  end)
  teardown(function()
    server:stop()
    cluster:destroy()
  end)

  -- Often enough that both workers were asked.
  local function works()
    for _ = 1, 16 do
      if server:post("/write").status ~= 200 or server:get("/read").status ~= 200 then
        return false
      end
    end
    return server:readyz().status == 200
  end

  before_each(function() support.eventually("reads and writes", works) end)

  it("refuses all and is not ready while that takes none, and is back by itself", function()
    local allow_writes = refuse_writes(cluster)
    finally(allow_writes)
    -- Reads on lanes come all the time, and do not keep the server from noticing.
    support.eventually("a red light", function()
      local answers = support.http.at_once(server.url, 16, function(i)
        return i % 2 == 0 and "POST" or "GET", i % 2 == 0 and "/write" or "/read"
      end)
      for _, answer in ipairs(answers) do
        assert.is_true(answer.status == 200 or answer.headers["retry-after"] ~= nil, answer.body)
      end
      return server:readyz().status == 503
    end)
    support.eventually("reads to be refused, too", function()
      return server:get("/read").status == 503
    end)
    for _ = 1, 8 do
      support.problem(server:post("/write"), 503, "database-unavailable")
    end
    allow_writes()
    support.eventually("reads and writes", works, BACK)
  end)

  it("hears of it by a refused COPY, too", function()
    support.db.at(cluster.url):exec("create table if not exists copied (n integer)")
    local allow_writes = refuse_writes(cluster)
    finally(allow_writes)
    local offset = #server:log()
    support.problem(server:post("/copy"), 503)
    server:wait_log("PostgreSQL takes no writes any more", offset)
    allow_writes()
    support.eventually("reads and writes", works, BACK)
  end)

  it("stays ready when a script refuses its own writes", function()
    local offset = #server:log()
    for _, path in ipairs { "/refused", "/refused-copy", "/refused", "/refused-copy" } do
      local mark = #server:log()
      support.problem(server:post(path), 500, "database-error")
      server:wait_log("25006", mark)
      assert.equal(200, server:readyz().status)
    end
    assert.is_true(works())
    assert.is_nil(server:log():find("takes no writes", offset + 1, true))
  end)
end)
