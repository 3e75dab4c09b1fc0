/* Handles: what Lua holds of a transaction. A handle is a userdata that points to the script_tx in
 * the request's arena until the transaction ends: C owns the transaction, Lua only points. */
#ifndef MOONPOOL_BIND_TX_H
#define MOONPOOL_BIND_TX_H

struct handling;
struct lua_State;
struct script_tx;

/* Makes the metatable, with the methods of the table on top of the stack, which stays. Once per
 * lua_State. */
void bind_tx_open(struct lua_State *L);

/* Pushes the handle of a new script_tx in the handling's arena, begun where the script is now. */
struct script_tx *bind_tx_push(struct lua_State *L, struct handling *handling);

/* The transaction of the handle at index 1; raises if it has ended, or is another request's. */
struct script_tx *bind_tx_check_open(struct lua_State *L);

/* The same; raises also if a statement of it has failed, or a copy_from is under way. */
struct script_tx *bind_tx_check_usable(struct lua_State *L);

/* The transaction of the handle at index 1, NULL if it has ended. */
struct script_tx *bind_tx_find(struct lua_State *L);

/* Raises what the last operation on the transaction failed of, if it did. */
void bind_tx_raise_failure(struct lua_State *L, struct script_tx *script_tx);

#endif
