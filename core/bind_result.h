/* A result that Lua has, or may still ask for: charged against the limit of Lua's memory, and its
 * rows written as JSON straight from it. */
#ifndef MOONPOOL_BIND_RESULT_H
#define MOONPOOL_BIND_RESULT_H

#include <stddef.h>

#include "buffer.h"
#include "shape.h"

struct error;
struct lua_State;
struct pg_result;
struct vm;

/* Zeroed before it takes a result, and after it has released it. */
struct bind_result {
    struct vm *vm;            /* borrowed; its maker */
    struct pg_result *result; /* owned; NULL if there are no rows, or no more */
    size_t bytes;             /* of the result, as charged */
    struct shape shape;       /* owned */
    struct buffer scratch;    /* owned; for bind_value_push() */
    /* What of a row's JSON is the same for all rows: of each member, or of each column if the shape
     * has no objects. Kept, because a script can encode the rows again and again. */
    struct bind_result_text *text; /* owned; NULL before bind_result_prepare() */
    struct buffer texts;           /* owned */
};

/* Takes over `*result`, and sets it to NULL as soon as it has; raises ERROR_MEMORY instead if it
 * needs more memory than is left. */
void bind_result_take(struct lua_State *L, struct bind_result *held, struct pg_result **result);
void bind_result_release(struct bind_result *held);

/* Prepares for bind_result_write(), unless that was done. -1 with ERROR_SCRIPT if a column's name
 * is not valid UTF-8. */
int bind_result_prepare(struct bind_result *held, struct error *err);

/* Appends row `row`, 0-based, as JSON. -1 with ERROR_SCRIPT if it is not valid UTF-8. */
int bind_result_write(const struct bind_result *held, int row, struct buffer *out,
                      struct error *err);

#endif
