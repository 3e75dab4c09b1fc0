/* The vm: what scripts may reach, what they may use up, and how what runs too long is ended. */
#include "vm.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>

#include "deadline.h"
#include "error.h"
#include "log.h"
#include "source.h"
#include "test.h"

enum { MEMORY_LIMIT = 32 * 1024 * 1024 };

#define RUN_TIME MILLISECONDS(60) /* the deadline of code that never ends */
#define PATIENCE SECONDS(10)      /* a test takes longer only if something is stuck */

/* ---- helpers ---- */

/* What the C functions below give to Lua in place of a database. */
static int arrive(lua_State *L, int status, lua_KContext context)
{
    lua_pushinteger(L, context * 10);
    return 1;
}

/* wait(n): waits, then returns n * 10. */
static int wait_for(lua_State *L)
{
    return vm_wait(L, arrive, luaL_checkinteger(L, 1));
}

static int returns_resumed_with(lua_State *L, int status, lua_KContext context)
{
    return lua_gettop(L);
}

/* wait_value(): waits, then returns what the scheduler resumed with. */
static int wait_value(lua_State *L)
{
    lua_settop(L, 0);
    return vm_wait(L, returns_resumed_with, 0);
}

static int close_object(lua_State *L)
{
    return 0;
}

/* object(): a userdata as the bindings make them. */
static int make_object(lua_State *L)
{
    lua_newuserdatauv(L, 1, 0);
    if (luaL_newmetatable(L, "object")) {
        lua_pushcfunction(L, close_object);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    return 1;
}

static struct vm *make_vm(void)
{
    struct error err;
    struct vm *vm = vm_create(MEMORY_LIMIT, &err);
    lua_register(vm->lua, "wait", wait_for);
    lua_register(vm->lua, "wait_value", wait_value);
    lua_register(vm->lua, "object", make_object);
    return vm;
}

/* A new thread, anchored on the main stack, with the function of `text` on its stack. */
static lua_State *start(struct vm *vm, const char *text)
{
    lua_State *thread = lua_newthread(vm->lua);
    if (luaL_loadbufferx(thread, text, strlen(text), "@scripts/test.lua", "t") != LUA_OK) {
        printf("Bail out! %s\n", lua_tostring(thread, -1));
        exit(1);
    }
    return thread;
}

/* How running text to its end went. */
struct run {
    enum vm_outcome outcome;
    int waits;
    int preemptions;
    char result[512]; /* the first value returned, or the message, as text */
    struct error err;
};

static const char *const outcome_names[] = {"finished", "waiting", "preempted", "failed",
                                            "expired"};

/* Resumes until it ends, whatever it waits for or how often it is preempted. */
static struct run run_thread(struct vm *vm, lua_State *thread, uint64_t deadline)
{
    struct run run = {0};
    int count = 0;
    do {
        run.outcome = vm_resume(vm, thread, 0, deadline, &count);
        run.waits += run.outcome == VM_WAITING;
        run.preemptions += run.outcome == VM_PREEMPTED;
    } while (run.outcome == VM_WAITING || run.outcome == VM_PREEMPTED);
    if (run.outcome == VM_FINISHED && count > 0) {
        snprintf(run.result, sizeof run.result, "%s", luaL_tolstring(thread, -count, NULL));
        lua_pop(thread, 1);
    } else if (run.outcome == VM_FAILED) {
        vm_error(thread, &run.err, NULL, 0);
        snprintf(run.result, sizeof run.result, "%s", run.err.message);
    }
    return run;
}

/* The same in a vm of its own, with a generous deadline. */
static struct run run_text(const char *text)
{
    struct vm *vm = make_vm();
    struct run run = run_thread(vm, start(vm, text), clock_now() + PATIENCE);
    vm_destroy(vm);
    return run;
}

/* ---- a source in a folder ---- */

struct folder {
    char path[64];
    struct source *source; /* owned */
};

static void folder_open(struct folder *folder)
{
    snprintf(folder->path, sizeof folder->path, "/tmp/moonpool-test-vm-XXXXXX");
    if (!mkdtemp(folder->path) || chdir(folder->path)) {
        exit(1);
    }
    mkdir("scripts", 0700);
    mkdir("scripts/lib", 0700);
    mkdir("sql", 0700);
    folder->source = calloc(1, sizeof *folder->source);
}

static void folder_close(struct folder *folder)
{
    static const char *const files[] = {"a", "b", "c", "lib/money", "lib/init", "users"};
    char path[64];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "scripts/%s.lua", files[i]);
        unlink(path);
    }
    rmdir("scripts/lib");
    rmdir("scripts");
    rmdir("sql");
    if (chdir("/") == 0) {
        rmdir(folder->path);
    }
    free(folder->source);
}

static void folder_write(const char *name, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "scripts/%s.lua", name);
    FILE *file = fopen(path, "w");
    fputs(text, file);
    fclose(file);
}

static int load_folder(struct vm *vm, struct folder *folder, uint64_t deadline, struct error *err)
{
    if (source_read(folder->source, "scripts", "sql", err)) {
        return -1;
    }
    return vm_load(vm, folder->source, deadline, err);
}

/* ---- the library ---- */

static void test_sandbox(void)
{
    static const char *const removed[] = {
        "dofile",
        "loadfile",
        "warn",
        "io",
        "package",
        "string.dump",
        "os.execute",
        "os.exit",
        "os.getenv",
        "os.remove",
        "os.rename",
        "os.tmpname",
        "os.setlocale",
        "debug.sethook",
        "debug.getregistry",
        "debug.setmetatable",
        "debug.getinfo",
        "debug.setupvalue",
    };
    static const char *const kept[] = {
        "os.time",    "os.date",    "os.clock",   "os.difftime", "debug.traceback",
        "string.rep", "table.sort", "math.floor", "utf8.char",   "coroutine.wrap",
        "require",    "load",       "print",      "pcall",       "xpcall",
    };
    char text[128];
    for (size_t i = 0; i < sizeof removed / sizeof *removed; i++) {
        snprintf(text, sizeof text, "return %s", removed[i]);
        check_text(run_text(text).result, "nil", "scripts do not have %s", removed[i]);
    }
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        snprintf(text, sizeof text, "return type(%s)", kept[i]);
        check_text(run_text(text).result, "function", "scripts have %s", kept[i]);
    }
}

struct row {
    const char *name;
    const char *text;
    const char *expected; /* the first value returned, or the message of the error */
};

static void check_rows(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        check_text(run_text(rows[i].text).result, rows[i].expected, "%s", rows[i].name);
    }
}

#define CHECK_ROWS(rows) check_rows(rows, sizeof(rows) / sizeof *(rows))

static const struct row library_rows[] = {
    {"load runs text", "return load('return 1 + 1')()", "2"},
    {"load takes an environment", "return load('return x', 'n', 't', {x = 5})()", "5"},
    {"load takes a function",
     "local t = {'return', ' 7'}; local i = 0\n"
     "return load(function() i = i + 1; return t[i] end)()",
     "7"},
    {"load refuses bytecode", "return (select(2, load('\\27Lua', 'b', 'b')))",
     "attempt to load a binary chunk (mode is 't')"},
    {"collectgarbage counts", "return collectgarbage('count') > 10", "true"},
    {"collectgarbage collects nothing", "collectgarbage()",
     "bad argument #1 to 'collectgarbage' (invalid option 'collect')"},
    {"setmetatable works", "return setmetatable({}, {__index = {a = 3}}).a", "3"},
    {"setmetatable takes nil", "return getmetatable(setmetatable({}, nil))", "nil"},
    {"setmetatable refuses finalizers",
     "setmetatable({}, {__gc = function() while true do end end})",
     "scripts cannot use __gc: close with a <close> variable instead"},
    {"setmetatable refuses a placeholder for a finalizer", "setmetatable({}, {__gc = false})",
     "scripts cannot use __gc: close with a <close> variable instead"},
    {"setmetatable respects __metatable", "setmetatable(setmetatable({}, {__metatable = 1}), {})",
     "cannot change a protected metatable"},
    {"getmetatable shows a table's", "local m = {}; return getmetatable(setmetatable({}, m)) == m",
     "true"},
    {"getmetatable shows the strings'", "return getmetatable('').__index == string", "true"},
    {"getmetatable hides an object's", "return getmetatable(object())", "false"},
    {"xpcall returns results",
     "return select('#', xpcall(function(...) return ... end, print, 1, 2))", "3"},
    {"xpcall calls the handler",
     "return (select(2, xpcall(error, function(e) return 'was ' .. e end, 'x', 0)))", "was x"},
    {"xpcall lets waiting through", "return (select(2, xpcall(wait, print, 4)))", "40"},
    {"xpcall catches what is raised after waiting",
     "return (select(2, xpcall(function() wait(1); error('late', 0) end, "
     "function(e) return e .. '!' end)))",
     "late!"},
    {"cjson is at hand", "return require('cjson').encode({1, 2})", "[1,2]"},
    {"load takes a long text", "return load('x = 1 ' .. ('x = x + 1 '):rep(50000) .. 'return x')()",
     "50001"},
    {"cjson does not take what doubles at each level",
     "local t = {} for _ = 1, 100 do t = {t, t} end return require('cjson').encode(t)",
     "cjson takes at most 4 MB, because it cannot be interrupted: use json"},
    {"cjson does not take a long text",
     "return require('cjson').new().decode('[' .. ('1,'):rep(3e6) .. '1]')",
     "cjson takes at most 4 MB, because it cannot be interrupted: use json"},
    {"cjson fills no huge holes",
     "local c = require('cjson') c.encode_sparse_array(true, 0, 0) return c.encode({[1 << 30] = "
     "1})",
     "cjson takes at most 4 MB, because it cannot be interrupted: use json"},
    {"cjson decodes", "local t = require('cjson').decode('{\"a\": [1, 2]}') return #t.a", "2"},
    {"modules are not searched while serving", "require 'nowhere'",
     "module 'nowhere' is not loaded: modules are loaded at start, so require it at the top of a "
     "script"},
    {"standard modules can be required", "return require('string') == string", "true"},
};

static void test_random(void)
{
    static const char text[] = "return math.random(0)";
    struct run first = run_text(text), second = run_text(text);
    check(strcmp(first.result, second.result) != 0, "two states draw different random numbers");
}

/* ---- memory ---- */

/* Megabytes that Lua counts after a script has made so many, all of them garbage, and a tidy. */
static int tidied(struct vm *vm, int megabytes)
{
    lua_gc(vm->lua, LUA_GCSTOP);
    for (int i = 0; i < megabytes; i++) {
        lua_newuserdatauv(vm->lua, 1024 * 1024, 0);
        lua_pop(vm->lua, 1);
    }
    vm_tidy(vm);
    int left = lua_gc(vm->lua, LUA_GCCOUNT) / 1024;
    lua_gc(vm->lua, LUA_GCRESTART);
    return left;
}

/* To collect a huge heap at once would keep a worker from what comes next. */
static void test_tidy(void)
{
    struct error err;
    struct vm *vm = vm_create((size_t)200 * 1024 * 1024, &err);
    check(tidied(vm, 40) < 4, "garbage is tidied up");
    check(tidied(vm, 80) >= 80, "but for very much of it");
    vm_destroy(vm);
}

static void test_memory(void)
{
    static const char *const bombs[] = {
        "local t = {}; while true do t[#t + 1] = {} end",
        "return #('x'):rep(1 << 29)",
        "local s = 'x'; while true do s = s .. s end",
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.create(print) end",
        "return (('x'):rep(1e6)):gsub('x', ('y'):rep(100))",
        "return table.concat({('x'):rep(1e7)}, ('y'):rep(1e7), 1, 1) .. ('x'):rep(2e7)",
        "local function f() return f() + 1 end; local t = {} for i = 1, 1e9 do t[i] = i end",
    };
    struct vm *vm = make_vm();
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        lua_State *thread = start(vm, bombs[i]);
        struct run run = run_thread(vm, thread, clock_now() + PATIENCE);
        check(run.outcome == VM_FAILED && run.err.code == ERROR_MEMORY,
              "bomb %zu runs out of memory", i + 1);
        check(vm->memory <= MEMORY_LIMIT, "bomb %zu stays under the limit", i + 1);
        check(vm_reset_thread(vm, thread), "the thread of bomb %zu can be reused", i + 1);
        lua_settop(vm->lua, 0);
        run = run_thread(vm, start(vm, "return #('x'):rep(1 << 22)"), clock_now() + PATIENCE);
        check_text(run.result, "4194304", "there is memory for the next after bomb %zu", i + 1);
    }
    struct run run =
        run_thread(vm, start(vm, "return #('x'):rep(1 << 20)"), clock_now() + PATIENCE);
    check_text(run.result, "1048576", "a vm goes on after its memory was used up");
    vm_destroy(vm);
    check_text(run_text("return pcall(string.rep, 'x', 1 << 29)").result, "false",
               "a script can catch the error of memory");
    struct error err;
    check(!vm_create(4096, &err) && err.code == ERROR_MEMORY, "a tiny limit is an error");
}

/* Garbage of one request is no reason to refuse the next what it needs. */
static void test_room(void)
{
    static const char filling[] =
        "local t = {}\n"
        "while collectgarbage('count') < 29 * 1024 do t[#t + 1] = ('x'):rep(1e5) .. #t end\n"
        "error 'full'";
    struct vm *vm = make_vm();
    for (int i = 0; i < 3; i++) {
        run_thread(vm, start(vm, filling), clock_now() + PATIENCE);
        lua_settop(vm->lua, 0);
        struct run run =
            run_thread(vm, start(vm, "return #('x'):rep(1 << 22)"), clock_now() + PATIENCE);
        check_text(run.result, "4194304", "there is room after a request that filled the memory");
    }
    vm_destroy(vm);
}

/* ---- modules ---- */

static void test_load(void)
{
    struct folder folder;
    struct error err;
    struct vm *vm = make_vm();
    folder_open(&folder);
    folder_write("users", "runs = (runs or 0) + 1; return { money = require 'lib.money' }");
    folder_write("a", "local u = require 'users'; result = u.money.cents(2) .. require('lib') "
                      ".. require('greeting') .. select('#', ...) .. select(2, ...)");
    folder_write("lib/money", "return { cents = function(n) return n * 100 end }");
    folder_write("lib/init", "return '+'");
    vm_preload_lua(vm, "greeting", "return 'hello'", 14);
    check_int(load_folder(vm, &folder, clock_now() + PATIENCE, &err), 0, "scripts load");
    lua_getglobal(vm->lua, "result");
    check_text(lua_tostring(vm->lua, -1), "200+hello2scripts/a.lua", "modules find each other");
    lua_getglobal(vm->lua, "runs");
    check_int(lua_tointeger(vm->lua, -1), 1, "a script runs once, required or not");
    struct run run =
        run_thread(vm, start(vm, "return require('lib.money').cents(1)"), clock_now() + PATIENCE);
    check_text(run.result, "100", "a loaded module can be required while serving");
    vm_destroy(vm);
    folder_close(&folder);
}

struct load_row {
    const char *name;
    const char *a, *b; /* texts of scripts/a.lua and scripts/b.lua */
    const char *message, *where;
};

static const struct load_row load_rows[] = {
    {"a syntax error", "local x = 1\nlocal = 2", "", "<name> expected near '='", "scripts/a.lua:2"},
    {"an error at the top level", "\n\nerror 'boom'", "", "boom", "scripts/a.lua:3"},
    {"an error in a required module", "require 'b'", "\nlocal x = nil + 1",
     "attempt to perform arithmetic on a nil value", "scripts/b.lua:2"},
    {"a module that is not there", "\nrequire 'lib.nothing'", "",
     "module 'lib.nothing' not found: there is no script lib/nothing.lua or lib/nothing/init.lua",
     "scripts/a.lua:2"},
    {"a name with a slash", "require 'lib/money'", "",
     "module 'lib/money' not found: write '.' between folders, not '/'", "scripts/a.lua:1"},
    {"a cycle", "require 'b'", "\nrequire 'a'", "modules require each other: a -> b -> a",
     "scripts/b.lua:2"},
    {"a cycle of one", "require 'a'", "", "modules require each other: a -> a", "scripts/a.lua:1"},
    {"a caught failure is not a cycle", "pcall(require, 'b'); require 'b'", "error 'again'",
     "again", "scripts/b.lua:1"},
    {"bytecode", "\033Lua", "", "attempt to load a binary chunk (mode is 't')", ""},
    {"waiting while loading", "wait(1)", "",
     "cannot wait for the database while the scripts are being loaded", "scripts/a.lua:1"},
    {"an error that is a table", "error { message = 'told' }", "", "told", ""},
    {"a script that does not end", "while true do end", "", "the deadline passed",
     "scripts/a.lua:1"},
    {"a script that catches its end", "while true do pcall(function() while true do end end) end",
     "", "the deadline passed", "scripts/a.lua:1"},
    {"a script whose handler does not end",
     "local function f() while true do end end xpcall(f, f) f()", "", "the deadline passed",
     "scripts/a.lua:1"},
};

static void test_load_errors(void)
{
    struct folder folder;
    struct error err;
    folder_open(&folder);
    for (size_t i = 0; i < sizeof load_rows / sizeof *load_rows; i++) {
        const struct load_row *row = &load_rows[i];
        struct vm *vm = make_vm();
        memset(&err, 0, sizeof err);
        folder_write("a", row->a);
        folder_write("b", row->b);
        check_int(load_folder(vm, &folder, clock_now() + RUN_TIME, &err), -1, "%s is an error",
                  row->name);
        check_int(err.code, ERROR_SCRIPT, "%s has its code", row->name);
        check_text(err.message, row->message, "%s says what", row->name);
        check_text(err.where, row->where, "%s says where", row->name);
        vm_destroy(vm);
    }
    folder_close(&folder);
}

/* ---- coroutines ---- */

static const struct row coroutine_rows[] = {
    {"values go in and out",
     "local co = coroutine.create(function(a) local b = coroutine.yield(a + 1); return b * 2 end)\n"
     "local _, x = coroutine.resume(co, 1); local _, y = coroutine.resume(co, 10)\n"
     "return x .. ' ' .. y .. ' ' .. coroutine.status(co)",
     "2 20 dead"},
    {"an error is returned by resume",
     "return (select(2, coroutine.resume(coroutine.create(function() error('x', 0) end))))", "x"},
    {"an error passes through wrap, with positions", "coroutine.wrap(function() error('x') end)()",
     "scripts/test.lua:1: x"},
    {"an error that is a table passes through wrap",
     "return select(2, pcall(coroutine.wrap(function() error({m = 'in'}) end))).m", "in"},
    {"a dead coroutine is not resumed",
     "local co = coroutine.create(function() end); coroutine.resume(co)\n"
     "return (select(2, coroutine.resume(co)))",
     "cannot resume dead coroutine"},
    {"a dead wrap raises", "local f = coroutine.wrap(function() end); f(); f()",
     "cannot resume dead coroutine"},
    {"the running one is not resumed", "return (select(2, coroutine.resume(coroutine.running())))",
     "cannot resume running coroutine"},
    {"statuses",
     "local outer; outer = coroutine.create(function()\n"
     "  local inner = coroutine.create(function() return coroutine.status(outer) end)\n"
     "  local s = coroutine.status(inner); local _, n = coroutine.resume(inner)\n"
     "  return s .. ' ' .. n .. ' ' .. coroutine.status(outer) end)\n"
     "return select(2, coroutine.resume(outer))",
     "suspended normal running"},
    {"yield outside a coroutine", "coroutine.yield()", "attempt to yield from outside a coroutine"},
    {"yield inside a sort",
     "return (select(2, coroutine.resume(coroutine.create(function()\n"
     "  table.sort({1, 2}, coroutine.yield) end))))",
     "attempt to yield across a C-call boundary"},
    {"running and isyieldable",
     "local function f() return tostring(select(2, coroutine.running())) ..\n"
     "  tostring(coroutine.isyieldable()) end\n"
     "return f() .. coroutine.wrap(function() return f() end)()",
     "truefalsefalsetrue"},
    {"close runs __close",
     "local log = ''; local co = coroutine.create(function()\n"
     "  local x <close> = setmetatable({}, {__close = function() log = log .. 'closed' end})\n"
     "  coroutine.yield() end)\n"
     "coroutine.resume(co); return tostring(coroutine.close(co)) .. log",
     "trueclosed"},
    {"close tells of an error",
     "local co = coroutine.create(function()\n"
     "  local x <close> = setmetatable({}, {__close = function() error('e', 0) end})\n"
     "  coroutine.yield() end)\n"
     "coroutine.resume(co); return (select(2, coroutine.close(co)))",
     "e"},
    {"wrap closes what an error leaves open",
     "local log = ''; pcall(coroutine.wrap(function()\n"
     "  local x <close> = setmetatable({}, {__close = function() log = log .. 'closed' end})\n"
     "  error('e') end)); return log",
     "closed"},
    {"endless nesting is an error",
     "local function f() local ok, e = coroutine.resume(coroutine.create(f)); return e end\n"
     "return type(f())",
     "string"},
    {"endless closing is an error",
     "local last; for i = 1, 5000 do local before = last\n"
     "  last = coroutine.create(function() local x <close> = setmetatable({}, {__close =\n"
     "    function() if before then coroutine.close(before) end end}) coroutine.yield() end)\n"
     "  coroutine.resume(last) end\n"
     "return type(coroutine.close(last))",
     "boolean"},
};

static const struct row wait_rows[] = {
    {"waiting", "return wait(1) + wait(2)", "30"},
    {"waiting in pcall", "return (select(2, pcall(wait, 3)))", "30"},
    {"waiting in a coroutine",
     "local co = coroutine.create(function(a) local b = wait(a); return coroutine.yield(b) + "
     "wait(2) "
     "end)\n"
     "local _, x = coroutine.resume(co, 1); local _, y = coroutine.resume(co, 5)\n"
     "return x .. ' ' .. y",
     "10 25"},
    {"waiting in the iterator of a loop",
     "local sum = 0; for v in coroutine.wrap(function() for i = 1, 3 do\n"
     "  coroutine.yield(wait(i)) end end) do sum = sum + v + wait(1) end; return sum",
     "90"},
    {"waiting three coroutines deep",
     "local function deep(n) if n == 0 then return wait(7) end\n"
     "  return coroutine.wrap(function() return deep(n - 1) end)() + wait(n) end\n"
     "return deep(3)",
     "130"},
    {"waiting in a metamethod of Lua code",
     "return setmetatable({}, {__index = function(_, k) return wait(k) end})[6]", "60"},
    {"waiting in a coroutine, then an error",
     "return (select(2, coroutine.resume(coroutine.create(function() wait(1); error('x', 0) "
     "end))))",
     "x"},
    {"waiting while a __close runs",
     "local r; do local x <close> = setmetatable({}, {__close = function() r = wait(2) end}) end\n"
     "return r",
     "20"},
    {"waiting in a sort", "table.sort({1, 2}, function() return wait(1) > 2 end)",
     "cannot wait for the database inside a callback of 'sort'"},
    {"waiting in gsub", "return (('x'):gsub('x', function() wait(1) end))",
     "cannot wait for the database inside a callback of 'gsub'"},
    {"waiting in a coroutine in a sort",
     "table.sort({1, 2}, function() return coroutine.wrap(function() return wait(1) end)() > 2 "
     "end)",
     "scripts/test.lua:1: cannot wait for the database inside a callback"},
};

static void test_wait_positions(void)
{
    struct run run = run_text("\ntable.sort({1, 2}, function()\n return wait(1) > 2 end)");
    check_text(run.err.where, "scripts/test.lua:3", "forbidden waiting is told with its line");
    run = run_text(
        "local t = {} for i = 1, 3 do t[i] = coroutine.wrap(function() return wait(i) end) "
        "end return t[1]() + t[2]() + t[3]()");
    check_int(run.waits, 3, "each wait reaches the scheduler once");
}

/* Values given to vm_resume() reach the innermost continuation. */
static void test_resume_values(void)
{
    struct vm *vm = make_vm();
    lua_State *thread = start(vm, "local a = coroutine.wrap(function() return wait_value() end)()\n"
                                  "return a + wait_value()");
    int count;
    check_int(vm_resume(vm, thread, 0, DEADLINE_NEVER, &count), VM_WAITING, "it waits inside");
    lua_pushinteger(thread, 5);
    check_int(vm_resume(vm, thread, 1, DEADLINE_NEVER, &count), VM_WAITING, "it waits outside");
    lua_pushinteger(thread, 6);
    check_int(vm_resume(vm, thread, 1, DEADLINE_NEVER, &count), VM_FINISHED, "it ends");
    check_int(lua_tointeger(thread, -1), 11, "values of a resumption reach who waits");
    vm_destroy(vm);
}

/* A coroutine that waits belongs to the request that resumed it, even if others can see it. */
static void test_foreign_coroutine(void)
{
    struct vm *vm = make_vm();
    int count;
    lua_State *first = start(vm, "shared = coroutine.create(function() return wait(1) end)\n"
                                 "return select(2, coroutine.resume(shared))");
    check_int(vm_resume(vm, first, 0, DEADLINE_NEVER, &count), VM_WAITING, "the first waits");
    struct run run = run_thread(vm,
                                start(vm, "return coroutine.status(shared) .. ' ' ..\n"
                                          "select(2, coroutine.resume(shared)) .. ' ' ..\n"
                                          "select(2, pcall(coroutine.close, shared))"),
                                DEADLINE_NEVER);
    check_text(run.result, "normal cannot resume normal coroutine cannot close a normal coroutine",
               "another request cannot resume or close it");
    check_text(run_thread(vm, first, DEADLINE_NEVER).result, "10", "the first gets its value");
    vm_destroy(vm);
}

/* ---- what never ends ---- */

static const struct {
    const char *name;
    const char *text;
} endless[] = {
    {"a loop", "while true do end"},
    {"a goto", "::again:: goto again"},
    {"tail calls", "local function f() return f() end; f()"},
    {"an endless iterator", "for _ in function() return 1 end do end"},
    {"a loop in pcall", "while true do pcall(function() while true do end end) end"},
    {"a loop in xpcall whose handler loops",
     "local function f() while true do end end; while true do xpcall(f, f) end"},
    {"a handler that loops", "xpcall(error, function() while true do end end)"},
    {"a loop in a coroutine", "coroutine.wrap(function() while true do end end)()"},
    {"a loop in a coroutine in pcall",
     "while true do pcall(coroutine.wrap(function() while true do end end)) end"},
    {"coroutines in turn",
     "local f = coroutine.wrap(function() while true do coroutine.yield() end end)\n"
     "while true do f() end"},
    {"new coroutines for ever",
     "local c = coroutine; while true do c.resume(c.create(function() end)) end"},
    {"an endless wrap in a loop", "for _ in coroutine.wrap(function()\n"
                                  "  while true do coroutine.yield(1) end end) do end"},
    {"a handler that the next error could reach",
     "local f = function() while true do end end\n"
     "xpcall(function() wait(1) table.sort({1, 2, 3}, f) end, f)"},
    {"a comparator", "table.sort({1, 2, 3}, function() while true do end end)"},
    {"a comparator that is caught",
     "while true do pcall(table.sort, {1, 2, 3}, function() while true do end end) end"},
    {"a comparator with xpcall",
     "local function f() while true do end end\n"
     "table.sort({1, 2, 3}, function() while true do xpcall(f, f) end end)"},
    {"a comparator with a coroutine", "table.sort({1, 2, 3}, function()\n"
                                      "  while true do pcall(coroutine.wrap(function()\n"
                                      "    while true do end end)) end end)"},
    {"a gsub callback", "('x'):gsub('x', function() while true do end end)"},
    {"a gsub callback that is caught", "while true do pcall(string.gsub, 'x', 'x',\n"
                                       "  function() while true do end end) end"},
    {"a metamethod of Lua code",
     "return setmetatable({}, {__index = function() while true do end end}).x"},
    {"a metamethod of C code",
     "return tostring(setmetatable({}, {__tostring = function() while true do end end}))"},
    {"a __close",
     "do local x <close> = setmetatable({}, {__close = function() while true do end end})"
     " end"},
    {"a __close on the way of an error",
     "pcall(function() local x <close> = setmetatable({}, {__close =\n"
     "  function() while true do end end}); error('x') end)"},
    {"a __close in a comparator",
     "table.sort({1, 2}, function() local x <close> = setmetatable({}, {__close =\n"
     "  function() while true do end end}); while true do end end)"},
    {"a coroutine's __close",
     "local co = coroutine.create(function() local x <close> = setmetatable({}, {__close =\n"
     "  function() while true do end end}); coroutine.yield() end)\n"
     "coroutine.resume(co); coroutine.close(co)"},
    {"a dead coroutine's __close",
     "coroutine.wrap(function() local x <close> = setmetatable({},\n"
     "  {__close = function() while true do end end}); error('x') end)()"},
    {"a reader of load", "load(function() while true do end end)"},
    {"an error's handler that raises", "local function f() error(f) end\n"
                                       "while true do xpcall(f, f) end"},
    {"a comparison", "local mt = {__lt = function() while true do end end}\n"
                     "return setmetatable({}, mt) < setmetatable({}, mt)"},
    {"a concatenation",
     "return setmetatable({}, {__concat = function() while true do end end}) .. 'x'"},
    {"find that backtracks", "(('a'):rep(30)):find(('a?'):rep(30) .. ('a'):rep(30))"},
    {"match that backtracks", "(('a'):rep(60)):match(('.-'):rep(30) .. 'b')"},
    {"gmatch that backtracks", "for _ in (('a'):rep(60)):gmatch(('a*'):rep(30) .. 'b') do end"},
    {"gsub that backtracks", "(('a'):rep(30)):gsub(('a?'):rep(30) .. ('a'):rep(30), '')"},
    {"find that backtracks, caught",
     "while true do pcall(string.find, ('a'):rep(60), ('a-'):rep(30) .. 'b') end"},
    {"find that backtracks, in a coroutine in a comparator",
     "table.sort({1, 2}, function() coroutine.wrap(string.find)(('a'):rep(60), ('a-'):rep(30) .. "
     "'b') end)"},
    {"a set of many characters", "(('a'):rep(3e6)):find('[' .. ('b'):rep(3e6) .. ']')"},
    {"balance without an end", "(('('):rep(3e6)):find('%b()')"},
    {"a back reference", "(('a'):rep(3e6)):find('(.+)b%1')"},
    {"move over a huge range", "table.move({}, 1, 1 << 40, 2)"},
    {"move over a huge range, caught",
     "while true do pcall(table.move, {}, 1, 1 << 40, 2, {}) end"},
    {"insert into what says to be huge",
     "table.insert(setmetatable({}, {__len = function() return 1 << 40 end}), 1, 1)"},
    {"remove from what says to be huge",
     "table.remove(setmetatable({}, {__len = function() return 1 << 40 end}), 1)"},
    {"concat of nothing",
     "table.concat(setmetatable({}, {__index = table.concat}), '', 1, 1 << 40)"},
    {"sort of what says to be huge",
     "table.sort(setmetatable({}, {__len = function() return 1 << 30 end, __index = rawlen}))"},
    {"sort of long strings",
     "local s, t = ('x'):rep(1e6), {}\n"
     "for i = 1, 4 do t[i] = s .. i end for i = 5, 1e5 do t[i] = t[i % 4 + 1] end table.sort(t)"},
    {"load of a long text", "local s = ('x = 1 '):rep(1e6) while true do pcall(load, s) end"},
    {"load of endless text", "load(function() return ' ' end)"},
};

/* Goes in front of a text: its __close does not end either. */
static const char stubborn[] =
    "local guard <close> = setmetatable({}, {__close = function() while true do end end})\n";

static void check_endless(struct vm *vm, const char *name, const char *text)
{
    uint64_t begin = clock_now();
    lua_State *thread = start(vm, text);
    struct run run = run_thread(vm, thread, begin + RUN_TIME);
    check_text(outcome_names[run.outcome], "expired", "%s is ended", name);
    if (vm_reset_thread(vm, thread)) {
        luaL_loadstring(thread, "return 'again'");
        check_text(run_thread(vm, thread, clock_now() + PATIENCE).result, "again",
                   "its thread can be used again");
    }
    check(clock_now() - begin < PATIENCE, "%s is ended in time", name);
    lua_settop(vm->lua, 0);
}

static void test_endless(void)
{
    struct vm *vm = make_vm();
    char text[1024];
    for (size_t i = 0; i < sizeof endless / sizeof *endless; i++) {
        check_endless(vm, endless[i].name, endless[i].text);
        snprintf(text, sizeof text, "%s local function body() %s end body()", stubborn,
                 endless[i].text);
        check_endless(vm, "with a guard", text);
    }
    struct run run = run_thread(vm, start(vm, "return 'alive'"), clock_now() + PATIENCE);
    check_text(run.result, "alive", "the vm goes on after all of these");
    vm_destroy(vm);
}

/* ---- preemption ---- */

static void test_preemption(void)
{
    struct vm *vm = make_vm();
    int count;
    lua_State *busy = start(vm, "while not stop do end; return 'stopped'");
    lua_State *other = start(vm, "stop = true");
    check_int(vm_resume(vm, busy, 0, clock_now() + PATIENCE, &count), VM_PREEMPTED,
              "a busy thread is preempted");
    check_int(vm_resume(vm, other, 0, clock_now() + PATIENCE, &count), VM_FINISHED,
              "another thread runs meanwhile");
    check_text(run_thread(vm, busy, clock_now() + PATIENCE).result, "stopped",
               "the first goes on where it was");
    vm_destroy(vm);
}

/* Work that is preempted many times in many kinds of frames still computes what it should. */
static void test_preempted_work(void)
{
    static const char text[] =
        "local function count(...) local n = 0; for i = 1, select('#', ...) do n = n + 1 end\n"
        "  return n, ... end\n"
        "local mt = {__add = function(a, b) return a.v + b end, __close = function() end}\n"
        "local function step(i)\n"
        "  local o <close> = setmetatable({v = i}, mt)\n"
        "  local n = count(i, i, i)\n"
        "  return (select(2, pcall(function() return o + n end)))\n"
        "end\n"
        "local sum, rounds = 0, 60000\n"
        "local values = coroutine.wrap(function()\n"
        "  for i = 1, rounds do coroutine.yield(step(i)) end end)\n"
        "for v in values do sum = sum + v end\n"
        "return sum == rounds * (rounds + 1) // 2 + 3 * rounds";
    struct run run = run_text(text);
    check_text(run.result, "true", "preempted work computes the right result");
    check(run.preemptions > 0, "it was preempted (%d times)", run.preemptions);
}

/* ---- threads and errors ---- */

static void test_reuse(void)
{
    static const struct {
        const char *text;
        bool reused;
    } rows[] = {
        {"return 1, 2, 3", true},
        {"error 'x'", true},
        {"wait(1)", false},
        {"while true do end", false},
        {"local x <close> = setmetatable({}, {__close = function() closed = true end}); wait(1)",
         false},
        {"local x <close> = setmetatable({}, {__close = function() error 'in close' end}); wait(1)",
         false},
        {"xpcall(wait, function() while true do end end, 1)", false},
    };
    struct vm *vm = make_vm();
    int count;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        lua_State *thread = start(vm, rows[i].text);
        enum vm_outcome outcome = vm_resume(vm, thread, 0, clock_now() + PATIENCE, &count);
        check_int(vm_reset_thread(vm, thread), rows[i].reused,
                  "whether a thread is reused once %s (%zu)", outcome_names[outcome], i);
        check(!rows[i].reused || lua_gettop(thread) == 0, "its stack is empty");
    }
    lua_getglobal(vm->lua, "closed");
    check(lua_toboolean(vm->lua, -1), "resetting runs __close");
    vm_destroy(vm);
}

static const struct {
    const char *text, *message, *where;
} errors[] = {
    {"error('plain')", "plain", "scripts/test.lua:1"},
    {"error('no position', 0)", "no position", ""},
    {"error('at 12:30: late', 0)", "at 12:30: late", ""},
    {"error('first line\\nsecond:2: x', 0)", "first line\nsecond:2: x", ""},
    {"error({message = 'in a table'})", "in a table", ""},
    {"error({})", "a value of type table was raised", ""},
    {"error(nil)", "a value of type nil was raised", ""},
    {"error(42)", "42", ""},
    {"error(object())", "a value of type object was raised", ""},
    {"error(setmetatable({}, {__tostring = error, __index = error}))",
     "a value of type table was raised", ""},
    {"load('error(\"deep\")', 'some chunk')()", "deep", "[string \"some chunk\"]:1"},
};

static void test_errors(void)
{
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        struct run run = run_text(errors[i].text);
        check_text(run.err.message, errors[i].message, "the message of %s", errors[i].text);
        check_text(run.err.where, errors[i].where, "the place of %s", errors[i].text);
    }
    struct vm *vm = make_vm();
    struct error err;
    char traceback[512];
    int count;
    lua_State *thread = start(vm, "local function deep() error('x') end\ndeep()");
    vm_resume(vm, thread, 0, DEADLINE_NEVER, &count);
    vm_error(thread, &err, traceback, sizeof traceback);
    check(strstr(traceback, "scripts/test.lua:2:") != NULL, "a traceback shows the callers");
    check(vm_reset_thread(vm, thread), "its thread can be reused");
    vm_destroy(vm);
}

static void test_print(void)
{
    struct run run = run_text("print('hello', 1, nil, setmetatable({}, {__tostring = function() "
                              "return 'told' end}))\nprint()");
    check_int(run.outcome, VM_FINISHED, "print takes anything");
    log_flush();
}

int main(void)
{
    struct error err;
    if (vm_start_watch(&err)) {
        printf("Bail out! %s\n", err.message);
        return 1;
    }
    test_sandbox();
    CHECK_ROWS(library_rows);
    test_random();
    test_print();
    test_memory();
    test_tidy();
    test_room();
    test_load();
    test_load_errors();
    CHECK_ROWS(coroutine_rows);
    CHECK_ROWS(wait_rows);
    test_wait_positions();
    test_resume_values();
    test_foreign_coroutine();
    test_preemption();
    test_preempted_work();
    test_reuse();
    test_errors();
    test_endless();
    return test_end();
}
