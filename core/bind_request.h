/* Requests and responses in Lua. */
#ifndef MOONPOOL_BIND_REQUEST_H
#define MOONPOOL_BIND_REQUEST_H

struct lua_State;

/* Makes the metatable. Once per lua_State. */
void bind_request_open(struct lua_State *L);

/* A generation's entry: called in a thread of its own with a route's function; passes it the
 * request and writes what it returns, `status, body, headers` or a body alone, into the response.
 */
int bind_request_entry(struct lua_State *L);

#endif
