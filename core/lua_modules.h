/* The part of the API that is written in Lua (core/lua), in the binary. */
#ifndef MOONPOOL_LUA_MODULES_H
#define MOONPOOL_LUA_MODULES_H

#include <stddef.h>

struct lua_module {
    const char *name; /* as `require` knows it */
    const char *text; /* not NUL-terminated */
    const char *end;
};

extern const struct lua_module lua_modules[];
extern const size_t lua_module_count;

#endif
