local support = require "spec.support"

local shell = support.shell

local function moonpool(...)
  return shell.run(shell.join { support.environment.binary(), ... })
end

describe("moonpool", function()
  it("without a command or with --help says what there is", function()
    for _, words in ipairs { { "--help" }, { "help" }, {} } do
      local output, code = moonpool(table.unpack(words))
      assert.equal(0, code, output)
      for _, command in ipairs { "serve", "migrate", "check", "routes", "test", "version" } do
        assert.matches(command, output)
      end
    end
  end)

  it("serve --help lists flags and variables", function()
    local output, code = moonpool("serve", "--help")
    assert.equal(0, code, output)
    for _, word in ipairs {
      "--database", "DATABASE_URL", "--listen", "MOONPOOL_LISTEN", "--admin-listen", "MOONPOOL_ADMIN_LISTEN",
      "--workers", "MOONPOOL_WORKERS", "--pool-max", "MOONPOOL_POOL_MAX", "--deadline", "MOONPOOL_DEADLINE",
      "--scripts", "MOONPOOL_SCRIPTS", "--sql", "MOONPOOL_SQL", "--log", "MOONPOOL_LOG", "--body-limit",
    } do
      assert.is_not_nil(output:find(word, 1, true), word .. " is not mentioned")
    end
  end)

  it("version prints one", function()
    local output, code = moonpool("version")
    assert.equal(0, code)
    assert.matches("%d+%.%d+%.%d+", output)
  end)

  for _, case in ipairs {
    { words = { "serve", "--no-such-flag" }, mentions = "no-such-flag" },
    { words = { "fly" }, mentions = "fly" },
    { words = { "serve", "--workers", "many" }, mentions = "--workers" },
    { words = { "serve", "--workers", "0" }, mentions = "--workers" },
    { words = { "serve", "--pool-max", "-1" }, mentions = "--pool-max" },
    { words = { "serve", "--deadline", "soon" }, mentions = "--deadline" },
    { words = { "serve", "--body-limit", "big" }, mentions = "--body-limit" },
    { words = { "serve", "--log", "xml" }, mentions = "--log" },
    { words = { "serve", "--listen" }, mentions = "listen" },
  } do
    it(("refuses %q and names what is wrong"):format(table.concat(case.words, " ")), function()
      local output, code = moonpool(table.unpack(case.words))
      assert.equal(2, code, output)
      assert.is_not_nil(output:find(case.mentions, 1, true), output)
    end)
  end

  it("refuses a wrong variable by its name", function()
    local output, code = shell.run("MOONPOOL_WORKERS=some " .. shell.quote(support.environment.binary()) .. " serve")
    assert.equal(2, code, output)
    assert.matches("MOONPOOL_WORKERS", output)
  end)
end)

describe("moonpool serve ends with 1", function()
  local server

  before_each(function() server = support.server.prepare() end)
  after_each(function() server:stop() end)

  local function serve(...)
    return server:run("serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", ...)
  end

  it("for a script with a syntax error, and says where", function()
    server:write("scripts/broken.lua", "local x = 1\nlocal y = = 2\n")
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("scripts/broken%.lua:2", output)
  end)

  it("for a script that raises while it loads, and says where", function()
    server:write("scripts/broken.lua", "\n\nerror('not today')\n")
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("scripts/broken%.lua:3", output)
    assert.matches("not today", output)
  end)

  it("for a misspelt column, and says where", function()
    server:write("sql/broken.sql", "-- name: broken :many\nselect id, user_name\nfrom users;\n")
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("sql/broken%.sql:%d", output)
    assert.matches("user_name", output)
  end)

  it("for two columns of the same name, and says where", function()
    server:write("sql/broken.sql", "\n-- name: broken :many\nselect u.id, p.id from users u, users p;\n")
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("sql/broken%.sql:2", output)
    assert.matches("two columns are named .?\"id", output)
  end)

  it("for a statement that would end a transaction, and says where", function()
    server:write("sql/broken.sql", "\n-- name: finish :exec\ncommit;\n")
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("sql/broken%.sql:2", output)
    assert.matches("finish would end a transaction", output)
  end)

  it("for a malformed statement file, and says where", function()
    server:write("sql/broken.sql", "select 1;\n-- name: broken :many\nselect 1;\n")
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("sql/broken%.sql:1", output)
  end)

  it("for two routes of one method and path, and names both places", function()
    server:write("scripts/twice.lua", [[
      local app = require "moonpool"
      app.get("/users", function() end)
    ]])
    local output, code = serve()
    assert.equal(1, code, output)
    assert.matches("scripts/twice%.lua:2", output)
    assert.matches("scripts/users%.lua:%d", output)
  end)

  it("for a folder that is not there", function()
    local output, code = serve("--scripts", "nowhere")
    assert.equal(1, code, output)
    assert.matches("nowhere", output)
  end)
end)

describe("a port that is in use", function()
  local server

  setup(function() server = support.server.start() end)
  teardown(function() server:stop() end)

  it("is named, and the second server ends with 1", function()
    local address = server.url:match("//(.*)$")
    local output, code = server:run("serve", "--listen", address, "--admin-listen", "127.0.0.1:0")
    assert.equal(1, code, output)
    assert.is_not_nil(output:find(address:match(":%d+$"), 1, true), output)
    assert.equal(200, server:get("/users").status)
  end)

  it("of the admin listener is named too", function()
    local address = server.admin_url:match("//(.*)$")
    local output, code = server:run("serve", "--listen", "127.0.0.1:0", "--admin-listen", address)
    assert.equal(1, code, output)
    assert.is_not_nil(output:find(address:match(":%d+$"), 1, true), output)
  end)
end)

describe("moonpool check", function()
  local server

  before_each(function() server = support.server.prepare() end)
  after_each(function() server:stop() end)

  it("ends with 0 when all is well", function()
    local output, code = server:run("check")
    assert.equal(0, code, output)
  end)

  it("as serve --check does", function()
    local output, code = server:run("serve", "--check")
    assert.equal(0, code, output)
  end)

  it("ends with 1 and says where it is not", function()
    server:write("sql/broken.sql", "-- name: broken :one\nselect no_column from users;\n")
    local output, code = server:run("check")
    assert.equal(1, code, output)
    assert.matches("sql/broken%.sql:%d", output)
  end)

  it("is told apart from moonpool routes, which lists the routes", function()
    local output, code = server:run("routes")
    assert.equal(0, code, output)
    assert.matches("POST%s+/users%s", output)
    assert.matches("GET%s+/users/{id}", output)
    assert.matches("scripts/users%.lua:%d+", output)
  end)
end)
