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
    mixed = { 1, a = 2 }, cycle = cycle, bytes = { "\xff" }, keys = { [true] = 1 }, zero = { [0] = 1 },
    thread = { t = coroutine.create(print) }, request = req,
  }
  return 200, values[req.params.what]
end)
app.get("/cjson", function()
  local cjson = require "cjson"
  local empty = json.decode("[]")
  return 200, setmetatable({
    same_null = cjson.null == json.null, null = cjson.null, empty = empty,
    same_empty = json.encode(json.empty_array) == json.encode(json.array {}), plain = cjson.encode({ 1, 2 }),
  }, { __columns = { "same_null", "null", "empty", "same_empty", "plain" } })
end)
app.get("/metatable", function()
  return 200, setmetatable({ a = 1 }, { __index = { b = 2 }, __len = function() return 3 end })
end)
]]

describe("JSON", function()
  local server

  setup(function()
    server = support.server.start { script = SCRIPT }
  end)
  teardown(function() server:stop() end)

  for _, text in ipairs {
    "[]", "{}", "[[]]", '{"a":{}}', '{"a":[]}', "[{},[]]", "[null]", "[null,null]", "[true,false]",
    "[0]", "[-1]", "[9007199254740993]", "[9223372036854775807]", "[-9223372036854775808]",
    "[0.1]", "[5e-324]", "[1.7976931348623157e+308]", "[-0]", "[0.30000000000000004]", "[1e+300]",
    "[123456.789]", "[2.2250738585072014e-308]", '[""]', '["a/b"]', '["\\"\\\\"]', '["żółć 🌒"]',
    '[{"a":1},{"b":[1,2,{"c":null}]}]', '["\\b\\f\\n\\r\\t"]',
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
  } do
    it(("comes out in its plain form: %s as %s"):format(text, expected), function()
      assert.equal(expected, server:post("/echo", text).body)
    end)
  end

  -- What RFC 8259 allows, beyond what comes out as it went in.
  for _, case in ipairs {
    { "[123e65]", "[1.23e+67]" }, { "[0e+1]", "[0]" }, { "[1E22]", "[1e+22]" }, { "[1E-2]", "[0.01]" },
    { "[1E+2]", "[100]" }, { "[20e1]", "[200]" }, { "[-0.0]", "[-0]" }, { "[-0e5]", "[-0]" }, { "[1.5e-0]", "[1.5]" },
    { "[123.456e-789]", "[0]" }, { "[4.9e-324]", "[5e-324]" }, { "[100000000000000000000]", "[1e+20]" },
    { "[-9223372036854775809]", "[-9.223372036854776e+18]" },
    { "[0.100000000000000005551115123125782702118158340454101562500]", "[0.1]" },
    { "[9007199254740992.0]", "[9007199254740992]" }, { "[ 4 ]", "[4]" }, { "[]\n", "[]" }, { " \t\r\n[] ", "[]" },
    { '["asd "]', '["asd "]' }, { "false", "false" }, { "42", "42" }, { "-1.5", "-1.5" }, { "null", "null" },
    { '{"asd":"sdf"}', '{"asd":"sdf"}' }, { '{"":0}', '{"":0}' }, { '{"a\\u0000b":0}', '{"a\\u0000b":0}' },
    { '{"title":"\\u041f\\u043e"}', '{"title":"По"}' }, { "[1,null,null,null,2]", "[1,null,null,null,2]" },
    { '["\\u0060\\u012a\\u12AB"]', '["`Īካ"]' }, { '["\\uD801\\udc37"]', '["\u{10437}"]' },
    { '["\\uDBFF\\uDFFF"]', '["\u{10FFFF}"]' }, { '["\\\\u0000"]', '["\\\\u0000"]' },
    { '["\\uFFFE\\uFFFF"]', '["\u{FFFE}\u{FFFF}"]' },
    { '["\u{2028}\u{2029}\u{200B}"]', '["\u{2028}\u{2029}\u{200B}"]' },
    { '["\127"]', '["\127"]' }, { '["\\u007F"]', '["\127"]' }, { '["a/*b*/c"]', '["a/*b*/c"]' },
    { '["\\u0000\\u001f"]', '["\\u0000\\u001f"]' },
  } do
    it(("takes %q"):format(case[1]), function()
      local answer = server:post("/echo", case[1])
      assert.equal(200, answer.status, answer.body)
      assert.equal(case[2], answer.body)
    end)
  end

  -- What it does not allow, by what is wrong with it.
  for what, texts in pairs {
    ["is no number"] = {
      "[01]", "[-01]", "[012]", "[+1]", "[++1]", "[--1]", "[.5]", "[-.5]", "[1.]", "[-2.]", "[1.e1]", "[0.e1]", "[1e]",
      "[1e+]", "[1E-]", "[1eE2]", "[0.3e]", "[0e+-1]", "[0.1.2]", "[1 000]", "[1_000]", "[0x10]", "[0x]", "[1f]",
      "[1a]",
      "[NaN]", "[-NaN]", "[nan]", "[Inf]", "[Infinity]", "[-Infinity]", "[+Inf]", "[-]", "[- 1]", "[-foo]", "[1+2]",
      "[1.2a-3]", "[1ea]", "[\u{FF11}]", "[1,000.5.]", "[1e1.5]", "-", "01", "+1", "1.", ".1",
    },
    ["is no string"] = {
      "['a']", '["a]', '["', '"', '["\\', '["\\"]', '["\\x41"]', '["\\a"]', '["\\0"]', '["\\\'"]', '["\\u"]',
      '["\\u1"]', '["\\u12"]', '["\\u123"]', '["\\u00G0"]', '["\\uqqqq"]', '["\\U0041"]', '["\\ud800"]',
      '["\\uDADA"]', '["\\udc00"]', '["\\ud800\\u0041"]', '["\\ud800abc"]', '["\\ud800\\ud800"]', '["\\ud800\\n"]',
      '["\\udc00\\ud800"]', '["\\ud834\\udd"]', '["a\nb"]', '["a\tb"]', '["a\0b"]', '["\31"]', '["\r"]', "[a]",
      '[\\u0020"a"]', '["\\\u{1F300}"]',
    },
    ["is no UTF-8"] = {
      '["\xff"]', '["\x80"]', '["\xe5"]', '["\xc0\xaf"]', '["\xc1\xbf"]', '["\xe0\x80\xaf"]', '["\xf0\x80\x80\xaf"]',
      '["\xfc\x83\xbf\xbf\xbf\xbf"]', '["\xed\xa0\x80"]', '["\xed\xbf\xbf"]', '["\xed\xa0\xb4\xed\xb4\x9e"]',
      '["\xf4\x90\x80\x80"]', '["\xf4\xbf\xbf\xbf"]', '["\xe2\x82"]', '["\xf0\x9f\x8c"]', '{"\xb9":"0"}', "\xe9",
      "[\xc3\xa5]", '["\xc3\x28"]',
    },
    ["is no array"] = {
      "[1,]", "[,1]", "[,]", "[1,,2]", "[1 2]", "[1 true]", "[1:2]", "[", "]", "[1", "[1,", "[[1]", "[1]]",
      '["x"]]', "[{}",
      "[3[4]]", "[1;2]", "[1}", "[\f]", "[\v1]", "[*]", "[<null>]", "[1,\n1\n,1",
    },
    ["is no object"] = {
      "{", "}", "{]", "{,", "{}}", '{"a"', '{"a":', '{"a"}', '{"a":1', '{"a":1,}', '{"a":1,,"b":2}', '{"a":1 "b":2}',
      '{"a" 1}', '{"a"::1}', '{:1}', '{a:1}', "{'a':1}", "{1:1}", "{null:1}", "{9999E9999:1}", '{"a","b"}', '{["a"]:1}',
      '{"a":"b","c"}', '{"x":true,', '{"a":/**/1}', '{"id":0,,,,,}',
    },
    ["is none of JSON's words"] = {
      "[True]", "[TRUE]", "[tru]", "[truee]", "[fals]", "[nul]", "[NULL]", "[undefined]", "[None]", "abc",
      "[true false]",
    },
    ["is not alone"] = {
      "[] []", "[][]", "[1]x", '{"a":1}#', '{"a":1}/**/', '{"a":1}//', "1 2", '""x', "2@", "[1]\0", "null null",
    },
    ["is not there"] = { " ", "\n\n" },
    ["has a byte order mark"] = { "\xef\xbb\xbf{}", "\xef\xbb{}", "\xff\xfe[\0]\0", "\xfe\xff\0[\0]", "\u{2060}[]" },
    ["says a key twice"] = { '{"a":1,"a":1}', '{"a":null,"\\u0061":2}', '[{"b":{"":1,"":2}}]' },
    ["is nested too deeply"] = { ("["):rep(129) .. ("]"):rep(129), ("["):rep(100000),
    ('{"a":'):rep(200) .. "1" .. ("}"):rep(200) },
  } do
    it(("refuses what %s: 400, with line and column"):format(what), function()
      for _, text in ipairs(texts) do
        local answer = server:post("/echo", text)
        local shown = ("%q: %s"):format(text:sub(1, 80), answer.body)
        assert.equal(400, answer.status, shown)
        assert.equal("/problems/malformed", answer:json().type, shown)
        assert.matches("^line %d+, column %d+: ", answer:json().detail, nil, nil, shown)
      end
    end)
  end

  it("says where in the text a fault lies", function()
    assert.equal("line 3, column 8: expected a value, found 'N'",
      server:post("/echo", '{\n"ż": [1,\n  {"x":NaN}]}'):json().detail)
    assert.equal('line 2, column 1: the key "a" stands twice in one object',
      server:post("/echo", '{"a":1,\n"a":2}'):json().detail)
    assert.equal("line 1, column 1: a byte order mark is not allowed",
      server:post("/echo", "\xef\xbb\xbf[]"):json().detail)
  end)

  for _, text in ipairs { "[1e400]", "[-1e400]", "[1e99999999999999999999]", "[" .. ("9"):rep(400) .. "]" } do
    it(("refuses the number in %s, beyond the range of a double, with 422"):format(text:sub(1, 30)), function()
      local document = support.problem(server:post("/echo", text), 422, "invalid")
      assert.equal("line 1, column 2: the number is beyond the range of a double", document.detail)
    end)
  end

  it("goes 128 levels deep, in and out", function()
    local text = ("["):rep(128) .. ("]"):rep(128)
    assert.equal(text, server:post("/echo", text).body)
  end)

  it("larger than the limit for bodies is refused with 413", function()
    support.problem(server:post("/echo", '["' .. ("x"):rep(1 << 20) .. '"]'), 413, "body-too-large")
  end)

  -- Both come out as texts that Lua reads as the same number again.
  it("keeps every integer and every double, bit for bit", function()
    local given, texts = {}, {}
    local function add(number, text)
      given[#given + 1] = number
      texts[#texts + 1] = text
    end
    math.randomseed(8259)
    for _ = 1, 5000 do
      local bits = math.random(0)
      local integer, double = bits >> (bits & 63), string.unpack("d", string.pack("j", bits))
      add(integer, ("%d"):format(integer))
      if double - double == 0 then
        add(double, ("%.17g"):format(double))
      end
    end
    local answer = server:post("/echo", "[" .. table.concat(texts, ",") .. "]")
    assert.equal(200, answer.status)
    local place = 0
    for text in answer.body:gmatch("[^%[%],]+") do
      place = place + 1
      local number = math.tointeger(given[place]) or given[place]
      assert.equal(number, tonumber(text), texts[place])
    end
    assert.equal(#given, place)
  end)

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

  for what, fault in pairs {
    nan = "$.score is not a finite number", inf = "$[1] is not a finite number",
    func = "$[1] is a function, which JSON cannot express", hole = "$ is an array with a hole: [2] is missing",
    mixed = "$.a is a member of an array", cycle = "is nested deeper than 128 levels; is there a cycle?",
    bytes = "$[1] is not valid UTF-8", keys = "$ has a key that is a boolean", zero = "$ has the key 0",
    thread = "$.t is a thread, which JSON cannot express", request = "$ is a userdata, which JSON cannot express",
  } do
    it(("cannot be made of %s: 500, and the log says where"):format(what), function()
      local offset = #server:log()
      support.problem(server:get("/bad/" .. what), 500, "script-error")
      server:wait_log(fault:gsub("%p", "%%%0"), offset)
    end)
  end

  it("has the null and the codec of cjson beside its own", function()
    local answer = server:get("/cjson")
    assert.equal('{"same_null":true,"null":null,"empty":[],"same_empty":true,"plain":"[1,2]"}', answer.body)
  end)

  it("of a table with a metatable is that of the table", function()
    assert.equal('{"a":1}', server:get("/metatable").body)
  end)

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
