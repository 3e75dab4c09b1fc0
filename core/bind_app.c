/* Routes go into the generation whose scripts are being loaded. */
#include "bind_app.h"

#include <stdbool.h>
#include <strings.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "bind_row.h"
#include "error.h"
#include "generation.h"
#include "handling.h"
#include "log.h"
#include "request.h"
#include "router.h"
#include "vm.h"

enum { MOST_DEADLINE_S = 3600 };

/* The place of the registration, which add_route() was given. */
enum { WHERE = 3 };

/* Raises with the script's place in front, rather than that of lua/moonpool.lua. */
static int refuse(lua_State *L, const char *message)
{
    lua_pushfstring(L, "%s: %s", luaL_checkstring(L, WHERE), message);
    return lua_error(L);
}

static uint64_t get_deadline(lua_State *L, int options)
{
    if (lua_getfield(L, options, "deadline") == LUA_TNIL) {
        lua_pop(L, 1);
        return 0;
    }
    lua_Number seconds = lua_tonumber(L, -1);
    if (!(seconds > 0 && seconds <= MOST_DEADLINE_S)) {
        refuse(L, "deadline must be a number of seconds above 0, at most 3600");
    }
    lua_pop(L, 1);
    return (uint64_t)(seconds * 1e6);
}

static size_t get_body_limit(lua_State *L, int options)
{
    bool given = lua_getfield(L, options, "body_limit") != LUA_TNIL;
    lua_Integer bytes = lua_tointeger(L, -1);
    if (given && bytes <= 0) {
        refuse(L, "body_limit must be a whole number of bytes above 0");
    }
    lua_pop(L, 1);
    return (size_t)bytes;
}

static const char *keep(struct generation *generation, lua_State *L, int index)
{
    return arena_strdup(&generation->arena, luaL_checkstring(L, index));
}

/* route(method, pattern, where, options, fn) */
static int add_route(lua_State *L)
{
    struct generation *generation = generation_of(L);
    struct error err;
    luaL_checktype(L, 4, LUA_TTABLE);
    luaL_checktype(L, 5, LUA_TFUNCTION);
    if (!generation->vm->source) {
        return refuse(L, "routes are registered while the scripts are loaded, not later");
    }
    struct route *route = arena_zalloc(&generation->arena, sizeof *route);
    route->pattern = keep(generation, L, 2);
    route->where = keep(generation, L, 3);
    route->deadline = get_deadline(L, 4);
    route->body_limit = get_body_limit(L, 4);
    if (router_add(generation->router, luaL_checkstring(L, 1), route->pattern, route->where, route,
                   &err) != 0) {
        return refuse(L, err.message);
    }
    lua_settop(L, 5);
    route->function = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static void check_header(lua_State *L)
{
    size_t length;
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    const char *value = luaL_tolstring(L, -1, &length);
    if (!request_is_token(name) || !request_is_header_value(value, length)) {
        luaL_error(L, "the response header '%s' has a bad name or value", name);
    }
    if (strcasecmp(name, "Content-Type") == 0) {
        luaL_error(L, "the Content-Type of a failure is application/problem+json");
    }
}

/* A table with the headers at `index`, their values as text; nil where there are none. */
static void push_headers(lua_State *L, int index)
{
    if (lua_isnil(L, index)) {
        lua_pushnil(L);
        return;
    }
    bind_row_read(L, index);
    lua_newtable(L);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 2)) {
        check_header(L);
        lua_pushvalue(L, -3);
        lua_pushvalue(L, -2);
        lua_settable(L, -6);
    }
}

static void check_table_or_nil(lua_State *L, int index)
{
    if (!lua_isnoneornil(L, index)) {
        luaL_checktype(L, index, LUA_TTABLE);
    }
}

/* fail(status, detail, extra, headers) */
static int fail(lua_State *L)
{
    lua_Integer status = luaL_checkinteger(L, 1);
    const char *detail = luaL_optstring(L, 2, "");
    luaL_argcheck(L, status >= 400 && status <= 599, 1, "a status from 400 to 599 expected");
    check_table_or_nil(L, 3);
    check_table_or_nil(L, 4);
    lua_settop(L, 4);
    bind_row_read(L, 3);
    push_headers(L, 4);
    struct error err;
    error_set(&err, error_from_status((int)status), "%s", detail);
    err.status = (int)status;
    bind_error_push(L, &err);
    lua_pushvalue(L, 2);
    lua_setfield(L, -2, "message");
    lua_pushvalue(L, 3);
    lua_setfield(L, -2, "extra");
    lua_pushvalue(L, 5);
    lua_setfield(L, -2, "headers");
    return lua_error(L);
}

/* log(level, message) */
static int write_log(lua_State *L)
{
    static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
    int level = luaL_checkoption(L, 1, NULL, levels);
    size_t length;
    const char *message = luaL_tolstring(L, 2, &length);
    const struct handling *handling = generation_of(L)->current;
    struct log_line line = log_begin((enum log_level)level, "script");
    if (handling) {
        log_text(&line, "id", handling->request->id);
    }
    log_bytes(&line, "message", message, length);
    log_end(&line);
    return 0;
}

static const luaL_Reg functions[] = {
    {"route", add_route}, {"fail", fail}, {"log", write_log}, {NULL, NULL}};

int bind_app_open(lua_State *L)
{
    luaL_newlib(L, functions);
    return 1;
}
