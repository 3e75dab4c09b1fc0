/* Statements and transactions in Lua. */
#include "bind_db.h"

#include <math.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "batch.h"
#include "bind_copy.h"
#include "bind_error.h"
#include "bind_place.h"
#include "bind_queue.h"
#include "bind_row.h"
#include "bind_rows.h"
#include "bind_tx.h"
#include "error.h"
#include "handling.h"
#include "request.h"
#include "vm.h"

enum { TABLE_NAME_SIZE = 64, MOST_KEY = 200, MOST_SLEEP_S = 3600 };

/* The statements of this request that stand for themselves. Inside a transaction they would need a
 * second connection while the first is held, which is how pools deadlock. */
static struct script_tx *statements_of(lua_State *L)
{
    struct handling *handling = handling_of(L);
    if (!list_is_empty(&handling->transactions)) {
        bind_place_error(
            L, "a transaction is open: use its own methods (tx:query ...) until it has ended");
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

/* Results. */

static struct batch_item *last_item(struct script_tx *script_tx)
{
    struct batch *batch = &script_tx->tx.batch;
    return &batch->items[batch->count - 1];
}

static int push_rows(lua_State *L, struct script_tx *script_tx)
{
    bind_rows_push(L, &script_tx->tx.batch, last_item(script_tx));
    return 1;
}

static int push_row(lua_State *L, struct script_tx *script_tx)
{
    bind_row_push_first(L, &script_tx->tx.batch, last_item(script_tx));
    return 1;
}

static int push_count(lua_State *L, struct script_tx *script_tx)
{
    lua_pushinteger(L, last_item(script_tx)->count);
    return 1;
}

static void push_by_kind(lua_State *L, const struct batch *batch, struct batch_item *item)
{
    enum statement_kind kind = item->statement->kind;
    if (kind == STATEMENT_ONE) {
        bind_row_push_first(L, batch, item);
    } else if (kind == STATEMENT_MANY || (kind == STATEMENT_TEXT && item->result)) {
        bind_rows_push(L, batch, item);
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
        push_by_kind(L, batch, &batch->items[batch->hidden + i]);
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
    bind_tx_raise_failure(L, script_tx);
    return readers[context & 3](L, script_tx);
}

static int send(lua_State *L, struct script_tx *script_tx, enum reading reading)
{
    tx_send(&script_tx->tx, handling_on_tx);
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on, pack(script_tx, reading));
}

static bool is_anything_queued(const struct script_tx *script_tx)
{
    const struct tx *tx = &script_tx->tx;
    return tx->collecting && tx->batch.count > tx->batch.hidden;
}

static void note_sent(lua_State *L, struct script_tx *script_tx)
{
    if (!bind_place_write(L, script_tx->sent_at, PLACE_SIZE)) {
        strcpy(script_tx->sent_at, "?");
    }
}

static int queue_and_send(lua_State *L, struct script_tx *script_tx, enum reading reading)
{
    vm_check_wait(L);
    bool others = is_anything_queued(script_tx);
    bind_queue(L, script_tx);
    if (others) {
        note_sent(L, script_tx);
    }
    return send(L, script_tx, reading);
}

/* Nothing at all may be queued, but not twice: the results went to the call before. */
static int send_nothing(lua_State *L, struct script_tx *script_tx)
{
    if (*script_tx->sent_at) {
        bind_place_error(L, "nothing is queued: what was went with the call at %s",
                         script_tx->sent_at);
    }
    lua_newtable(L);
    set_count(L, 0);
    return 1;
}

static int send_queued(lua_State *L, struct script_tx *script_tx)
{
    vm_check_wait(L);
    if (!is_anything_queued(script_tx)) {
        return send_nothing(L, script_tx);
    }
    note_sent(L, script_tx);
    return send(L, script_tx, READ_ALL);
}

/* Methods of a transaction; index 1 is the handle. */

static int tx_query(lua_State *L)
{
    return queue_and_send(L, bind_tx_check_usable(L), READ_ROWS);
}

static int tx_query_row(lua_State *L)
{
    return queue_and_send(L, bind_tx_check_usable(L), READ_ROW);
}

static int tx_exec(lua_State *L)
{
    return queue_and_send(L, bind_tx_check_usable(L), READ_COUNT);
}

static int tx_queue(lua_State *L)
{
    bind_queue(L, bind_tx_check_usable(L));
    return 0;
}

static int tx_flush_queued(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_usable(L);
    script_tx->handling->changes++;
    if (is_anything_queued(script_tx)) {
        tx_flush(&script_tx->tx);
    }
    return 0;
}

static int tx_send_batch(lua_State *L)
{
    return send_queued(L, bind_tx_check_usable(L));
}

/* tx:send_rest(): what is queued, if anything is; nobody wants its results. */
static int tx_send_rest(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_open(L);
    bind_tx_raise_failure(L, script_tx);
    bind_tx_check_usable(L);
    return is_anything_queued(script_tx) ? send_queued(L, script_tx) : 0;
}

/* tx:open(): BEGIN and what comes with it now, rather than with the first statement. */
static int tx_open(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_usable(L);
    vm_check_wait(L);
    tx_batch(&script_tx->tx);
    return send(L, script_tx, READ_ALL);
}

static int go_on_commit(lua_State *L, int status, lua_KContext context)
{
    struct script_tx *script_tx = (struct script_tx *)context;
    struct error err = script_tx->tx.error;
    script_tx_end(script_tx, err.code == ERROR_NONE ? "was committed" : "was rolled back");
    return err.code == ERROR_NONE ? 0 : bind_error_raise(L, &err);
}

/* One that has failed says what of: it may have been caught and forgotten. */
static int tx_commit_method(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_open(L);
    bind_tx_raise_failure(L, script_tx);
    bind_tx_check_usable(L);
    vm_check_wait(L);
    if (tx_commit(&script_tx->tx, handling_on_tx)) {
        script_tx_end(script_tx, "was committed");
        return 0;
    }
    return handling_wait(L, script_tx->handling, &script_tx->tx, go_on_commit,
                         (lua_KContext)script_tx);
}

/* Nobody waits for the rollback: the connection is cleaned behind the scenes. */
static int tx_rollback(lua_State *L)
{
    if (bind_tx_find(L)) {
        script_tx_end(bind_tx_check_open(L), "was rolled back");
    }
    return 0;
}

/* tx:recover("rollback to savepoint s1"): after a failure this is the one statement that is
 * allowed. What was queued and not sent is forgotten with the savepoint. */
static int tx_recover(lua_State *L)
{
    struct script_tx *script_tx = bind_tx_check_open(L);
    struct tx *tx = &script_tx->tx;
    vm_check_wait(L);
    if (tx->state != TX_OPEN) {
        bind_tx_raise_failure(L, script_tx);
        bind_place_error(L, "there is no savepoint to go back to");
    }
    tx_forget_batch(tx);
    return queue_and_send(L, script_tx, READ_COUNT);
}

static const luaL_Reg tx_methods[] = {
    {"query", tx_query},         {"query_row", tx_query_row}, {"exec", tx_exec},
    {"queue", tx_queue},         {"flush", tx_flush_queued},  {"send_batch", tx_send_batch},
    {"send_rest", tx_send_rest}, {"open", tx_open},           {"commit", tx_commit_method},
    {"rollback", tx_rollback},   {"recover", tx_recover},     {NULL, NULL},
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

/* Two that have the same key wait for each other; the lock's snapshot is older than what the one
 * before has committed. */
static void get_key(lua_State *L, struct arena *arena, struct tx_options *options)
{
    static const char prefix[] = "key:";
    size_t length = 0;
    lua_getfield(L, -1, "key");
    const char *key = lua_type(L, -1) == LUA_TSTRING ? lua_tolstring(L, -1, &length) : NULL;
    if (length == 0 || length > MOST_KEY || strlen(key) != length) {
        bind_place_error(L,
                         "serialize must be the name of a table, or { key = \"...\" } of 1 to %d "
                         "bytes",
                         MOST_KEY);
    }
    if (options->isolation != TX_DEFAULT && options->isolation != TX_READ_COMMITTED) {
        bind_place_error(L, "to serialize by a key is for the isolation \"read committed\": others "
                            "would not see what was committed during the wait");
    }
    options->isolation = TX_READ_COMMITTED;
    options->turn = arena_printf(arena, "%s%s", prefix, key);
    options->key = options->turn + sizeof prefix - 1;
    lua_pop(L, 1);
}

/* serialize = "table" or { key = "account:17" }; the table is at index 1. */
static void get_serialize(lua_State *L, struct arena *arena, struct tx_options *options)
{
    int type = lua_getfield(L, 1, "serialize");
    if (type == LUA_TSTRING) {
        options->table = quote_table(L, lua_tostring(L, -1), arena);
        options->turn = options->table;
    } else if (type == LUA_TTABLE) {
        get_key(L, arena, options);
    }
    lua_pop(L, 1);
}

/* The budget in seconds at index 2 is told from the request's. */
static uint64_t get_deadline(lua_State *L, const struct handling *handling, bool *ret_limited)
{
    uint64_t deadline = handling->request->deadline;
    lua_Number seconds = luaL_optnumber(L, 2, HUGE_VAL);
    uint64_t now = clock_now();
    *ret_limited = deadline > now && seconds < (lua_Number)(deadline - now) / 1e6;
    return *ret_limited ? now + (uint64_t)(seconds > 0 ? seconds * 1e6 : 0) : deadline;
}

static void refuse_nesting(lua_State *L, const struct handling *handling)
{
    if (!list_is_empty(&handling->transactions)) {
        struct script_tx *open = list_entry(handling->transactions.next, struct script_tx, link);
        bind_place_error(
            L, "a transaction is open already (begun at %s): use tx:savepoint() inside it",
            open->where);
    }
}

/* begin(options [, seconds]): the handle of a transaction that sends BEGIN with its first
 * statement, and has so much time if its request has not less. */
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
    };
    get_serialize(L, arena, &options);
    uint64_t deadline = get_deadline(L, handling, &options.limited);
    struct script_tx *script_tx = bind_tx_push(L, handling);
    tx_init(&script_tx->tx, handling->runner->database, &options, deadline,
            &handling->request->times);
    list_append(&handling->transactions, &script_tx->link);
    handling->changes++;
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
    bind_queue(L, statements_of(L));
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

/* now() -> seconds of a clock that only serves to be compared with itself */
static int now_seconds(lua_State *L)
{
    lua_pushnumber(L, (lua_Number)clock_now() / 1e6);
    return 1;
}

/* left() -> seconds until the request's deadline */
static int seconds_left(lua_State *L)
{
    uint64_t deadline = handling_of(L)->request->deadline;
    lua_pushnumber(L, (lua_Number)deadline_left(deadline, clock_now()) / 1e6);
    return 1;
}

static const luaL_Reg functions[] = {
    {"query", db_query},
    {"query_row", db_query_row},
    {"exec", db_exec},
    {"queue", db_queue},
    {"send_batch", db_send_batch},
    {"begin", begin},
    {"sleep", sleep_seconds},
    {"now", now_seconds},
    {"left", seconds_left},
    {NULL, NULL},
};

int bind_db_open(lua_State *L)
{
    luaL_newlib(L, functions);
    luaL_newlib(L, tx_methods);
    bind_copy_open(L);
    bind_tx_open(L);
    lua_setfield(L, -2, "tx");
    return 1;
}
