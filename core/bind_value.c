/* A column's text as a Lua value: what PostgreSQL's types are to a script. */
#include "bind_value.h"

#include <stdlib.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "bind_json.h"
#include "buffer.h"
#include "error.h"
#include "json.h"
#include "pgtype.h"
#include "vm.h"

enum { STEPS_OF_ELEMENT = 10 }; /* for vm_work() */

struct array_builder {
    lua_State *L;
    struct buffer *scratch; /* borrowed */
    uint32_t element;
    int depth;
};

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
    vm_work(builder->L, vm_of(builder->L), STEPS_OF_ELEMENT);
    if (text) {
        bind_value_push(builder->L, builder->element, text, length, builder->scratch);
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

static void push_array(lua_State *L, uint32_t element, const char *text, size_t length,
                       struct buffer *scratch)
{
    struct array_builder builder = {.L = L, .scratch = scratch, .element = element};
    int top = lua_gettop(L);
    if (pgtype_walk_array(text, length, &array_builder_handler, &builder, scratch) != 0) {
        lua_settop(L, top);
        lua_pushlstring(L, text, length);
    }
}

static void push_json(lua_State *L, const char *text, size_t length)
{
    struct error err, raised;
    if (bind_json_decode_column(L, text, length, &err) != 0) {
        error_set(&raised, err.code == ERROR_MEMORY ? ERROR_MEMORY : ERROR_SCRIPT,
                  "a json column cannot be read by a script: %s", err.message);
        bind_error_raise(L, &raised);
    }
}

static void push_timestamp(lua_State *L, const char *text, size_t length)
{
    char iso[80];
    if (length > sizeof iso) {
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

static void push_number(lua_State *L, const char *text, size_t length)
{
    double value;
    lua_pushnumber(L, json_read_decimal(text, length, &value) ? value : strtod(text, NULL));
}

void bind_value_push(lua_State *L, uint32_t type, const char *text, size_t length,
                     struct buffer *scratch)
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
        push_number(L, text, length);
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
        push_array(L, element, text, length, scratch);
        break;
    default:
        lua_pushlstring(L, text, length);
    }
}
