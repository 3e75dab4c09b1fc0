-- Clients that go away before they have their answer.
local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.get("/read", { deadline = 60 }, function()
  return 200, db:query_row("select pg_sleep(50), 'read' as how")
end)

app.post("/write", { deadline = 60 }, function()
  db:transaction(function(tx)
    tx:exec("insert into gone values ('written')")
    tx:query("select pg_sleep(50)")
  end)
end)

app.get("/short", { deadline = 60 }, function()
  return 200, db:query_row("select pg_sleep(0.3), 'short' as how")
end)

app.get("/quick", function() return 200, db:query_row("select count(*) as count from gone") end)
]]

local ways = {
  ["closes its connection"] = function(connection) connection:close() end,
  ["resets its connection"] = function(connection)
    connection.socket:setoption("linger", { on = true, timeout = 0 })
    connection:close()
  end,
  ["closes its sending side"] = function(connection) connection.socket:shutdown("send") end,
}

local function start(flags)
  local server = support.server.start {
    script = SCRIPT,
    migration = "create table gone (word text);",
    flags = table.move(flags, 1, #flags, 2, { "--no-watch" }),
  }
  return server
end

describe("a client that", function()
  local server

  setup(function() server = start { "--pool-max", "1" } end)
  teardown(function() server:stop() end)

  for name, leave in pairs(ways) do
    it(name .. " has its statement cancelled", function()
      local offset = #server:log()
      local connection = server:begin("GET", "/read")
      server.db:wait_running("%pg_sleep%")
      leave(connection)
      server.db:wait_running("%pg_sleep%", false)
      assert.matches("status=499 .*error=client%-gone", server:wait_log("request .*path=/read", offset))
      connection:close()
    end)

    it(name .. " has its transaction rolled back", function()
      local connection = server:begin("POST", "/write", { headers = { ["Content-Length"] = 0 } })
      server.db:wait_running("%pg_sleep%")
      leave(connection)
      server.db:wait_running("%pg_sleep%", false)
      assert.same({ count = 0 }, server:get("/quick"):json())
      support.eventually("the transaction to end", function()
        return server.db:value([[select count(*) from pg_locks where relation = 'gone'::regclass
          and database = (select oid from pg_database where datname = current_database())]]) == 0
      end)
      connection:close()
    end)

    it(name .. " ends a request that waits for a session", function()
      local offset = #server:log()
      local first = server:begin("GET", "/read")
      server.db:wait_running("%pg_sleep%")
      local second = server:begin("POST", "/write", { headers = { ["Content-Length"] = 0 } })
      support.eventually("it to wait", function() return server:metric("pool_waiting") == 1 end)
      leave(second)
      assert.matches("status=499", server:wait_log("request .*path=/write", offset))
      assert.is_true(server.db:is_running("%pg_sleep%"), "the first goes on")
      first:close()
      second:close()
      server.db:wait_running("%pg_sleep%", false)
    end)
  end
end)

describe("with --half-closed answer, a client that", function()
  local server

  setup(function() server = start { "--half-closed", "answer" } end)
  teardown(function() server:stop() end)

  it("closes its sending side gets its answer", function()
    local connection = server:begin("GET", "/short")
    connection.socket:shutdown("send")
    assert.equal("short", assert(connection:receive()):json().how)
    assert.is_nil(connection:receive(), "the connection is closed")
    connection:close()
  end)

  it("resets its connection has its statement cancelled", function()
    local connection = server:begin("GET", "/read")
    server.db:wait_running("%pg_sleep%")
    ways["resets its connection"](connection)
    server.db:wait_running("%pg_sleep%", false)
  end)
end)
