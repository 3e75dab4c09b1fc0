local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local json = app.json
local cjson = require "cjson"

local kept = {}

local function row()
  return app.db:query_row("select 7 as id, 'Ann' as name, null::text as gone, '{\"a\":[1,2]}'::jsonb as extra")
end

app.get("/as-it-is", function() return row() end)
app.get("/inside", function() return { row = row(), rows = { row(), row() } } end)
app.get("/twice", function()
  local one = row()
  return { one, one }
end)
app.get("/encoded", function() return json.encode(row()) end)
app.get("/cjson", function()
  return { cjson.decode(cjson.encode(row())), cjson.decode(cjson.encode { one = { row() } }) }
end)
app.get("/headers", function()
  return 200, "", app.db:query_row "select 'a' as \"X-One\", 2 as \"X-Two\""
end)
app.get("/refused", function()
  app.fail(409, "no", { user = row() })
end)
app.get("/refused-with-row", function()
  app.fail(409, "no", row())
end)
app.get("/in-array", function()
  return { pcall(app.db.query, app.db, "select $1::int[]", { row() }) }
end)
-- Ten times as often must not take more. The columns' names are what memory would be kept for.
app.get("/encoded-again", { deadline = 60 }, function(request)
  local one = app.db:query_row(request.query.sql)
  local all = app.db:query(request.query.sql)
  for _ = 1, tonumber(request.query.times) do
    json.encode(one)
    json.encode(all)
  end
end)
app.get("/stored", function()
  return app.db:query_row("select $1::json as stored", row())
end)

app.get("/looked-at", function()
  local one = row()
  return { one.id, one.name, one.gone == nil, one.other == nil, one.extra.a[2] }
end)
app.get("/looked-at-and-returned", function()
  local one = row()
  assert(one.id == 7)
  return one
end)
app.get("/added-to", function()
  local one = row()
  one.age = 40
  one.name = nil
  return one
end)
app.get("/pairs", function()
  local names = {}
  for name in pairs(row()) do names[#names + 1] = name end
  table.sort(names)
  return names
end)
app.get("/raw", function()
  local changed = row()
  rawset(changed, "id", 8)
  return { next(row()) ~= nil, rawget(row(), "id"), changed.id, rawlen(row()), type(row()) }
end)
app.get("/class", function()
  local User = { greet = function(self) return "I am " .. self.name end }
  local own = setmetatable(row(), { __index = User })
  return { own:greet(), getmetatable(own).__index == User }
end)

app.get("/many", function()
  local found = 0
  local first
  for i = 1, 500 do
    local one = app.db:query_row("select $1::int as n", i)
    first = first or one
    found = found + (one and 1 or 0)
  end
  return { found, first.n }
end)

app.get("/keep", function()
  kept.unread = row()
  kept.read = row()
  return kept.read.name
end)
app.get("/kept", function() return kept.read.name end)
app.get("/kept-unread", function() return kept.unread.name end)
app.get("/return-kept-unread", function() return kept.unread end)
]]

describe("a row of query_row", function()
  local server

  local function get(path)
    return server:get(path):good()
  end

  setup(function()
    server = support.server.start { script = SCRIPT }
  end)

  teardown(function()
    server:stop()
  end)

  local AS_IT_IS = '{"id":7,"name":"Ann","gone":null,"extra":{"a": [1, 2]}}'

  it("goes to the client as it is, columns in the order of the query", function()
    assert.equal(AS_IT_IS, get("/as-it-is").body)
  end)

  it("goes to JSON wherever it stands", function()
    local body = get("/inside").body
    assert.is_truthy(body:find('"row":' .. AS_IT_IS, 1, true))
    assert.is_truthy(body:find('"rows":[' .. AS_IT_IS .. "," .. AS_IT_IS .. "]", 1, true))
    assert.equal("[" .. AS_IT_IS .. "," .. AS_IT_IS .. "]", get("/twice").body)
    assert.equal(AS_IT_IS, get("/encoded").body)
  end)

  it("goes through cjson, wherever it stands", function()
    local whole = { id = 7, name = "Ann", extra = { a = { 1, 2 } } }
    assert.same({ whole, { one = { whole } } }, get("/cjson"):json())
  end)

  it("can be the headers of a response", function()
    local headers = get("/headers").headers
    assert.same({ "a", "2" }, { headers["x-one"], headers["x-two"] })
  end)

  it("goes to the client in what a script refuses with", function()
    assert.equal(7, server:get("/refused"):json().user.id)
    assert.equal(7, server:get("/refused-with-row"):json().id)
  end)

  it("is refused in an array parameter", function()
    assert.is_false(get("/in-array"):json()[1])
  end)

  -- The sanitizers keep what is freed for themselves.
  local measured = support.environment.is_sanitized() and pending or it

  measured("takes no more memory for being encoded often", function()
    local names = {}
    for i = 1, 20 do names[i] = "1 as " .. ("name_%02d_"):format(i) .. ("x"):rep(40) end
    local path = "/encoded-again?sql=select%20" .. table.concat(names, ","):gsub(" ", "%%20") .. "&times="
    server:get(path .. 10)
    local worker = server:workers()[1]
    local before = support.shell.peak_memory(worker)
    assert.equal(204, server:get(path .. 20000).status)
    assert.is_true(support.shell.peak_memory(worker) < before + (8 << 20))
  end)

  it("can be a parameter", function()
    assert.same(7, get("/stored"):json().stored.id)
  end)

  it("has its columns as fields", function()
    assert.same({ 7, "Ann", true, true, 2 }, get("/looked-at"):json())
  end)

  it("is the same to the client after it was looked at", function()
    assert.equal('{"id":7,"name":"Ann","gone":null,"extra":{"a":[1,2]}}', get("/looked-at-and-returned").body)
  end)

  it("can be added to and taken from", function()
    assert.equal('{"id":7,"name":null,"gone":null,"extra":{"a":[1,2]},"age":40}', get("/added-to").body)
  end)

  it("is iterated over by pairs, NULLs left out", function()
    assert.same({ "extra", "id", "name" }, get("/pairs"):json())
  end)

  it("is a plain table to the raw functions", function()
    assert.same({ true, 7, 8, 0, "table" }, get("/raw"):json())
  end)

  it("can be given a metatable", function()
    assert.same({ "I am Ann", true }, get("/class"):json())
  end)

  it("may be one of hundreds in a request", function()
    assert.same({ 500, 1 }, get("/many"):json())
  end)

  it("lives on after its request if it was looked at", function()
    get("/keep")
    assert.equal("Ann", get("/kept").body)
  end)

  it("says so if it is first looked at after its request", function()
    get("/keep")
    for _, path in ipairs { "/kept-unread", "/return-kept-unread" } do
      assert.equal(500, server:get(path).status)
    end
    server:wait_log("this row belongs to a request that is over")
  end)
end)
