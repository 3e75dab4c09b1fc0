/* Rows as tables. A row that nobody has looked at is an empty table whose metatable fills it as
 * soon as somebody does; the one thing in it is the number under which its result is found among
 * those of the running request. A number and not a pointer: scripts can keep the table for longer.
 */
#include "bind_row.h"

#include <lauxlib.h>
#include <lua.h>

#include "arena.h"
#include "bind_error.h"
#include "bind_json.h"
#include "bind_result.h"
#include "bind_type.h"
#include "bind_value.h"
#include "error.h"
#include "handling.h"
#include "pg_result.h"
#include "request.h"
#include "row_form.h"
#include "shape.h"
#include "vm.h"

static const char type_name[] = "moonpool.unread_row";

/* Its address is the key of the number in an unread row. */
static const char number_key;

/* A request that asks whether rows exist, and never looks at them, must not hoard results. */
enum { MOST_UNREAD = 16 };

/* In the request's arena. */
struct unread {
    struct holding holding;  /* in handling.unread */
    struct bind_result held; /* owned */
    lua_Integer number;
};

/* Rows. */

/* The metatable of rows whose columns are all values. */
static void push_plain_kind(lua_State *L, const struct pg_result *result)
{
    int columns = pg_result_columns(result);
    lua_createtable(L, 0, 1);
    lua_createtable(L, columns, 0);
    for (int column = 0; column < columns; column++) {
        lua_pushstring(L, pg_result_name(result, column));
        lua_rawseti(L, -2, column + 1);
    }
    lua_setfield(L, -2, "__columns");
}

/* The metatable of an object with the members from `first` to before `behind`. At the place that an
 * object among them has in `__columns` it has that one's. */
static void push_object_kind(lua_State *L, const struct shape_member *member, int first, int behind)
{
    luaL_checkstack(L, 4, "no room for a row");
    lua_createtable(L, 0, 1);
    lua_newtable(L);
    lua_Integer place = 1;
    for (int i = first; i < behind; i += 1 + member[i].members, place++) {
        lua_pushlstring(L, member[i].name, member[i].length);
        lua_rawseti(L, -2, place);
        if (member[i].members) {
            push_object_kind(L, member, i + 1, i + 1 + member[i].members);
            lua_rawseti(L, -3, place);
        }
    }
    lua_setfield(L, -2, "__columns");
}

void bind_row_push_kind(lua_State *L, const struct bind_result *held)
{
    if (held->form->shape.member) {
        push_object_kind(L, held->form->shape.member, 0, held->form->shape.members);
    } else {
        push_plain_kind(L, held->result);
    }
}

/* Pushes the names that the metatable at `kind` has for members. Scripts can get hold of it. */
static void push_names(lua_State *L, int kind)
{
    lua_pushliteral(L, "__columns");
    if (lua_rawget(L, kind) != LUA_TTABLE) {
        luaL_error(L, "a script has taken the columns out of the metatable of rows");
    }
}

static void set_kind(lua_State *L, int table, int kind)
{
    lua_pushvalue(L, kind);
    vm_set_metatable(L, table);
}

/* Fills a row whose columns are all values. */
static void fill_plain(lua_State *L, struct bind_result *held, int row, int table, int kind)
{
    const struct pg_result *result = held->result;
    int columns = pg_result_columns(result);
    luaL_checkstack(L, 10, "no room for a row");
    push_names(L, kind);
    for (int column = 0; column < columns; column++) {
        size_t length;
        const char *text = pg_result_value(result, row, column, &length);
        if (text) {
            lua_rawgeti(L, -1, column + 1);
            bind_value_push(L, pg_result_type(result, column), text, length, &held->scratch);
            lua_rawset(L, table);
        }
    }
    lua_pop(L, 1);
    set_kind(L, table, kind);
}

static void fill_members(lua_State *L, struct bind_result *held, int row, int first, int behind,
                         int table, int kind);

/* Pushes the object that is member `i`, with its metatable out of that at `kind`. */
static void push_object(lua_State *L, struct bind_result *held, int row, int i, lua_Integer place,
                        int kind)
{
    int table = lua_gettop(L) + 1;
    lua_newtable(L);
    if (lua_rawgeti(L, kind, place) != LUA_TTABLE) {
        luaL_error(L, "a script has taken an object out of the metatable of rows");
    }
    fill_members(L, held, row, i + 1, i + 1 + held->form->shape.member[i].members, table,
                 table + 1);
    lua_pop(L, 1);
}

static void push_value(lua_State *L, struct bind_result *held, int row, int column)
{
    size_t length;
    const char *text = pg_result_value(held->result, row, column, &length);
    bind_value_push(L, pg_result_type(held->result, column), text, length, &held->scratch);
}

/* Fills the table at `table` with the members from `first` to before `behind`. */
static void fill_members(lua_State *L, struct bind_result *held, int row, int first, int behind,
                         int table, int kind)
{
    const struct shape_member *member = held->form->shape.member;
    luaL_checkstack(L, 10, "no room for a row");
    push_names(L, kind);
    lua_Integer place = 1;
    for (int i = first; i < behind; i += 1 + member[i].members, place++) {
        if (!shape_is_null(&member[i], held->result, row)) {
            lua_rawgeti(L, -1, place);
            if (member[i].members) {
                push_object(L, held, row, i, place, kind);
            } else {
                push_value(L, held, row, member[i].column);
            }
            lua_rawset(L, table);
        }
    }
    lua_pop(L, 1);
    set_kind(L, table, kind);
}

/* Fills the table at `table`, and gives it the metatable at `kind`. */
static void fill(lua_State *L, struct bind_result *held, int row, int table, int kind)
{
    if (held->form->shape.member) {
        fill_members(L, held, row, 0, held->form->shape.members, table, kind);
    } else {
        fill_plain(L, held, row, table, kind);
    }
}

void bind_row_push(lua_State *L, struct bind_result *held, int row, int kind)
{
    luaL_checkstack(L, 1, "no room for a row");
    lua_createtable(L, 0, pg_result_columns(held->result));
    fill(L, held, row, lua_gettop(L), kind);
}

/* Unread rows. */

static void release(struct holding *holding)
{
    struct unread *unread = list_entry((void *)holding, struct unread, holding);
    bind_result_release(&unread->held);
}

static void forget(struct handling *handling, struct unread *unread)
{
    handling->unread_count--;
    list_remove(&unread->holding.link);
    release(&unread->holding);
}

static struct unread *keep(lua_State *L, struct handling *handling, const struct batch *batch,
                           struct batch_item *item)
{
    struct unread *unread = arena_zalloc(&handling->request->arena, sizeof *unread);
    unread->holding.release = release;
    bind_result_take(L, &unread->held, batch, item);
    unread->number = ++handling->runner->last_row;
    list_append(&handling->unread, &unread->holding.link);
    handling->unread_count++;
    return unread;
}

static void push_unread(lua_State *L, const struct unread *unread)
{
    lua_createtable(L, 0, 1);
    lua_pushinteger(L, unread->number);
    lua_rawsetp(L, -2, &number_key);
    bind_type_push(L, type_name);
    lua_setmetatable(L, -2);
}

/* The unread row that the table at `index` stands for. */
static struct unread *find(lua_State *L, struct handling *handling, int index)
{
    struct list *cursor, *following;
    lua_rawgetp(L, index, &number_key);
    lua_Integer number = lua_tointeger(L, -1);
    lua_pop(L, 1);
    list_for_each (cursor, following, &handling->unread) {
        struct unread *unread = list_entry((void *)cursor, struct unread, holding.link);
        if (unread->number == number) {
            return unread;
        }
    }
    luaL_error(L, "this row belongs to a request that is over: look at it before, or copy it");
    return NULL;
}

/* Makes the unread row at `table` the plain table that it stands for. */
static void read(lua_State *L, int table)
{
    struct handling *handling = handling_of(L);
    struct unread *unread = find(L, handling, table);
    luaL_checkstack(L, 4, "no room for a row");
    bind_row_push_kind(L, &unread->held);
    fill(L, &unread->held, 0, table, lua_gettop(L));
    lua_pushnil(L);
    lua_rawsetp(L, table, &number_key);
    lua_pop(L, 1);
    forget(handling, unread);
}

void bind_row_push_first(lua_State *L, const struct batch *batch, struct batch_item *item)
{
    struct handling *handling = handling_of(L);
    if (pg_result_rows(item->result) == 0) {
        lua_pushnil(L);
        pg_result_free(item->result);
        item->result = NULL;
        return;
    }
    struct unread *unread = keep(L, handling, batch, item);
    push_unread(L, unread);
    if (handling->unread_count > MOST_UNREAD) {
        read(L, lua_gettop(L));
    }
}

static int index_unread(lua_State *L)
{
    read(L, 1);
    lua_rawget(L, 1);
    return 1;
}

static int assign_unread(lua_State *L)
{
    read(L, 1);
    lua_rawset(L, 1);
    return 0;
}

static int next_member(lua_State *L)
{
    lua_settop(L, 2);
    if (lua_next(L, 1)) {
        return 2;
    }
    lua_pushnil(L);
    return 1;
}

static int iterate_unread(lua_State *L)
{
    read(L, 1);
    lua_pushcfunction(L, next_member);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    return 3;
}

static int encode(lua_State *L, int index, struct buffer *out, struct error *err)
{
    struct handling *handling = handling_of(L);
    struct unread *unread = find(L, handling, lua_absindex(L, index));
    return bind_result_check_names(&unread->held, err) != 0
               ? -1
               : bind_result_write(&unread->held, 0, out, err);
}

static const struct bind_json_hook json_hook = {.encode = encode};

static bool is_unread(lua_State *L, int index)
{
    return lua_istable(L, index) && bind_type_has(L, index, type_name);
}

void bind_row_read(lua_State *L, int index)
{
    if (is_unread(L, index)) {
        read(L, lua_absindex(L, index));
    }
}

/* Stands before a function of the base library, which is its upvalue. */
static int read_first(lua_State *L)
{
    bind_row_read(L, 1);
    return vm_call_upvalue(L);
}

static const luaL_Reg metamethods[] = {
    {"__index", index_unread},
    {"__newindex", assign_unread},
    {"__pairs", iterate_unread},
    {NULL, NULL},
};

/* These reach past the metamethods. */
static const char *const raw_functions[] = {"next",         "rawget",       "rawset",
                                            "setmetatable", "getmetatable", NULL};

void bind_row_open(lua_State *L)
{
    bind_type_open(L, type_name);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushlightuserdata(L, (void *)&json_hook);
    lua_setfield(L, -2, "__json");
    lua_pop(L, 1);
    for (const char *const *name = raw_functions; *name; name++) {
        lua_getglobal(L, *name);
        lua_pushcclosure(L, read_first, 1);
        lua_setglobal(L, *name);
    }
}
