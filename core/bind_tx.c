/* Handles, and what is wrong with using one. */
#include "bind_tx.h"

#include <stdio.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "bind_place.h"
#include "bind_type.h"
#include "error.h"
#include "handling.h"
#include "request.h"

static const char type_name[] = "moonpool.tx";

struct script_tx *bind_tx_find(lua_State *L)
{
    struct tx_handle *handle = bind_type_check(L, 1, type_name);
    return handle->script_tx;
}

struct script_tx *bind_tx_check_open(lua_State *L)
{
    struct tx_handle *handle = bind_type_check(L, 1, type_name);
    if (!handle->script_tx) {
        bind_place_error(L, "the transaction begun at %s %s: it cannot be used any more",
                         handle->where, handle->end);
    }
    if (handle->script_tx->handling != handling_of(L)) {
        bind_place_error(L, "the transaction begun at %s belongs to another request",
                         handle->where);
    }
    return handle->script_tx;
}

/* Names the failure that came first: whatever is tried behind it fails because of it. */
static void refuse_failed(lua_State *L, const struct error *first)
{
    bind_place_error(L,
                     "a statement of this transaction has failed before (%s%s%s%s%s): only a "
                     "rollback is possible",
                     first->statement, *first->statement ? " at " : "", first->where,
                     *first->where ? ": " : "", first->message);
}

struct script_tx *bind_tx_check_usable(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_open(L);
    struct tx *tx = &script_tx->tx;
    if (tx->untold || (tx->failed && tx->state == TX_ENDED)) {
        tx->untold = false;
        bind_error_raise(L, &tx->error); /* The database went away, or its time was over. */
    }
    if (tx->failed) {
        refuse_failed(L, &tx->error);
    }
    if (tx->state == TX_COPYING || tx->state == TX_FEEDING) {
        bind_place_error(L, "a copy_from is under way: the transaction can do nothing else until "
                            "its last row");
    }
    return script_tx;
}

void bind_tx_raise_failure(lua_State *L, struct script_tx *script_tx)
{
    if (script_tx->tx.error.code != ERROR_NONE) {
        bind_error_raise(L, &script_tx->tx.error);
    }
}

struct script_tx *bind_tx_push(lua_State *L, struct handling *handling)
{
    const struct route *route = handling->request->match.target;
    struct tx_handle *handle = bind_type_new(L, type_name, sizeof *handle, 0);
    handle->end = "has ended";
    if (!bind_place_write(L, handle->where, sizeof handle->where)) {
        snprintf(handle->where, sizeof handle->where, "%s", route->where);
    }
    struct script_tx *script_tx = arena_zalloc(&handling->request->arena, sizeof *script_tx);
    script_tx->where = arena_strdup(&handling->request->arena, handle->where);
    script_tx->handling = handling;
    script_tx->handle = handle;
    handle->script_tx = script_tx;
    return script_tx;
}

static int collect(lua_State *L)
{
    struct tx_handle *handle = bind_type_check(L, 1, type_name);
    if (handle->script_tx) {
        handle->script_tx->handle = NULL;
        handle->script_tx = NULL;
    }
    return 0;
}

void bind_tx_open(lua_State *L)
{
    bind_type_open(L, type_name);
    lua_pushcfunction(L, collect);
    lua_setfield(L, -2, "__gc");
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "__index");
    lua_pushliteral(L, "moonpool.tx");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
