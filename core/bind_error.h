/* Errors in Lua: tables with the fields of struct error, so that pcall gives a script something to
 * look at, and what escapes becomes a response with nothing lost. */
#ifndef MOONPOOL_BIND_ERROR_H
#define MOONPOOL_BIND_ERROR_H

#include <stdbool.h>

struct buffer;
struct error;
struct lua_State;
struct request;

/* Makes the metatable. Once per lua_State. */
void bind_error_open(struct lua_State *L);

/* Pushes the table: code, status, message and, where known, sqlstate, constraint, statement, item,
 * row, where. */
void bind_error_push(struct lua_State *L, const struct error *err);

/* Raises it. */
int bind_error_raise(struct lua_State *L, const struct error *err);

/* bind_json_encode(), but what cannot be expressed is raised. `out` belongs to somebody who
 * outlives a Lua error. */
void bind_error_encode_json(struct lua_State *L, int index, struct buffer *out);

/* Reads the value at `index` back, if it is such a table. Members of its field `extra` are appended
 * to `extra` as JSON members with a comma in front each. Calls no metamethods; may raise for want
 * of memory. */
bool bind_error_read(struct lua_State *L, int index, struct error *err, struct buffer *extra);

/* Adds what its field `headers` has to the request's response, as far as they can be headers of a
 * problem document. May raise for want of memory. */
void bind_error_read_headers(struct lua_State *L, int index, struct request *request);

/* Appends those headers to `out` as JSON members with a comma in front each, but for values that
 * are not UTF-8. `out` belongs to somebody who outlives a Lua error. */
void bind_error_write_headers(struct lua_State *L, int index, struct buffer *out);

#endif
