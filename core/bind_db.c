/* Statements and transactions in Lua. A handle is a userdata with a pointer to the script_tx in the
 * request's arena, set to NULL when the transaction ends: C owns the transaction, Lua only points.
 */
#include "bind_db.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "batch.h"
#include "bind_error.h"
#include "bind_json.h"
#include "bind_rows.h"
#include "bulk.h"
#include "error.h"
#include "handling.h"
#include "pgtype.h"
#include "request.h"
#include "vm.h"

static const char type_name[] = "moonpool.tx";

enum { TABLE_NAME_SIZE = 64, MOST_SLEEP_S = 3600 };

enum { MOST_DIMENSIONS = 6 }; /* PostgreSQL's own limit, MAXDIM */

/* Handles. */

static struct script_tx *check_open(lua_State *L)
{
    struct script_tx **handle = luaL_checkudata(L, 1, type_name);
    if (!*handle) {
        luaL_error(L, "this transaction has ended: it cannot be used any more");
    }
    struct script_tx *script_tx = *handle;
    if (script_tx->handling != handling_of(L)) {
        luaL_error(L, "this transaction belongs to another request");
    }
    return script_tx;
}

static struct script_tx *check_usable(lua_State *L)
{
    struct script_tx *script_tx = check_open(L);
    if (script_tx->tx.failed) {
        luaL_error(L,
                   "a statement of this transaction has failed (%s): only a rollback is possible",
                   script_tx->tx.error.message);
    }
    return script_tx;
}

/* The statements of this request that stand for themselves. Inside a transaction they would need a
 * second connection while the first is held, which is how pools deadlock. */
static struct script_tx *statements_of(lua_State *L)
{
    struct handling *handling = handling_of(L);
    if (!list_is_empty(&handling->transactions)) {
        luaL_error(L,
                   "a transaction is open: use its own methods (tx:query ...) until it has ended");
    }
    struct script_tx *statements = &handling->statements;
    if (!statements->handling) {
        static const struct tx_options options = {.autocommit = true};
        tx_init(&statements->tx, handling->runner->database, &options, handling->request->deadline,
                &handling->request->times);
        statements->handling = handling;
    }
    return statements;
}

/* Parameters. */

static void encode_json(lua_State *L, int index, struct handling *handling)
{
    struct error err;
    handling->scratch.length = 0;
    if (bind_json_encode(L, index, &handling->scratch, &err) != 0) {
        bind_error_raise(L, &err);
    }
}

/* Pushes what a member of an array parameter is in text. */
static const char *element_text(lua_State *L, size_t *ret_length)
{
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN:
        lua_pushstring(L, lua_toboolean(L, -1) ? "true" : "false");
        break;
    case LUA_TNUMBER:
    case LUA_TSTRING:
        lua_pushvalue(L, -1);
        break;
    default:
        luaL_error(L, "an array parameter holds a %s", luaL_typename(L, -1));
    }
    return lua_tolstring(L, -1, ret_length);
}

/* Appends the table at `index` as an array literal: {1,NULL,"a b",{...}}. */
static void encode_array(lua_State *L, int index, struct buffer *out, int depth)
{
    if (depth > MOST_DIMENSIONS) {
        luaL_error(L, "an array parameter has more than %d dimensions", MOST_DIMENSIONS);
    }
    luaL_checkstack(L, 4, "an array parameter is nested too deeply");
    lua_Integer length = (lua_Integer)lua_rawlen(L, index);
    buffer_append_char(out, '{');
    for (lua_Integer i = 1; i <= length; i++) {
        if (i > 1) {
            buffer_append_char(out, ',');
        }
        int type = lua_rawgeti(L, index, i);
        if (type == LUA_TTABLE) {
            encode_array(L, lua_gettop(L), out, depth + 1);
        } else if (type == LUA_TNIL || type == LUA_TLIGHTUSERDATA) {
            buffer_append_text(out, "NULL");
        } else {
            size_t size;
            const char *text = element_text(L, &size);
            pgtype_write_array_element(out, text, size);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    buffer_append_char(out, '}');
}

/* Without a described type a sequence is taken for an array, any other table for JSON. */
static bool wants_array(lua_State *L, int index, uint32_t type)
{
    enum pgtype_class class = pgtype_classify(type, NULL);
    return class == PGTYPE_ARRAY || (class != PGTYPE_JSON && type == 0 && lua_rawlen(L, index) > 0);
}

static void encode_table(lua_State *L, int index, uint32_t type, struct handling *handling)
{
    if (wants_array(L, index, type)) {
        handling->scratch.length = 0;
        encode_array(L, index, &handling->scratch, 1);
    } else {
        encode_json(L, index, handling);
    }
}

static int set_text(struct parameter *parameter, uint32_t type, struct batch *batch,
                    const char *text, size_t length, struct error *err)
{
    char *copy = arena_strndup(&batch->arena, text, length);
    return pgtype_from_text(parameter, type, copy, length, err);
}

/* json.null is SQL NULL too. */
static bool is_null(lua_State *L, int index)
{
    return lua_islightuserdata(L, index) && !lua_touserdata(L, index);
}

static int set_parameter(lua_State *L, int index, uint32_t type, struct parameter *parameter,
                         struct batch *batch, struct handling *handling, struct error *err)
{
    size_t length;
    const char *text;
    if (lua_isnil(L, index) || is_null(L, index)) {
        return 0;
    }
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN:
        return pgtype_from_boolean(parameter, type, lua_toboolean(L, index), err);
    case LUA_TNUMBER:
        return lua_isinteger(L, index)
                   ? pgtype_from_integer(parameter, type, lua_tointeger(L, index), &batch->arena,
                                         err)
                   : pgtype_from_number(parameter, type, lua_tonumber(L, index), &batch->arena,
                                        err);
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &length);
        return set_text(parameter, type, batch, text, length, err);
    case LUA_TTABLE:
    case LUA_TLIGHTUSERDATA: /* json.empty_array */
        encode_table(L, index, type, handling);
        return set_text(parameter, type, batch, handling->scratch.data, handling->scratch.length,
                        err);
    default:
        return luaL_typeerror(L, index, "number, string, boolean, table or nil");
    }
}

/* Queueing. */

static const struct statement *check_statement(lua_State *L, struct script_tx *script_tx,
                                               struct batch *batch)
{
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    luaL_argcheck(L, strlen(text) == length, 2, "SQL must not contain a NUL character");
    const struct statement *statement =
        generation_statement(script_tx->handling->generation, text, length, &batch->arena);
    if (!statement) {
        luaL_error(L, "there is no statement named '%s' in the SQL folder", text);
    }
    return statement;
}

static void check_count(lua_State *L, const struct statement *statement, int count)
{
    if (statement->described && count != statement->parameter_count) {
        luaL_error(L, "the statement %s takes %d parameters, not %d", statement->name,
                   statement->parameter_count, count);
    }
    luaL_argcheck(L, count <= UINT16_MAX, 2, "a statement has at most 65535 parameters");
}

static void raise_at_item(lua_State *L, const struct batch *batch, const struct batch_item *item,
                          struct error *err)
{
    err->item = (size_t)(item - batch->items) + 1 - batch->hidden;
    snprintf(err->where, sizeof err->where, "%s:%d", item->source, item->line);
    if (item->statement->name) {
        snprintf(err->statement, sizeof err->statement, "%s", item->statement->name);
    }
    bind_error_raise(L, err);
}

/* The script's line that made this call. */
static void find_caller(lua_State *L, lua_Debug *caller)
{
    for (int level = 1; lua_getstack(L, level, caller); level++) {
        lua_getinfo(L, "Sl", caller);
        if (caller->currentline > 0 && *caller->source == '@') {
            return;
        }
    }
    strcpy(caller->short_src, "?");
    caller->currentline = 0;
}

/* Makes the values from index 3 on into `parameters`. */
static int set_parameters(lua_State *L, struct script_tx *script_tx, struct batch *batch,
                          struct batch_item *item, struct parameter *parameters, struct error *err)
{
    const struct statement *statement = item->statement;
    for (uint16_t i = 0; i < item->parameter_count; i++) {
        uint32_t type = item->bulk             ? bulk_element_type(item->bulk, i)
                        : statement->described ? statement->parameter_types[i]
                                               : 0;
        if (set_parameter(L, i + 3, type, &parameters[i], batch, script_tx->handling, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The batch's last item if this row belongs to it: rows of a :bulk statement are gathered as long
 * as nothing else is queued between them, so that the order of statements stays that of the calls.
 */
static struct batch_item *open_bulk(struct batch *batch, const struct statement *statement,
                                    int count)
{
    if (batch->count == batch->hidden) {
        return NULL;
    }
    struct batch_item *last = &batch->items[batch->count - 1];
    return last->statement == statement && last->bulk && last->parameter_count == count ? last
                                                                                        : NULL;
}

static void queue_row(lua_State *L, struct script_tx *script_tx, struct batch *batch,
                      const struct statement *statement, int count)
{
    struct error err;
    struct batch_item *item = open_bulk(batch, statement, count);
    if (!item) {
        lua_Debug caller;
        find_caller(L, &caller);
        item = batch_add(batch, statement, (uint16_t)count, caller.short_src, caller.currentline);
        item->bulk = bulk_create(statement, (uint16_t)count);
    }
    struct parameter *row = arena_zalloc(&batch->arena, (size_t)count * sizeof *row);
    if (set_parameters(L, script_tx, batch, item, row, &err) != 0 ||
        bulk_add(item->bulk, row, &err) != 0) {
        raise_at_item(L, batch, item, &err);
    }
}

static void queue_statement(lua_State *L, struct script_tx *script_tx, struct batch *batch,
                            const struct statement *statement, int count)
{
    struct error err;
    lua_Debug caller;
    find_caller(L, &caller);
    struct batch_item *item =
        batch_add(batch, statement, (uint16_t)count, caller.short_src, caller.currentline);
    /* Not part of the batch before it is whole: a bad parameter raises. */
    batch->count--;
    if (set_parameters(L, script_tx, batch, item, item->parameters, &err) != 0) {
        raise_at_item(L, batch, item, &err);
    }
    batch->count++;
}

/* Appends the statement at index 2 with the parameters behind it. */
static void queue(lua_State *L, struct script_tx *script_tx)
{
    struct batch *batch = tx_batch(&script_tx->tx);
    const struct statement *statement = check_statement(L, script_tx, batch);
    int count = lua_gettop(L) - 2;
    check_count(L, statement, count);
    if (statement->kind == STATEMENT_BULK) {
        queue_row(L, script_tx, batch, statement, count);
    } else {
        queue_statement(L, script_tx, batch, statement, count);
    }
}

/* Results. */

static void raise_failure(lua_State *L, struct script_tx *script_tx)
{
    if (script_tx->tx.error.code != ERROR_NONE) {
        bind_error_raise(L, &script_tx->tx.error);
    }
}

static struct batch_item *last_item(struct script_tx *script_tx)
{
    struct batch *batch = &script_tx->tx.batch;
    return &batch->items[batch->count - 1];
}

static int push_rows(lua_State *L, struct script_tx *script_tx)
{
    bind_rows_push(L, &last_item(script_tx)->result);
    return 1;
}

static int push_row(lua_State *L, struct script_tx *script_tx)
{
    bind_rows_push_first(L, &last_item(script_tx)->result);
    return 1;
}

static int push_count(lua_State *L, struct script_tx *script_tx)
{
    lua_pushinteger(L, last_item(script_tx)->count);
    return 1;
}

static void push_by_kind(lua_State *L, struct batch_item *item)
{
    enum statement_kind kind = item->statement->kind;
    if (kind == STATEMENT_ONE) {
        bind_rows_push_first(L, &item->result);
    } else if (kind == STATEMENT_MANY || (kind == STATEMENT_TEXT && item->result)) {
        bind_rows_push(L, &item->result);
    } else {
        lua_pushinteger(L, item->count);
    }
}

/* results.n, by a metatable: a member of that name would keep the table from being a JSON array. */
static void set_count(lua_State *L, size_t count)
{
    lua_createtable(L, 0, 1);
    lua_createtable(L, 0, 1);
    lua_pushinteger(L, (lua_Integer)count);
    lua_setfield(L, -2, "n");
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
}

static int push_all(lua_State *L, struct script_tx *script_tx)
{
    struct batch *batch = &script_tx->tx.batch;
    size_t count = batch->count - batch->hidden;
    lua_createtable(L, (int)count, 0);
    for (size_t i = 0; i < count; i++) {
        push_by_kind(L, &batch->items[batch->hidden + i]);
        lua_rawseti(L, -2, (lua_Integer)i + 1);
    }
    set_count(L, count);
    return 1;
}

/* What to make of a batch's results, by the index that goes along as the continuation's context. */
enum reading { READ_ROWS, READ_ROW, READ_COUNT, READ_ALL };
static int (*const readers[])(lua_State *L,
                              struct script_tx *script_tx) = {[READ_ROWS] = push_rows,
                                                              [READ_ROW] = push_row,
                                                              [READ_COUNT] = push_count,
                                                              [READ_ALL] = push_all};

/* The context carries the script_tx, which is aligned, and the reading in its lowest bits. */
static lua_KContext pack(struct script_tx *script_tx, enum reading reading)
{
    return (lua_KContext)script_tx | (lua_KContext)reading;
}

static int go_on(lua_State *L, int status, lua_KContext context)
{
    struct script_tx *script_tx = (struct script_tx *)(context & ~(lua_KContext)3);
    raise_failure(L, script_tx);
    return readers[context & 3](L, script_tx);
}

static int send(lua_State *L, struct script_tx *script_tx, enum reading reading)
{
    tx_send(&script_tx->tx, handling_on_tx);
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on, pack(script_tx, reading));
}

static int queue_and_send(lua_State *L, struct script_tx *script_tx, enum reading reading)
{
    vm_check_wait(L);
    queue(L, script_tx);
    return send(L, script_tx, reading);
}

static int send_queued(lua_State *L, struct script_tx *script_tx)
{
    vm_check_wait(L);
    struct batch *batch = tx_batch(&script_tx->tx);
    if (batch->count == batch->hidden) {
        lua_newtable(L);
        set_count(L, 0);
        return 1;
    }
    return send(L, script_tx, READ_ALL);
}

/* Methods of a transaction; index 1 is the handle. */

static int tx_query(lua_State *L)
{
    return queue_and_send(L, check_usable(L), READ_ROWS);
}

static int tx_query_row(lua_State *L)
{
    return queue_and_send(L, check_usable(L), READ_ROW);
}

static int tx_exec(lua_State *L)
{
    return queue_and_send(L, check_usable(L), READ_COUNT);
}

static int tx_queue(lua_State *L)
{
    queue(L, check_usable(L));
    return 0;
}

static int tx_send_batch(lua_State *L)
{
    return send_queued(L, check_usable(L));
}

/* tx:open(): BEGIN and what comes with it now, rather than with the first statement. */
static int tx_open(lua_State *L)
{
    struct script_tx *script_tx = check_usable(L);
    vm_check_wait(L);
    tx_batch(&script_tx->tx);
    return send(L, script_tx, READ_ALL);
}

static int go_on_commit(lua_State *L, int status, lua_KContext context)
{
    struct script_tx *script_tx = (struct script_tx *)context;
    struct error err = script_tx->tx.error;
    script_tx_end(script_tx);
    return err.code == ERROR_NONE ? 0 : bind_error_raise(L, &err);
}

static int tx_commit_method(lua_State *L)
{
    struct script_tx *script_tx = check_usable(L);
    vm_check_wait(L);
    if (tx_commit(&script_tx->tx, handling_on_tx)) {
        script_tx_end(script_tx);
        return 0;
    }
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on_commit,
                         (lua_KContext)script_tx);
}

/* Nobody waits for the rollback: the connection is cleaned behind the scenes. */
static int tx_rollback(lua_State *L)
{
    struct script_tx **handle = luaL_checkudata(L, 1, type_name);
    if (*handle) {
        script_tx_end(check_open(L));
    }
    return 0;
}

/* tx:recover("rollback to savepoint s1"): after a failure this is the one statement that is
 * allowed. What was queued and not sent is forgotten with the savepoint. */
static int tx_recover(lua_State *L)
{
    struct script_tx *script_tx = check_open(L);
    struct tx *tx = &script_tx->tx;
    if (tx->state != TX_OPEN) {
        return luaL_error(L, "this transaction is lost: it cannot go back to a savepoint");
    }
    tx->failed = false;
    tx->collecting = false;
    return queue_and_send(L, script_tx, READ_COUNT);
}

static int tx_close(lua_State *L)
{
    struct script_tx **handle = luaL_checkudata(L, 1, type_name);
    if (*handle) {
        (*handle)->handle = NULL;
        *handle = NULL;
    }
    return 0;
}

static const luaL_Reg tx_methods[] = {
    {"query", tx_query},
    {"query_row", tx_query_row},
    {"exec", tx_exec},
    {"queue", tx_queue},
    {"send_batch", tx_send_batch},
    {"open", tx_open},
    {"commit", tx_commit_method},
    {"rollback", tx_rollback},
    {"recover", tx_recover},
    {NULL, NULL},
};

/* Beginning. */

static bool get_flag(lua_State *L, const char *name)
{
    lua_getfield(L, 1, name);
    bool value = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return value;
}

static enum tx_isolation get_isolation(lua_State *L)
{
    static const char *const names[] = {"default", "read committed", "repeatable read",
                                        "serializable", NULL};
    lua_getfield(L, 1, "isolation");
    const char *name = lua_isnil(L, -1) ? "default" : lua_tostring(L, -1);
    for (int i = 0; name && names[i]; i++) {
        if (strcmp(name, names[i]) == 0) {
            lua_pop(L, 1);
            return (enum tx_isolation)i;
        }
    }
    return luaL_error(L, "isolation must be \"read committed\", \"repeatable read\" or "
                         "\"serializable\"");
}

/* A table's name, with or without its schema, as an identifier that SQL cannot misread. */
static const char *quote_table(lua_State *L, const char *name, struct arena *arena)
{
    luaL_argcheck(L, *name && strlen(name) < TABLE_NAME_SIZE && !strchr(name, '"'), 1,
                  "serialize must be the name of a table");
    const char *dot = strchr(name, '.');
    return dot ? arena_printf(arena, "\"%.*s\".\"%s\"", (int)(dot - name), name, dot + 1)
               : arena_printf(arena, "\"%s\"", name);
}

static const char *get_serialize(lua_State *L, struct arena *arena)
{
    const char *quoted = NULL;
    if (lua_getfield(L, 1, "serialize") != LUA_TNIL) {
        luaL_argexpected(L, lua_type(L, -1) == LUA_TSTRING, 1, "table with serialize as a string");
        quoted = quote_table(L, lua_tostring(L, -1), arena);
    }
    lua_pop(L, 1);
    return quoted;
}

static void refuse_nesting(lua_State *L, const struct handling *handling)
{
    if (!list_is_empty(&handling->transactions)) {
        struct script_tx *open = list_entry(handling->transactions.next, struct script_tx, link);
        luaL_error(L, "a transaction is open already (begun at %s): use tx:savepoint() inside it",
                   open->where);
    }
}

/* A tail call leaves no frame of the script's: then the route has to do. */
static const char *begin_place(struct handling *handling, const lua_Debug *caller)
{
    const struct route *route = handling->request->match.target;
    return caller->currentline > 0 ? arena_printf(&handling->request->arena, "%s:%d",
                                                  caller->short_src, caller->currentline)
                                   : route->where;
}

/* begin(options): the handle of a transaction that sends BEGIN with its first statement. */
static int begin(lua_State *L)
{
    struct handling *handling = handling_of(L);
    struct arena *arena = &handling->request->arena;
    luaL_checktype(L, 1, LUA_TTABLE);
    refuse_nesting(L, handling);
    struct tx_options options = {
        .isolation = get_isolation(L),
        .read_only = get_flag(L, "read_only"),
        .deferrable = get_flag(L, "deferrable"),
        .serialize = get_serialize(L, arena),
    };
    struct script_tx **handle = lua_newuserdatauv(L, sizeof *handle, 0);
    *handle = NULL;
    luaL_setmetatable(L, type_name);
    lua_Debug caller;
    find_caller(L, &caller);
    struct script_tx *script_tx = arena_zalloc(arena, sizeof *script_tx);
    script_tx->where = begin_place(handling, &caller);
    script_tx->handling = handling;
    script_tx->handle = handle;
    tx_init(&script_tx->tx, handling->runner->database, &options, handling->request->deadline,
            &handling->request->times);
    list_append(&handling->transactions, &script_tx->link);
    *handle = script_tx;
    return 1;
}

/* Methods of app.db; index 1 is the table itself. */

static int db_query(lua_State *L)
{
    return queue_and_send(L, statements_of(L), READ_ROWS);
}

static int db_query_row(lua_State *L)
{
    return queue_and_send(L, statements_of(L), READ_ROW);
}

static int db_exec(lua_State *L)
{
    return queue_and_send(L, statements_of(L), READ_COUNT);
}

static int db_queue(lua_State *L)
{
    queue(L, statements_of(L));
    return 0;
}

static int db_send_batch(lua_State *L)
{
    return send_queued(L, statements_of(L));
}

static int go_on_sleep(lua_State *L, int status, lua_KContext context)
{
    return 0;
}

static int sleep_seconds(lua_State *L)
{
    lua_Number seconds = luaL_checknumber(L, 1);
    luaL_argcheck(L, seconds >= 0 && seconds <= MOST_SLEEP_S, 1, "seconds from 0 to 3600 expected");
    return handling_sleep(L, handling_of(L), (uint64_t)(seconds * 1e6), go_on_sleep);
}

static const luaL_Reg functions[] = {
    {"query", db_query},
    {"query_row", db_query_row},
    {"exec", db_exec},
    {"queue", db_queue},
    {"send_batch", db_send_batch},
    {"begin", begin},
    {"sleep", sleep_seconds},
    {NULL, NULL},
};

int bind_db_open(lua_State *L)
{
    luaL_newlib(L, functions);
    luaL_newmetatable(L, type_name);
    lua_pushcfunction(L, tx_close);
    lua_setfield(L, -2, "__gc");
    luaL_newlib(L, tx_methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "__index");
    lua_setfield(L, -3, "tx");
    lua_pushliteral(L, "moonpool.tx");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
    return 1;
}
