/* Rows from a PGresult. The userdata's user values: 1 the rows made into tables so far, by index;
 * 2 the metatable they share, which keeps the order of the columns for JSON. */
#include "bind_rows.h"

#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_json.h"
#include "bind_result.h"
#include "bind_row.h"
#include "bind_type.h"
#include "buffer.h"
#include "error.h"
#include "handling.h"
#include "pg_result.h"
#include "vm.h"

static const char type_name[] = "moonpool.rows";

enum { BYTES_OF_STEP = 4 }; /* of JSON, for vm_work() */

enum { TABLES = 1, KIND = 2, USER_VALUES = 2 };

struct rows {
    struct holding holding;
    struct bind_result held; /* owned */
    bool over;               /* the request is */
    int count;
};

static struct rows *check_rows(lua_State *L, int index)
{
    struct rows *rows = bind_type_check(L, index, type_name);
    if (rows->over) {
        luaL_error(L, "this result belongs to a request that is over: copy the rows to be kept");
    }
    return rows;
}

static void release(struct holding *holding)
{
    struct rows *rows = list_entry((void *)holding, struct rows, holding);
    bind_result_release(&rows->held);
    rows->over = true;
}

static int collect(lua_State *L)
{
    struct rows *rows = bind_type_check(L, 1, type_name);
    list_remove(&rows->holding.link);
    release(&rows->holding);
    return 0;
}

void bind_rows_push(lua_State *L, const struct batch *batch, struct batch_item *item)
{
    struct rows *rows = bind_type_new(L, type_name, sizeof *rows, USER_VALUES);
    list_init(&rows->holding.link);
    rows->holding.release = release;
    bind_result_take(L, &rows->held, batch, item);
    rows->count = pg_result_rows(rows->held.result);
    list_append(&handling_of(L)->holdings, &rows->holding.link);
}

/* Pushes the metatable of this result's rows. */
static void push_kind(lua_State *L, int index, const struct rows *rows)
{
    if (lua_getiuservalue(L, index, KIND) == LUA_TTABLE) {
        return;
    }
    lua_pop(L, 1);
    bind_row_push_kind(L, &rows->held);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, index, KIND);
}

/* Pushes row `row`, 0-based, as a new table. `index` is the userdata's. */
static void push_row(lua_State *L, int index, struct rows *rows, int row)
{
    push_kind(L, index, rows);
    bind_row_push(L, &rows->held, row, lua_gettop(L));
    lua_remove(L, -2);
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

static int encode_row(lua_State *L, int index, const struct rows *rows, int row, struct buffer *out,
                      struct error *err)
{
    if (find_table(L, index, row)) {
        int code = bind_json_encode(L, lua_gettop(L), out, err);
        lua_pop(L, 1);
        return code;
    }
    return bind_result_write(&rows->held, row, out, err);
}

static int encode(lua_State *L, int index, struct buffer *out, struct error *err)
{
    index = lua_absindex(L, index);
    struct rows *rows = check_rows(L, index);
    luaL_checkstack(L, 4, "no room to encode a result");
    if (bind_result_check_names(&rows->held, err) != 0) {
        return -1;
    }
    buffer_append_char(out, '[');
    for (int row = 0; row < rows->count; row++) {
        size_t before = out->length;
        if (row > 0) {
            buffer_append_char(out, ',');
        }
        if (encode_row(L, index, rows, row, out, err) != 0) {
            return -1;
        }
        vm_work(L, rows->held.vm, 1 + (out->length - before) / BYTES_OF_STEP);
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
    bind_type_open(L, type_name);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushlightuserdata(L, (void *)&json_hook);
    lua_setfield(L, -2, "__json");
    lua_pushliteral(L, "moonpool.rows");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
