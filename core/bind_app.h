/* Registration in Lua: the C half of `require "moonpool"`; lua/moonpool.lua is the other. */
#ifndef MOONPOOL_BIND_APP_H
#define MOONPOOL_BIND_APP_H

struct lua_State;

/* Pushes the table of functions: route(method, pattern, where, options, fn), fail(status, detail,
 * extra), log(level, message). A module opener. */
int bind_app_open(struct lua_State *L);

#endif
