-- Output of the specs: a line per file with a mark per test, and each failure below its file. -Xoutput
-- names where files go that outlive a run which hangs or crashes: NAME.counts has the counts so far,
-- "passed failed skipped", and the name of the test that runs; NAME.fault.N.message has the Nth failure,
-- and NAME.fault.N.logs what the servers of the spec had logged by then.

local pretty = require "pl.pretty"

local MARKS = { success = ".", pending = "p", failure = "F", error = "E" }

-- Where in a spec it happened, and from where that was called; otherwise where it happened at all.
local function places_of(trace)
  local places = {}
  for place in (trace.traceback or ""):gmatch("[%w_/%.]+_spec%.lua:%d+") do
    if place ~= places[#places] then
      places[#places + 1] = place
    end
  end
  if #places == 0 then
    places[1] = ("%s:%s"):format(trace.short_src or "?", trace.currentline or "?")
  end
  return table.concat(places, " < ")
end

local function describe_fault(kind, fault)
  local message = fault.message or "no message"
  if type(message) ~= "string" then
    message = pretty.write(message)
  end
  return ("%s: %s\n  at %s\n  %s\n"):format(kind, fault.name, places_of(fault.trace or {}),
    (message:gsub("\n", "\n  ")))
end

-- What the servers of this spec have logged, as far as spec.support has started any.
local function server_logs()
  local server = package.loaded["spec.support.server"]
  return server and server.logs() or ""
end

local function write_file(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local name = options.arguments[1]
  local faults, shown = {}, 0

  local function write(...)
    io.stdout:write(...)
    io.stdout:flush()
  end

  -- Writes a fault down while the servers still run.
  local function note(kind, ...)
    faults[#faults + 1] = describe_fault(kind, handler.format(...))
    local path = ("%s.fault.%d"):format(name, #faults)
    write_file(path .. ".message", faults[#faults])
    write_file(path .. ".logs", server_logs())
    return nil, true
  end

  -- Shows the faults that are new since the last call.
  local function show_new_faults()
    for i = shown + 1, #faults do
      write("\n  ", (faults[i]:gsub("\n", "\n  ")))
    end
    shown = #faults
  end

  local function save(running)
    write_file(name .. ".counts", ("%d %d %d\n%s\n"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount, handler.pendingsCount, running))
  end

  local function file_start(file)
    write("  ", file.name, " ")
    return nil, true
  end

  local function file_end()
    write("\n")
    show_new_faults()
    return nil, true
  end

  local function test_start(test)
    save(handler.getFullName(test))
    return nil, true
  end

  local function test_end(_, _, status)
    write(MARKS[status] or "?")
    return nil, true
  end

  local function suite_end()
    show_new_faults()
    save("")
    return nil, true
  end

  busted.subscribe({ "failure" }, function(...) return note("failed", ...) end)
  busted.subscribe({ "error" }, function(...) return note("error", ...) end)
  busted.subscribe({ "file", "start" }, file_start)
  busted.subscribe({ "file", "end" }, file_end)
  busted.subscribe({ "test", "start" }, test_start, { predicate = handler.cancelOnPending })
  busted.subscribe({ "test", "end" }, test_end, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, suite_end)

  return handler
end
