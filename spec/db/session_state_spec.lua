-- What a request's SQL does to its session is gone before the next request has it.
local support = require "spec.support"

local MIGRATION = [[
create schema elsewhere;
create function public.change_time_zone() returns void language plpgsql as $$
begin perform set_config('timezone', 'Asia/Tokyo', false); end $$;
]]

-- Everything of a session that plain SQL can change, as far as these specs go.
local STATE = [[
select current_user, session_user,
  (select json_object_agg(name, setting) from pg_show_all_settings() where source in ('session', 'client')) settings,
  (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) locks,
  (select count(*) from pg_listening_channels()) channels,
  (select count(*) from pg_prepared_statements where from_sql) prepared,
  (select count(*) from pg_cursors where is_holdable) cursors,
  (select count(*) from pg_class where relnamespace = pg_my_temp_schema()) temporary
]]

local SCRIPT = ([[
local app = require "moonpool"
local db = app.db

local function play(req, run)
  for _, sql in ipairs(req.body.statements) do
    run(sql)
  end
  if req.body.ends == "raised" then
    error("as the spec says")
  end
end

app.post("/transaction", { deadline = 30 }, function(req)
  db:transaction(function(tx) play(req, function(sql) tx:exec(sql) end) end)
  return 200, {}
end)

app.post("/statements", { deadline = 30 }, function(req)
  play(req, function(sql) db:exec(sql) end)
  return 200, {}
end)

app.post("/late", { deadline = 1.5 }, function(req)
  db:transaction(function(tx) play(req, function(sql) tx:exec(sql) end) end)
end)

app.get("/state", function() return db:query_row(%q) end)
app.get("/pid", function() return db:query_row("select pg_backend_pid() as pid") end)
]]):format(STATE)

local DIRT = {
  { "search_path", "set search_path = elsewhere" },
  { "the role", "set role pg_monitor" },
  { "the user", "set session authorization pg_monitor" },
  { "read-only transactions", "set default_transaction_read_only = on" },
  { "the isolation level", "set session characteristics as transaction isolation level serializable" },
  { "a setting by a function", "select set_config('work_mem', '1MB', false)" },
  { "a setting by a hidden name", [[select U&"set\005fconfig"('work_mem', '1MB', false)]] },
  { "a setting by its view", "update pg_settings set setting = '1024' where name = 'work_mem'" },
  { "a setting of the application", "set my.tenant = 'somebody'" },
  { "a setting that a function changed inside", "select public.change_time_zone()" },
  { "a setting of a block of code", "do $$ begin perform set_config('work_mem', '1MB', false); end $$" },
  { "a subscription", "listen news" },
  { "an advisory lock", "select pg_advisory_lock(7)" },
  { "a shared advisory lock", "select pg_try_advisory_lock_shared(7)" },
  { "a temporary table", "create temp table leftover (a int)" },
  { "a temporary table by query", "select 1 as a into temporary leftover" },
  { "a prepared statement", "prepare leftover as select 1" },
}

local ALL = {}
for i, case in ipairs(DIRT) do
  -- The first role does not let go of the others' rights; a table can be made once.
  if not case[1]:find("^the ") and case[1] ~= "read-only transactions" and case[1] ~= "a temporary table" then
    ALL[#ALL + 1] = DIRT[i][2]
  end
end
table.insert(ALL, "declare leftover cursor with hold for select 1")

describe("what a request leaves in its session", function()
  local server, clean, pid

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      migration = MIGRATION,
      flags = { "--pool-max", "1", "--no-watch" },
    }
    clean = server:get("/state").body
    pid = server:get("/pid"):json().pid
  end)
  teardown(function() server:stop() end)

  local function assert_clean()
    local answer = server:get("/state")
    assert.equal(200, answer.status, answer.body)
    assert.equal(clean, answer.body)
  end

  local function assert_same_session()
    assert.equal(pid, server:get("/pid"):json().pid)
  end

  for _, case in ipairs(DIRT) do
    it("is gone: " .. case[1], function()
      assert.equal(200, server:post("/transaction", { statements = { case[2] } }).status)
      assert_clean()
      assert.equal(200, server:post("/statements", { statements = { case[2] } }).status)
      assert_clean()
      assert_same_session()
    end)
  end

  it("is gone: a cursor that was to be held", function()
    local answer = server:post("/transaction", { statements = { "declare leftover cursor with hold for select 1" } })
    assert.equal(200, answer.status, answer.body)
    assert_clean()
    assert_same_session()
  end)

  for _, sql in ipairs { "load 'plpgsql'", "; load 'plpgsql'", "do $$ begin load 'plpgsql'; end $$" } do
    it("is gone with the session where nothing else takes it away: " .. sql, function()
      assert.equal(200, server:post("/statements", { statements = { sql } }).status)
      support.eventually("another session", function()
        return server:get("/pid"):json().pid ~= pid
      end)
      pid = server:get("/pid"):json().pid
    end)
  end

  it("is gone when the handler raises", function()
    assert.equal(500, server:post("/transaction", { statements = ALL, ends = "raised" }).status)
    assert_clean()
    assert.equal(500, server:post("/statements", { statements = { "set role pg_monitor" }, ends = "raised" }).status)
    assert_clean()
    assert_same_session()
  end)

  it("is gone when a statement failed behind it", function()
    local statements = { "select pg_advisory_lock(7)", "select 1 / 0" }
    assert.is_true(server:post("/transaction", { statements = statements }).status >= 400)
    assert_clean()
  end)

  it("is gone when the deadline has passed", function()
    local statements = table.move(ALL, 1, #ALL, 1, {})
    statements[#statements + 1] = "select pg_advisory_lock(8), pg_sleep(60)"
    support.problem(server:post("/late", { statements = statements }), 504)
    assert_clean()
  end)

  it("is gone when the client has left", function()
    local statements = { "select pg_advisory_lock(7)", "set my.tenant = 'somebody'", "select pg_sleep(60)" }
    local connection = server:begin("POST", "/transaction", { json = { statements = statements } })
    server.db:wait_running("%pg_sleep(60)%")
    connection:close()
    server.db:wait_running("%pg_sleep(60)%", false)
    assert_clean()
  end)

  it("does not take from others the statements they have prepared", function()
    assert.equal(200, server:post("/statements", { statements = { "deallocate all" } }).status)
    assert_clean()
  end)
end)

describe("a read that changes its session", function()
  it("shares it with nobody", function()
    local server = support.server.start {
      script = [[
        local app = require "moonpool"
        local STATE = "select current_setting('search_path') as path, "
          .. "current_setting('default_transaction_read_only') as read_only, "
        app.get("/set", function()
          return app.db:query_row("select set_config('search_path', 'elsewhere', false) as path"
            .. ", set_config('default_transaction_read_only', 'off', false) as read_only")
        end)
        app.get("/state/{number}", function(req) return app.db:query_row(STATE .. req.params.number) end)
      ]],
      flags = { "--pool-max", "4", "--lanes", "1", "--no-watch" },
    }
    finally(function() server:stop() end)
    -- A statement of its own each time: one that was slow on a lane is kept off it.
    local last = 0
    local function path_on_lane()
      last = last + 1
      local state = server:get("/state/" .. last):value()
      return state.read_only == "on" and state.path
    end
    support.eventually("a lane", path_on_lane)
    assert.equal(200, server:get("/set").status)
    assert.equal('"$user", public', support.eventually("the lane", path_on_lane))
  end)
end)
