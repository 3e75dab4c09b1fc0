/* Where in a script something was called, for messages that name file and line. */
#ifndef MOONPOOL_BIND_PLACE_H
#define MOONPOOL_BIND_PLACE_H

#include <stdbool.h>
#include <stddef.h>

struct lua_Debug;
struct lua_State;

/* The script's line that made the running call, past pcall and the parts of the API written in Lua:
 * `short_src` and `currentline`. "?" and 0 if a tail call left none. */
void bind_place_find(struct lua_State *L, struct lua_Debug *ret_caller);

/* The same as "file:line"; false, with nothing written, if there is none. */
bool bind_place_write(struct lua_State *L, char *text, size_t size);

/* Raises a message with that place in front. The format is lua_pushfstring()'s. */
int bind_place_error(struct lua_State *L, const char *format, ...);

#endif
