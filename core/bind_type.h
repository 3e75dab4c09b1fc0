/* Userdata of the core's own, and tables that act like it. A type is known by the address of its
 * name, which stands in the userdata itself: methods are called for each row, and to find a
 * metatable by the text of a name takes as long as the rest of such a call. */
#ifndef MOONPOOL_BIND_TYPE_H
#define MOONPOOL_BIND_TYPE_H

#include <stdbool.h>
#include <stddef.h>

struct lua_State;

/* Pushes a new metatable, to be filled and popped. Once per lua_State. `name` is static. */
void bind_type_open(struct lua_State *L, const char *name);

/* Pushes a new userdata of the type, `size` bytes of zeros, with `values` user values. */
void *bind_type_new(struct lua_State *L, const char *name, size_t size, int values);

/* The userdata at `index`; raises as luaL_checkudata() if it is none of this type. */
void *bind_type_check(struct lua_State *L, int index, const char *name);

/* Pushes the metatable, for tables; true if the one at `index` has it. */
void bind_type_push(struct lua_State *L, const char *name);
bool bind_type_has(struct lua_State *L, int index, const char *name);

#endif
