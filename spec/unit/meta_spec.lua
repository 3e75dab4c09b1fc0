-- docs/moonpool.meta.lua is what editors know of the API: it declares all that scripts find, and nothing
-- else. What a script cannot list is read from the source that defines it.
local support = require "spec.support"

local SCRIPT = [[
local app = require "moonpool"
local db = app.db

local function kinds(object)
  local list = {}
  for name, value in pairs(object) do
    list[name] = type(value)
  end
  return list
end

app.get("/objects", function()
  return {
    app = kinds(app),
    group = kinds(app.group("/x")),
    json = kinds(app.json),
    db = kinds(getmetatable(db).__index),
    tx = kinds(require "moonpool.db".tx),
  }
end)

app.post("/request/{name}", function(req)
  return { kind = type(req[req.params.name]) }
end)

app.get("/errors", function()
  local seen = {}
  local function fail(fn)
    local ok, err = pcall(db.transaction, db, fn)
    for name in pairs(err) do
      seen[name] = not ok
    end
  end
  fail(function(tx)
    tx:queue("add_thing", 1)
    tx:queue("add_thing", 1)
    tx:send_batch()
  end)
  fail(function(tx) tx:copy_from("things", { "id" }, { { 2 }, { 2, 3 } }) end)
  return seen
end)
]]

local STATEMENTS = [[
-- name: add_thing :exec
insert into things (id) values ($1);
]]

-- What lua/database.lua and lua/moonpool.lua keep for themselves.
local PRIVATE = {
  app = { "middleware", "prefix" },
  group = { "middleware", "parent", "prefix" },
  tx = { "copy_begin", "copy_end", "copy_refuse", "copy_row", "open", "recover", "send_rest" },
}

local function sorted(names)
  local list = {}
  for name in pairs(names) do
    list[#list + 1] = name
  end
  table.sort(list)
  return list
end

describe("docs/moonpool.meta.lua", function()
  local server, text

  setup(function()
    text = support.shell.read("docs/moonpool.meta.lua")
    server = support.server.start {
      script = SCRIPT, statements = STATEMENTS, migration = "create table things (id integer primary key);",
    }
  end)
  teardown(function() server:stop() end)

  -- The fields of a class, and the functions on the local that stands for it: name -> is it a function?
  local function declared(class, object)
    local names = {}
    local block = text:match("%-%-%-@class " .. class:gsub("%.", "%%.") .. "\n(.-)\n[^%-]")
    for name, kind in (block or ""):gmatch("%-%-%-@field ([%w_]+)%??%s+([^\n]*)") do
      names[name] = kind:find("^fun%(") ~= nil
    end
    for name in text:gmatch("\nfunction " .. (object or "-") .. "[.:]([%w_]+)") do
      names[name] = true
    end
    assert.is_truthy(next(names), class .. " declares nothing")
    return names
  end

  -- The keys of the table that begins so in a source.
  local function keys_in(path, beginning)
    local names = {}
    local _, from = support.shell.read(path):find(beginning, 1, true)
    local block = support.shell.read(path):match("^(%b{})", assert(from, path .. " has no " .. beginning))
    for name in block:sub(2):gmatch("%f[%w_]([%a][%w_]*) = ") do
      names[name] = true
    end
    return names
  end

  it("is Lua", function()
    assert(load(text))
  end)

  for object, class in pairs {
    app = "moonpool.App", group = "moonpool.Group", json = "moonpool.Json", db = "moonpool.Db", tx = "moonpool.Tx",
  } do
    it("declares what scripts find, and nothing else: " .. class, function()
      local found = {}
      for name, kind in pairs(server:get("/objects"):value()[object]) do
        found[name] = kind == "function"
      end
      for _, name in ipairs(PRIVATE[object] or {}) do
        assert.is_not_nil(found[name], name .. " is not there")
        found[name] = nil
      end
      assert.same(declared(class, object), found)
    end)
  end

  it("declares what scripts find, and nothing else: moonpool.Request", function()
    local names = {}
    local fields = support.shell.read("core/bind_request.c"):match("\n} fields%[%] = (%b{});")
    for name in fields:gmatch('{"([%w_]+)"') do
      local answer = server:post("/request/" .. name, { 1 })
      names[name] = answer:value().kind == "function"
    end
    assert.same(declared("moonpool.Request", "request"), names)
  end)

  it("declares what scripts find, and nothing else: moonpool.Error", function()
    assert.same(sorted(declared("moonpool.Error")), sorted(server:get("/errors"):value()))
  end)

  for class, source in pairs {
    ["moonpool.RouteOptions"] = { "core/lua/moonpool.lua", "local OPTIONS = {" },
    ["moonpool.TransactionOptions"] = { "core/lua/database.lua", "local OPTIONS = {" },
    ["moonpool.GroupOptions"] = { "core/lua/database.lua", "local GROUP_OPTIONS = {" },
    ["moonpool.Schema"] = { "core/lua/schema_definition.lua", "local KEYWORDS = {" },
  } do
    it("declares what scripts may say, and nothing else: " .. class, function()
      assert.same(sorted(declared(class)), sorted(keys_in(table.unpack(source))))
    end)
  end
end)
