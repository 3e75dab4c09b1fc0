/* A row in Lua: a plain table, made when it is looked at. */
#ifndef MOONPOOL_BIND_ROW_H
#define MOONPOOL_BIND_ROW_H

#include "buffer.h"

struct error;
struct lua_State;
struct pg_result;

/* Makes the metatable of unread rows, and has the base library look at a row before it does what
 * would not. Once per lua_State. */
void bind_row_open(struct lua_State *L);

/* Pushes a metatable for rows of this result, which keeps the order of the columns for JSON. */
void bind_row_push_kind(struct lua_State *L, const struct pg_result *result);

/* Pushes row `row`, 0-based, as a new table with the metatable at `kind`. `scratch` is borrowed for
 * the call; it belongs to somebody who outlives a Lua error. */
void bind_row_push(struct lua_State *L, const struct pg_result *result, int row, int kind,
                   struct buffer *scratch);

/* Pushes the first row, or nil if there is none. `*result` is taken over and set to NULL as soon as
 * somebody else owns it, so that an error on the way loses nothing. Most are returned to the client
 * as they are: until something looks at it the row is an empty table, and goes to JSON straight
 * from the result. That ends with the request: looking at it for the first time later raises. */
void bind_row_push_first(struct lua_State *L, struct pg_result **result);

/* Makes the value at `index` a plain table if it is a row that nobody has looked at: lua_next() and
 * the raw functions of Lua's C interface would find nothing in it. */
void bind_row_read(struct lua_State *L, int index);

/* Raises if two columns have the same name: a row has room for one of them. */
void bind_row_check_columns(struct lua_State *L, const struct pg_result *result);

/* What of a row's JSON is the same for all rows of a result. Zeroed until it is first needed; kept
 * with the result then, because a script can encode it again and again. */
struct bind_row_form {
    int columns;
    struct bind_row_column *column; /* owned; NULL before */
    struct buffer text;             /* owned; of all columns */
};

/* Prepares for bind_row_write(), unless that was done. -1 with ERROR_SCRIPT if a column's name is
 * not valid UTF-8. */
int bind_row_form(struct bind_row_form *form, const struct pg_result *result, struct error *err);
void bind_row_form_finish(struct bind_row_form *form);

/* Appends row `row`, 0-based, as JSON. -1 with ERROR_SCRIPT if it is not valid UTF-8. */
int bind_row_write(const struct bind_row_form *form, const struct pg_result *result, int row,
                   struct buffer *out, struct error *err);

/* Raises ERROR_MEMORY: results take more than the limit. */
void bind_row_refuse_memory(struct lua_State *L);

#endif
