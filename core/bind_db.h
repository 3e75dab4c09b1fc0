/* The database in Lua: the C half of app.db and of transactions; lua/transaction.lua is the other.
 */
#ifndef MOONPOOL_BIND_DB_H
#define MOONPOOL_BIND_DB_H

struct lua_State;

/* Pushes the table of functions: query, query_row, exec, queue and send_batch for statements
 * outside a transaction, `begin(options, level)` for a transaction's handle, `tx` with the handle's
 * methods, `sleep(seconds)`. A module opener. */
int bind_db_open(struct lua_State *L);

#endif
