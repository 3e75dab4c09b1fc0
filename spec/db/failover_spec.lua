-- A primary with a standby, both in the URL: what is asserted is that the server finds the one that
-- takes writes by itself.
local support = require "spec.support"

local BACK = 10 -- seconds; the share of the connect timeout that falls to the first host, and slack

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
      return server.db:value("select count(*) from users") == 1
    end)
  end

  local function promote()
    local output, code = standby:control("promote")
    assert(code == 0, output)
  end

  local function wait_service()
    support.eventually("a create", function() return create("after").status == 201 end, BACK)
    local answer = support.eventually("a read", function()
      local read = server:get("/users")
      return read.status == 200 and read
    end, BACK)
    assert.equal(2, #answer:json())
    server:wait_ready()
    assert.equal(2, server.db:count("users"))
  end

  it("goes to the standby when that is promoted because the primary is gone", function()
    assert.equal(201, create("before").status)
    wait_standby()
    primary:stop()
    support.problem(create("between"), 503, "database-unavailable")
    support.eventually("a red light", function() return server:readyz().status == 503 end)
    promote()
    wait_service()
  end)

  it("goes to the standby when the primary stands still and does not even refuse", function()
    finally(function() primary:signal("CONT", true) end)
    assert.equal(201, create("before").status)
    wait_standby()
    primary:signal("STOP", true)
    assert.is_true(create("between").status >= 500)
    promote()
    wait_service()
  end)
end)
