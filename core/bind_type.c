/* Types of userdata and tables. */
#include "bind_type.h"

#include <string.h>

#include <lauxlib.h>
#include <lua.h>

/* Lua aligns userdata as it does pointers. */
struct object {
    const char *type;
    char data[];
};

/* Kept under the name too, for the message of luaL_checkudata(). */
void bind_type_open(lua_State *L, const char *name)
{
    luaL_newmetatable(L, name);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, name);
}

void bind_type_push(lua_State *L, const char *name)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, name);
}

void *bind_type_new(lua_State *L, const char *name, size_t size, int values)
{
    struct object *object = lua_newuserdatauv(L, sizeof *object + size, values);
    object->type = name;
    memset(object->data, 0, size);
    bind_type_push(L, name);
    lua_setmetatable(L, -2);
    return object->data;
}

/* No other userdata has the address of a name of ours at its beginning: scripts can make none. */
void *bind_type_check(lua_State *L, int index, const char *name)
{
    if (lua_type(L, index) == LUA_TUSERDATA && lua_rawlen(L, index) >= sizeof(struct object)) {
        struct object *object = lua_touserdata(L, index);
        if (object->type == name) {
            return object->data;
        }
    }
    luaL_checkudata(L, index, name);
    return NULL;
}

bool bind_type_has(lua_State *L, int index, const char *name)
{
    if (!lua_getmetatable(L, index)) {
        return false;
    }
    bind_type_push(L, name);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
}
