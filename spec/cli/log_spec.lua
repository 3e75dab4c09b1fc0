-- What the log says of what happens, and what it leaves out.
local cjson = require "cjson"

local page = require "spec.support.page"
local support = require "spec.support"

local LEVELS = { "debug", "info", "warn", "error" }

local LOUD = [[
local app = require "moonpool"
for _, level in ipairs { "debug", "info", "warn", "error" } do
  app.log(level, "said as " .. level)
end
print("printed")
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.get("/fine", function() return {} end)
app.get("/refused", function() app.fail(422, "no") end)
app.get("/raise", function() error("two\nlines") end)
app.get("/header", function() return 200, {}, { ["X-Empty"] = "", ["X-Full"] = "x" } end)
app.get("/left-open", function()
  local tx = db:begin()
  tx:query("select 1")
end)
app.get("/batch", function()
  db:transaction(function(tx)
    tx:queue("select 1")
    tx:queue("break_down") -- fails
    tx:send_batch()
  end)
end)
-- A statement of its own for each number: one that was slow once is kept off the lanes.
app.get("/read/{number}", function(req)
  return db:query("select current_setting('default_transaction_read_only') as read_only, " .. req.params.number)
end)
app.get("/hold", { deadline = 60 }, function()
  db:transaction(function(tx) tx:query("select pg_sleep(50), 'hold'") end)
end)
]]

local STATEMENTS = [[
-- name: break_down :many
select break_down();
]]

local MIGRATION = [[
create function break_down() returns integer language plpgsql as
  $$ begin raise exception 'it is broken'; end $$;
]]

local function start(options)
  options.script, options.statements, options.migration = SCRIPT, STATEMENTS, MIGRATION
  return support.server.start(options)
end

local function backend_of(server, pattern)
  server.db:wait_running(pattern)
  return server.db:value(("select pid from pg_stat_activity where state = 'active' and query like '%s' and "
    .. "datname = current_database() and pid <> pg_backend_pid()"):format(pattern))
end

describe("the log", function()
  local server

  setup(function() server = start { flags = { "--lanes", 0, "--log-level", "debug", "--no-watch" } } end)
  teardown(function() server:stop() end)

  local function get(path, id)
    return server:get(path, { headers = { ["X-Request-Id"] = id } })
  end

  local function where(text)
    return "scripts/spec%.lua:" .. support.line_of(SCRIPT, text)
  end

  it("says why a request failed, and where, under its id", function()
    support.problem(get("/batch", "spec-batch"), 500, "database-error")
    local line = server:wait_log(" error worker%-1: request failed id=spec%-batch ")
    assert.matches(" route=/batch error=database%-error message=\"it is broken\" ", line)
    assert.matches(" where=" .. where("-- fails") .. " statement=break_down sqlstate=P0001 item=2", line)
  end)

  it("tells a failure that is the client's fault from one that is not", function()
    support.problem(get("/refused", "spec-refused"), 422)
    server:wait_log(" debug worker%-1: request failed id=spec%-refused ")
  end)

  it("tells of a transaction that was left open, and where it was begun", function()
    assert.equal(204, get("/left-open", "spec-open").status)
    server:wait_log(" warn worker%-1: transaction left open begun_at=" .. where("db:begin()") .. " id=spec%-open ")
  end)

  it("tells of a header without a value, which the client does not get", function()
    local answer = get("/header", "spec-header")
    assert.equal("x", answer.headers["x-full"])
    assert.is_nil(answer.headers["x-empty"])
    server:wait_log(" warn worker%-1: response header dropped message=\"request spec%-header: [^\"]*X%-Empty")
  end)

  it("tells of a session that could not be cleaned", function()
    local connection = server:begin("GET", "/hold")
    local backend = backend_of(server, "%''hold''%")
    support.shell.must("kill -STOP " .. backend)
    finally(function() support.shell.run("kill -CONT " .. backend) end)
    connection:close()
    server:wait_log(" warn worker%-1: session dropped ")
  end)
end)

describe("the log's events", function()
  it("are those that docs/operations.md explains", function()
    local events = {}
    for path in support.shell.must("ls core/*.c"):gmatch("[^\n]+") do
      for call, text in support.shell.read(path):gmatch("log_(%a+)(%b())") do
        if call == "begin" or call == "event" then
          events[text:match('"([^"]+)"') or "?"] = true
        end
      end
    end
    events["?"] = nil -- where they are defined
    assert.same(page.names_in_tables("docs/operations.md", "\n| event | level |", "\n## Reload"), events)
  end)
end)

describe("the log as JSON", function()
  it("has an object on each line, however odd the event", function()
    local server = start { flags = { "--log", "json", "--no-watch" } }
    finally(function() server:stop() end)
    support.problem(server:get("/raise"), 500)
    server:wait_log('"path":"/raise"')
    local events = {}
    for line in server:log():gmatch("[^\n]+") do
      local entry = cjson.decode(line)
      assert.matches("^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ$", entry.time)
      events[entry.event] = entry
    end
    assert.equal("master", events.serving.process)
    assert.equal("info", events.serving.level)
    assert.equal("error", events["request failed"].level)
    assert.equal("two\nlines", events["request failed"].message)
    assert.matches("\n", events["request failed"].traceback)
    assert.equal(500, events.request.status)
  end)
end)

describe("--log-level", function()
  for least, level in ipairs(LEVELS) do
    it(("%s leaves out what is below it"):format(level), function()
      local server = support.server.prepare { script = LOUD, migrate = false }
      finally(function() server:stop() end)
      local output, code = server:run("routes", "--log-level", level)
      assert.equal(0, code, output)
      for i, said in ipairs(LEVELS) do
        local line = (" %s main: script message=\"said as %s\"\n"):format(said, said)
        assert.equal(i >= least, output:find(line, 1, true) ~= nil, output)
      end
      assert.equal(least <= 2, output:find(" info main: print message=printed", 1, true) ~= nil, output)
    end)
  end

  it("above info leaves out the access log, and no failure", function()
    local port, reservation = support.cluster.reserve_port()
    local address = "127.0.0.1:" .. port
    local server = support.server.prepare {
      script = SCRIPT, wait = false, flags = { "--log-level", "warn", "--listen", address },
    }
    finally(function()
      server:stop()
      reservation:close()
    end)
    server:launch()
    server.url = "http://" .. address
    support.eventually("an answer", function()
      local ok, answer = pcall(server.get, server, "/fine")
      return ok and answer.status == 200
    end)
    support.problem(server:get("/refused"), 422)
    support.problem(server:get("/raise"), 500)
    assert.matches(" error worker%-1: request failed ", server:wait_log("route=/raise"))
    local lines = select(2, server:log():gsub("\n", ""))
    assert.equal(1, lines, server:log())
  end)
end)

describe("a lane that PostgreSQL does not let be opened", function()
  -- Serves reads while a lane's opening is held up in the middle by `milliseconds`, once.
  local function hold_up(milliseconds, statement_timeout)
    local server = start { proxy = true, flags = { "--pool-max", 4, "--lanes", 1, "--no-watch" } }
    local holding = server:begin("GET", "/hold")
    finally(function()
      holding:close()
      server:stop()
    end)
    server.db:wait_running("%''hold''%")
    server.db:exec(("alter database %q set statement_timeout = %d"):format(server.database_name, statement_timeout))
    server.proxy:arm { "delay:" .. milliseconds, "forth", 2, "sql set default_transaction_read_only" }
    local offset = #server:log()
    local answer = server:get("/read/0")
    return server, server:wait_log(" warn worker%-1: lane not opened [^\n]*", offset), answer
  end

  local function see_lane(server)
    local last = 0
    support.eventually("a lane", function()
      last = last + 1
      local answer = server:get("/read/" .. last)
      return answer.status == 200 and answer:value()[1].read_only == "on"
    end)
  end

  it("is logged with PostgreSQL's reason, and opened at a later read", function()
    local server, line = hold_up(700, 400)
    -- On a machine that stands still it may not even have answered.
    assert.is_true(line:find("statement timeout", 1, true) ~= nil or line:find("no answer", 1, true) ~= nil, line)
    see_lane(server)
  end)

  it("is logged if there is no answer, and its reads are served without it meanwhile", function()
    local server, line, answer = hold_up(20000, 0)
    assert.matches("no answer within 1000 ms", line)
    assert.equal("off", answer:value()[1].read_only)
    see_lane(server)
  end)
end)

describe("files that can no longer be watched", function()
  it("are told of, and taken over at HUP", function()
    local server = start { flags = {} }
    finally(function() server:stop() end)
    local master, offset = server.process.pid, #server:log()
    support.shell.limit_files(master, 3)
    server:write("scripts/more.lua", 'require "moonpool".get("/more", function() return {} end)\n')
    server:wait_log(" warn master: watch failed message=\"?inotify: Too many open files", offset)
    support.shell.limit_files(master, 1024)
    server:write("scripts/other.lua", 'require "moonpool".get("/other", function() return {} end)\n')
    server.process:signal("HUP")
    support.eventually("the files", function()
      return server:get("/more").status == 200 and server:get("/other").status == 200
    end)
  end)
end)
