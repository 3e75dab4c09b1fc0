-- PostgreSQL on a file system of its own that fills up, data and write-ahead log together: it refuses
-- what needs space, and ends by itself when it can write no log any more.
local support = require "spec.support"

local MIGRATION = "create table notes (text text not null);"

local SCRIPT = [==[
local app = require "moonpool"
local db = app.db

local keep = db:group("keep", { serialize = "notes" }, function(tx, inputs)
  for _, text in ipairs(inputs) do
    tx:queue("insert into notes (text) values ($1)", text)
  end
  tx:send_batch()
  return inputs
end)

app.get("/count", function() return 200, db:query_row("select count(*) as count from notes") end)
app.post("/notes", function(req)
  return 201, { count = db:exec("insert into notes (text) values ($1)", req.raw_body) }
end)
app.post("/transaction", function(req)
  return 201, db:transaction(function(tx)
    return { count = tx:exec("insert into notes (text) values ($1)", req.raw_body) }
  end)
end)
app.post("/together", function(req) return 201, { kept = keep(req.raw_body) } end)
]==]

local PATHS = { "/notes", "/transaction", "/together" }
local SETTINGS = "-c min_wal_size=32MB -c max_wal_size=32MB"
local FREE = 1024 -- kB that the spec leaves at first
local WRITING = 60 -- seconds at most until there is no space left
local BACK = 12 -- seconds until the service is back when the database is; it takes a second at most

-- PostgreSQL would compress what repeats itself.
local function incompressible(length)
  local bytes = {}
  for i = 1, length do
    bytes[i] = string.char(math.random(32, 126))
  end
  return table.concat(bytes)
end

local NOTE = incompressible(7000)

describe("a database without space", function()
  local cluster, server, refusal

  setup(function()
    cluster = support.cluster.create()
    local output, code = support.shell.run(([[
      cd %s && mv data moved && mkdir data && mount -t tmpfs -o size=96m,mode=0700 tmpfs data &&
      chown $(stat -c %%u moved) data && cp -a moved/. data && rm -r moved]]):format(cluster.folder))
    refusal = code ~= 0 and "a small file system cannot be mounted here: " .. output or nil
    if not refusal then
      cluster:start(SETTINGS)
      server = support.server.start {
        script = SCRIPT,
        migration = MIGRATION,
        database = cluster.url,
        flags = { "--workers", "2", "--pool-max", "8", "--no-watch" },
      }
    end
  end)
  teardown(function()
    if server then
      server:stop()
      cluster:stop()
      -- Its last process may take a moment.
      support.eventually("nobody to use it", function()
        return select(2, support.shell.run("umount " .. cluster.folder .. "/data")) == 0
      end)
    end
    cluster:destroy()
  end)

  -- Often enough that both workers were asked.
  local function works()
    for i = 1, 12 do
      if server:request("POST", PATHS[i % #PATHS + 1], { body = "a note" }).status ~= 201
        or server:get("/count").status ~= 200 then
        return false
      end
    end
    return server:readyz().status == 200
  end

  local function fill()
    local free = support.shell.must("df -k --output=avail " .. cluster.folder .. "/data"):match("(%d+)%s*$")
    support.shell.must(("head -c %dk /dev/zero >%s/data/ballast"):format(free - FREE, cluster.folder))
  end

  local function empty()
    support.shell.must("rm " .. cluster.folder .. "/data/ballast")
  end

  -- Until all are refused: how many were stored, and of how many nobody knows.
  local function write_until_refused()
    local stored, unknown, refused = 0, 0, 0
    support.eventually("all to be refused", function()
      local answers = support.http.at_once(server.url, 12, function(i)
        return "POST", PATHS[i % #PATHS + 1], { body = NOTE }
      end)
      for _, answer in ipairs(answers) do
        stored = stored + (answer.status == 201 and 1 or 0)
        unknown = unknown + (answer.body:find("outcome-unknown", 1, true) and 1 or 0)
        if answer.status == 503 then
          assert.is_not_nil(answer.headers["retry-after"])
          refused = refused + 1
        else
          refused = 0
        end
      end
      return refused >= 48
    end, WRITING)
    return stored, unknown
  end

  local function assert_kept(stored, unknown)
    local kept = server.db:count("notes where text <> 'a note'")
    assert.is_true(kept >= stored and kept <= stored + unknown, ("%d of %d"):format(kept, stored))
  end

  before_each(function()
    if server then
      support.eventually("the service", works)
      server.db:exec("truncate notes")
    end
  end)

  local function mounted(fn)
    return function()
      if refusal then
        pending(refusal)
      end
      fn()
    end
  end

  it("refuses what needs some, and is served when there is some", mounted(function()
    fill()
    local stored, unknown = write_until_refused()
    assert.equal(200, server:get("/count").status)
    empty()
    support.eventually("the service to be back", works, BACK)
    assert_kept(stored, unknown)
  end))

  it("for its log ends, and is served when it has been started again", mounted(function()
    server.db:exec("alter system set wal_keep_size = '1GB'") -- No segment is used again.
    server.db:exec("select pg_reload_conf()")
    fill()
    pcall(server.db.exec, server.db, "select pg_switch_wal()")
    local stored, unknown = write_until_refused()
    support.eventually("a red light", function() return server:readyz().status == 503 end)
    support.eventually("PostgreSQL to have ended", function()
      return cluster:control("status"):find("no server running", 1, true)
    end)
    empty()
    cluster:start(SETTINGS)
    support.eventually("the service to be back", works, BACK)
    assert_kept(stored, unknown)
  end))
end)
