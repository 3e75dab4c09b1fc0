/* JSON for scripts: the module, and what its two directions have in common. */
#include "bind_json.h"

#include <lauxlib.h>
#include <lua.h>

#include "bind_json_parts.h"
#include "buffer.h"
#include "error.h"
#include "vm.h"

/* Their addresses are keys of the registry; that of `empty_array` is the sentinel's value. */
static const char module_key, array_key, buffer_key, empty_array;

void bind_json_push_array_metatable(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &array_key) == LUA_TTABLE) {
        return;
    }
    lua_pop(L, 1);
    lua_createtable(L, 0, 1);
    lua_pushliteral(L, "json.array");
    lua_setfield(L, -2, "__name");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &array_key);
}

void bind_json_mark_array(lua_State *L)
{
    bind_json_push_array_metatable(L);
    vm_set_metatable(L, -2);
}

const void *bind_json_empty_array(void)
{
    return &empty_array;
}

size_t bind_json_cut(const char *text, size_t length, size_t limit)
{
    if (length <= limit) {
        return length;
    }
    while (limit && (text[limit] & 0xc0) == 0x80) {
        limit--;
    }
    return limit;
}

static int collect_buffer(lua_State *L)
{
    buffer_finish(lua_touserdata(L, 1));
    return 0;
}

/* Pushes a buffer that is freed when collected, should a Lua error jump over its user. */
static struct buffer *push_buffer(lua_State *L)
{
    struct buffer *buffer = lua_newuserdatauv(L, sizeof *buffer, 0);
    buffer_init(buffer);
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &buffer_key) != LUA_TTABLE) {
        lua_pop(L, 1);
        lua_createtable(L, 0, 1);
        lua_pushcfunction(L, collect_buffer);
        lua_setfield(L, -2, "__gc");
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &buffer_key);
    }
    lua_setmetatable(L, -2);
    return buffer;
}

/* json.encode(value) -> text */
static int module_encode(lua_State *L)
{
    struct error err;
    luaL_checkany(L, 1);
    struct buffer *out = push_buffer(L);
    if (bind_json_encode(L, 1, out, &err)) {
        buffer_finish(out);
        return luaL_error(L, "%s", err.message);
    }
    lua_pushlstring(L, out->data, out->length);
    buffer_finish(out);
    return 1;
}

/* json.decode(text) -> value */
static int module_decode(lua_State *L)
{
    struct error err;
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    return bind_json_decode(L, text, length, &err) ? luaL_error(L, "%s", err.message) : 1;
}

/* json.array(table) -> the same table, marked as an array */
static int module_array(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    bind_json_mark_array(L);
    return 1;
}

static const luaL_Reg functions[] = {
    {"encode", module_encode},
    {"decode", module_decode},
    {"array", module_array},
    {NULL, NULL},
};

int bind_json_open(lua_State *L)
{
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &module_key) == LUA_TTABLE) {
        return 1;
    }
    luaL_newlib(L, functions);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "null");
    lua_pushlightuserdata(L, (void *)&empty_array);
    lua_setfield(L, -2, "empty_array");
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &module_key);
    return 1;
}
