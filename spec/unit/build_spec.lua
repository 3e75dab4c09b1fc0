-- How ./dev sets up its build folders: here for a project of nothing.
local cjson = require "cjson"

local support = require "spec.support"

local shell = support.shell

local SETUP = [[
root=$PWD
source "$1/tools/common.bash"
source "$1/tools/build.bash"
shift
setup_in build "$@"
]]

describe("a build folder", function()
  local folder

  local function setup_in(...)
    return shell.must("cd " .. shell.quote(folder) .. " && "
      .. shell.join { "bash", "-euc", SETUP, "setup", support.environment.root(), ... })
  end

  local function option(name)
    local output = shell.must("meson introspect --buildoptions " .. shell.quote(folder .. "/build"))
    for _, each in ipairs(cjson.decode(output)) do
      if each.name == name then
        return each.value
      end
    end
  end

  before_each(function()
    folder = shell.folder()
    shell.write(folder .. "/meson.build", "project('nothing')\n")
    setup_in("--buildtype=release", "-Dwerror=true")
  end)
  after_each(function() shell.must("rm -rf " .. shell.quote(folder)) end)

  it("has the options that are named", function()
    assert.equal("release", option("buildtype"))
    assert.is_true(option("werror"))
  end)

  it("stays as it is while they are the same", function()
    assert.equal("", setup_in("--buildtype=release", "-Dwerror=true"))
  end)

  it("has no option any more that is not named any more", function()
    setup_in("--buildtype=debug")
    assert.equal("debug", option("buildtype"))
    assert.is_false(option("werror"))
  end)

  it("keeps what somebody else has put there", function()
    shell.write(folder .. "/build/corpus/input", "learnt")
    setup_in("--buildtype=debug")
    assert.equal("learnt", shell.read(folder .. "/build/corpus/input"))
  end)

  it("that has moved with its checkout is set up anew", function()
    local old = folder
    folder = folder .. "-moved"
    assert(os.rename(old, folder))
    setup_in("--buildtype=release", "-Dwerror=true")
    assert.equal(0, select(2, shell.run("ninja -C " .. shell.quote(folder .. "/build"))))
    assert.is_true(option("werror"))
  end)
end)
