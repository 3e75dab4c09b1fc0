/* struct error to a Lua table and back. */
#include "bind_error.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_json.h"
#include "bind_type.h"
#include "buffer.h"
#include "error.h"
#include "json.h"
#include "request.h"
#include "vm.h"

static const char type_name[] = "moonpool.error";

static void set_text(lua_State *L, const char *field, const char *text)
{
    if (*text) {
        lua_pushstring(L, text);
        lua_setfield(L, -2, field);
    }
}

void bind_error_push(lua_State *L, const struct error *err)
{
    const struct error_kind *kind = error_kind(err->code);
    lua_createtable(L, 0, 8);
    set_text(L, "code", kind->slug);
    set_text(L, "message", err->message);
    set_text(L, "sqlstate", err->sqlstate);
    set_text(L, "constraint", err->constraint);
    set_text(L, "statement", err->statement);
    set_text(L, "where", err->where);
    lua_pushinteger(L, err->status ? err->status : kind->status);
    lua_setfield(L, -2, "status");
    if (err->item > 0) {
        lua_pushinteger(L, (lua_Integer)err->item);
        lua_setfield(L, -2, "item");
    }
    if (err->row > 0) {
        lua_pushinteger(L, (lua_Integer)err->row);
        lua_setfield(L, -2, "row");
    }
    bind_type_push(L, type_name);
    vm_set_metatable(L, -2);
}

int bind_error_raise(lua_State *L, const struct error *err)
{
    bind_error_push(L, err);
    return lua_error(L);
}

void bind_error_encode_json(lua_State *L, int index, struct buffer *out)
{
    struct error err;
    if (bind_json_encode(L, index, out, &err) != 0) {
        bind_error_raise(L, &err);
    }
}

static void get_text(lua_State *L, int index, const char *field, char *text, size_t size)
{
    lua_pushstring(L, field);
    if (lua_rawget(L, index) == LUA_TSTRING) {
        snprintf(text, size, "%s", lua_tostring(L, -1));
    }
    lua_pop(L, 1);
}

static lua_Integer get_integer(lua_State *L, int index, const char *field)
{
    lua_pushstring(L, field);
    lua_rawget(L, index);
    lua_Integer value = lua_tointeger(L, -1);
    lua_pop(L, 1);
    return value;
}

/* Members of the problem document that are not a script's to add. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {"type",     "title",      "status",   "detail",
                                        "instance", "request_id", "sqlstate", "constraint",
                                        "item",     "row"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

static void read_extra(lua_State *L, int index, struct buffer *extra)
{
    lua_pushliteral(L, "extra");
    if (lua_rawget(L, index) == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            size_t length, before = extra->length;
            struct error ignored;
            if (lua_type(L, -2) != LUA_TSTRING || is_reserved(lua_tostring(L, -2))) {
                continue;
            }
            const char *name = lua_tolstring(L, -2, &length);
            buffer_append_char(extra, ',');
            bool good = json_write_string(extra, name, length) == 0;
            buffer_append_char(extra, ':');
            if (!good || bind_json_encode(L, lua_gettop(L), extra, &ignored) != 0) {
                extra->length = before;
            }
        }
    }
    lua_pop(L, 1);
}

bool bind_error_read(lua_State *L, int index, struct error *err, struct buffer *extra)
{
    index = lua_absindex(L, index);
    if (!lua_istable(L, index) || !bind_type_has(L, index, type_name)) {
        return false;
    }
    char slug[64] = "";
    get_text(L, index, "code", slug, sizeof slug);
    memset(err, 0, sizeof *err);
    err->code = error_from_slug(slug);
    get_text(L, index, "message", err->message, sizeof err->message);
    get_text(L, index, "sqlstate", err->sqlstate, sizeof err->sqlstate);
    get_text(L, index, "constraint", err->constraint, sizeof err->constraint);
    get_text(L, index, "statement", err->statement, sizeof err->statement);
    get_text(L, index, "where", err->where, sizeof err->where);
    err->item = (size_t)get_integer(L, index, "item");
    err->row = (size_t)get_integer(L, index, "row");
    int status = (int)get_integer(L, index, "status");
    bool sane = status >= 400 && status <= 599;
    err->status = sane && status != error_kind(err->code)->status ? status : 0;
    read_extra(L, index, extra);
    return true;
}

/* Whether the pair on top can be a header of a problem document. */
static bool is_header(lua_State *L)
{
    size_t length = 0;
    bool texts = lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING;
    const char *name = texts ? lua_tostring(L, -2) : "";
    const char *value = texts ? lua_tolstring(L, -1, &length) : NULL;
    return request_is_token(name) && request_is_header_value(value, length) &&
           strcasecmp(name, "Content-Type") != 0;
}

void bind_error_read_headers(lua_State *L, int index, struct request *request)
{
    index = lua_absindex(L, index);
    lua_pushliteral(L, "headers");
    if (lua_rawget(L, index) == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            if (is_header(L)) {
                request_add_header(request, lua_tostring(L, -2), lua_tostring(L, -1));
            }
        }
    }
    lua_pop(L, 1);
}

static void write_header(lua_State *L, struct buffer *out)
{
    size_t length, before = out->length;
    const char *name = lua_tolstring(L, -2, &length);
    buffer_append_char(out, ',');
    json_write_string(out, name, length);
    buffer_append_char(out, ':');
    const char *value = lua_tolstring(L, -1, &length);
    if (json_write_string(out, value, length) != 0) {
        out->length = before;
    }
}

void bind_error_write_headers(lua_State *L, int index, struct buffer *out)
{
    index = lua_absindex(L, index);
    lua_pushliteral(L, "headers");
    if (lua_rawget(L, index) == LUA_TTABLE) {
        for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
            if (is_header(L)) {
                write_header(L, out);
            }
        }
    }
    lua_pop(L, 1);
}

/* "scripts/users.lua:12: the message", as an uncaught error would print. */
static int to_text(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "where");
    lua_getfield(L, 1, "message");
    const char *where = lua_tostring(L, -2);
    const char *message = lua_tostring(L, -1);
    lua_pushfstring(L, "%s%s%s", where ? where : "", where ? ": " : "",
                    message ? message : "no message");
    return 1;
}

void bind_error_open(lua_State *L)
{
    bind_type_open(L, type_name);
    lua_pushcfunction(L, to_text);
    lua_setfield(L, -2, "__tostring");
    lua_pop(L, 1);
}
