-- Output of the specs: a line per file with a mark per test, and each failure below its file. The file
-- that -Xoutput names has the counts so far, "passed failed skipped", and the name of the test that
-- runs, so that a run which hangs or crashes tells how far it came.

local pretty = require "pl.pretty"

local MARKS = { success = ".", pending = "p", failure = "F", error = "E" }

return function(options)
  local busted = require "busted"
  local handler = require "busted.outputHandlers.base"()
  local counts_path = options.arguments[1]
  local shown = { failures = 0, errors = 0 }

  local function write(...)
    io.stdout:write(...)
    io.stdout:flush()
  end

  local function show(kind, fault)
    local trace = fault.trace or {}
    local message = fault.message or "no message"
    if type(message) ~= "string" then
      message = pretty.write(message)
    end
    write(("\n  %s: %s\n    %s:%s\n    %s\n"):format(
      kind, fault.name, trace.short_src or "?", trace.currentline or "?", (message:gsub("\n", "\n    "))))
  end

  -- Shows the faults that are new since the last call.
  local function show_new_faults()
    for i = shown.failures + 1, #handler.failures do
      show("failed", handler.failures[i])
    end
    for i = shown.errors + 1, #handler.errors do
      show("error", handler.errors[i])
    end
    shown.failures, shown.errors = #handler.failures, #handler.errors
  end

  local function save(running)
    local file = assert(io.open(counts_path, "w"))
    file:write(("%d %d %d\n%s\n"):format(handler.successesCount,
      handler.failuresCount + handler.errorsCount, handler.pendingsCount, running))
    file:close()
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

  busted.subscribe({ "file", "start" }, file_start)
  busted.subscribe({ "file", "end" }, file_end)
  busted.subscribe({ "test", "start" }, test_start, { predicate = handler.cancelOnPending })
  busted.subscribe({ "test", "end" }, test_end, { predicate = handler.cancelOnPending })
  busted.subscribe({ "suite", "end" }, suite_end)

  return handler
end
