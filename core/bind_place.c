/* Finding the caller. */
#include "bind_place.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <lua.h>

void bind_place_find(lua_State *L, lua_Debug *ret_caller)
{
    for (int level = 1; lua_getstack(L, level, ret_caller); level++) {
        lua_getinfo(L, "Sl", ret_caller);
        if (ret_caller->currentline > 0 && *ret_caller->source == '@') {
            return;
        }
    }
    strcpy(ret_caller->short_src, "?");
    ret_caller->currentline = 0;
}

bool bind_place_write(lua_State *L, char *text, size_t size)
{
    lua_Debug caller;
    bind_place_find(L, &caller);
    if (caller.currentline == 0) {
        return false;
    }
    snprintf(text, size, "%s:%d", caller.short_src, caller.currentline);
    return true;
}

int bind_place_error(lua_State *L, const char *format, ...)
{
    va_list args;
    lua_Debug caller;
    bind_place_find(L, &caller);
    if (caller.currentline > 0) {
        lua_pushfstring(L, "%s:%d: ", caller.short_src, caller.currentline);
    } else {
        lua_pushliteral(L, "");
    }
    va_start(args, format);
    lua_pushvfstring(L, format, args);
    va_end(args);
    lua_concat(L, 2);
    return lua_error(L);
}
