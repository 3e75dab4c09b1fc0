local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"

local function names(object)
  local list = {}
  for name, value in pairs(object) do
    list[#list + 1] = name .. " " .. type(value)
  end
  return list
end

app.get("/names", function()
  return 200, { app = names(app), group = names(app.group("/x")) }
end)

app.get("/methods/{object}/{names*}", function(req)
  local tx = app.db:begin()
  local object = ({ tx = tx, req = req, db = app.db })[req.params.object]
  local kinds = {}
  for name in req.params.names:gmatch("[^/]+") do
    kinds[name] = type(object[name])
  end
  tx:rollback()
  return 200, kinds
end)
]]

-- The functions that the meta file declares on a local: "db" gives { "begin", ... }.
local function declared(text, object)
  local names = {}
  for name in text:gmatch("\nfunction " .. object .. "[.:]([%w_]+)") do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function fields(text, class)
  local names = {}
  local block = assert(text:match("%-%-%-@class " .. class:gsub("%.", "%%.") .. "\n(.-)\n[^%-]"))
  for name in block:gmatch("%-%-%-@field ([%w_]+)") do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

-- Those of "name type" that are of this type and no private matter.
local function of_type(list, type_name)
  local names = {}
  for _, entry in ipairs(list) do
    local name, kind = entry:match("^(%S+) (%S+)$")
    if kind == type_name and name:sub(1, 1) ~= "_" then
      names[#names + 1] = name
    end
  end
  table.sort(names)
  return names
end

describe("docs/moonpool.meta.lua", function()
  local server, text

  setup(function()
    text = assert(support.shell.read("docs/moonpool.meta.lua"))
    server = support.server.start { script = SCRIPT }
  end)
  teardown(function() server:stop() end)

  local function registered(object)
    local answer = server:get("/names")
    assert.equal(200, answer.status, answer.body)
    return answer:json()[object]
  end

  local function kinds(object, names)
    local answer = server:get(("/methods/%s/%s"):format(object, table.concat(names, "/")))
    assert.equal(200, answer.status, answer.body)
    return answer:json()
  end

  it("is Lua", function()
    assert(load(text))
  end)

  it("declares what the server registers on app", function()
    assert.same(of_type(registered("app"), "function"), declared(text, "app"))
  end)

  it("declares what the server registers on a group", function()
    assert.same(of_type(registered("group"), "function"), fields(text, "moonpool.Group"))
  end)

  for object, least in pairs { tx = 8, db = 7 } do
    it(("declares methods of %s that are there"):format(object), function()
      local names = declared(text, object)
      assert.is_true(#names >= least)
      for name, kind in pairs(kinds(object, names)) do
        assert.equal("function", kind, name)
      end
    end)
  end

  it("declares methods and fields of a request that are there", function()
    for name, kind in pairs(kinds("req", declared(text, "request"))) do
      assert.equal("function", kind, name)
    end
    local seen = kinds("req", { "method", "path", "params", "query", "headers", "id", "client" })
    for name, kind in pairs(seen) do
      assert.is_true(kind == "string" or kind == "table" or kind == "userdata", name .. " is " .. kind)
    end
  end)
end)
