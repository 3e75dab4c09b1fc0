/* The standard library as scripts get it: nothing that reaches files, processes or the
 * interpreter's inside, and nothing in which code could run that the interrupter cannot stop. */
#include "vm.h"

#include <stdio.h>
#include <sys/random.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "log.h"
#include "vm_parts.h"

enum { PIECE = 64 * 1024 }; /* of a text that is compiled, between two looks at the clock */

void vm_publish(lua_State *L, const char *name)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, name);
    lua_pop(L, 1);
    lua_setglobal(L, name);
}

int vm_call_upvalue(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

static void log_position(lua_State *L, struct log_line *line)
{
    lua_Debug caller;
    char where[LUA_IDSIZE + 16];
    if (lua_getstack(L, 1, &caller) && lua_getinfo(L, "Sl", &caller) && caller.currentline > 0) {
        snprintf(where, sizeof where, "%s:%d", caller.short_src, caller.currentline);
        log_text(line, "where", where);
    }
}

static int print(lua_State *L)
{
    int count = lua_gettop(L);
    luaL_Buffer text;
    size_t length;
    luaL_buffinit(L, &text);
    for (int i = 1; i <= count; i++) {
        if (i > 1) {
            luaL_addchar(&text, '\t');
        }
        luaL_tolstring(L, i, NULL);
        luaL_addvalue(&text);
    }
    luaL_pushresult(&text);
    const char *message = lua_tolstring(L, -1, &length);
    struct log_line line = log_begin(LOG_INFO, "print");
    log_bytes(&line, "message", message, length);
    log_position(L, &line);
    log_end(&line);
    return 0;
}

/* The reader of a long text: hands out the string, upvalue 1, from the offset, upvalue 2, on. */
static int read_piece(lua_State *L)
{
    size_t length;
    const char *text = lua_tolstring(L, lua_upvalueindex(1), &length);
    size_t offset = (size_t)lua_tointeger(L, lua_upvalueindex(2));
    size_t size = length - offset < PIECE ? length - offset : PIECE;
    vm_check_deadline(L);
    lua_pushlstring(L, text + offset, size);
    lua_pushinteger(L, (lua_Integer)(offset + size));
    lua_replace(L, lua_upvalueindex(2));
    return 1;
}

/* Puts a reader in place of a long text at index 1, so that compiling it looks at the clock. */
static void read_in_pieces(lua_State *L)
{
    if (lua_type(L, 1) != LUA_TSTRING || lua_rawlen(L, 1) <= PIECE) {
        return;
    }
    if (lua_isnil(L, 2)) {
        lua_pushliteral(L, "=(load)");
        lua_replace(L, 2);
    }
    lua_pushvalue(L, 1);
    lua_pushinteger(L, 0);
    lua_pushcclosure(L, read_piece, 2);
    lua_replace(L, 1);
}

/* Lua's own load, kept as upvalue, but for text alone: bytecode can crash the process. */
static int load(lua_State *L)
{
    if (lua_gettop(L) < 3) {
        lua_settop(L, 3);
    }
    lua_pushliteral(L, "t");
    lua_replace(L, 3);
    read_in_pieces(L);
    return vm_call_upvalue(L);
}

static int count_garbage(lua_State *L)
{
    static const char *const options[] = {"count", NULL};
    luaL_checkoption(L, 1, "collect", options);
    lua_pushnumber(L, (lua_Number)vm_of(L)->memory / 1024);
    return 1;
}

/* Finalizers run with hooks disabled, so a loop in one could not be stopped. Lua looks for __gc
 * only here: to refuse it here is to have none. */
static int set_metatable(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_argexpected(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table");
    lua_settop(L, 2);
    if (lua_istable(L, 2)) {
        lua_pushliteral(L, "__gc");
        if (lua_rawget(L, 2) != LUA_TNIL) {
            return luaL_error(L, "scripts cannot use __gc: close with a <close> variable instead");
        }
        lua_pop(L, 1);
    }
    if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL) {
        return luaL_error(L, "cannot change a protected metatable");
    }
    lua_setmetatable(L, 1);
    return 1;
}

void vm_set_metatable(lua_State *L, int index)
{
    index = lua_absindex(L, index);
    lua_pushliteral(L, "__gc");
    if (lua_rawget(L, -2) != LUA_TNIL) {
        lua_pushliteral(L, "__gc");
        lua_pushnil(L);
        lua_rawset(L, -4);
    }
    lua_pop(L, 1);
    lua_setmetatable(L, index);
}

/* The metatables of C objects stay hidden: who could write to their __gc could run code there. */
static int get_metatable(lua_State *L)
{
    luaL_checkany(L, 1);
    if (!lua_getmetatable(L, 1)) {
        lua_pushnil(L);
    } else if (luaL_getmetafield(L, 1, "__metatable") == LUA_TNIL && lua_isuserdata(L, 1)) {
        lua_pushboolean(L, false);
    }
    return 1;
}

/* The message handler of xpcall; the script's own is its upvalue. When the hook raised, Lua calls
 * this with hooks disabled, so the script's must not run. */
static int handle_error(lua_State *L)
{
    if (vm_of(L)->interrupted) {
        return 1;
    }
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, 1, 1);
    return 1;
}

/* The stack: the function, the handler, the results or the error. */
static int finish_xpcall(lua_State *L, int status, lua_KContext context)
{
    lua_pushboolean(L, status == LUA_OK || status == LUA_YIELD);
    lua_replace(L, 2);
    return lua_gettop(L) - 1;
}

static int protected_call(lua_State *L)
{
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_pushvalue(L, 2);
    lua_pushcclosure(L, handle_error, 1);
    lua_replace(L, 2);
    lua_pushvalue(L, 1);
    lua_insert(L, 3);
    int status = lua_pcallk(L, lua_gettop(L) - 3, LUA_MULTRET, 2, 0, finish_xpcall);
    return finish_xpcall(L, status, 0);
}

static const luaL_Reg base_functions[] = {
    {"print", print},
    {"collectgarbage", count_garbage},
    {"setmetatable", set_metatable},
    {"getmetatable", get_metatable},
    {"xpcall", protected_call},
    {NULL, NULL},
};

static const char *const removed_from_base[] = {"dofile", "loadfile", "warn", NULL};
static const char *const removed_from_string[] = {"dump", NULL};
static const char *const kept_of_os[] = {"time", "date", "clock", "difftime", NULL};
static const char *const kept_of_debug[] = {"traceback", NULL};

/* Opens a library and takes out the functions named; its table stays on the stack. */
static void open_without(lua_State *L, const char *name, lua_CFunction open,
                         const char *const *removed)
{
    luaL_requiref(L, name, open, true);
    for (; *removed; removed++) {
        lua_pushnil(L);
        lua_setfield(L, -2, *removed);
    }
}

/* Publishes a table of nothing but the functions named. */
static void open_only(lua_State *L, const char *name, lua_CFunction open, const char *const *kept)
{
    lua_newtable(L);
    lua_pushcfunction(L, open);
    lua_call(L, 0, 1);
    for (; *kept; kept++) {
        lua_getfield(L, -1, *kept);
        lua_setfield(L, -3, *kept);
    }
    lua_pop(L, 1);
    vm_publish(L, name);
}

/* Lua seeds from the time and an address, which are the same in workers forked together. */
static void seed_random(lua_State *L)
{
    lua_Integer seed[2] = {0, 0};
    if (getrandom(seed, sizeof seed, GRND_NONBLOCK) != sizeof seed) {
        return;
    }
    lua_getfield(L, -1, "randomseed");
    lua_pushinteger(L, seed[0]);
    lua_pushinteger(L, seed[1]);
    lua_call(L, 2, 0);
}

/* Lua's library `name`, but for what `replace` puts in place of its own; its table stays on the
 * stack.
 */
static void open_with(lua_State *L, const char *name, lua_CFunction open,
                      void (*replace)(lua_State *L))
{
    luaL_requiref(L, name, open, true);
    replace(L);
}

void vm_open_library(lua_State *L)
{
    int top = lua_gettop(L);
    open_without(L, LUA_GNAME, luaopen_base, removed_from_base);
    luaL_setfuncs(L, base_functions, 0);
    lua_getfield(L, -1, "load");
    lua_pushcclosure(L, load, 1);
    lua_setfield(L, -2, "load");
    open_without(L, LUA_STRLIBNAME, luaopen_string, removed_from_string);
    vm_open_strings(L);
    vm_open_patterns(L);
    open_with(L, LUA_TABLIBNAME, luaopen_table, vm_open_tables);
    open_with(L, LUA_UTF8LIBNAME, luaopen_utf8, vm_open_utf8);
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, true);
    seed_random(L);
    open_only(L, LUA_OSLIBNAME, luaopen_os, kept_of_os);
    lua_getglobal(L, LUA_OSLIBNAME);
    vm_open_dates(L);
    open_only(L, LUA_DBLIBNAME, luaopen_debug, kept_of_debug);
    lua_settop(L, top);
}
