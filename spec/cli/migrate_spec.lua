local support = require "spec.support"

local LOCK_KEY = 7885643992672464748 -- of those who migrate a database

describe("moonpool migrate", function()
  local server

  before_each(function()
    server = support.server.prepare { migrate = false }
    server:write("sql/migrations/0800_first.sql", "create table first (id integer);\n")
    server:write("sql/migrations/0801_second.sql",
      "create table second (id integer);\ninsert into second values (1);\n")
  end)
  after_each(function() server:stop() end)

  local function migrate()
    return server:run("migrate")
  end

  local function must_migrate()
    local output, code = migrate()
    assert.equal(0, code, output)
    return output
  end

  local function recorded()
    return server.db:value("select coalesce(max(version), 0) from moonpool_migrations")
  end

  it("applies what is missing, in order, and says so", function()
    local output = must_migrate()
    assert.matches("0800_first%.sql.*0801_second%.sql", output)
    assert.equal(0, server.db:count("first"))
    assert.equal(1, server.db:count("second"))
    assert.equal(801, recorded())
  end)

  it("makes the sample application's schema", function()
    must_migrate()
    local columns = server.db:exec([[
      select string_agg(format('%s.%s %s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
                               a.attnotnull, coalesce(pg_get_expr(d.adbin, d.adrelid), '-')), E'\n'
                        order by c.relname, a.attnum)
      from pg_class c
      join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
      left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
      where c.oid in ('users'::regclass, 'user_profile'::regclass, 'actions'::regclass)]])
    assert.equal(table.concat({
      "actions.id integer t nextval('actions_id_seq'::regclass)",
      "actions.description text t -",
      "actions.created timestamp(0) with time zone t CURRENT_TIMESTAMP",
      "user_profile.user_id integer t -",
      "user_profile.firstname character varying(100) t -",
      "user_profile.lastname character varying(100) t -",
      "users.id integer t nextval('users_id_seq'::regclass)",
      "users.username character varying(100) t -",
      "users.score numeric t 0",
      "users.created timestamp(0) with time zone t CURRENT_TIMESTAMP",
      "users.updated timestamp(0) with time zone f -",
    }, "\n"), columns)
  end)

  it("does nothing the second time", function()
    must_migrate()
    local output = must_migrate()
    assert.is_nil(output:find("0801_second", 1, true))
    assert.equal(1, server.db:count("second"))
  end)

  it("applies what came later", function()
    must_migrate()
    server:write("sql/migrations/0802_third.sql", "create table third (id integer);\n")
    assert.matches("0802_third%.sql", must_migrate())
    assert.equal(802, recorded())
  end)

  it("refuses a file that was changed after it was applied, and names it", function()
    must_migrate()
    server:write("sql/migrations/0801_second.sql", "create table second (id bigint);\n")
    local output, code = migrate()
    assert.equal(1, code)
    assert.matches("0801_second%.sql", output)
  end)

  it("names the file and line that fail, and leaves nothing of that file", function()
    server:write("sql/migrations/0802_third.sql", "create table third (id integer);\nselect no_such_column;\n")
    local output, code = migrate()
    assert.equal(1, code)
    assert.matches("0802_third%.sql:2", output)
    assert.matches("no_such_column", output)
    assert.equal(801, recorded())
    assert.equal(0, server.db:value("select count(*) from pg_class where relname = 'third'"))
  end)

  it("refuses two files of one number", function()
    server:write("sql/migrations/0801_other.sql", "create table other (id integer);\n")
    local output, code = migrate()
    assert.equal(1, code)
    assert.matches("0801_", output)
  end)

  it("refuses a file whose number is not a number", function()
    server:write("sql/migrations/later.sql", "create table later (id integer);\n")
    local output, code = migrate()
    assert.equal(1, code)
    assert.matches("later%.sql", output)
  end)

  it("refuses a file that ends the transaction it runs in", function()
    server:write("sql/migrations/0802_third.sql", "create table third (id integer);\ncommit;\n")
    local output, code = migrate()
    assert.equal(1, code)
    assert.matches("0802_third%.sql", output)
  end)

  it("run twice at once applies each file once", function()
    local command = "cd " .. support.shell.quote(server.folder) .. " && "
      .. support.shell.join(server:words("migrate"))
    support.shell.must(("( %s ) & ( %s ) & wait"):format(command, command))
    assert.equal(801, recorded())
    assert.equal(1, server.db:count("second"))
    must_migrate()
  end)

  it("says that it waits for another migration, and goes on when that has ended", function()
    local other = server.db:session()
    other:exec(("select pg_advisory_lock(%d)"):format(LOCK_KEY))
    local process = support.shell.start(server:words("migrate"), server.folder, "migrate")
    support.eventually("a word", function()
      local log = support.shell.read(server.folder .. "/migrate.log") or ""
      return log:find(" info main: waiting for another migration to end", 1, true)
    end)
    assert.is_nil(process:exit_code())
    other:close()
    assert.equal(0, process:wait())
    assert.equal(801, recorded())
  end)

  it("passes on what the database warns of, but not what it notes", function()
    server:write("sql/migrations/0802_loud.sql",
      "do $$ begin raise warning 'careful'; raise notice 'by the way'; end $$;\n")
    local output = must_migrate()
    assert.is_truthy(output:find(" warn main: the database warns message=careful\n", 1, true), output)
    assert.is_nil(output:find("by the way", 1, true))
  end)
end)

describe("moonpool migrate without a database", function()
  it("ends with 1 and does not print the password", function()
    local server = support.server.prepare {
      migrate = false, database = "postgresql://someone:geheim@127.0.0.1:1/nowhere",
    }
    finally(function() server:stop() end)
    local output, code = server:run("migrate")
    assert.equal(1, code, output)
    assert.is_nil(output:find("geheim", 1, true))
    assert.matches("127%.0%.0%.1", output)
  end)
end)
