/* copy_from: the part of it that is C. lua/database.lua walks the rows and calls, in this order,
 * copy_begin, copy_row for each, copy_end or copy_refuse. */
#ifndef MOONPOOL_BIND_COPY_H
#define MOONPOOL_BIND_COPY_H

struct lua_State;

/* Adds to the table of a transaction's methods, on top of the stack: copy_begin(table, columns),
 * copy_row(row) -> whether more are wanted, copy_end() -> count, copy_refuse(). */
void bind_copy_open(struct lua_State *L);

#endif
