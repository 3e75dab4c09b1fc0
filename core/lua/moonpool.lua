-- What `require "moonpool"` gives to scripts: routes, groups, middleware, errors and the database.
local database = require "moonpool.database"
local json = require "json"
local native = require "moonpool.app"
local validation = require "moonpool.validation"

local OPTIONS = { deadline = true, body = true, query = true, params = true, body_limit = true }

local Group = {}
Group.__index = Group

-- The place in the script that registers, `level` calls above.
local function caller(level)
  local text = debug.traceback("", level + 1):match("\n%s+([^\n]-:%d+): in")
  return text or "?"
end

local function check_options(options, level)
  if type(options) ~= "table" then
    error("the options of a route must be a table", level + 1)
  end
  for name in pairs(options) do
    if not OPTIONS[name] then
      error(("a route has no option '%s'"):format(tostring(name)), level + 1)
    end
  end
end

-- Middleware runs from the outermost to the handler, each around the next.
local function wrap(middleware, handler)
  local run = handler
  for i = #middleware, 1, -1 do
    local around, inner = middleware[i], run
    run = function(req)
      return around(req, inner)
    end
  end
  return run
end

local function checked(checks, handler)
  if #checks == 0 then
    return handler
  end
  return function(req)
    for i = 1, #checks do
      checks[i](req)
    end
    return handler(req)
  end
end

local function list_checks(options, where)
  local checks = {}
  checks[#checks + 1] = validation.parameters("params", options.params, where)
  checks[#checks + 1] = validation.parameters("query", options.query, where)
  checks[#checks + 1] = validation.body(options.body, where)
  return checks
end

-- Middleware added by app.use() after a route still applies to it: the chain is put together at the
-- first request.
local function late(group, handler)
  local run
  return function(req)
    run = run or wrap(group:chain(), handler)
    return run(req)
  end
end

function Group:chain()
  local chain = {}
  if self.parent then
    chain = self.parent:chain()
  end
  for _, middleware in ipairs(self.middleware) do
    chain[#chain + 1] = middleware
  end
  return chain
end

local function register(group, method, pattern, options, handler, level)
  if handler == nil then
    options, handler = {}, options
  end
  if type(pattern) ~= "string" then
    error("a route needs a pattern, such as \"/users/{id}\"", level + 1)
  elseif type(handler) ~= "function" then
    error("a route needs a handler: a function(req)", level + 1)
  end
  check_options(options, level + 1)
  local where = caller(level + 1)
  local run = late(group, checked(list_checks(options, where), handler))
  native.route(method, group.prefix .. pattern, where, options, run)
end

local function methods_of(group)
  for _, name in ipairs { "get", "post", "put", "patch", "delete" } do
    local method = name:upper()
    group[name] = function(pattern, options, handler)
      register(group, method, pattern, options, handler, 2)
    end
  end
  function group.route(method, pattern, options, handler)
    if type(method) ~= "string" or method == "" then
      error("a route needs a method, such as \"GET\"", 2)
    end
    register(group, method:upper(), pattern, options, handler, 2)
  end
  function group.use(middleware)
    if type(middleware) ~= "function" then
      error("middleware must be a function(req, next)", 2)
    end
    table.insert(group.middleware, middleware)
  end
  return group
end

local function new_group(parent, prefix, middleware)
  return methods_of(setmetatable({ parent = parent, prefix = prefix, middleware = middleware }, Group))
end

local app = new_group(nil, "", {})

function app.group(prefix, ...)
  if type(prefix) ~= "string" or prefix:sub(1, 1) ~= "/" then
    error("a group needs a prefix, such as \"/admin\"", 2)
  end
  return new_group(app, prefix, { ... })
end

app.fail = native.fail
app.log = native.log
app.db = database
app.json = json

return app
