/* The pattern functions that stand in place of Lua's own do what those do. The lines of an input
 * are a pattern, a replacement and a subject, all of them short, so that Lua's come to an end. */
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "error.h"
#include "fuzz.h"
#include "vm.h"

enum { MOST_BYTES = 96, MOST_SUBJECT = 16, MOST_REPEATS = 4, MEMORY_LIMIT = 64 * 1024 * 1024 };

/* Gives a text of all that is returned and raised. */
static const char chunk[] =
    "local function show(...)\n"
    "  local t = table.pack(...)\n"
    "  for i = 1, t.n do t[i] = (math.type(t[i]) or type(t[i])) .. ':' .. tostring(t[i]) end\n"
    "  return table.concat(t, ', ')\n"
    "end\n"
    "local function each(s, p)\n"
    "  local t = {}\n"
    "  for a, b, c in string.gmatch(s, p) do t[#t + 1] = show(a, b, c) end\n"
    "  return table.concat(t, '; ')\n"
    "end\n"
    "return function(p, r, s)\n"
    "  return table.concat({\n"
    "    show(pcall(string.find, s, p)), show(pcall(string.find, s, p, 3)),\n"
    "    show(pcall(string.find, s, p, -2, true)), show(pcall(string.match, s, p, -5)),\n"
    "    show(pcall(string.gsub, s, p, r)), show(pcall(string.gsub, s, p, r, 2)),\n"
    "    show(pcall(string.gsub, s, p, { a = 'b', [1] = 2 })), show(pcall(each, s, p)),\n"
    "  }, '\\n')\n"
    "end\n";

static struct vm *vm;
static lua_State *library; /* Lua's own */

/* Leaves the function of the chunk at the bottom of the stack. */
static void load(lua_State *L)
{
    lua_settop(L, 0);
    claim(luaL_loadstring(L, chunk) == LUA_OK);
    lua_call(L, 0, 1);
}

static void open_states(void)
{
    struct error err;
    vm = vm_create(MEMORY_LIMIT, &err);
    library = luaL_newstate();
    claim(vm && library);
    luaL_openlibs(library);
    load(vm->lua);
    load(library);
}

static size_t line_length(const char *text, size_t size)
{
    const char *end = memchr(text, '\n', size);
    return end ? (size_t)(end - text) : size;
}

/* Calls the function with the lines of the text; the result is on top. */
static const char *describe(lua_State *L, const char *text, size_t size, size_t *ret_length)
{
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    for (int i = 0; i < 3; i++) {
        size_t length = i < 2 ? line_length(text, size) : size;
        lua_pushlstring(L, text, length);
        text += length < size ? length + 1 : length;
        size -= length < size ? length + 1 : length;
    }
    lua_call(L, 3, 1);
    return lua_tolstring(L, -1, ret_length);
}

static size_t count_repeats(const char *text, size_t size)
{
    size_t count = 0;
    for (size_t i = 0; i < size; i++) {
        count += strchr("*+-?", text[i]) != NULL;
    }
    return count;
}

/* True if Lua's own functions are soon done with it. */
static bool is_quick(const char *text, size_t size)
{
    size_t pattern = line_length(text, size);
    size_t rest = pattern < size ? pattern + 1 : size;
    size_t replacement = line_length(text + rest, size - rest);
    return size <= MOST_BYTES && count_repeats(text, pattern) <= MOST_REPEATS &&
           size - rest - replacement <= MOST_SUBJECT;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t ours_length, theirs_length;
    if (!is_quick(text, size)) {
        return 0;
    }
    if (!vm) {
        open_states();
    }
    const char *ours = describe(vm->lua, text, size, &ours_length);
    const char *theirs = describe(library, text, size, &theirs_length);
    claim(ours_length == theirs_length && memcmp(ours, theirs, ours_length) == 0);
    /* What grew would look like a leak. */
    lua_settop(vm->lua, 1);
    lua_settop(library, 1);
    lua_gc(vm->lua, LUA_GCCOLLECT);
    lua_gc(library, LUA_GCCOLLECT);
    return 0;
}
