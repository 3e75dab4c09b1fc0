/* Rows as tables. A row that nobody has looked at is an empty table whose metatable fills it as
 * soon as somebody does; the one thing in it is the number under which its result is found among
 * those of the running request. A number and not a pointer: scripts can keep the table for longer.
 */
#include "bind_row.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "arena.h"
#include "bind_error.h"
#include "bind_json.h"
#include "bind_value.h"
#include "buffer.h"
#include "error.h"
#include "handling.h"
#include "json.h"
#include "pg_result.h"
#include "pgtype.h"
#include "request.h"
#include "vm.h"

static const char type_name[] = "moonpool.unread_row";

/* Its address is the key of the number in an unread row. */
static const char number_key;

/* A request that asks whether rows exist, and never looks at them, must not hoard results. */
enum { MOST_UNREAD = 16 };

/* In the request's arena. */
struct unread {
    struct holding holding;    /* in handling.unread */
    struct vm *vm;             /* borrowed */
    struct pg_result *result;  /* owned */
    size_t bytes;              /* of the result, as charged */
    struct buffer scratch;     /* owned */
    struct bind_row_form form; /* owned */
    lua_Integer number;
};

/* Rows. */

void bind_row_check_columns(lua_State *L, const struct pg_result *result)
{
    struct error err;
    const char *twin = pg_result_twin(result);
    if (twin) {
        error_set(&err, ERROR_SCRIPT,
                  "two columns are named \"%s\": give one another name, with as", twin);
        bind_error_raise(L, &err);
    }
}

void bind_row_push_kind(lua_State *L, const struct pg_result *result)
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

/* Fills the table at `table`, and gives it the metatable at `kind`. */
static void fill(lua_State *L, const struct pg_result *result, int row, int table, int kind,
                 struct buffer *scratch)
{
    int columns = pg_result_columns(result);
    luaL_checkstack(L, 10, "no room for a row");
    lua_getfield(L, kind, "__columns");
    for (int column = 0; column < columns; column++) {
        size_t length;
        const char *text = pg_result_value(result, row, column, &length);
        if (text) {
            lua_rawgeti(L, -1, column + 1);
            bind_value_push(L, pg_result_type(result, column), text, length, scratch);
            lua_rawset(L, table);
        }
    }
    lua_pop(L, 1);
    lua_pushvalue(L, kind);
    vm_set_metatable(L, table);
}

void bind_row_push(lua_State *L, const struct pg_result *result, int row, int kind,
                   struct buffer *scratch)
{
    luaL_checkstack(L, 1, "no room for a row");
    lua_createtable(L, 0, pg_result_columns(result));
    fill(L, result, row, lua_gettop(L), kind, scratch);
}

struct bind_row_column {
    size_t start; /* in the form's text: {"name": or ,"name": */
    size_t length;
    uint32_t type;
};

int bind_row_form(struct bind_row_form *form, const struct pg_result *result, struct error *err)
{
    int code = 0;
    if (form->column) {
        return 0;
    }
    form->columns = pg_result_columns(result);
    form->column = memory_alloc(((size_t)form->columns + 1) * sizeof *form->column);
    for (int i = 0; i < form->columns && code == 0; i++) {
        const char *name = pg_result_name(result, i);
        size_t start = form->text.length;
        buffer_append_char(&form->text, i ? ',' : '{');
        code = json_write_string(&form->text, name, strlen(name));
        buffer_append_char(&form->text, ':');
        form->column[i] = (struct bind_row_column){
            .start = start,
            .length = form->text.length - start,
            .type = pg_result_type(result, i),
        };
    }
    if (code != 0) {
        bind_row_form_finish(form);
        return error_set(err, ERROR_SCRIPT, "a column's name is not valid UTF-8");
    }
    return 0;
}

void bind_row_form_finish(struct bind_row_form *form)
{
    free(form->column);
    form->column = NULL;
    buffer_finish(&form->text);
}

int bind_row_write(const struct bind_row_form *form, const struct pg_result *result, int row,
                   struct buffer *out, struct error *err)
{
    for (int i = 0; i < form->columns; i++) {
        const struct bind_row_column *column = &form->column[i];
        size_t length = 0;
        const char *text = pg_result_value(result, row, i, &length);
        buffer_append(out, form->text.data + column->start, column->length);
        if (pgtype_write_json(out, column->type, text, length) != 0) {
            return error_set(err, ERROR_SCRIPT, "row %d of a result is not valid UTF-8", row + 1);
        }
    }
    buffer_append_text(out, form->columns ? "}" : "{}");
    return 0;
}

void bind_row_refuse_memory(lua_State *L)
{
    struct error err;
    error_set(&err, ERROR_MEMORY, "the results of this request need more memory than it may have");
    bind_error_raise(L, &err);
}

/* Unread rows. */

static void release(struct holding *holding)
{
    struct unread *unread = list_entry((void *)holding, struct unread, holding);
    vm_discharge(unread->vm, unread->bytes);
    pg_result_free(unread->result);
    bind_row_form_finish(&unread->form);
    buffer_finish(&unread->scratch);
}

static void forget(struct handling *handling, struct unread *unread)
{
    handling->unread_count--;
    list_remove(&unread->holding.link);
    release(&unread->holding);
}

static struct unread *keep(lua_State *L, struct handling *handling, struct pg_result **result)
{
    struct unread *unread = arena_zalloc(&handling->request->arena, sizeof *unread);
    size_t bytes = pg_result_memory(*result);
    unread->holding.release = release;
    unread->vm = vm_of(L);
    if (!vm_charge(unread->vm, bytes)) {
        bind_row_refuse_memory(L);
    }
    unread->bytes = bytes;
    unread->result = *result;
    *result = NULL;
    buffer_init(&unread->scratch);
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
    luaL_setmetatable(L, type_name);
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
    bind_row_push_kind(L, unread->result);
    fill(L, unread->result, 0, table, lua_gettop(L), &unread->scratch);
    lua_pushnil(L);
    lua_rawsetp(L, table, &number_key);
    lua_pop(L, 1);
    forget(handling, unread);
}

void bind_row_push_first(lua_State *L, struct pg_result **result)
{
    struct handling *handling = handling_of(L);
    if (pg_result_rows(*result) == 0) {
        lua_pushnil(L);
        pg_result_free(*result);
        *result = NULL;
        return;
    }
    struct unread *unread = keep(L, handling, result);
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
    return bind_row_form(&unread->form, unread->result, err) != 0
               ? -1
               : bind_row_write(&unread->form, unread->result, 0, out, err);
}

static const struct bind_json_hook json_hook = {.encode = encode};

static bool is_unread(lua_State *L, int index)
{
    if (!lua_istable(L, index) || !lua_getmetatable(L, index)) {
        return false;
    }
    luaL_getmetatable(L, type_name);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
    return same;
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
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
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
    luaL_newmetatable(L, type_name);
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
