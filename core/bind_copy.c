/* From Lua rows to COPY. The types of the columns are asked for first, in the trip that sends BEGIN
 * and what is queued. */
#include "bind_copy.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "batch.h"
#include "bind_error.h"
#include "bind_place.h"
#include "bind_queue.h"
#include "bind_tx.h"
#include "error.h"
#include "handling.h"
#include "pg_result.h"
#include "vm.h"

enum { MOST_COLUMNS = 1600 }; /* PostgreSQL's own limit */

/* Rows are handed over when they are this many bytes. */
enum { CHUNK_SIZE = 64 * 1024 };

/* A domain counts as what it is made of. A column that is not there has no type: COPY says so. */
static const char types_sql[] =
    "select coalesce(nullif(t.typbasetype, 0), t.oid, 0)::bigint "
    "from unnest($2::text[]) with ordinality c(name, place) "
    "left join pg_catalog.pg_attribute a on a.attrelid = $1::regclass and a.attname = c.name "
    "left join pg_catalog.pg_type t on t.oid = a.atttypid order by c.place";

static const struct statement types_statement = {
    .sql = types_sql, .kind = STATEMENT_MANY, .key = STATEMENT_KEY_COPY_TYPES};

/* Beginning. */

/* Raises for what is no name: "copy_from: <what> must be ...". */
static const char *check_name(lua_State *L, int index, const char *what)
{
    size_t length;
    const char *name = lua_type(L, index) == LUA_TSTRING ? lua_tolstring(L, index, &length) : NULL;
    if (!name || length == 0 || strlen(name) != length) {
        bind_place_error(L, "copy_from needs the name of %s, not %s", what,
                         name ? "an empty one" : luaL_typename(L, index));
    }
    return name;
}

static void read_names(lua_State *L, struct copytext *text)
{
    copytext_set_table(text, check_name(L, 2, "a table"));
    lua_Integer columns = lua_istable(L, 3) ? (lua_Integer)lua_rawlen(L, 3) : 0;
    if (columns < 1 || columns > MOST_COLUMNS) {
        bind_place_error(L, "copy_from needs a list of 1 to %d columns", MOST_COLUMNS);
    }
    for (lua_Integer i = 1; i <= columns; i++) {
        lua_rawgeti(L, 3, i);
        copytext_add_column(text, check_name(L, -1, "each column"));
        lua_pop(L, 1);
    }
}

static void set_text(struct parameter *parameter, const char *text)
{
    *parameter = (struct parameter){.value = text, .length = (int32_t)strlen(text)};
}

static void ask_for_types(struct script_tx *script_tx)
{
    struct copytext *text = &script_tx->copy;
    struct batch_item *item = batch_add(tx_batch(&script_tx->tx), &types_statement, 2, NULL, 0);
    set_text(&item->parameters[0], copytext_table(text));
    set_text(&item->parameters[1], copytext_names(text));
}

/* Errors of a COPY are those of the script's call. */
static void raise_failure(lua_State *L, struct script_tx *script_tx)
{
    struct error *err = &script_tx->tx.error;
    if (err->code != ERROR_NONE && !*err->where) {
        snprintf(err->where, sizeof err->where, "%s", script_tx->copy_where);
    }
    bind_tx_raise_failure(L, script_tx);
}

static void take_types(struct script_tx *script_tx)
{
    const struct batch *batch = &script_tx->tx.batch;
    const struct pg_result *result = batch->items[batch->count - 1].result;
    struct copytext *text = &script_tx->copy;
    for (uint16_t i = 0; i < text->columns && i < pg_result_rows(result); i++) {
        size_t length;
        const char *type = pg_result_value(result, i, 0, &length);
        text->types[i] = type ? (uint32_t)strtoul(type, NULL, 10) : 0;
    }
}

static int go_on_begin(lua_State *L, int status, lua_KContext context)
{
    raise_failure(L, (struct script_tx *)context);
    return 0;
}

static int go_on_types(lua_State *L, int status, lua_KContext context)
{
    struct script_tx *script_tx = (struct script_tx *)context;
    struct copytext *text = &script_tx->copy;
    raise_failure(L, script_tx);
    take_types(script_tx);
    tx_copy(&script_tx->tx, copytext_command(text), text->bare, handling_on_tx);
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on_begin, context);
}

static int method_begin(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_usable(L);
    vm_check_wait(L);
    copytext_finish(&script_tx->copy);
    read_names(L, &script_tx->copy);
    if (!bind_place_write(L, script_tx->copy_where, PLACE_SIZE)) {
        snprintf(script_tx->copy_where, PLACE_SIZE, "%s", script_tx->where);
    }
    ask_for_types(script_tx);
    tx_send(&script_tx->tx, handling_on_tx);
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on_types,
                         (lua_KContext)script_tx);
}

/* Rows. */

static void raise_in_row(lua_State *L, struct script_tx *script_tx, struct error *err)
{
    err->row = script_tx->copy.count + 1;
    snprintf(err->where, sizeof err->where, "%s", script_tx->copy_where);
    bind_error_raise(L, err);
}

static void refuse_row(lua_State *L, struct script_tx *script_tx, const char *why)
{
    struct error err;
    error_set(&err, ERROR_SCRIPT, "row %llu of copy_from %s",
              (unsigned long long)script_tx->copy.count + 1, why);
    raise_in_row(L, script_tx, &err);
}

/* The value on top of the stack. */
static int add_value(lua_State *L, struct script_tx *script_tx, uint32_t type, struct error *err)
{
    struct copytext *text = &script_tx->copy;
    struct handling *handling = script_tx->handling;
    size_t length;
    const char *value;
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        copytext_boolean(text, lua_toboolean(L, -1));
        return 0;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1)) {
            copytext_integer(text, lua_tointeger(L, -1));
            return 0;
        }
        return copytext_number(text, type, lua_tonumber(L, -1), err);
    case LUA_TSTRING:
        value = lua_tolstring(L, -1, &length);
        return copytext_text(text, type, value, length, err);
    case LUA_TTABLE:
    case LUA_TLIGHTUSERDATA: /* json.empty_array */
        bind_queue_encode(L, lua_gettop(L), type, handling);
        return copytext_text(text, type, handling->scratch.data, handling->scratch.length, err);
    default:
        return error_set(err, ERROR_SCRIPT, "a %s is no value for a column", luaL_typename(L, -1));
    }
}

/* True if the table at index 2, in which nothing was found, has members by other keys. */
static bool has_members(lua_State *L)
{
    lua_pushnil(L);
    if (lua_next(L, 2) == 0) {
        return false;
    }
    lua_pop(L, 2);
    return true;
}

static void add_row(lua_State *L, struct script_tx *script_tx)
{
    struct copytext *text = &script_tx->copy;
    struct error err;
    bool found = false;
    if (lua_rawlen(L, 2) > text->columns) {
        refuse_row(L, script_tx, "has more values than there are columns");
    }
    copytext_begin_row(text);
    for (uint16_t i = 0; i < text->columns; i++) {
        lua_rawgeti(L, 2, i + 1);
        if (bind_queue_is_null(L, -1)) {
            copytext_null(text);
        } else if (add_value(L, script_tx, text->types[i], &err) != 0) {
            raise_in_row(L, script_tx, &err);
        }
        found = found || !lua_isnil(L, -1);
        lua_pop(L, 1);
    }
    if (!found && has_members(L)) {
        refuse_row(L, script_tx, "is no sequence of values");
    }
    copytext_end_row(text);
}

/* The transaction whose COPY takes rows; raises if it has failed meanwhile, or there is none. */
static struct script_tx *check_feeding(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_open(L);
    if (script_tx->tx.state != TX_FEEDING) {
        raise_failure(L, script_tx);
        bind_place_error(L, "no copy_from is under way");
    }
    return script_tx;
}

static int go_on_row(lua_State *L, int status, lua_KContext context)
{
    struct script_tx *script_tx = (struct script_tx *)context;
    raise_failure(L, script_tx);
    lua_pushboolean(L, !tx_copy_is_refused(&script_tx->tx));
    return 1;
}

static int method_row(lua_State *L)
{
    struct script_tx *script_tx = check_feeding(L);
    struct copytext *text = &script_tx->copy;
    if (!lua_istable(L, 2)) {
        refuse_row(L, script_tx, "is no table");
    }
    vm_check_wait(L);
    add_row(L, script_tx);
    if (text->whole < CHUNK_SIZE) {
        lua_pushboolean(L, true);
        return 1;
    }
    bool more = tx_copy_feed(&script_tx->tx, text->rows.data, text->whole);
    copytext_empty(text);
    return more ? go_on_row(L, LUA_OK, (lua_KContext)script_tx)
                : handling_wait(L, script_tx->handling, &script_tx->tx, go_on_row,
                                (lua_KContext)script_tx);
}

/* Ending. */

static int go_on_end(lua_State *L, int status, lua_KContext context)
{
    struct script_tx *script_tx = (struct script_tx *)context;
    raise_failure(L, script_tx);
    lua_pushinteger(L, script_tx->tx.copy.count);
    return 1;
}

static int end(lua_State *L, struct script_tx *script_tx)
{
    tx_copy_end(&script_tx->tx, lua_toboolean(L, 2));
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on_end,
                         (lua_KContext)script_tx);
}

static int go_on_last_rows(lua_State *L, int status, lua_KContext context)
{
    raise_failure(L, (struct script_tx *)context);
    return end(L, (struct script_tx *)context);
}

static int method_end(lua_State *L)
{
    struct script_tx *script_tx = check_feeding(L);
    struct copytext *text = &script_tx->copy;
    vm_check_wait(L);
    bool fed = text->whole == 0 || tx_copy_feed(&script_tx->tx, text->rows.data, text->whole);
    copytext_empty(text);
    return fed ? end(L, script_tx)
               : handling_wait(L, script_tx->handling, &script_tx->tx, go_on_last_rows,
                               (lua_KContext)script_tx);
}

static int go_on_refuse(lua_State *L, int status, lua_KContext context)
{
    return 0;
}

/* Nothing if none is under way: whatever went wrong has ended it. */
static int method_refuse(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_find(L) ? bind_tx_check_open(L) : NULL;
    if (!script_tx || script_tx->tx.state != TX_FEEDING) {
        return 0;
    }
    vm_check_wait(L);
    tx_copy_refuse(&script_tx->tx);
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on_refuse,
                         (lua_KContext)script_tx);
}

static const luaL_Reg methods[] = {
    {"copy_begin", method_begin},
    {"copy_row", method_row},
    {"copy_end", method_end},
    {"copy_refuse", method_refuse},
    {NULL, NULL},
};

void bind_copy_open(lua_State *L)
{
    luaL_setfuncs(L, methods, 0);
}
