-- Group commit: inputs gather at the desk while a session of the spec holds the lock that the group's
-- leader waits for.
local cjson = require "cjson"

local support = require "spec.support"

local MIGRATION = [[
create table notes (text text not null unique deferrable initially deferred);
]]

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local keep = db:group("keep", { serialize = "notes" }, function(tx, inputs)
  local id = tx:query_row("select txid_current() as id").id
  local outputs = {}
  for i, input in ipairs(inputs) do
    tx:queue("insert into notes (text) values ($1)", input.text)
    if input.sleep then
      tx:query("select pg_sleep($1::float8)", input.sleep)
    elseif input.raise then
      error("raised")
    elseif input.refuse then
      app.fail(409, "refused", { errors = { { pointer = "/refuse", detail = "is set" } }, of = #inputs },
        { ["Retry-After"] = 7, ["X-Why"] = 'it says "refuse", süß' })
    end
    outputs[i] = { text = input.text, transaction = id, size = #inputs, fill = ("x"):rep(input.fill or 0) }
    if input.short then
      outputs[i] = nil
    elseif input.strange then
      outputs[i] = print
    end
  end
  tx:send_batch()
  if inputs[1].commit then
    tx:commit()
  end
  return outputs
end)

local pairwise = db:group("pairwise", { max = 2, serialize = "notes" }, function(tx, inputs)
  local id = tx:query_row("select txid_current() as id").id
  local outputs = {}
  for i in ipairs(inputs) do
    outputs[i] = { transaction = id, size = #inputs }
  end
  return outputs
end)

local echo = db:group("echo", function(_, inputs) return inputs end)

app.post("/keep", { deadline = 20 }, function(req) return 200, keep(req.body) end)
app.post("/keep-hurried", { deadline = 1 }, function(req) return 200, keep(req.body) end)
app.post("/keep-late", { deadline = 2.5 }, function(req) return 200, keep(req.body) end)
app.post("/keep-caught", function(req)
  local ok, err = pcall(keep, req.body)
  return 200, { ok = ok, extra = type(err.extra), headers = type(err.headers) }
end)
app.post("/pairwise", { deadline = 20 }, function(req) return 200, pairwise(req.body) end)
app.post("/echo", function(req) return 200, echo(req.body) end)
app.post("/plain", function(req) return 200, { type = type(echo(req.body.value)) } end)

app.post("/inside", function()
  db:transaction(function(tx)
    tx:exec("insert into notes (text) values ('inside')")
    keep { text = "inside" }
  end)
end)

app.post("/late", function() db:group("late", function(_, inputs) return inputs end) end)
]]

local function wait_in_flight(server, count)
  support.eventually(count .. " requests in flight", function()
    return server:metric("requests_in_flight") == count
  end)
end

-- While the table is locked by a session, `fn` is called with that session.
local function with_lock(server, table_name, fn)
  local session = server.db:session()
  finally(function() session:close() end)
  session:exec("begin")
  session:exec("lock table " .. table_name .. " in share row exclusive mode")
  fn(session)
  session:exec("commit")
end

local function begin_all(server, path, inputs)
  local connections = {}
  for i, input in ipairs(inputs) do
    connections[i] = server:begin("POST", path, { json = input })
  end
  return connections
end

local function receive_all(connections)
  local answers = {}
  for i, connection in ipairs(connections) do
    answers[i] = connection:finish()
  end
  return answers
end

-- Posts the inputs while the table is locked, so that they meet; calls `meanwhile` before it is unlocked.
local function together(server, path, inputs, meanwhile)
  local connections
  with_lock(server, "notes", function()
    connections = begin_all(server, path, inputs)
    wait_in_flight(server, #inputs)
    server.db:wait_running("lock table%")
    if meanwhile then
      meanwhile()
    end
  end)
  return receive_all(connections)
end

local function texts(count, prefix)
  local inputs = {}
  for i = 1, count do
    inputs[i] = { text = prefix .. " " .. i }
  end
  return inputs
end

local function count_notes(server, pattern)
  return server.db:count("notes where text like '" .. pattern .. "'")
end

local function start(options)
  options.script = SCRIPT
  options.migration = MIGRATION
  return support.server.start(options)
end

describe("inputs of a group that come at the same time", function()
  local server

  setup(function() server = start { flags = { "--workers", "3", "--pool-max", "6", "--no-watch" } } end)
  teardown(function() server:stop() end)
  after_each(function() wait_in_flight(server, 0) end)

  it("meet in one transaction, whichever worker they come to, and get their own outputs", function()
    local inputs = texts(30, "meet")
    local transaction
    for i, answer in ipairs(together(server, "/keep", inputs)) do
      local output = answer:value()
      transaction = transaction or output.transaction
      assert.equal(inputs[i].text, output.text)
      assert.equal(30, output.size)
      assert.equal(transaction, output.transaction)
    end
    assert.equal(30, count_notes(server, "meet%"))
  end)

  it("are no more in a transaction than the group wants", function()
    local sizes = {}
    for _, answer in ipairs(together(server, "/pairwise", texts(6, "pair"))) do
      local output = answer:json()
      assert.equal(2, output.size)
      sizes[output.transaction] = (sizes[output.transaction] or 0) + 1
    end
    for _, size in pairs(sizes) do
      assert.equal(2, size)
    end
  end)

  it("do not fail with one for which the function raises", function()
    local inputs = texts(6, "bad")
    inputs[4].refuse = true
    local answers = together(server, "/keep", inputs)
    for i, answer in ipairs(answers) do
      assert.equal(i == 4 and 409 or 200, answer.status, answer.body)
    end
    local document = support.problem(answers[4], 409)
    assert.same({ { pointer = "/refuse", detail = "is set" } }, document.errors)
    assert.equal(1, document.of)
    assert.equal("7", answers[4].headers["retry-after"])
    assert.equal('it says "refuse", süß', answers[4].headers["x-why"])
    assert.equal(5, count_notes(server, "bad%"))
    assert.equal(0, count_notes(server, "bad 4"))
  end)

  it("fail with what the script that catches it would see without a group", function()
    for expected, input in pairs { ["nil"] = { raise = true }, table = { refuse = true } } do
      local caught = server:post("/keep-caught", input):json()
      assert.same({ ok = false, extra = expected, headers = expected }, caught)
    end
  end)

  it("do not fail with one that COMMIT refuses", function()
    local inputs = texts(5, "unique")
    inputs[5].text = "unique 1"
    local counts = {}
    for _, answer in ipairs(together(server, "/keep", inputs)) do
      counts[answer.status] = (counts[answer.status] or 0) + 1
    end
    assert.same({ [200] = 4, [409] = 1 }, counts)
    assert.equal(4, count_notes(server, "unique%"))
  end)

  for name, change in pairs {
    ["has no output"] = { short = true },
    ["has an output that is too large"] = { fill = 9000 },
    ["has an output that is no JSON"] = { strange = true },
  } do
    it("do not fail with one that " .. name .. ", which leaves nothing", function()
      local inputs = texts(4, name)
      for key, value in pairs(change) do
        inputs[2][key] = value
      end
      for i, answer in ipairs(together(server, "/keep", inputs)) do
        if i == 2 then
          support.problem(answer, 500, "script-error")
        else
          assert.equal(200, answer.status, answer.body)
        end
      end
      assert.equal(3, count_notes(server, name .. "%"))
      assert.equal(0, count_notes(server, name .. " 2"))
    end)
  end

  it("do not wait with one whose deadline passes before the group begins", function()
    local hurried
    local answers = together(server, "/keep", texts(5, "patient"), function()
      hurried = server:post("/keep-hurried", { text = "hurried" })
    end)
    support.problem(hurried, 503, "queue-timeout")
    assert.is_not_nil(hurried.headers["retry-after"])
    for _, answer in ipairs(answers) do
      assert.equal(5, answer:value().size)
    end
    assert.equal(0, count_notes(server, "hurried"))
  end)

  it("do not wait with one whose client hangs up", function()
    local gone
    local answers = together(server, "/keep", texts(5, "stays"), function()
      gone = server:begin("POST", "/keep", { json = { text = "gone" } })
      wait_in_flight(server, 6)
      gone:close()
      wait_in_flight(server, 5)
    end)
    for _, answer in ipairs(answers) do
      assert.equal(5, answer:value().size)
    end
    assert.equal(0, count_notes(server, "gone"))
  end)

  it("survive one whose deadline passes while the group is at work, and which leaves nothing", function()
    local late
    local answers = together(server, "/keep", texts(3, "goes on"), function()
      late = server:begin("POST", "/keep-late", { json = { text = "late", sleep = 4 } })
      wait_in_flight(server, 4)
    end)
    support.problem(late:receive(), 504, "deadline-exceeded")
    late:close()
    for _, answer in ipairs(answers) do
      assert.equal(200, answer.status, answer.body)
    end
    assert.equal(0, count_notes(server, "late"))
    assert.equal(3, count_notes(server, "goes on%"))
  end)

  it("are answered 504 when all their deadlines pass while the group is at work", function()
    local answers = together(server, "/keep-late", {
      { text = "endless 1", sleep = 60 }, { text = "endless 2", sleep = 60 },
    })
    for _, answer in ipairs(answers) do
      support.problem(answer, 504, "deadline-exceeded")
    end
    server.db:wait_running("%pg_sleep%", false)
    assert.equal(0, count_notes(server, "endless%"))
  end)

  it("are served again after a group that was too slow", function()
    support.eventually("a hurried note", function()
      return server:post("/keep-hurried", { text = "quick" }).status == 200
    end)
  end)

  it("are never committed twice, even when the function commits by itself", function()
    local inputs = texts(3, "twice")
    for _, input in ipairs(inputs) do
      input.commit = true
    end
    for _, answer in ipairs(together(server, "/keep", inputs)) do
      support.problem(answer, 500, "outcome-unknown")
    end
    assert.equal(3, count_notes(server, "twice%"))
  end)
end)

-- The worker that has this local port.
local function owner_of(server, port)
  local entry = support.shell.must(("grep -i ':%04X [0-9A-F]*:[0-9A-F]* 01' /proc/net/tcp"):format(port))
  local found
  for line in entry:gmatch("[^\n]+") do
    local local_port, inode = line:match("^%s*%d+: %x+:(%x+) %x+:%x+ 01 %S+ %S+ %S+%s+%d+%s+%d+ (%d+)")
    if tonumber(local_port, 16) == port then
      found = inode
    end
  end
  for _, pid in ipairs(server:workers()) do
    if support.shell.run(("ls -l /proc/%d/fd"):format(pid)):find("socket:[" .. found .. "]", 1, true) then
      return pid
    end
  end
end

describe("a group whose leading worker is killed", function()
  local server

  setup(function() server = start { flags = { "--workers", "3", "--pool-max", "6", "--no-watch" } } end)
  teardown(function() server:stop() end)

  it("is led by another, and loses no member of another", function()
    local connections
    with_lock(server, "notes", function()
      connections = begin_all(server, "/keep", texts(30, "led"))
      wait_in_flight(server, 30)
      server.db:wait_running("lock table%")
      local port = support.eventually("the leader to wait", function()
        return tonumber(server.db:value([[select client_port from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock']]))
      end)
      support.shell.must("kill -9 " .. owner_of(server, port))
    end)
    local served = 0
    for _, connection in ipairs(connections) do
      local answer = connection:receive()
      connection:close()
      if answer then
        assert.equal(200, answer.status, answer.body)
        served = served + 1
      end
    end
    assert.is_true(served > 0)
    assert.equal(served, count_notes(server, "led%"))
    wait_in_flight(server, 0)
  end)

  it("serves new members", function()
    assert.equal(200, server:post("/keep", { text = "new" }).status)
  end)

  -- Nobody can say which of them lead at that moment: the books must balance in any case.
  it("has done no more than its members were told, or were left to guess", function()
    local connections = begin_all(server, "/keep", texts(200, "storm"))
    for _, pid in ipairs { table.unpack(server:workers(), 1, 2) } do
      support.shell.must("kill -9 " .. pid)
    end
    local done, unknown = 0, 0
    for i, connection in ipairs(connections) do
      local answer = connection:receive()
      connection:close()
      if answer and answer.status == 200 then
        assert.equal("storm " .. i, answer:json().text)
        done = done + 1
      else
        assert.is_true(not answer or answer.status == 500 or answer.status == 503, answer and answer.body)
        unknown = unknown + 1
      end
    end
    local kept = count_notes(server, "storm%")
    assert.is_true(done <= kept and kept <= done + unknown, done .. " " .. kept .. " " .. unknown)
    assert.equal(200, server:post("/keep", { text = "calm" }).status)
    wait_in_flight(server, 0)
  end)
end)

describe("an input of a group", function()
  local server

  setup(function() server = start { flags = { "--workers", "1", "--no-watch" } } end)
  teardown(function() server:stop() end)

  for name, text in pairs {
    ["nested values"] = '{"a":[1,[2,{"b":[]}]],"c":{}}',
    ["null"] = '{"a":null,"b":[null,null]}',
    ["exact integers"] = '[9223372036854775807,-9223372036854775808,9007199254740993]',
    ["floats"] = '[0.1,1e+300,-0.0]',
    ["text"] = '["\\u0000","\\"","ü","\\ud83d\\ude00"]',
  } do
    it("travels there and back with " .. name, function()
      local answer = server:post("/echo", text)
      assert.equal(200, answer.status, answer.body)
      assert.same(cjson.decode(text), cjson.decode(answer.body))
      if name == "exact integers" then
        assert.equal(text, answer.body)
      end
    end)
  end

  it("is refused when it is too large", function()
    support.problem(server:post("/echo", { text = ("x"):rep(8200) }), 422, "invalid")
    assert.equal(200, server:post("/echo", { text = ("x"):rep(8100) }).status)
  end)

  it("is refused inside a transaction, which is rolled back", function()
    support.problem(server:post("/inside", {}), 500, "script-error")
    server:wait_log("a transaction is open: a group cannot be joined before it has ended")
    assert.equal(0, count_notes(server, "inside"))
  end)
end)

describe("a group", function()
  local server

  setup(function() server = start { flags = { "--workers", "1", "--no-watch" } } end)
  teardown(function() server:stop() end)

  it("is made while the scripts are loaded, not later", function()
    support.problem(server:post("/late", {}), 500, "script-error")
    server:wait_log("groups are made while the scripts are loaded, not later")
  end)

  for name, case in pairs {
    ["of a name that is used"] = { 'group("echo", function() end)', "there is a group named echo already" },
    ["without a name"] = { "group(nil, function() end)", "a group needs a name" },
    ["without a function"] = { 'group("x")', "a group needs a function" },
    ["of nobody"] = { 'group("x", { max = 0 }, function() end)', "the option 'max' of a group" },
    ["of a thousand"] = {
      'group("x", { max = 1000 }, function() end)', "the option 'max' of a group must be a whole number from 1 to 256",
    },
    ["of two and a half"] = { 'group("x", { max = 2.5 }, function() end)', "the option 'max' of a group" },
    ["with an unknown option"] = { 'group("x", { most = 2 }, function() end)', "a group has no option 'most'" },
  } do
    it(name .. " stops the boot", function()
      finally(function() support.shell.must("rm " .. server.folder .. "/scripts/wrong.lua") end)
      server:write("scripts/wrong.lua", 'require("moonpool").db:' .. case[1])
      local output, code = server:run("check")
      assert.equal(1, code, output)
      assert.is_truthy(output:find("scripts/wrong.lua:1", 1, true), output)
      assert.is_truthy(output:find(case[2], 1, true), output)
    end)
  end
end)

describe("groups of which there are too many", function()
  it("are called that by the one that is one too many", function()
    local server = support.server.start {
      script = [[
        local app = require "moonpool"
        for i = 1, 33 do
          local group = app.db:group("group " .. i, function(_, inputs) return inputs end)
          app.get("/" .. i, function() return 200, group { i } end)
        end
      ]],
      flags = { "--workers", "1", "--no-watch" },
    }
    finally(function() server:stop() end)
    for i = 1, 32 do
      assert.equal(200, server:get("/" .. i).status)
    end
    support.problem(server:get("/33"), 500, "script-error")
    server:wait_log("there are more groups than 32")
  end)
end)

describe("a group that a reload takes away", function()
  local server

  setup(function() server = start { flags = { "--workers", "2", "--no-watch" } } end)
  teardown(function() server:stop() end)

  it("leaves no request without an answer", function()
    local answers = together(server, "/keep", texts(4, "old"), function()
      server:write("scripts/spec.lua", 'require("moonpool").get("/new", function() return 200, {} end)')
      server.process:signal("HUP")
      support.eventually("the new scripts", function() return server:get("/new").status == 200 end)
    end)
    for _, answer in ipairs(answers) do
      assert.equal(200, answer.status, answer.body)
    end
  end)
end)

describe("a group while the database is away", function()
  it("answers all its members 503 at once, and works again when it is back", function()
    local cluster = support.cluster.create()
    finally(function() cluster:destroy() end)
    cluster:start()
    local server = start { database = cluster.url, flags = { "--workers", "2", "--no-watch" } }
    finally(function()
      server:stop()
      cluster:destroy()
    end)
    assert.equal(200, server:post("/keep", { text = "before" }).status)
    cluster:stop()
    local inputs = texts(10, "away")
    for _, answer in ipairs(support.http.at_once(server.url, 10, function(i)
      return "POST", "/keep", { json = inputs[i] }
    end)) do
      support.problem(answer, 503)
      assert.is_not_nil(answer.headers["retry-after"])
    end
    cluster:start()
    support.eventually("the group to work again", function()
      return server:post("/keep", { text = "after" }).status == 200
    end)
  end)
end)

describe("creates of users of one name in one group", function()
  local server

  setup(function()
    server = support.server.prepare { flags = { "--workers", "2", "--no-watch" } }
    server:edit("scripts/users.lua", "deadline = 2.0", "deadline = 20.0")
    server:launch()
  end)
  teardown(function() server:stop() end)

  it("give one user and refuse the other", function()
    local user = { username = "twin", score = 1, profile = { firstname = "A", lastname = "B" } }
    local connections
    with_lock(server, "users", function()
      connections = begin_all(server, "/users", { user, user })
      wait_in_flight(server, 2)
      server.db:wait_running("lock table%")
    end)
    local statuses = {}
    for i, answer in ipairs(receive_all(connections)) do
      statuses[i] = answer.status
    end
    table.sort(statuses)
    assert.same({ 201, 409 }, statuses)
    assert.equal(1, server.db:count("users"))
    assert.equal(1, server.db:count("actions"))
  end)
end)
