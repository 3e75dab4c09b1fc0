local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local json = require "json"

app.post("/echo", function(req) return 200, req.body end)
app.post("/kinds", function(req)
  local kinds = {}
  for i, value in ipairs(req.body) do
    kinds[i] = value == json.null and "null" or math.type(value) or type(value)
  end
  return 200, kinds
end)
app.post("/raw", function(req)
  return 200, { body = req.body ~= nil, raw = req.raw_body }
end)
app.get("/made", function()
  return 200, {
    empty_object = {}, empty_array = json.empty_array, marked = json.array {}, null = json.null,
    decoded = json.decode('{"a":[]}'), encoded = json.encode({ 1, 2.5, "x" }),
  }
end)
app.get("/bad/{what}", function(req)
  local cycle = {}
  cycle.cycle = cycle
  local values = {
    nan = { score = 0 / 0 }, inf = { 1 / 0 }, func = { print }, hole = { [1] = 1, [3] = 3 },
    mixed = { 1, a = 2 }, cycle = cycle, bytes = { "\xff" },
  }
  return 200, values[req.params.what]
end)
]]

describe("JSON", function()
  local server

  setup(function()
    server = support.server.start { app = false, scripts = { ["spec.lua"] = SCRIPT } }
  end)
  teardown(function() server:stop() end)

  for _, text in ipairs {
    "[]", "{}", "[[]]", '{"a":{}}', '{"a":[]}', "[{},[]]", "[null]", "[null,null]", "[true,false]",
    "[0]", "[-1]", "[9007199254740993]", "[9223372036854775807]", "[-9223372036854775808]",
    "[0.1]", "[5e-324]", "[1.7976931348623157e+308]", "[-0]", "[0.30000000000000004]", "[1e+300]",
    "[123456.789]", "[2.2250738585072014e-308]", '[""]', '["a/b"]', '["\\"\\\\"]', '["żółć 🌒"]',
    '[{"a":1},{"b":[1,2,{"c":null}]}]',
  } do
    it(("goes in and out as %s"):format(text), function()
      local answer = server:post("/echo", text)
      assert.equal(200, answer.status, answer.body)
      assert.equal(text, answer.body)
    end)
  end

  for text, expected in pairs {
    [' [ 1 , 2 ] '] = "[1,2]", ["[1.0]"] = "[1]", ["[1e2]"] = "[100]", ['["\\u017c\\ud83c\\udf12"]'] = '["ż🌒"]',
    ['["\\/"]'] = '["/"]', ["[18446744073709551616]"] = "[1.8446744073709552e+19]",
    ['["\\b\\f\\n\\r\\t"]'] = nil,
  } do
    it(("comes out in its plain form: %s as %s"):format(text, expected), function()
      assert.equal(expected, server:post("/echo", text).body)
    end)
  end

  it("keeps integers, floats and null apart", function()
    assert.same({ "integer", "float", "float", "string", "boolean", "null", "table" },
      server:post("/kinds", '[1,1.0,0.5,"1",true,null,[]]'):json())
  end)

  it("made by a script keeps arrays, objects and null apart", function()
    local answer = server:get("/made")
    assert.equal(200, answer.status, answer.body)
    assert.matches('"empty_object":{}', answer.body, 1, true)
    assert.matches('"empty_array":[]', answer.body, 1, true)
    assert.matches('"marked":[]', answer.body, 1, true)
    assert.matches('"null":null', answer.body, 1, true)
    assert.matches('"decoded":{"a":[]}', answer.body, 1, true)
    assert.matches('"encoded":"[1,2.5,\\"x\\"]"', answer.body, 1, true)
  end)

  for _, what in ipairs { "nan", "inf", "func", "hole", "mixed", "cycle", "bytes" } do
    it(("cannot be made of %s: 500, and the log says where"):format(what), function()
      local offset = #server:log()
      support.problem(server:get("/bad/" .. what), 500, "script-error")
      server:wait_log("%$", offset)
    end)
  end

  it("in a body of another type stays raw", function()
    local answer = server:request("POST", "/raw", { body = "[1]" })
    assert.same({ body = false, raw = "[1]" }, answer:json())
  end)

  it("is known by a media type with parameters or a suffix", function()
    for _, media_type in ipairs { "application/json; charset=utf-8", "Application/JSON", "application/problem+json" } do
      local answer = server:request("POST", "/echo", { body = "[1]", headers = { ["Content-Type"] = media_type } })
      assert.equal("[1]", answer.body, media_type)
    end
  end)
end)
