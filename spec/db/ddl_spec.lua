-- DDL under a running server: statements are prepared by then, and described as they were at boot.
local support = require "spec.support"

local MIGRATION = [[
create table items (id integer primary key, name text not null);
insert into items select i, 'item ' || i from generate_series(1, 10) i;
]]

local STATEMENTS = [[
-- name: get_item :one
select * from items where id = $1;

-- name: put_item :one
insert into items (id, name) values ($1, $2)
on conflict (id) do update set name = excluded.name
returning *;

-- name: put_items :bulk
update items i set name = v.name from unnest($1::integer[], $2::text[]) v(id, name) where i.id = v.id;
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db
local ID = { id = { type = "integer" } }

app.get("/read/{id}", { params = ID }, function(req) return 200, db:query_row("get_item", req.params.id) end)
app.post("/write/{id}", { params = ID }, function(req)
  return 200, db:query_row("put_item", req.params.id, "written")
end)
app.post("/transaction/{id}", { params = ID }, function(req)
  return 200, db:transaction(function(tx)
    tx:queue("put_items", req.params.id, "in bulk")
    tx:send_batch()
    return tx:query_row("get_item", req.params.id)
  end)
end)
]]

local REQUESTS = { { "GET", "/read/1" }, { "POST", "/write/1" }, { "POST", "/transaction/1" } }

describe("DDL under a running server", function()
  local server

  setup(function()
    server = support.server.start {
      script = SCRIPT,
      statements = STATEMENTS,
      migration = MIGRATION,
      flags = { "--pool-max", "6", "--no-watch" },
    }
  end)
  teardown(function() server:stop() end)

  local function at_once(request)
    return support.http.at_once(server.url, 12, function() return request[1], request[2] end)
  end

  local function all_are_200(answers)
    for _, answer in ipairs(answers) do
      if answer.status ~= 200 then
        return false
      end
    end
    return true
  end

  -- On the lane and on sessions of their own, so that each has prepared each statement.
  before_each(function()
    for _, request in ipairs(REQUESTS) do
      support.eventually(request[2], function() return all_are_200(at_once(request)) end)
    end
  end)

  for _, case in ipairs {
    { "that adds a column", "alter table items add column extra integer default 7" },
    { "that drops a column", "alter table items drop column extra" },
    { "that changes the type of a result", "alter table items alter column name type varchar(100)" },
    { "that changes the type of a parameter", "alter table items alter column id type bigint" },
    { "that makes the table anew", "create table copy (like items including all);"
      .. "insert into copy select * from items; drop table items; alter table copy rename to items" },
  } do
    it(case[1] .. " is not noticed by statements that stand for themselves, and once by transactions", function()
      server.db:exec(case[2])
      for i = 1, 2 do
        for _, answer in ipairs(at_once(REQUESTS[i])) do
          assert.equal(200, answer.status, answer.body)
        end
      end
      support.eventually("transactions", function()
        local answers = at_once(REQUESTS[3])
        for _, answer in ipairs(answers) do
          assert.is_true(answer.status == 200 or answer.body:find("database-error", 1, true) ~= nil, answer.body)
        end
        return all_are_200(answers)
      end)
    end)
  end
end)
