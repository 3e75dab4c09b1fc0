/* Types of userdata. */
#include "bind_type.h"

#include <lauxlib.h>
#include <lua.h>

void bind_type_open(lua_State *L, const char *name)
{
    luaL_newmetatable(L, name);
    lua_pushvalue(L, -1);
    lua_rawsetp(L, LUA_REGISTRYINDEX, name);
}

void *bind_type_check(lua_State *L, int index, const char *name)
{
    if (!lua_isuserdata(L, index) || !lua_getmetatable(L, index)) {
        return luaL_checkudata(L, index, name);
    }
    lua_rawgetp(L, LUA_REGISTRYINDEX, name);
    int same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same ? lua_touserdata(L, index) : luaL_checkudata(L, index, name);
}
