/* Debian's cjson for scripts that know it. It is C that cannot be interrupted and takes memory that
 * nobody counts, so what goes through it is small: beyond that, there is our own JSON. */
#include "vm.h"

#include <stdbool.h>

#include <lauxlib.h>
#include <lua-cjson.h>
#include <lua.h>

#include "vm_parts.h"

enum {
    MOST_BYTES = 4 * 1024 * 1024, /* of JSON, either way */
    VALUE_BYTES = 4,              /* a value takes about as many at least */
    MOST_DEPTH = 1000,            /* what is nested deeper cjson refuses by itself */
};

static void refuse(lua_State *L)
{
    luaL_error(L, "cjson takes at most %d MB, because it cannot be interrupted: use json",
               MOST_BYTES / (1024 * 1024));
}

/* A table of the core's own may be empty until a field of it is asked for, which cjson never does.
 * Such a table has a hook for our JSON. */
static void fill(lua_State *L, int index)
{
    int type = luaL_getmetafield(L, index, "__json");
    if (type == LUA_TLIGHTUSERDATA) {
        lua_getfield(L, index, "");
        lua_pop(L, 1);
    }
    lua_pop(L, type == LUA_TNIL ? 0 : 1);
}

static void measure(lua_State *L, int index, int depth, size_t *bytes);

static void measure_table(lua_State *L, int index, int depth, size_t *bytes)
{
    if (depth == MOST_DEPTH) {
        return;
    }
    luaL_checkstack(L, 4, "too many nested values");
    fill(L, index);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (key > MOST_BYTES / VALUE_BYTES) { /* cjson fills the holes below it */
            refuse(L);
        }
        measure(L, lua_gettop(L), depth + 1, bytes);
    }
}

/* Adds what the value at `index` takes at least, which is how long it takes. */
static void measure(lua_State *L, int index, int depth, size_t *bytes)
{
    *bytes += VALUE_BYTES + (lua_type(L, index) == LUA_TSTRING ? lua_rawlen(L, index) : 0);
    if (*bytes > MOST_BYTES) {
        refuse(L);
    }
    if (lua_istable(L, index)) {
        measure_table(L, index, depth, bytes);
    }
}

static int encode(lua_State *L)
{
    size_t bytes = 0;
    luaL_checkany(L, 1);
    measure(L, 1, 0, &bytes);
    return vm_call_upvalue(L);
}

static int decode(lua_State *L)
{
    size_t length;
    luaL_checklstring(L, 1, &length);
    if (length > MOST_BYTES) {
        refuse(L);
    }
    return vm_call_upvalue(L);
}

static void limit(lua_State *L);

/* new() -> another cjson, with settings of its own */
static int make(lua_State *L)
{
    vm_call_upvalue(L);
    lua_settop(L, 1);
    limit(L);
    return 1;
}

static const luaL_Reg limited[] = {
    {"encode", encode}, {"decode", decode}, {"new", make}, {NULL, NULL}};

/* A script that raises these lets cjson use up the C stack. */
static const char *const removed[] = {"encode_max_depth", "decode_max_depth", NULL};

/* Limits the cjson on top of the stack. */
static void limit(lua_State *L)
{
    for (const luaL_Reg *function = limited; function->name; function++) {
        lua_getfield(L, -1, function->name);
        lua_pushcclosure(L, function->func, 1);
        lua_setfield(L, -2, function->name);
    }
    for (const char *const *name = removed; *name; name++) {
        lua_pushnil(L);
        lua_setfield(L, -2, *name);
    }
}

int vm_open_cjson(lua_State *L)
{
    lua_pushcfunction(L, luaopen_cjson);
    lua_call(L, 0, 1);
    limit(L);
    return 1;
}
