/* A result that Lua has, or may still ask for: charged against the limit of Lua's memory, and its
 * rows written as JSON straight from it. */
#ifndef MOONPOOL_BIND_RESULT_H
#define MOONPOOL_BIND_RESULT_H

#include <stddef.h>

#include "buffer.h"

struct batch;
struct batch_item;
struct error;
struct lua_State;
struct pg_result;
struct row_form;
struct vm;

/* Zeroed before it takes a result, and after it has released it. */
struct bind_result {
    struct vm *vm;            /* borrowed; its maker */
    struct pg_result *result; /* owned; NULL if there are no rows, or no more */
    size_t bytes;             /* of the result, as charged */
    struct row_form *form;    /* held */
    struct buffer scratch;    /* owned; for bind_value_push() */
};

/* Takes over the result of an item of `batch`, and sets that to NULL as soon as it has. Raises
 * instead ERROR_SCRIPT if its columns make no row, see shape_check(), and ERROR_MEMORY if it needs
 * more memory than is left. */
void bind_result_take(struct lua_State *L, struct bind_result *held, const struct batch *batch,
                      struct batch_item *item);
void bind_result_release(struct bind_result *held);

/* To be called before bind_result_write(). -1 with ERROR_SCRIPT if a column's name is not valid
 * UTF-8. */
int bind_result_check_names(const struct bind_result *held, struct error *err);

/* Appends row `row`, 0-based, as JSON. -1 with ERROR_SCRIPT if it is not valid UTF-8. */
int bind_result_write(const struct bind_result *held, int row, struct buffer *out,
                      struct error *err);

#endif
