/* From Lua values to a batch: a statement, by its name or as text, and its parameters. */
#ifndef MOONPOOL_BIND_QUEUE_H
#define MOONPOOL_BIND_QUEUE_H

struct handling;
struct lua_State;
struct script_tx;

/* Appends the statement at index 2 with the parameters behind it to the transaction's batch;
 * raises, with nothing appended, if there is no such statement or a parameter does not fit. */
void bind_queue(struct lua_State *L, struct script_tx *script_tx);

/* The script's line that made the running call, "file:line", in the request's arena; the route's if
 * a tail call left no frame. */
const char *bind_queue_place(struct lua_State *L, struct handling *handling);

#endif
