/* Userdata of the core's own. A type is known by the address of its name: to look for that takes a
 * sixth of what the name itself does, and a method is called for each row. */
#ifndef MOONPOOL_BIND_TYPE_H
#define MOONPOOL_BIND_TYPE_H

struct lua_State;

/* Pushes a new metatable, kept in the registry under the name too, for luaL_setmetatable(). Once
 * per lua_State. */
void bind_type_open(struct lua_State *L, const char *name);

/* The userdata at `index`; raises as luaL_checkudata() if it is none of this type. `name` is the
 * pointer that was given to bind_type_open(). */
void *bind_type_check(struct lua_State *L, int index, const char *name);

#endif
