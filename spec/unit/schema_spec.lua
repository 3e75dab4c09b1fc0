-- The module of the core that checks request bodies, without a server: with a stand-in for "json".
local ARRAY = {}
local json = { null = setmetatable({}, { __name = "null" }) }

function json.array(list)
  return setmetatable(list, ARRAY)
end

local function load_schema()
  local before = package.loaded.json
  package.loaded.json = json
  for _, name in ipairs({ "schema_faults", "schema_definition", "schema_formats" }) do
    package.loaded["moonpool." .. name] = dofile(("core/lua/%s.lua"):format(name))
  end
  local schema = dofile("core/lua/schema.lua")
  package.loaded.json = before
  return schema
end

local schema = load_schema()
local NUL_DETAIL = "must not contain a NUL character: PostgreSQL cannot store it"

-- The faults as "pointer: detail", or true.
local function faults_of(definition, value)
  local good, faults = schema.compile(definition)(value)
  if good then
    return true
  end
  local lines = {}
  for i, fault in ipairs(faults) do
    lines[i] = fault.pointer .. ": " .. fault.detail
  end
  return table.concat(lines, "\n")
end

local NewUser = {
  type = "object",
  required = { "username", "score", "profile" },
  properties = {
    username = { type = "string", minLength = 1, maxLength = 100 },
    score = { type = "number" },
    profile = {
      type = "object",
      required = { "firstname", "lastname" },
      properties = {
        firstname = { type = "string", minLength = 1, maxLength = 100 },
        lastname = { type = "string", minLength = 1, maxLength = 100 },
      },
    },
  },
}

local function new_user()
  return { username = "johndoe", score = 5432, profile = { firstname = "John", lastname = "Doe" } }
end

describe("a schema", function()
  it("takes a value that keeps to it", function()
    assert.is_true(faults_of(NewUser, new_user()))
  end)

  it("names every fault by a JSON Pointer", function()
    local user = new_user()
    user.username = nil
    user.score = "many"
    user.profile = { firstname = 1, lastname = json.null }
    assert.equal(table.concat({
      "/profile/firstname: must be a string, not a number",
      "/profile/lastname: must be a string, not null",
      "/score: must be a number, not a string",
      "/username: is required",
    }, "\n"), faults_of(NewUser, user))
  end)

  it("allocates nothing for a value that keeps to it", function()
    local check, user = schema.compile(NewUser), new_user()
    check(user)
    collectgarbage()
    collectgarbage("stop")
    local before = collectgarbage("count")
    for _ = 1, 1000 do
      check(user)
    end
    local grown = collectgarbage("count") - before
    collectgarbage("restart")
    assert.is_true(grown < 1)
  end)

  it("reports at most 100 faults", function()
    local list = {}
    for i = 1, 1000 do
      list[i] = "x"
    end
    local _, faults = schema.compile({ items = { type = "integer" } })(list)
    assert.equal(100, #faults)
    assert.equal("/99", faults[100].pointer)
  end)

  it("escapes ~ and / in pointers", function()
    local definition = { properties = { ["a/b~c"] = { type = "null" } } }
    assert.equal("/a~1b~0c: must be null, not a boolean", faults_of(definition, { ["a/b~c"] = true }))
  end)

  it("fills in a default, a new one each time", function()
    local check = schema.compile({
      properties = { tags = { type = "array", default = json.array({}) }, n = { type = "integer", default = 7 } },
      required = { "n" },
    })
    local one, two = {}, {}
    assert.is_true(check(one) and check(two))
    assert.equal(7, one.n)
    assert.are_not.equal(one.tags, two.tags)
    assert.equal(ARRAY, getmetatable(one.tags))
  end)

  it("turns 3.0 into 3 where an integer is due", function()
    local value = { n = 3.0, list = { 1.0, 2 }, x = 3.0 }
    local integer = { type = "integer" }
    assert.is_true(faults_of({ properties = { n = integer, list = { items = integer }, x = { type = "number" } } },
      value))
    assert.equal("integer", math.type(value.n))
    assert.equal("integer", math.type(value.list[1]))
    assert.equal("float", math.type(value.x))
  end)

  it("refuses a NUL in undeclared members too", function()
    assert.equal("/more/0/x: " .. NUL_DETAIL, faults_of(NewUser, (function()
      local user = new_user()
      user.more = { { x = "a\0b" } }
      return user
    end)()))
    assert.equal("/a\0: must not have a NUL character in its name", faults_of({}, { ["a\0"] = 1 }))
  end)
end)

local INTEGER = { type = "integer" }
local CLOSED = { type = "object", properties = { a = {} }, additionalProperties = false }

-- A definition, a value, and the faults or true.
local ROWS = {
  { {}, "anything", true },
  { {}, "a\0b", ": " .. NUL_DETAIL },
  { {}, 1 / 0, ": must be a finite number" },
  { { type = "number" }, 0 / 0, ": must be a finite number" },
  { INTEGER, 1 / 0, ": must be a finite number" },
  { INTEGER, 3, true },
  { INTEGER, 3.0, true },
  { INTEGER, 3.5, ": must be an integer, not a number with a fraction" },
  { INTEGER, 1e300, ": must be an integer, not a number beyond 64 bits" },
  { INTEGER, "3", ": must be an integer, not a string" },
  { { type = "object" }, {}, true },
  { { type = "object" }, json.array({}), ": must be an object, not an array" },
  { { type = "array" }, json.array({}), true },
  { { type = "array" }, {}, ": must be an array, not an object" },
  { { type = "array" }, { 1 }, true },
  { { type = "boolean" }, false, true },
  { { type = "null" }, json.null, true },
  { { type = { "string", "null" } }, json.null, true },
  { { type = { "string", "null" } }, 1, ": must be a string or null, not a number" },
  { { type = "string", nullable = true }, json.null, true },
  { { minLength = 1 }, 1, ": must be a string, not a number" },
  { { minLength = 2 }, "é", ": must have at least 2 characters" },
  { { maxLength = 1 }, "é", true },
  { { maxLength = 1 }, "éé", ": must have at most 1 character" },
  { { pattern = "^%l+$" }, "abc", true },
  { { pattern = "^%l+$" }, "ABC", ": must match the pattern ^%l+$" },
  { { enum = { "a", json.null, false } }, false, true },
  { { enum = { "a", json.null, false } }, "b", ": must be one of \"a\", null, false" },
  { { enum = { "a", 1, json.null } }, json.null, true },
  { { enum = { "a", 1 } }, 1.0, true },
  { { enum = { "a", 1 } }, {}, ": must be one of \"a\", 1" },
  { { const = "x" }, "y", ": must be \"x\"" },
  { { const = false }, false, true },
  { { minimum = 1 }, 0, ": must be at least 1" },
  { { minimum = 1 }, 1, true },
  { { maximum = 1 }, 1.5, ": must be at most 1" },
  { { exclusiveMinimum = 0 }, 0, ": must be greater than 0" },
  { { exclusiveMaximum = 10 }, 10, ": must be less than 10" },
  { { type = "integer", multipleOf = 5 }, 12, ": must be a multiple of 5" },
  { { multipleOf = 2 }, 9007199254740993, ": must be a multiple of 2" },
  { { multipleOf = 0.1 }, 0.3, true },
  { { items = INTEGER }, { 1, "x", 2.5 },
    "/1: must be an integer, not a string\n/2: must be an integer, not a number with a fraction" },
  { { minItems = 1 }, json.array({}), ": must have at least 1 item" },
  { { maxItems = 1 }, { 1, 2 }, ": must have at most 1 item" },
  { { items = { type = "boolean" }, uniqueItems = true }, { false, true }, true },
  { { items = { type = "boolean" }, uniqueItems = true }, { false, false }, "/1: is the same as item 0" },
  { { items = INTEGER, uniqueItems = true }, { 1, 2, 1.0 }, "/2: is the same as item 0" },
  { CLOSED, { a = 1 }, true },
  { CLOSED, { a = 1, b = 2 }, "/b: is not a known member" },
  { { format = "uuid" }, "6ba7b810-9dad-11d1-80b4-00c04fd430c8", true },
  { { format = "uuid" }, "6ba7b810", ": must be a UUID" },
  { { format = "email" }, "john@example.org", true },
  { { format = "email" }, "john@example", ": must be an e-mail address" },
  { { format = "date-time" }, "2024-02-29T12:00:00.5+01:00", true },
  { { format = "date-time" }, "2023-02-29T12:00:00Z",
    ": must be a date and time such as 2024-02-29T12:00:00Z" },
  { { format = "date-time" }, "2024-02-29T12:00:00",
    ": must be a date and time such as 2024-02-29T12:00:00Z" },
}

describe("a keyword", function()
  for number, row in ipairs(ROWS) do
    it(("does what row %d says: %s"):format(number, tostring(row[3])), function()
      assert.equal(row[3], faults_of(row[1], row[2]))
    end)
  end
end)

-- A definition and the complaint about it.
local WRONG = {
  { 1, "here: a schema must be a table, not a number" },
  { { typ = "string" }, "here: unknown keyword \"typ\"" },
  { { "string" }, "here: unknown keyword 1" },
  { { type = "text" }, "here: unknown type \"text\"" },
  { { type = {} }, "here: type must be a name or a list of names" },
  { { type = "string", minimum = 1 }, "here: minimum applies to numbers, which type does not allow" },
  { { minLength = -1 }, "here: minLength must be a whole number of at least 0" },
  { { multipleOf = 0 }, "here: multipleOf must be a number above 0" },
  { { required = { "a" } }, "here: required names \"a\", which is no property" },
  { { properties = { a = { type = "x" } } }, "here.a: unknown type \"x\"" },
  { { items = { items = { type = "x" } } }, "here[][]: unknown type \"x\"" },
  { { properties = { a = "string" } }, "here.a: a schema must be a table, not a string" },
  { { pattern = "[" }, "here: pattern is no Lua pattern: malformed pattern (missing ']')" },
  { { format = "ipv7" }, "here: unknown format \"ipv7\"" },
  { { enum = { {} } }, "here: enum may hold strings, numbers, booleans and null" },
  { { type = "integer", default = "1" }, "here: default must be an integer, not a string" },
  { { uniqueItems = true }, "here: uniqueItems needs items that are strings, numbers or booleans" },
}

describe("a wrong definition", function()
  for _, row in ipairs(WRONG) do
    it("is refused: " .. row[2], function()
      local good, message = pcall(schema.compile, row[1], "here")
      assert.is_false(good)
      assert.equal(row[2], message)
    end)
  end
end)
