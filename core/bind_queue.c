/* Queueing statements. An item becomes part of the batch when all its parameters fit. */
#include "bind_queue.h"

#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "batch.h"
#include "bind_error.h"
#include "bind_place.h"
#include "bulk.h"
#include "error.h"
#include "handling.h"
#include "pgtype.h"
#include "request.h"
#include "vm.h"

enum { MOST_DIMENSIONS = 6 }; /* PostgreSQL's own limit, MAXDIM */

enum { CHARGE_STEP = 64 * 1024 };

/* Parameters. */

/* An array parameter on its way into a literal, {1,NULL,"a b",{...}}. */
struct array_encoder {
    lua_State *L;
    struct buffer *out; /* borrowed */
    uint32_t element;   /* type; 0 if unknown */
};

/* Pushes a number as the text that its type takes. */
static void push_number_text(struct array_encoder *encoder, int index)
{
    lua_State *L = encoder->L;
    char text[PGTYPE_NUMBER_SIZE];
    struct error err;
    size_t length;
    if (lua_isinteger(L, index)) {
        lua_pushvalue(L, index);
        lua_tostring(L, -1);
    } else if (pgtype_number_text(text, encoder->element, lua_tonumber(L, index), &length, &err)) {
        bind_error_raise(L, &err);
    } else {
        lua_pushlstring(L, text, length);
    }
}

/* Pushes bytes as PostgreSQL reads them, "\x48656c6c6f". */
static void push_hex(lua_State *L, int index)
{
    static const char digits[] = "0123456789abcdef";
    size_t length;
    const char *bytes = lua_tolstring(L, index, &length);
    luaL_Buffer hex;
    luaL_buffinitsize(L, &hex, 2 + 2 * length);
    luaL_addstring(&hex, "\\x");
    for (size_t i = 0; i < length; i++) {
        luaL_addchar(&hex, digits[(unsigned char)bytes[i] >> 4]);
        luaL_addchar(&hex, digits[bytes[i] & 15]);
    }
    luaL_pushresult(&hex);
}

static void refuse_change(lua_State *L)
{
    luaL_error(L, "a value's __json must not queue statements, flush them, begin or end a "
                  "transaction");
}

/* Pushes a table as JSON, which is put together behind the literal. */
static void push_json(struct array_encoder *encoder, int index)
{
    struct buffer *out = encoder->out;
    size_t before = out->length;
    bind_error_encode_json(encoder->L, index, out);
    if (out->length < before) {
        refuse_change(encoder->L); /* Another value was encoded in the same buffer. */
    }
    lua_pushlstring(encoder->L, out->data + before, out->length - before);
    out->length = before;
}

/* Pushes the text of the element at `index`. */
static void push_element(struct array_encoder *encoder, int index)
{
    lua_State *L = encoder->L;
    enum pgtype_class class = pgtype_classify(encoder->element, NULL);
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN:
        lua_pushstring(L, lua_toboolean(L, index) ? "true" : "false");
        break;
    case LUA_TNUMBER:
        push_number_text(encoder, index);
        break;
    case LUA_TSTRING:
        class == PGTYPE_BYTEA ? push_hex(L, index) : lua_pushvalue(L, index);
        break;
    case LUA_TTABLE:
    case LUA_TLIGHTUSERDATA:
        if (class == PGTYPE_JSON) {
            push_json(encoder, index);
            break;
        }
        /* fall through */
    default:
        luaL_error(L, "an array parameter holds a %s", luaL_typename(L, index));
    }
}

static void encode_array(struct array_encoder *encoder, int index, int depth);

/* Appends the element on top. */
static void encode_element(struct array_encoder *encoder, int depth)
{
    lua_State *L = encoder->L;
    int index = lua_gettop(L);
    size_t length;
    bool nested = lua_istable(L, index) && pgtype_classify(encoder->element, NULL) != PGTYPE_JSON;
    if (bind_queue_is_null(L, index)) {
        buffer_append_text(encoder->out, "NULL");
    } else if (nested) {
        encode_array(encoder, index, depth + 1);
    } else {
        push_element(encoder, index);
        const char *text = lua_tolstring(L, -1, &length);
        pgtype_write_array_element(encoder->out, text, length);
        lua_pop(L, 1);
    }
}

/* Raises for an object: it would become an empty array. json.empty_array is no table. */
static void refuse_object(lua_State *L, int index)
{
    if (!lua_istable(L, index)) {
        return;
    }
    lua_pushnil(L);
    if (lua_next(L, index)) {
        luaL_error(L, "an array parameter holds a table that is no sequence");
    }
}

static void encode_array(struct array_encoder *encoder, int index, int depth)
{
    lua_State *L = encoder->L;
    if (depth > MOST_DIMENSIONS) {
        luaL_error(L, "an array parameter has more than %d dimensions", MOST_DIMENSIONS);
    }
    luaL_checkstack(L, 6, "an array parameter is nested too deeply");
    lua_Integer length = (lua_Integer)lua_rawlen(L, index);
    if (length == 0) {
        refuse_object(L, index);
    }
    buffer_append_char(encoder->out, '{');
    for (lua_Integer i = 1; i <= length; i++) {
        if (i > 1) {
            buffer_append_char(encoder->out, ',');
        }
        lua_rawgeti(L, index, i);
        encode_element(encoder, depth);
        lua_pop(L, 1);
    }
    buffer_append_char(encoder->out, '}');
}

/* Without a described type a sequence is taken for an array, any other table for JSON. */
static bool wants_array(lua_State *L, int index, uint32_t type, uint32_t *ret_element)
{
    enum pgtype_class class = pgtype_classify(type, ret_element);
    return class == PGTYPE_ARRAY || (class != PGTYPE_JSON && type == 0 && lua_rawlen(L, index) > 0);
}

/* A script's __json runs while a value is encoded: what it queued would overwrite that, and what it
 * flushed or ended is no more what the value is for. */
static void check_changes(lua_State *L, const struct handling *handling, uint64_t changes)
{
    if (handling->changes != changes) {
        refuse_change(L);
    }
}

void bind_queue_encode(lua_State *L, int index, uint32_t type, struct handling *handling)
{
    struct array_encoder encoder = {.L = L, .out = &handling->scratch};
    uint64_t changes = handling->changes;
    encoder.out->length = 0;
    if (wants_array(L, index, type, &encoder.element)) {
        encode_array(&encoder, index, 1);
        check_changes(L, handling, changes);
    } else {
        bind_queue_encode_json(L, index, handling);
    }
}

void bind_queue_encode_json(lua_State *L, int index, struct handling *handling)
{
    uint64_t changes = handling->changes;
    handling->scratch.length = 0;
    bind_error_encode_json(L, index, &handling->scratch);
    check_changes(L, handling, changes);
}

static int set_text(struct parameter *parameter, uint32_t type, struct arena *arena,
                    const char *text, size_t length, struct error *err)
{
    char *copy = arena_strndup(arena, text, length);
    return pgtype_from_text(parameter, type, copy, length, err);
}

bool bind_queue_is_null(lua_State *L, int index)
{
    return lua_isnil(L, index) || (lua_islightuserdata(L, index) && !lua_touserdata(L, index));
}

static int set_parameter(lua_State *L, int index, uint32_t type, struct parameter *parameter,
                         struct arena *arena, struct handling *handling, struct error *err)
{
    size_t length;
    const char *text;
    if (bind_queue_is_null(L, index)) {
        return 0;
    }
    switch (lua_type(L, index)) {
    case LUA_TBOOLEAN:
        return pgtype_from_boolean(parameter, type, lua_toboolean(L, index), err);
    case LUA_TNUMBER:
        return lua_isinteger(L, index)
                   ? pgtype_from_integer(parameter, type, lua_tointeger(L, index), arena, err)
                   : pgtype_from_number(parameter, type, lua_tonumber(L, index), arena, err);
    case LUA_TSTRING:
        text = lua_tolstring(L, index, &length);
        return set_text(parameter, type, arena, text, length, err);
    case LUA_TTABLE:
    case LUA_TLIGHTUSERDATA: /* json.empty_array */
        bind_queue_encode(L, index, type, handling);
        return set_text(parameter, type, arena, handling->scratch.data, handling->scratch.length,
                        err);
    default:
        return luaL_typeerror(L, index, "number, string, boolean, table or nil");
    }
}

/* Queueing. */

/* The statement of that name if it was queued last, as in a loop over rows; else NULL. */
static const struct statement *queued_last(const struct batch *batch, const char *name)
{
    if (batch->count == batch->hidden) {
        return NULL;
    }
    const struct statement *last = batch->items[batch->count - 1].statement;
    return last->name && strcmp(last->name, name) == 0 ? last : NULL;
}

static const struct statement *check_statement(lua_State *L, struct script_tx *script_tx,
                                               struct batch *batch)
{
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    luaL_argcheck(L, strlen(text) == length, 2, "SQL must not contain a NUL character");
    const struct statement *statement = queued_last(batch, text);
    if (!statement) {
        statement =
            generation_statement(script_tx->handling->generation, text, length, &batch->arena);
    }
    if (!statement) {
        bind_place_error(L, "there is no statement named '%s' in the SQL folder", text);
    }
    return statement;
}

/* Behind the back of its transaction a COMMIT would let the rest be committed piece by piece, and
 * what is committed already be done again by `retries`. What follows a BEGIN in a batch of its own
 * would never be committed. */
static void check_block(lua_State *L, const struct script_tx *script_tx, enum sql_block block)
{
    bool alone = script_tx->tx.options.autocommit;
    if (block == SQL_BEGINS_BLOCK && alone) {
        bind_place_error(L, "a transaction must not be begun by SQL: use app.db:transaction() or "
                            "app.db:begin()");
    } else if (block == SQL_ENDS_BLOCK && alone) {
        bind_place_error(L, "a batch must not be ended by SQL: it is a transaction of its own");
    } else if (block == SQL_ENDS_BLOCK) {
        bind_place_error(L, "a transaction must not be ended by SQL: return from its function, "
                            "raise an error, or use tx:commit() or tx:rollback()");
    }
}

static void check_count(lua_State *L, const struct statement *statement, int count)
{
    if (statement->described && count != statement->parameter_count) {
        bind_place_error(L, "the statement %s takes %d parameters, not %d", statement->name,
                         statement->parameter_count, count);
    }
    luaL_argcheck(L, count <= UINT16_MAX, 2, "a statement has at most 65535 parameters");
}

/* The rows of a :bulk statement are one item, each queued at a line of its own. */
static void raise_at_item(lua_State *L, const struct batch *batch, const struct batch_item *item,
                          struct error *err)
{
    batch_blame(batch, item, err);
    bind_place_write(L, err->where, sizeof err->where);
    bind_error_raise(L, err);
}

/* The type that a value is made for; 0 if unknown. */
static uint32_t value_type(const struct batch_item *item, uint16_t i)
{
    const struct statement *statement = item->statement;
    if (item->bulk) {
        return bulk_element_type(item->bulk, i);
    }
    if (statement->kind == STATEMENT_BULK) {
        return bulk_first_type(statement, i);
    }
    return statement->described ? statement->parameter_types[i] : 0;
}

/* Makes the values from index 3 on into the item's parameters. */
static int set_parameters(lua_State *L, struct handling *handling, struct arena *arena,
                          struct batch_item *item, struct error *err)
{
    for (uint16_t i = 0; i < item->parameter_count; i++) {
        uint32_t type = value_type(item, i);
        if (set_parameter(L, i + 3, type, &item->parameters[i], arena, handling, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* The batch's last item if this row belongs to it: rows of a :bulk statement are gathered until
 * something else is queued, so that the order of statements stays that of the calls, or until
 * tx:flush(). */
static struct batch_item *open_bulk(struct batch *batch, const struct statement *statement,
                                    int count)
{
    if (batch->count == batch->hidden || batch->count == batch->sealed) {
        return NULL;
    }
    struct batch_item *last = &batch->items[batch->count - 1];
    return last->statement == statement && last->bulk && last->parameter_count == count ? last
                                                                                        : NULL;
}

/* An item that remembers the script's line. */
static struct batch_item *add_item(lua_State *L, struct batch *batch,
                                   const struct statement *statement, int count)
{
    lua_Debug caller;
    bind_place_find(L, &caller);
    return batch_add(batch, statement, (uint16_t)count, caller.short_src, caller.currentline);
}

/* The row goes from the item's parameters into its arrays, which copy it. They are made for the
 * first row that they take: behind one that is refused nothing is left to free. */
static int add_row(struct batch_item *item, struct error *err)
{
    struct bulk *bulk = item->bulk;
    if (!bulk) {
        bulk = bulk_create(item->statement, item->parameter_count);
    }
    if (bulk_add(bulk, item->parameters, err) != 0) {
        if (!item->bulk) {
            bulk_destroy(bulk);
        }
        return -1;
    }
    item->bulk = bulk;
    return 0;
}

static void set_row(lua_State *L, struct script_tx *script_tx, struct batch *batch,
                    struct batch_item *item)
{
    struct error err;
    arena_reset(&batch->row_arena);
    memset(item->parameters, 0, item->parameter_count * sizeof *item->parameters);
    if (set_parameters(L, script_tx->handling, &batch->row_arena, item, &err) != 0 ||
        add_row(item, &err) != 0) {
        err.row = item->bulk ? item->bulk->rows + 1 : 1;
        raise_at_item(L, batch, item, &err);
    }
}

/* What stands before the rows is sent when the first one fits: rows that are being gathered go on
 * behind one of another statement that is refused. */
static void queue_row(lua_State *L, struct script_tx *script_tx, struct batch *batch,
                      const struct statement *statement, int count)
{
    struct batch_item *item = open_bulk(batch, statement, count);
    if (item) {
        set_row(L, script_tx, batch, item);
        return;
    }
    item = add_item(L, batch, statement, count);
    batch_hold_back(batch);
    set_row(L, script_tx, batch, item);
    tx_stream_before_rows(&script_tx->tx);
    batch_let_in(batch);
}

static void queue_statement(lua_State *L, struct script_tx *script_tx, struct batch *batch,
                            const struct statement *statement, int count)
{
    struct error err;
    struct batch_item *item = add_item(L, batch, statement, count);
    /* Not part of the batch before it is whole: a bad parameter raises. */
    batch_hold_back(batch);
    if (set_parameters(L, script_tx->handling, &batch->arena, item, &err) != 0) {
        raise_at_item(L, batch, item, &err);
    }
    batch_let_in(batch);
    tx_stream(&script_tx->tx);
}

/* Counts what is queued against the memory that Lua may have, in steps. */
static void charge(lua_State *L, struct script_tx *script_tx)
{
    struct vm *vm = vm_of(L);
    size_t bytes = batch_memory(&script_tx->tx.batch);
    if (bytes < script_tx->charged) {
        vm_discharge(vm, script_tx->charged - bytes);
        script_tx->charged = bytes;
    } else if (bytes >= script_tx->charged + CHARGE_STEP) {
        if (!vm_charge(vm, bytes - script_tx->charged)) {
            struct error err;
            error_set(&err, ERROR_MEMORY,
                      "what this request has queued needs more memory than it may have");
            bind_error_raise(L, &err);
        }
        script_tx->charged = bytes;
    }
}

/* Appends the statement at index 2 with the parameters behind it. */
void bind_queue(lua_State *L, struct script_tx *script_tx)
{
    struct batch *batch = tx_batch(&script_tx->tx);
    const struct statement *statement = check_statement(L, script_tx, batch);
    int count = lua_gettop(L) - 2;
    charge(L, script_tx); /* What calls that have raised left behind. */
    check_block(L, script_tx, statement->block);
    check_count(L, statement, count);
    script_tx->sent_at[0] = '\0';
    script_tx->handling->changes++;
    if (statement->kind == STATEMENT_BULK) {
        queue_row(L, script_tx, batch, statement, count);
    } else {
        queue_statement(L, script_tx, batch, statement, count);
    }
    charge(L, script_tx);
}
