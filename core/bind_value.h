/* A column's text as a Lua value. */
#ifndef MOONPOOL_BIND_VALUE_H
#define MOONPOOL_BIND_VALUE_H

#include <stddef.h>
#include <stdint.h>

struct buffer;
struct lua_State;

/* Pushes the value of a column of `type` whose text is not NULL. `scratch` is borrowed for the
 * call; it belongs to somebody who outlives a Lua error. */
void bind_value_push(struct lua_State *L, uint32_t type, const char *text, size_t length,
                     struct buffer *scratch);

#endif
