-- Scripts that never end, and scripts that break things on purpose. Each is sent as text, and runs as
-- the body of a handler.
local socket = require "socket"

local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

app.post("/run", { deadline = 0.2 }, function(req)
  return 200, { result = tostring(assert(load(req.raw_body, "=text"))(req)) }
end)

app.post("/work", { deadline = 30 }, function(req)
  return 200, { result = tostring(assert(load(req.raw_body, "=text"))(req)) }
end)

app.post("/answer", { deadline = 0.2 }, function(req)
  return 200, assert(load(req.raw_body, "=text"))(req)
end)

app.get("/alive", function() return 200, { alive = true } end)
]]

local BOUND = 30 -- seconds; a hang takes longer

local FOREVER = "function() while true do end end"

-- What is run, by what it is called.
local ENDLESS = {
  ["a loop"] = "while true do end",
  ["a loop in pcall"] = "while true do pcall(" .. FOREVER .. ") end",
  ["xpcall with a handler that loops"] = "xpcall(error, " .. FOREVER .. ")",
  ["a loop in xpcall with a handler that loops"] = "local f = " .. FOREVER .. " while true do xpcall(f, f) end",
  ["a loop in a coroutine"] = "coroutine.wrap(" .. FOREVER .. ")()",
  ["a loop in a coroutine in a coroutine"] =
    "coroutine.wrap(function() while true do pcall(coroutine.wrap(" .. FOREVER .. ")) end end)()",
  ["a comparator"] = "table.sort({ 1, 2, 3 }, " .. FOREVER .. ")",
  ["a gsub callback"] = "('x'):gsub('x', " .. FOREVER .. ")",
  ["a __close"] = "local x <close> = setmetatable({}, { __close = " .. FOREVER .. " })",
  ["an __index"] = "return setmetatable({}, { __index = " .. FOREVER .. " }).x",
  ["an __eq"] = "local mt = { __eq = " .. FOREVER .. " } return setmetatable({}, mt) == setmetatable({}, mt)",
  ["a __concat"] = "return setmetatable({}, { __concat = " .. FOREVER .. " }) .. 'x'",
  ["a __tostring"] = "return tostring(setmetatable({}, { __tostring = " .. FOREVER .. " }))",
  ["a __lt"] = "local mt = { __lt = " .. FOREVER .. " } return setmetatable({}, mt) < setmetatable({}, mt)",
  ["a pattern that backtracks in find"] = "(('a'):rep(30)):find(('a?'):rep(30) .. ('a'):rep(30))",
  ["a pattern that backtracks in match"] = "(('a'):rep(60)):match(('a-'):rep(30) .. 'b')",
  ["a pattern that backtracks in gmatch"] = "for _ in (('a'):rep(60)):gmatch(('a*'):rep(30) .. 'b') do end",
  ["a pattern that backtracks in gsub"] = "(('a'):rep(60)):gsub(('.-'):rep(30) .. 'b', '')",
  ["a pattern that backtracks in pcall"] =
    "while true do pcall(string.find, ('a'):rep(60), ('a-'):rep(30) .. 'b') end",
  ["table.move over 2^40"] = "table.move({}, 1, 1 << 40, 2)",
  ["table.insert into what says to be huge"] =
    "table.insert(setmetatable({}, { __len = function() return 1 << 40 end }), 1, 1)",
  ["table.concat of 2^40 times nothing"] =
    "table.concat(setmetatable({}, { __index = table.concat }), '', 1, 1 << 40)",
  ["table.sort of a huge table"] = "local t = {} for i = 1, 3e6 do t[i] = -i end while true do table.sort(t) end",
  ["long strings that are rewritten"] = "local s = ('aB'):rep(1e7) while true do s = s:lower():upper():reverse() end",
  ["coroutines without end"] = "while true do coroutine.wrap(function() coroutine.yield() end)() end",
  ["JSON of what doubles at each level"] =
    "local t = {} for _ = 1, 100 do t = { t, t } end return require('json').encode(t)",
  ["JSON that is decoded again and again"] =
    "local json = require 'json' local s = '[' .. ('1,'):rep(1e6) .. '1]' while true do pcall(json.decode, s) end",
}

-- What ends, and how: the text that is run, and what it returns.
local HARMLESS = {
  ["a finalizer"] = { "return (select(2, pcall(setmetatable, {}, { __gc = print })))",
    "scripts cannot use __gc: close with a <close> variable instead" },
  ["a finalizer in the metatable of arrays"] = { [[
      local json = require "json"
      local ran = false
      getmetatable(json.array {}).__gc = function() ran = true end
      for i = 1, 1e5 do json.array {} json.decode "[1]" end
      return ran]], "false" },
  ["a finalizer in the metatable of errors"] = { [[
      local ran = false
      local _, fault = pcall(require("moonpool").fail, 400, "x")
      getmetatable(fault).__gc = function() ran = true end
      for i = 1, 1e5 do pcall(require("moonpool").fail, 400, "x") end
      return ran]], "false" },
  ["a bomb of strings"] = { "return (select(2, pcall(string.rep, 'x', 1e12)))", "resulting string too large" },
  ["a string of a gigabyte"] = { "return (select(2, pcall(string.rep, 'x', 1e9)))", "not enough memory" },
  ["bytecode"] = { "return string.dump or select(2, load('\\27Lua'))",
    "attempt to load a binary chunk (mode is 't')" },
  ["a flood of lines for the log"] = { "for i = 1, 3000 do print('flood') end return 'over'", "over" },
  ["a date of a bad format"] = { "return (pcall(os.date, '%Ez'))", "false" },
  ["a format without measure"] = { "return (pcall(string.format, '%99999d', 1))", "false" },
}

-- What makes a handler fail with 500, whatever it does.
local FAILING = {
  ["error(nil)"] = "error(nil)",
  ["an error that is a cycle"] = "local t = {} t.message = t t.t = t error(t)",
  ["an error whose __tostring loops"] = "error(setmetatable({}, { __tostring = " .. FOREVER .. " }))",
  ["an error whose __index loops"] = "error(setmetatable({}, { __index = " .. FOREVER .. " }))",
  ["an error that is a function"] = "error(print)",
  ["recursion without end"] = "local function f() return 1 + f() end f()",
  ["recursion through a metamethod"] =
    "local t = setmetatable({}, {}) getmetatable(t).__index = function(u, k) return u[k .. 'x'] end return t.x",
  ["a __close on the way out of an error"] =
    "local x <close> = setmetatable({}, { __close = " .. FOREVER .. " }) error 'x'",
  ["a message of a megabyte"] = "error(('x'):rep(1e6))",
  ["the memory of the worker"] = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end",
}

describe("a script", function()
  local server, workers

  setup(function()
    server = support.server.start { script = SCRIPT, flags = { "--lua-memory", "256MiB", "--no-watch" } }
    workers = server:workers()
  end)
  teardown(function() server:stop() end)

  local function bounded(path, text)
    local started = socket.gettime()
    local answer = server:request("POST", path, { body = text })
    assert.is_true(socket.gettime() - started < BOUND, "it took too long")
    return answer
  end

  -- By the same process as ever: one that was killed would have been replaced.
  local function assert_alive()
    assert.same({ alive = true }, server:get("/alive"):json())
    assert.same(workers, server:workers())
  end

  for name, text in pairs(ENDLESS) do
    it("that never ends is ended at its deadline: " .. name, function()
      support.problem(bounded("/run", text), 504, "deadline-exceeded")
      assert_alive()
    end)
  end

  for name, case in pairs(HARMLESS) do
    it("does no harm with " .. name, function()
      assert.equal(case[2], server:request("POST", "/work", { body = case[1] }):json().result)
      assert_alive()
    end)
  end

  for name, text in pairs(FAILING) do
    it("that fails is answered 500: " .. name, function()
      local answer = server:request("POST", "/work", { body = text })
      assert.equal(500, answer.status, answer.body)
      assert.equal("application/problem+json", answer.headers["content-type"])
      assert_alive()
    end)
  end

  it("whose answer is encoded without end is ended at its deadline", function()
    local answer = bounded("/answer", "local t = {} for _ = 1, 100 do t = { t, t } end return t")
    support.problem(answer, 504, "deadline-exceeded")
    answer = bounded("/answer", "return setmetatable({}, { __json = " .. FOREVER .. " })")
    support.problem(answer, 504, "deadline-exceeded")
    assert_alive()
  end)

  it("whose error is encoded without end is answered all the same", function()
    local answer = bounded("/run", [[
      require("moonpool").fail(400, "x", { more = setmetatable({}, { __json = function() while true do end end }) })]])
    assert.is_true(answer.status >= 400, answer.body)
    assert_alive()
  end)

  it("that was ended within an xpcall leaves its handler to no other", function()
    support.problem(bounded("/run", "local f = " .. FOREVER .. " xpcall(f, f)"), 504, "deadline-exceeded")
    support.problem(bounded("/run", "('x'):gsub('x', " .. FOREVER .. ")"), 504, "deadline-exceeded")
    assert_alive()
  end)

  it("that prints a megabyte gets a part of it into the log", function()
    server:request("POST", "/work", { body = "print(('x'):rep(1e6)) return 1" })
    assert.is_true(#server:wait_log(" print message=x+ cut_from=1000000") < 40000)
  end)

  it("that never ends lets others be served meanwhile", function()
    local endless = server:begin("POST", "/run", { body = "while true do end" })
    for _ = 1, 5 do
      assert_alive()
    end
    assert.equal(504, endless:receive().status)
    endless:close()
  end)
end)
