/* The request as a script sees it: a userdata whose fields are made when they are first looked at
 * and kept, with what the script assigns, in a table. */
#include "bind_request.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "bind_json.h"
#include "bind_row.h"
#include "bind_type.h"
#include "error.h"
#include "handling.h"
#include "request.h"
#include "uri.h"
#include "vm.h"

static const char type_name[] = "moonpool.request";

enum { LEAST_STATUS = 200, MOST_STATUS = 599 };

/* The request behind the userdata at `index`; raises once it has been answered. */
static struct request *check_request(lua_State *L, int index)
{
    struct request **handle = bind_type_check(L, index, type_name);
    if (!*handle) {
        luaL_error(L, "this request is over: take what you need of it while it is being handled");
    }
    return *handle;
}

/* Fields. */

static void push_parameters(lua_State *L, struct request *request)
{
    lua_createtable(L, 0, (int)request->match.parameter_count);
    for (size_t i = 0; i < request->match.parameter_count; i++) {
        lua_pushstring(L, request->match.parameters[i].value);
        lua_setfield(L, -2, request->match.parameters[i].name);
    }
}

static int get_header(lua_State *L)
{
    struct request *request = check_request(L, lua_upvalueindex(1));
    const char *value = request_header(request, luaL_checkstring(L, 2));
    lua_pushstring(L, value);
    return 1;
}

/* The headers by the names they came with; other ways to write a name are found too. Of one that
 * came twice the first counts, however it is asked for. */
static void push_headers(lua_State *L, struct request *request)
{
    lua_createtable(L, 0, (int)request->header_count);
    for (size_t i = 0; i < request->header_count; i++) {
        const struct header *header = &request->headers[i];
        if (request_header(request, header->name) == header->value) {
            lua_pushstring(L, header->value);
            lua_setfield(L, -2, header->name);
        }
    }
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, 1);
    lua_pushcclosure(L, get_header, 1);
    lua_setfield(L, -2, "__index");
    lua_setmetatable(L, -2);
}

static void push_query(lua_State *L, struct request *request)
{
    struct uri_query query;
    struct error err;
    lua_newtable(L);
    uri_query_begin(&query, request->query, &request->arena);
    while (uri_query_next(&query)) {
        lua_pushlstring(L, query.name, query.name_length);
        lua_pushlstring(L, query.value, query.value_length);
        lua_rawset(L, -3);
    }
    if (query.bad) {
        error_set(&err, ERROR_MALFORMED, "the query has a bad percent-encoding");
        bind_error_raise(L, &err);
    }
}

/* "application/json", "application/problem+json; charset=utf-8". */
static bool is_json_type(const char *type)
{
    size_t length = strcspn(type, "; \t");
    return (length == 16 && strncasecmp(type, "application/json", 16) == 0) ||
           (length > 5 && strncasecmp(type + length - 5, "+json", 5) == 0);
}

/* A body without a media type is taken for JSON: that is what this server speaks. */
static void push_body(lua_State *L, struct request *request)
{
    const char *type = request_header(request, "Content-Type");
    struct error err;
    if (request->body.length == 0 || (type && !is_json_type(type))) {
        lua_pushnil(L);
    } else if (bind_json_decode(L, request->body.data, request->body.length, &err) != 0) {
        bind_error_raise(L, &err);
    }
}

static void push_raw_body(lua_State *L, struct request *request)
{
    lua_pushlstring(L, request->body.length ? request->body.data : "", request->body.length);
}

static void push_method(lua_State *L, struct request *request)
{
    lua_pushstring(L, request->method);
}

static void push_path(lua_State *L, struct request *request)
{
    lua_pushstring(L, request->path);
}

static void push_id(lua_State *L, struct request *request)
{
    lua_pushstring(L, request->id);
}

static void push_client(lua_State *L, struct request *request)
{
    lua_pushstring(L, request->client);
}

/* The error that says why `body` is nil though there must be one. */
static void push_media_type(lua_State *L, struct request *request)
{
    const char *type = request_header(request, "Content-Type");
    lua_pushstring(L, type ? type : "");
}

static int get_left(lua_State *L)
{
    struct request *request = check_request(L, 1);
    lua_pushnumber(L, (lua_Number)deadline_left(request->deadline, clock_now()) / 1e6);
    return 1;
}

static void push_left(lua_State *L, struct request *request)
{
    lua_pushcfunction(L, get_left);
}

static const struct {
    const char *name;
    void (*push)(lua_State *L, struct request *request);
} fields[] = {
    {"params", push_parameters},
    {"body", push_body},
    {"query", push_query},
    {"headers", push_headers},
    {"method", push_method},
    {"path", push_path},
    {"id", push_id},
    {"raw_body", push_raw_body},
    {"client", push_client},
    {"left", push_left},
    {"media_type", push_media_type},
};

static void push_field(lua_State *L, struct request *request, const char *name)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        if (strcmp(fields[i].name, name) == 0) {
            fields[i].push(L, request);
            return;
        }
    }
    lua_pushnil(L);
}

static int get_field(lua_State *L)
{
    lua_getiuservalue(L, 1, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, -2) != LUA_TNIL) {
        return 1;
    }
    push_field(L, check_request(L, 1), luaL_checkstring(L, 2));
    if (!lua_isnil(L, -1)) {
        lua_pushvalue(L, 2);
        lua_pushvalue(L, -2);
        lua_rawset(L, -5);
    }
    return 1;
}

static int set_field(lua_State *L)
{
    check_request(L, 1);
    lua_getiuservalue(L, 1, 1);
    lua_insert(L, 2);
    lua_rawset(L, 2);
    return 0;
}

/* The entry keeps it on its stack for as long as the handling lives, which is why it needs no __gc:
 * finalizers cost more than all else that is done for it. */
static void push_request(lua_State *L, struct handling *handling)
{
    struct request **handle = bind_type_new(L, type_name, sizeof *handle, 1);
    lua_newtable(L);
    lua_setiuservalue(L, -2, 1);
    *handle = handling->request;
    handling->handle = handle;
}

/* Responses. */

static void add_header(lua_State *L, struct request *request)
{
    size_t length;
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "";
    const char *value = luaL_tolstring(L, -1, &length);
    if (!request_is_token(name) || !request_is_header_value(value, length)) {
        luaL_error(L, "the response header '%s' has a bad name or value", name);
    }
    if (strcasecmp(name, "Content-Type") == 0) {
        request->response.content_type = arena_strdup(&request->arena, value);
    } else {
        request_add_header(request, name, value);
    }
    lua_pop(L, 1);
}

static void write_headers(lua_State *L, int index, struct request *request)
{
    if (lua_isnoneornil(L, index)) {
        return;
    }
    if (!lua_istable(L, index)) {
        luaL_error(L, "a handler's headers must be a table, not a %s", luaL_typename(L, index));
    }
    bind_row_read(L, index);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        add_header(L, request);
    }
}

static void write_body(lua_State *L, int index, struct request *request)
{
    struct response *response = &request->response;
    size_t length;
    switch (lua_type(L, index)) {
    case LUA_TNONE:
    case LUA_TNIL:
        return;
    case LUA_TSTRING: {
        const char *text = lua_tolstring(L, index, &length);
        buffer_append(&response->body, text, length);
        response->content_type = "text/plain; charset=utf-8";
        return;
    }
    default:
        bind_error_encode_json(L, index, &response->body);
        response->content_type = "application/json";
    }
}

static int check_status(lua_State *L, int index)
{
    int is_integer;
    lua_Integer status = lua_tointegerx(L, index, &is_integer);
    if (!is_integer || status < LEAST_STATUS || status > MOST_STATUS) {
        luaL_error(L, "a handler's status must be a number from 200 to 599");
    }
    return (int)status;
}

/* The handler has returned: its values stand above the request. */
static int write_response(lua_State *L, int status, lua_KContext context)
{
    struct request *request = handling_of(L)->request;
    bool has_status = lua_type(L, 2) == LUA_TNUMBER;
    int body = has_status ? 3 : 2;
    int code = has_status ? check_status(L, 2) : lua_isnoneornil(L, 2) ? 204 : 200;
    lua_settop(L, body + 1);
    request->response.header_count = 0;
    request->response.body.length = 0;
    write_body(L, body, request);
    if (has_status) {
        write_headers(L, body + 1, request);
    }
    request->response.status = code;
    return 0;
}

int bind_request_entry(lua_State *L)
{
    push_request(L, handling_of(L));
    lua_insert(L, 1);
    lua_pushvalue(L, 1);
    lua_callk(L, 1, LUA_MULTRET, 0, write_response);
    return write_response(L, LUA_OK, 0);
}

static const luaL_Reg metamethods[] = {
    {"__index", get_field}, {"__newindex", set_field}, {NULL, NULL}};

void bind_request_open(lua_State *L)
{
    bind_type_open(L, type_name);
    luaL_setfuncs(L, metamethods, 0);
    lua_pushliteral(L, "moonpool.request");
    lua_setfield(L, -2, "__metatable");
    lua_pop(L, 1);
}
