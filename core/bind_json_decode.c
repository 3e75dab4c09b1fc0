/* Builds Lua values from what the parser of JSON tells. Whatever a Lua error could jump over is on
 * the Lua stack or belongs to a caller outside of it. */
#include "bind_json.h"

#include <math.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_json_parts.h"
#include "buffer.h"
#include "error.h"
#include "json.h"
#include "vm.h"

struct decoder {
    lua_State *L;
    struct vm *vm;
    const char *text; /* borrowed from the caller */
    size_t length;
    struct buffer *scratch; /* borrowed from the caller, who outlives a Lua error */
    struct error *err;
    int result;
    int array_metatable; /* its index on the stack */
    bool ordered;        /* objects remember the order of their keys */
    bool lenient;        /* takes what PostgreSQL takes */
    int depth;
    lua_Integer counts[JSON_DEPTH + 1]; /* items so far of each open array; -1 for an object */
};

/* Puts the value on top into what is open: on the stack stand the table, for an object the key, and
 * the value. At the outermost level the value stays. */
static void place(struct decoder *decoder)
{
    lua_Integer *count = &decoder->counts[decoder->depth];
    vm_work(decoder->L, decoder->vm, STEPS_OF_VALUE);
    if (decoder->depth == 0) {
        return;
    }
    if (*count < 0) {
        lua_rawset(decoder->L, -3);
    } else {
        lua_rawseti(decoder->L, -2, ++*count);
    }
}

static int take_null(void *context, struct error *err)
{
    struct decoder *decoder = context;
    lua_pushlightuserdata(decoder->L, NULL);
    place(decoder);
    return 0;
}

static int take_boolean(void *context, bool value, struct error *err)
{
    struct decoder *decoder = context;
    lua_pushboolean(decoder->L, value);
    place(decoder);
    return 0;
}

static int take_integer(void *context, int64_t value, struct error *err)
{
    struct decoder *decoder = context;
    lua_pushinteger(decoder->L, value);
    place(decoder);
    return 0;
}

static int take_number(void *context, double value, struct error *err)
{
    struct decoder *decoder = context;
    if (isinf(value) && !decoder->lenient) {
        return error_set(err, ERROR_INVALID, "the number is beyond the range of a double");
    }
    lua_pushnumber(decoder->L, value);
    place(decoder);
    return 0;
}

static int take_string(void *context, const char *text, size_t length, struct error *err)
{
    struct decoder *decoder = context;
    lua_pushlstring(decoder->L, text, length);
    vm_work(decoder->L, decoder->vm, length / BYTES_OF_STEP);
    place(decoder);
    return 0;
}

static int refuse_twice(const char *key, size_t length, struct error *err)
{
    struct buffer quoted;
    buffer_init(&quoted);
    json_write_string(&quoted, key, bind_json_cut(key, length, 64));
    error_set(err, ERROR_MALFORMED, "the key %.*s stands twice in one object", (int)quoted.length,
              quoted.data);
    buffer_finish(&quoted);
    return -1;
}

/* On the stack: the object, whose metatable has the keys so far, and the key. */
static void remember_key(lua_State *L)
{
    lua_getmetatable(L, -2);
    lua_getfield(L, -1, "__columns");
    lua_pushvalue(L, -3);
    lua_rawseti(L, -2, (lua_Integer)lua_rawlen(L, -2) + 1);
    lua_pop(L, 2);
}

static int take_key(void *context, const char *text, size_t length, struct error *err)
{
    struct decoder *decoder = context;
    lua_State *L = decoder->L;
    lua_pushlstring(L, text, length);
    lua_pushvalue(L, -1);
    bool twice = lua_rawget(L, -3) != LUA_TNIL;
    lua_pop(L, 1);
    if (twice && !decoder->lenient) {
        return refuse_twice(text, length, err);
    }
    if (decoder->ordered) {
        remember_key(L);
    }
    return 0;
}

/* Opens a table; `count` is 0 for an array, -1 for an object. */
static void open_table(struct decoder *decoder, lua_Integer count)
{
    luaL_checkstack(decoder->L, 6, "too many nested values");
    lua_newtable(decoder->L);
    decoder->counts[++decoder->depth] = count;
}

static int take_object(void *context, struct error *err)
{
    struct decoder *decoder = context;
    open_table(decoder, -1);
    if (decoder->ordered) {
        lua_createtable(decoder->L, 0, 1);
        lua_newtable(decoder->L);
        lua_setfield(decoder->L, -2, "__columns");
        lua_setmetatable(decoder->L, -2);
    }
    return 0;
}

static int take_array(void *context, struct error *err)
{
    struct decoder *decoder = context;
    open_table(decoder, 0);
    lua_pushvalue(decoder->L, decoder->array_metatable);
    vm_set_metatable(decoder->L, -2);
    return 0;
}

static int take_end(void *context, struct error *err)
{
    struct decoder *decoder = context;
    decoder->depth--;
    place(decoder);
    return 0;
}

/* Runs protected: a light userdata with the decoder on the stack, the value returned. */
static int decode(lua_State *L)
{
    static const struct json_handler handler = {
        .on_null = take_null,
        .on_boolean = take_boolean,
        .on_integer = take_integer,
        .on_number = take_number,
        .on_string = take_string,
        .on_key = take_key,
        .on_object = take_object,
        .on_object_end = take_end,
        .on_array = take_array,
        .on_array_end = take_end,
    };
    struct decoder *decoder = lua_touserdata(L, 1);
    bind_json_push_array_metatable(L);
    decoder->array_metatable = lua_gettop(L);
    decoder->result = json_parse(decoder->text, decoder->length, &handler, decoder,
                                 decoder->scratch, decoder->err);
    return decoder->result ? 0 : 1;
}

/* Turns the Lua error on top, raised while decoding, into `err`. */
static int decode_failed(lua_State *L, int status, struct error *err)
{
    enum error_code code = status == LUA_ERRMEM ? ERROR_MEMORY : ERROR_SCRIPT;
    const char *message = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "unknown";
    error_set(err, code, "decoding JSON: %s", message);
    lua_pop(L, 1);
    return -1;
}

/* Runs a decoder that knows its text and its ways. */
static int run_decoder(struct decoder *decoder)
{
    lua_State *L = decoder->L;
    struct buffer scratch;
    int top = lua_gettop(L);
    if (!lua_checkstack(L, 3)) {
        return error_set(decoder->err, ERROR_MEMORY, "decoding JSON: the stack is full");
    }
    buffer_init(&scratch);
    decoder->vm = vm_of(L);
    decoder->scratch = &scratch;
    lua_pushcfunction(L, decode);
    lua_pushlightuserdata(L, decoder);
    int status = lua_pcall(L, 1, LUA_MULTRET, 0);
    buffer_finish(&scratch);
    if (status != LUA_OK) {
        return decode_failed(L, status, decoder->err);
    }
    lua_settop(L, top + (decoder->result ? 0 : 1));
    return decoder->result;
}

int bind_json_decode(lua_State *L, const char *text, size_t length, struct error *err)
{
    struct decoder decoder = {.L = L, .text = text, .length = length, .err = err};
    return run_decoder(&decoder);
}

int bind_json_decode_ordered(lua_State *L, const char *text, size_t length, struct error *err)
{
    struct decoder decoder = {.L = L, .text = text, .length = length, .err = err, .ordered = true};
    return run_decoder(&decoder);
}

int bind_json_decode_column(lua_State *L, const char *text, size_t length, struct error *err)
{
    struct decoder decoder = {.L = L, .text = text, .length = length, .err = err, .lenient = true};
    return run_decoder(&decoder);
}
