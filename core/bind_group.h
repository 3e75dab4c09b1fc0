/* Group commit in Lua: the C half of db:group; lua/database.lua is the other. */
#ifndef MOONPOOL_BIND_GROUP_H
#define MOONPOOL_BIND_GROUP_H

struct lua_State;

/* Pushes the table of functions. For scripts: register(name, lead), join(name, input) which returns
 * the output. For the leading code: take(most) which returns the inputs, seal([index]),
 * answer(index, output), refuse(index, error). A module opener. */
int bind_group_open(struct lua_State *L);

#endif
