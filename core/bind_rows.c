/* Rows from a PGresult. The userdata's user values: 1 the rows made into tables so far, by index;
 * 2 the metatable they share, which keeps the order of the columns for JSON. */
#include "bind_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "bind_json.h"
#include "buffer.h"
#include "error.h"
#include "handling.h"
#include "json.h"
#include "pg_result.h"
#include "pgtype.h"
#include "vm.h"

static const char type_name[] = "moonpool.rows";

enum { TABLES = 1, ROW_METATABLE = 2, USER_VALUES = 2 };

struct rows {
    struct holding holding;
    struct vm *vm;            /* borrowed; its maker */
    struct pg_result *result; /* owned; NULL if there are no rows, or no more */
    bool over;                /* the request is */
    size_t bytes;             /* of the result, as charged */
    struct buffer scratch;    /* owned */
    int count;
    int columns;
};

static struct rows *check_rows(lua_State *L, int index)
{
    struct rows *rows = luaL_checkudata(L, index, type_name);
    if (rows->over) {
        luaL_error(L, "this result belongs to a request that is over: copy the rows to be kept");
    }
    return rows;
}

static void release(struct holding *holding)
{
    struct rows *rows = list_entry((void *)holding, struct rows, holding);
    vm_discharge(rows->vm, rows->bytes);
    pg_result_free(rows->result);
    buffer_finish(&rows->scratch);
    rows->result = NULL;
    rows->bytes = 0;
    rows->over = true;
}

static int collect(lua_State *L)
{
    struct rows *rows = luaL_checkudata(L, 1, type_name);
    list_remove(&rows->holding.link);
    release(&rows->holding);
    return 0;
}

static void refuse_memory(lua_State *L)
{
    struct error err;
    error_set(&err, ERROR_MEMORY, "the results of this request need more memory than it may have");
    bind_error_raise(L, &err);
}

void bind_rows_push(lua_State *L, struct pg_result **result)
{
    struct rows *rows = lua_newuserdatauv(L, sizeof *rows, USER_VALUES);
    size_t bytes = pg_result_memory(*result);
    memset(rows, 0, sizeof *rows);
    list_init(&rows->holding.link);
    rows->holding.release = release;
    rows->vm = vm_of(L);
    luaL_setmetatable(L, type_name);
    if (!vm_charge(rows->vm, bytes)) {
        refuse_memory(L);
    }
    rows->bytes = bytes;
    rows->result = *result;
    *result = NULL;
    rows->count = pg_result_rows(rows->result);
    rows->columns = pg_result_columns(rows->result);
    list_append(&handling_of(L)->holdings, &rows->holding.link);
}

/* Values. */

struct array_builder {
    lua_State *L;
    struct rows *rows;
    uint32_t element;
    int depth;
};

static void push_value(lua_State *L, struct rows *rows, uint32_t type, const char *text,
                       size_t length);

static int build_open(void *context)
{
    struct array_builder *builder = context;
    luaL_checkstack(builder->L, 4, "an array is nested too deeply");
    lua_newtable(builder->L);
    bind_json_mark_array(builder->L);
    lua_pushinteger(builder->L, 0);
    builder->depth++;
    return 0;
}

/* On the stack: the table, its length so far, and the element. */
static void add_element(lua_State *L)
{
    lua_Integer length = lua_tointeger(L, -2) + 1;
    lua_rawseti(L, -3, length);
    lua_pop(L, 1);
    lua_pushinteger(L, length);
}

static int build_element(void *context, const char *text, size_t length)
{
    struct array_builder *builder = context;
    if (text) {
        push_value(builder->L, builder->rows, builder->element, text, length);
    } else {
        lua_pushlightuserdata(builder->L, NULL); /* json.null: a hole would lose what follows */
    }
    add_element(builder->L);
    return 0;
}

static int build_close(void *context)
{
    struct array_builder *builder = context;
    lua_pop(builder->L, 1);
    builder->depth--;
    if (builder->depth > 0) {
        add_element(builder->L);
    }
    return 0;
}

static const struct pgtype_array_handler array_builder_handler = {
    .on_open = build_open, .on_element = build_element, .on_close = build_close};

static void push_array(lua_State *L, struct rows *rows, uint32_t element, const char *text,
                       size_t length)
{
    struct array_builder builder = {.L = L, .rows = rows, .element = element};
    int top = lua_gettop(L);
    if (pgtype_walk_array(text, length, &array_builder_handler, &builder, &rows->scratch) != 0) {
        lua_settop(L, top);
        lua_pushlstring(L, text, length);
    }
}

static void push_json(lua_State *L, const char *text, size_t length)
{
    struct error err;
    if (bind_json_decode(L, text, length, &err) != 0) {
        lua_pushlstring(L, text, length);
    }
}

static void push_timestamp(lua_State *L, const char *text, size_t length)
{
    char iso[80];
    if (length + 2 > sizeof iso) {
        lua_pushlstring(L, text, length);
        return;
    }
    lua_pushlstring(L, iso, pgtype_format_timestamp(text, length, iso));
}

static void push_bytea(lua_State *L, const char *text, size_t length)
{
    luaL_Buffer bytes;
    char *room = luaL_buffinitsize(L, &bytes, length / 2 + 1);
    luaL_pushresultsize(&bytes, pgtype_decode_bytea(text, length, room));
}

static void push_value(lua_State *L, struct rows *rows, uint32_t type, const char *text,
                       size_t length)
{
    uint32_t element = 0;
    switch (pgtype_classify(type, &element)) {
    case PGTYPE_BOOLEAN:
        lua_pushboolean(L, *text == 't');
        break;
    case PGTYPE_INTEGER:
        lua_pushinteger(L, strtoll(text, NULL, 10));
        break;
    case PGTYPE_FLOAT:
    case PGTYPE_NUMERIC:
        lua_pushnumber(L, strtod(text, NULL));
        break;
    case PGTYPE_JSON:
        push_json(L, text, length);
        break;
    case PGTYPE_TIMESTAMP:
        push_timestamp(L, text, length);
        break;
    case PGTYPE_BYTEA:
        push_bytea(L, text, length);
        break;
    case PGTYPE_ARRAY:
        push_array(L, rows, element, text, length);
        break;
    default:
        lua_pushlstring(L, text, length);
    }
}

/* Pushes the metatable of this result's rows, and in it the names of the columns. */
static void push_row_metatable(lua_State *L, int index, const struct rows *rows)
{
    if (lua_getiuservalue(L, index, ROW_METATABLE) == LUA_TTABLE) {
        return;
    }
    lua_pop(L, 1);
    lua_createtable(L, 0, 2);
    lua_createtable(L, rows->columns, 0);
    for (int column = 0; column < rows->columns; column++) {
        lua_pushstring(L, pg_result_name(rows->result, column));
        lua_rawseti(L, -2, column + 1);
    }
    lua_setfield(L, -2, "__columns");
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, index, ROW_METATABLE);
}

/* Pushes row `row`, 0-based, as a new table. `index` is the userdata's. */
static void push_row(lua_State *L, int index, struct rows *rows, int row)
{
    luaL_checkstack(L, 10, "no room for a row");
    lua_createtable(L, 0, rows->columns);
    push_row_metatable(L, index, rows);
    lua_getfield(L, -1, "__columns");
    for (int column = 0; column < rows->columns; column++) {
        size_t length;
        const char *text = pg_result_value(rows->result, row, column, &length);
        if (text) {
            lua_rawgeti(L, -1, column + 1);
            push_value(L, rows, pg_result_type(rows->result, column), text, length);
            lua_rawset(L, -5);
        }
    }
    lua_pop(L, 1);
    lua_setmetatable(L, -2);
}

void bind_rows_push_first(lua_State *L, struct pg_result **result)
{
    bind_rows_push(L, result);
    int index = lua_gettop(L);
    struct rows *rows = lua_touserdata(L, index);
    if (rows->count > 0) {
        push_row(L, index, rows, 0);
    } else {
        lua_pushnil(L);
    }
    list_remove(&rows->holding.link);
    release(&rows->holding);
    lua_remove(L, index);
}

/* Pushes the table of tables made so far, making it if it is needed. */
static void push_tables(lua_State *L, int index)
{
    if (lua_getiuservalue(L, index, TABLES) == LUA_TTABLE) {
        return;
    }
    lua_pop(L, 1);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, index, TABLES);
}

static int get_row(lua_State *L)
{
    struct rows *rows = check_rows(L, 1);
    int is_integer;
    lua_Integer wanted = lua_tointegerx(L, 2, &is_integer);
    if (!is_integer || wanted < 1 || wanted > rows->count) {
        return 0;
    }
    push_tables(L, 1);
    if (lua_rawgeti(L, -1, wanted) == LUA_TNIL) {
        lua_pop(L, 1);
        push_row(L, 1, rows, (int)wanted - 1);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -3, wanted);
    }
    return 1;
}

static int refuse_assignment(lua_State *L)
{
    return luaL_error(L, "a result is read-only: copy the rows into a table of your own");
}

static int count_rows(lua_State *L)
{
    lua_pushinteger(L, check_rows(L, 1)->count);
    return 1;
}

static int next_row(lua_State *L)
{
    lua_Integer following = luaL_optinteger(L, 2, 0) + 1;
    lua_settop(L, 1);
    lua_pushinteger(L, following);
    if (get_row(L) == 0) {
        return 0;
    }
    lua_pushinteger(L, following);
    lua_insert(L, -2);
    return 2;
}

static int iterate(lua_State *L)
{
    check_rows(L, 1);
    lua_pushcfunction(L, next_row);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

/* JSON. */

/* Leaves the row's table on the stack, and true, if a script has looked at the row. */
static bool find_table(lua_State *L, int index, int row)
{
    if (lua_getiuservalue(L, index, TABLES) != LUA_TTABLE) {
        lua_pop(L, 1);
        return false;
    }
    lua_rawgeti(L, -1, row + 1);
    lua_remove(L, -2);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    return true;
}

static int write_row(struct rows *rows, int row, struct buffer *out)
{
    for (int column = 0; column < rows->columns; column++) {
        size_t length = 0;
        const char *name = pg_result_name(rows->result, column);
        const char *text = pg_result_value(rows->result, row, column, &length);
        buffer_append_char(out, column ? ',' : '{');
        if (json_write_string(out, name, strlen(name)) != 0) {
            return -1;
        }
        buffer_append_char(out, ':');
        if (pgtype_write_json(out, pg_result_type(rows->result, column), text, length) != 0) {
            return -1;
        }
    }
    buffer_append_text(out, rows->columns ? "}" : "{}");
    return 0;
}

static int encode_row(lua_State *L, int index, struct rows *rows, int row, struct buffer *out,
                      struct error *err)
{
    if (find_table(L, index, row)) {
        int code = bind_json_encode(L, lua_gettop(L), out, err);
        lua_pop(L, 1);
        return code;
    }
    if (write_row(rows, row, out) != 0) {
        return error_set(err, ERROR_SCRIPT, "row %d of a result is not valid UTF-8", row + 1);
    }
    return 0;
}

static int encode(lua_State *L, int index, struct buffer *out, struct error *err)
{
    index = lua_absindex(L, index);
    struct rows *rows = check_rows(L, index);
    luaL_checkstack(L, 4, "no room to encode a result");
    buffer_append_char(out, '[');
    for (int row = 0; row < rows->count; row++) {
        if (row > 0) {
            buffer_append_char(out, ',');
        }
        if (encode_row(L, index, rows, row, out, err) != 0) {
            return -1;
        }
    }
    buffer_append_char(out, ']');
    return 0;
}

static const struct bind_json_hook json_hook = {.encode = encode};

static const luaL_Reg metamethods[] = {
    {"__gc", collect},     {"__index", get_row}, {"__newindex", refuse_assignment},
    {"__len", count_rows}, {"__pairs", iterate}, {NULL, NULL},
};

void bind_rows_open(lua_State *L)
{
    luaL_newmetatable(L, type_name);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushlightuserdata(L, (void *)&json_hook);
    lua_setfield(L, -2, "__json");
    lua_pushliteral(L, "moonpool.rows");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
