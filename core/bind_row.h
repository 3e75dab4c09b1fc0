/* A row in Lua: a plain table, made when it is looked at. */
#ifndef MOONPOOL_BIND_ROW_H
#define MOONPOOL_BIND_ROW_H

struct batch;
struct batch_item;
struct bind_result;
struct lua_State;

/* Makes the metatable of unread rows, and has the base library look at a row before it does what
 * would not. Once per lua_State. */
void bind_row_open(struct lua_State *L);

/* Pushes a metatable for rows of this result, which keeps the order of the columns for JSON. */
void bind_row_push_kind(struct lua_State *L, const struct bind_result *held);

/* Pushes row `row`, 0-based, as a new table with the metatable at `kind`. */
void bind_row_push(struct lua_State *L, struct bind_result *held, int row, int kind);

/* Pushes the first row, or nil if there is none. The item's result is taken over and set to NULL as
 * soon as somebody else owns it, so that an error on the way loses nothing. Most are returned to
 * the client as they are: until something looks at it the row is an empty table, and goes to JSON
 * straight from the result. That ends with the request: looking at it for the first time later
 * raises. */
void bind_row_push_first(struct lua_State *L, const struct batch *batch, struct batch_item *item);

/* Makes the value at `index` a plain table if it is a row that nobody has looked at: lua_next() and
 * the raw functions of Lua's C interface would find nothing in it. */
void bind_row_read(struct lua_State *L, int index);

#endif
