-- DDL under a running server: statements are prepared by then, and described as they were at boot.
local support = require "spec.support"

local MIGRATION = [[
create type mood as enum ('sad', 'fine');
create table items (id integer primary key, name text not null, mood mood);
insert into items select i, 'item ' || i from generate_series(1, 10) i;
create function forget() returns void language plpgsql as $$ begin execute 'deallocate all'; end $$;
]]

local STATEMENTS = [[
-- name: get_item :one
select * from items where id = $1;

-- name: get_items :many
select * from items order by id;

-- name: put_item :one
insert into items (id, name) values ($1, $2)
on conflict (id) do update set name = excluded.name
returning *;

-- name: put_items :bulk
update items i set name = v.name from unnest($1::integer[], $2::text[]) v(id, name) where i.id = v.id;

-- name: set_mood :exec
update items set mood = $2 where id = $1;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db
local ID = { id = { type = "integer" } }

app.get("/read/{id}", { params = ID }, function(req) return 200, db:query_row("get_item", req.params.id) end)
app.post("/write/{id}", { params = ID }, function(req)
  return 200, db:query_row("put_item", req.params.id, "written")
end)
app.post("/batch/{id}", { params = ID }, function(req)
  db:queue("get_item", req.params.id)
  db:queue("get_items")
  db:queue("put_item", req.params.id, "in a batch")
  return 200, db:send_batch()
end)
app.post("/mood/{id}", { params = ID }, function(req) return 200, db:exec("set_mood", req.params.id, "fine") end)
app.post("/transaction/{id}", { params = ID }, function(req)
  return 200, db:transaction({ serialize = "items" }, function(tx)
    tx:queue("put_items", req.params.id, "in bulk")
    tx:queue("get_items")
    tx:queue("set_mood", req.params.id, "sad")
    tx:send_batch()
    return tx:query_row("get_item", req.params.id)
  end)
end)
app.post("/commit/{id}", { params = ID }, function(req)
  db:transaction(function(tx) tx:queue("put_item", req.params.id, "with COMMIT") end)
  return 200, true
end)

app.post("/forget/{id}", { params = ID }, function()
  db:queue("select forget()")
  db:queue("select pg_sleep(0)")
  return 200, db:send_batch()
end)

-- The batch prepares the statement on the session that the transaction has then.
local function late(options)
  return function(req)
    db:queue("get_item", req.params.id)
    db:queue("get_item", req.params.id)
    db:send_batch()
    return 200, db:transaction(options, function(tx)
      tx:query("select pg_advisory_xact_lock_shared(1)")
      return tx:query_row("get_item", req.params.id)
    end)
  end
end
app.post("/late/{id}", { params = ID, deadline = 20 }, late {})
app.post("/retried/{id}", { params = ID, deadline = 20 }, late { retries = 1 })

local together = db:group("together", { serialize = "items" }, function(tx, ids)
  for _, id in ipairs(ids) do
    tx:queue("put_item", id, "in a group")
  end
  local results = tx:send_batch()
  local outputs = {}
  for i, id in ipairs(ids) do
    outputs[i] = { id = id, name = results[i].name }
  end
  return outputs
end)
app.post("/together/{id}", { params = ID }, function(req) return 200, together(req.params.id) end)
]]

-- Each sends a statement that the changes below make stale: alone, among others, or with BEGIN.
local REQUESTS = {
  { "GET", "/read/1" }, { "POST", "/write/1" }, { "POST", "/batch/1" }, { "POST", "/mood/1" },
  { "POST", "/transaction/1" }, { "POST", "/commit/1" }, { "POST", "/together/1" },
}

describe("DDL under a running server", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--workers", "2", "--pool-max", "8", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  local function at_once(request)
    return support.http.at_once(server.url, 12, function() return request[1], request[2] end)
  end

  local function all_succeed(request)
    for _, answer in ipairs(at_once(request)) do
      assert.equal(200, answer.status, answer.body)
    end
  end

  -- On the lanes and on sessions of their own, so that each has prepared each statement.
  before_each(function()
    for _ = 1, 2 do
      for _, request in ipairs(REQUESTS) do
        all_succeed(request)
      end
    end
  end)

  for _, case in ipairs {
    { "that adds a column", "alter table items add column extra integer default 7" },
    { "that drops a column", "alter table items drop column extra" },
    { "that changes the type of a result", "alter table items alter column name type varchar(100)" },
    { "that changes the type of a parameter", "alter table items alter column id type bigint" },
    { "that makes the table anew", "create table copy (like items including all);"
      .. "insert into copy select * from items; drop table items; alter table copy rename to items" },
    { "that makes a type anew", "alter table items drop column mood; drop type mood;"
      .. "create type mood as enum ('sad', 'fine', 'good'); alter table items add column mood mood" },
  } do
    it(case[1] .. " is not noticed by anybody", function()
      server.db:exec(case[2])
      for _, request in ipairs(REQUESTS) do
        all_succeed(request)
      end
    end)
  end

  for _, request in ipairs(REQUESTS) do
    it("is not noticed by those that are first to meet it: " .. request[2], function()
      server.db:exec("alter table items add column first integer")
      finally(function() server.db:exec("alter table items drop column first") end)
      all_succeed(request)
    end)
  end

  it("is not noticed by a group of one that is first to meet it", function()
    server.db:exec("alter table items add column first integer")
    finally(function() server.db:exec("alter table items drop column first") end)
    for _ = 1, 8 do
      local answer = server:post("/together/1")
      assert.equal(200, answer.status, answer.body)
    end
  end)

  it("aside, a function that ends all prepared statements is not noticed", function()
    for _, request in ipairs(REQUESTS) do
      at_once { "POST", "/forget/1" }
      all_succeed(request)
    end
  end)

  -- Sends a transaction whose second trip meets a change that is made behind its first one.
  local function meet(path)
    local lock = server.db:session()
    lock:exec("select pg_advisory_lock(1)")
    local connection = server:begin("POST", path)
    server.db:wait_running("%pg_advisory_xact_lock_shared%")
    server.db:exec("alter table items add column late integer")
    finally(function() server.db:exec("alter table items drop column late") end)
    lock:close()
    local answer = connection:finish()
    return answer
  end

  it("that a transaction meets behind its first trip costs that one alone, which may be sent again", function()
    local answer = meet "/late/1"
    local problem = support.problem(answer, 503, "serialization")
    assert.equal("0A000", problem.sqlstate)
    assert.is_not_nil(answer.headers["retry-after"])
    all_succeed { "POST", "/late/1" }
  end)

  it("that a transaction with retries meets behind its first trip is not noticed", function()
    assert.equal(200, meet("/retried/1").status)
  end)
end)

local COMMITTING_MIGRATION = [[
create table items (id integer primary key, name text not null);
insert into items values (1, 'item');
create table logbook (text text);
create procedure log(line text) language plpgsql as $$
begin
  insert into logbook values (line);
end $$;
create procedure log_and_commit(line text) language plpgsql as $$
begin
  insert into logbook values (line);
  commit;
end $$;
create procedure commit_and_fail(line text, state text) language plpgsql as $$
begin
  call log_and_commit(line);
  raise exception 'failed on purpose' using errcode = state;
end $$;
create sequence numbers;
create function fail(state text) returns void language plpgsql as $$
begin
  raise exception 'failed on purpose' using errcode = state;
end $$;
]]

local COMMITTING_STATEMENTS = [[
-- name: get_items :many
select * from items;

-- name: log :exec
call log($1);
]]

local COMMITTING_SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.get("/items", function() return 200, db:query("get_items") end)
app.post("/batch", function()
  db:queue("log", "batch")
  db:queue("insert into logbook values ('behind the procedure')")
  db:queue("get_items")
  return 200, db:send_batch()
end)
app.post("/call/{state}", function(req)
  return 200, db:exec("call commit_and_fail('call ' || $1, $1)", req.params.state)
end)
app.post("/number/{state}", function(req)
  db:queue("select nextval('numbers')")
  db:queue("select fail($1)", req.params.state)
  return 200, db:send_batch()
end)
app.post("/do/{state}", function(req)
  return 200, db:exec("do $$ begin call commit_and_fail('do " .. req.params.state .. "', '"
    .. req.params.state .. "'); end $$")
end)
]]

describe("what might commit by itself", function()
  local server

  -- One session, so that it is the first to meet a change.
  setup(function()
    server = support.server.start {
      script = COMMITTING_SCRIPT,
      statements = COMMITTING_STATEMENTS,
      migration = COMMITTING_MIGRATION,
      flags = { "--workers", "1", "--lanes", "0", "--pool-max", "1", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)
  before_each(function() server.db:exec("truncate logbook") end)

  local function logbook() return server.db:value("select string_agg(text, ', ') from logbook") end

  it("is done once in front of a statement that DDL has changed", function()
    assert.equal(200, server:get("/items").status)
    server.db:exec("alter table items add column batch integer")
    assert.equal(200, server:post("/batch").status)
    assert.equal("batch, behind the procedure", logbook())
    assert.equal(0, server.db:value("select count(*) from pg_stat_activity "
      .. "where datname = current_database() and state like 'idle in trans%'"))
  end)

  for _, state in ipairs { "26000", "0A000", "XX000" } do
    it("is not done again when it fails like a stale statement: " .. state, function()
      support.problem(server:post("/call/" .. state), 500, "database-error")
      assert.equal("call " .. state, logbook())
      support.problem(server:post("/do/" .. state), 500, "database-error")
      assert.equal("call " .. state .. ", do " .. state, logbook())
    end)

    it("is not done again for a function that fails like a stale statement: " .. state, function()
      local before = server.db:value("select nextval('numbers')")
      support.problem(server:post("/number/" .. state), 500, "database-error")
      assert.equal(before + 2, server.db:value("select nextval('numbers')"))
    end)
  end
end)
