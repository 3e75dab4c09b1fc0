/* Results in Lua: lazy. A result is a userdata that looks like a sequence of rows; a row becomes a
 * plain table when it is looked at, and goes to JSON straight from libpq's buffer when it is not.
 */
#ifndef MOONPOOL_BIND_ROWS_H
#define MOONPOOL_BIND_ROWS_H

struct batch;
struct batch_item;
struct lua_State;

/* A result is freed when its request ends, or before by the collector; rows that were looked at are
 * plain tables and live on. Its memory counts against the limit of the Lua state. */

/* Makes the metatables. Once per lua_State. */
void bind_rows_open(struct lua_State *L);

/* Pushes the result. The item's result is taken over and set to NULL as soon as Lua owns it, so
 * that an error on the way loses nothing: see bind_result_take(). */
void bind_rows_push(struct lua_State *L, const struct batch *batch, struct batch_item *item);

#endif
