/* From Lua values to a batch: a statement, by its name or as text, and its parameters. */
#ifndef MOONPOOL_BIND_QUEUE_H
#define MOONPOOL_BIND_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

struct handling;
struct lua_State;
struct script_tx;

/* Appends the statement at index 2 with the parameters behind it to the transaction's batch;
 * raises, with nothing appended, if there is no such statement or a parameter does not fit. */
void bind_queue(struct lua_State *L, struct script_tx *script_tx);

/* True for nil and json.null, which both are SQL NULL. */
bool bind_queue_is_null(struct lua_State *L, int index);

/* Leaves the table at `index` in the handling's scratch buffer as the text of an array or of JSON,
 * whichever a value of `type` is. */
void bind_queue_encode(struct lua_State *L, int index, uint32_t type, struct handling *handling);

/* The same as JSON. Both raise if a __json that is called for it has changed a transaction. */
void bind_queue_encode_json(struct lua_State *L, int index, struct handling *handling);

#endif
