-- Statements outside a transaction whose answer nobody hears: a write may have taken effect, a read has
-- not. The functions go on when they are cancelled, until they are let go.
local support = require "spec.support"

local MIGRATION = [[
create table notes (body text not null);
create table let_go ();
create function linger() returns integer language plpgsql as $$
begin
  loop
    begin -- around all of the loop, or a cancel could come between two rounds
      while not exists (select from let_go) loop
        perform pg_sleep(0.01);
      end loop;
      return 1;
    exception when query_canceled then
      null;
    end;
  end loop;
end
$$;
create function write_and_linger() returns integer language plpgsql as $$
begin
  insert into notes values ('written');
  return linger();
end
$$;
create function try_to_write() returns boolean language plpgsql as $$
begin
  insert into notes values ('tried');
  return true;
exception when others then
  return false;
end
$$;
create function write(body text) returns text language sql as 'insert into notes values (body) returning body';
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

app.post("/read", { deadline = 1 }, function() return db:query("select linger()") end)
app.post("/write", { deadline = 3 }, function() return db:query("select write_and_linger()") end)
app.post("/exec", { deadline = 3 }, function() return db:exec("insert into notes select 'x' where linger() = 1") end)
app.post("/call", function(req) return { body = db:query_row("select write($1) as body", req.body.text).body } end)
app.post("/try", function()
  return db:transaction(function(tx) return tx:query_row("select try_to_write() as done") end)
end)
app.post("/raise-behind-read", function()
  db:query("select 1")
  error("on purpose")
end)
app.post("/raise-behind-call", function()
  db:query("select write('called')")
  error("on purpose")
end)
app.post("/batch", function()
  db:queue("select 1 as one")
  db:queue("select write('in a batch') as body")
  local results = db:send_batch()
  return { n = results.n, one = results[1][1].one, body = results[2][1].body }
end)
]]

for name, lanes in pairs { ["with lanes"] = "1", ["without lanes"] = "0" } do
  describe("a select " .. name, function()
    local server

    setup(function()
      server = support.server.start {
        script = SCRIPT,
        migration = MIGRATION,
        flags = { "--pool-max", "6", "--lanes", lanes, "--no-watch" },
      }
    end)
    teardown(function() server:stop() end)
    before_each(function() server.db:exec("truncate notes, let_go") end)
    after_each(function()
      server.db:exec("insert into let_go default values")
      server.db:wait_running("%linger()%", false)
    end)

    it("that reads has failed plainly when its deadline passes", function()
      support.problem(server:post("/read", {}), 504, "deadline-exceeded")
    end)

    for _, path in ipairs { "/write", "/exec" } do
      it("is not told from a write where it writes, whose outcome is unknown then: " .. path, function()
        support.problem(server:post(path, {}), 500, "outcome-unknown")
      end)
    end

    it("that writes is executed once each time", function()
      for i = 1, 3 do
        assert.same({ body = "note " .. i }, server:post("/call", { text = "note " .. i }):json())
      end
      assert.equal("note 1,note 2,note 3", server.db:exec("select string_agg(body, ',') from notes"))
    end)

    it("that writes is found in a batch too", function()
      assert.same({ n = 2, one = 1, body = "in a batch" }, server:post("/batch", {}):json())
      assert.equal(1, server.db:count("notes"))
    end)

    it("that writes and catches errors is safe in a transaction", function()
      local answer = server:post("/try", {})
      assert.equal(200, answer.status)
      assert.is_true(answer:json().done)
      assert.equal(1, server.db:count("notes"))
    end)

    it("leaves a script's later failure plain where it has only read", function()
      support.problem(server:post("/raise-behind-read", {}), 500, "script-error")
      support.problem(server:post("/raise-behind-call", {}), 500, "outcome-unknown")
    end)
  end)
end
