/* Walks Lua values to write them as JSON. Whatever a Lua error could jump over is on the Lua stack
 * or belongs to the caller. */
#include "bind_json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_json_parts.h"
#include "buffer.h"
#include "error.h"
#include "json.h"
#include "vm.h"

/* A step of the way from the outermost value to the one at hand. */
struct step {
    const struct step *up; /* NULL for the outermost value */
    const char *key;       /* of an object; on the Lua stack; NULL in an array */
    lua_Integer index;     /* in an array */
};

struct encoder {
    lua_State *L;
    struct vm *vm;
    struct buffer *out; /* borrowed from the caller */
    struct error *err;
    int depth;
    int rows; /* tables with columns that are open: what is written belongs to a row */
};

static int encode_value(struct encoder *encoder, int index, const struct step *step);

static bool is_name(const char *key)
{
    size_t length = strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
    return *key && !strchr("0123456789", *key) && !key[length];
}

/* Writes "$.users[3]". */
static void write_path(const struct step *step, struct buffer *out)
{
    if (!step) {
        buffer_append_char(out, '$');
        return;
    }
    write_path(step->up, out);
    if (!step->key) {
        buffer_printf(out, "[%lld]", (long long)step->index);
    } else if (is_name(step->key)) {
        buffer_printf(out, ".%s", step->key);
    } else {
        buffer_append_char(out, '[');
        if (json_write_string(out, step->key, strlen(step->key))) {
            buffer_append_char(out, '?');
        }
        buffer_append_char(out, ']');
    }
}

/* Fails with the path of a value, cut if it is long, and what is wrong with it. */
__attribute__((format(printf, 3, 4))) static int
refuse(struct encoder *encoder, const struct step *step, const char *format, ...)
{
    char what[160];
    struct buffer path;
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    buffer_init(&path);
    write_path(step, &path);
    size_t length = bind_json_cut(path.data, path.length, 240);
    error_set(encoder->err, ERROR_SCRIPT, "%.*s%s %s", (int)length, path.data,
              length < path.length ? "..." : "", what);
    buffer_finish(&path);
    return -1;
}

static int refuse_size(struct encoder *encoder, const struct step *step)
{
    return refuse(encoder, step, "lies beyond the first %d bytes, which are the most",
                  BIND_JSON_SIZE);
}

static int encode_string(struct encoder *encoder, int index, const struct step *step)
{
    size_t length;
    const char *text = lua_tolstring(encoder->L, index, &length);
    if (encoder->out->length + length > BIND_JSON_SIZE) {
        return refuse_size(encoder, step);
    }
    vm_work(encoder->L, encoder->vm, length / BYTES_OF_STEP);
    if (json_write_string(encoder->out, text, length)) {
        return refuse(encoder, step, "is not valid UTF-8");
    }
    return 0;
}

/* What to_json() of PostgreSQL writes for a number without a form in JSON. */
static void write_infinite(struct buffer *out, double value)
{
    buffer_append_text(out, isnan(value) ? "\"NaN\""
                            : value > 0  ? "\"Infinity\""
                                         : "\"-Infinity\"");
}

static int encode_number(struct encoder *encoder, int index, const struct step *step)
{
    if (lua_isinteger(encoder->L, index)) {
        json_write_integer(encoder->out, lua_tointeger(encoder->L, index));
        return 0;
    }
    double value = lua_tonumber(encoder->L, index);
    if (json_write_number(encoder->out, value) == 0) {
        return 0;
    }
    if (!encoder->rows) {
        return refuse(encoder, step, "is not a finite number");
    }
    write_infinite(encoder->out, value);
    return 0;
}

static int encode_light(struct encoder *encoder, int index, const struct step *step)
{
    const void *value = lua_touserdata(encoder->L, index);
    if (value && value != bind_json_empty_array()) {
        return refuse(encoder, step, "is a light userdata, which JSON cannot express");
    }
    buffer_append_text(encoder->out, value ? "[]" : "null");
    return 0;
}

/* The value of the member named by the string at `key`, which is copied: its quotes, the colon, and
 * the value on top. A comma goes before all but the first. */
static int encode_member(struct encoder *encoder, int key, const struct step *up, bool first)
{
    lua_State *L = encoder->L;
    struct step step = {.up = up, .key = lua_tostring(L, key)};
    if (!first) {
        buffer_append_char(encoder->out, ',');
    }
    if (encode_string(encoder, key, &step)) {
        return -1;
    }
    buffer_append_char(encoder->out, ':');
    return encode_value(encoder, lua_gettop(L), &step);
}

/* Says why the key on the stack below the top is none of an array; 0 if it may be one. */
static int refuse_key(struct encoder *encoder, const struct step *up)
{
    lua_State *L = encoder->L;
    if (lua_type(L, -2) == LUA_TSTRING) {
        struct step step = {.up = up, .key = lua_tostring(L, -2)};
        return refuse(encoder, &step, "is a member of an array");
    }
    if (!lua_isinteger(L, -2)) {
        return refuse(encoder, up, "has a key that is a %s", luaL_typename(L, -2));
    }
    if (lua_tointeger(L, -2) < 1) {
        return refuse(encoder, up, "has the key %lld", (long long)lua_tointeger(L, -2));
    }
    return 0;
}

/* Says what keeps the keys of a table from being 1..n. */
static int refuse_keys(struct encoder *encoder, int index, const struct step *step)
{
    lua_State *L = encoder->L;
    lua_Integer hole = 1;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (refuse_key(encoder, step)) {
            return -1;
        }
    }
    while (lua_rawgeti(L, index, hole) != LUA_TNIL) {
        lua_pop(L, 1);
        hole++;
    }
    return refuse(encoder, step, "is an array with a hole: [%lld] is missing", (long long)hole);
}

/* True if the keys of the table are exactly 1..n, for the n that is returned. */
static bool is_sequence(lua_State *L, int index, lua_Integer *ret_count)
{
    struct vm *vm = vm_of(L);
    lua_Integer border = (lua_Integer)lua_rawlen(L, index);
    lua_Integer count = 0;
    for (lua_pushnil(L); lua_next(L, index); count++) {
        lua_pop(L, 1);
        vm_work(L, vm, STEPS_OF_VALUE);
        lua_Integer key = lua_isinteger(L, -1) ? lua_tointeger(L, -1) : 0;
        if (key < 1 || key > border) {
            lua_pop(L, 1);
            return false;
        }
    }
    *ret_count = count;
    return count == border;
}

static int encode_array(struct encoder *encoder, int index, const struct step *up)
{
    lua_State *L = encoder->L;
    struct step step = {.up = up};
    lua_Integer count;
    if (!is_sequence(L, index, &count)) {
        return refuse_keys(encoder, index, up);
    }
    buffer_append_char(encoder->out, '[');
    for (step.index = 1; step.index <= count; step.index++) {
        if (step.index > 1) {
            buffer_append_char(encoder->out, ',');
        }
        lua_rawgeti(L, index, step.index);
        if (encode_value(encoder, lua_gettop(L), &step)) {
            return -1;
        }
        lua_pop(L, 1);
    }
    buffer_append_char(encoder->out, ']');
    return 0;
}

/* The members of the table at `index` but for those that have a true value in the table at `done`,
 * if that is not 0. */
static int encode_members(struct encoder *encoder, int index, int done, const struct step *step,
                          bool first)
{
    lua_State *L = encoder->L;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        int key = lua_gettop(L) - 1;
        if (lua_type(L, key) != LUA_TSTRING) {
            return refuse(encoder, step, "is an object with a key that is a %s",
                          luaL_typename(L, key));
        }
        if (done) {
            lua_pushvalue(L, key);
            bool written = lua_rawget(L, done) != LUA_TNIL;
            lua_pop(L, 1);
            if (written) {
                continue;
            }
        }
        if (encode_member(encoder, key, step, first)) {
            return -1;
        }
        first = false;
    }
    return 0;
}

/* The members that the sequence at `columns` names, null where the table at `index` has none; notes
 * each in the table at `done`. */
static int encode_columns(struct encoder *encoder, int index, int columns, int done,
                          const struct step *step)
{
    lua_State *L = encoder->L;
    for (lua_Integer i = 1; lua_rawgeti(L, columns, i) != LUA_TNIL; i++, lua_pop(L, 2)) {
        if (lua_type(L, -1) != LUA_TSTRING) {
            return refuse(encoder, step, "has __columns that are not all strings");
        }
        lua_pushvalue(L, -1);
        lua_pushboolean(L, true);
        lua_rawset(L, done);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, index) == LUA_TNIL) {
            lua_pop(L, 1);
            lua_pushlightuserdata(L, NULL);
        }
        if (encode_member(encoder, lua_gettop(L) - 1, step, i == 1)) {
            return -1;
        }
    }
    lua_pop(L, 1);
    return 0;
}

/* A table whose metatable names its columns: the sequence is on top. */
static int encode_ordered(struct encoder *encoder, int index, const struct step *step)
{
    lua_State *L = encoder->L;
    int columns = lua_gettop(L);
    int done = columns + 1;
    lua_newtable(L);
    encoder->rows++;
    buffer_append_char(encoder->out, '{');
    if (encode_columns(encoder, index, columns, done, step) ||
        encode_members(encoder, index, done, step, lua_rawlen(L, columns) == 0)) {
        return -1;
    }
    buffer_append_char(encoder->out, '}');
    encoder->rows--;
    return 0;
}

/* A table without a metatable that says anything: its first key decides. */
static int encode_plain(struct encoder *encoder, int index, const struct step *step)
{
    lua_State *L = encoder->L;
    lua_pushnil(L);
    if (lua_next(L, index)) {
        bool is_object = lua_type(L, -2) == LUA_TSTRING;
        lua_pop(L, 2);
        if (!is_object) {
            return encode_array(encoder, index, step);
        }
    }
    buffer_append_char(encoder->out, '{');
    if (encode_members(encoder, index, 0, step, true)) {
        return -1;
    }
    buffer_append_char(encoder->out, '}');
    return 0;
}

/* A value whose metatable has __json, which is on top. */
static int encode_hooked(struct encoder *encoder, int index, const struct step *step)
{
    lua_State *L = encoder->L;
    const void *hook = lua_islightuserdata(L, -1) ? lua_touserdata(L, -1) : NULL;
    /* A script can get hold of the two sentinels, which are light userdata too. */
    if (hook && hook != bind_json_empty_array()) {
        return ((const struct bind_json_hook *)hook)->encode(L, index, encoder->out, encoder->err);
    }
    if (!lua_isfunction(L, -1)) {
        return refuse(encoder, step, "has a __json that is a %s", luaL_typename(L, -1));
    }
    lua_pushvalue(L, index);
    lua_call(L, 1, 1);
    return encode_value(encoder, lua_gettop(L), step);
}

/* The field `name` of the metatable on top; false, and nothing pushed, if there is none. */
static bool get_field(lua_State *L, const char *name)
{
    lua_pushstring(L, name);
    if (lua_rawget(L, -2) != LUA_TNIL) {
        return true;
    }
    lua_pop(L, 1);
    return false;
}

static bool is_array_metatable(lua_State *L)
{
    bind_json_push_array_metatable(L);
    bool same = lua_rawequal(L, -1, -2);
    lua_pop(L, 1);
    return same;
}

static int encode_special(struct encoder *encoder, int index, const struct step *step)
{
    lua_State *L = encoder->L;
    if (is_array_metatable(L)) {
        return encode_array(encoder, index, step);
    }
    if (get_field(L, "__json")) {
        return encode_hooked(encoder, index, step);
    }
    if (!lua_istable(L, index)) {
        return refuse(encoder, step, "is a userdata, which JSON cannot express");
    }
    if (get_field(L, "__columns")) {
        return lua_istable(L, -1) ? encode_ordered(encoder, index, step)
                                  : refuse(encoder, step, "has __columns that are not a table");
    }
    return encode_plain(encoder, index, step);
}

/* A table or a full userdata. */
static int encode_compound(struct encoder *encoder, int index, const struct step *step)
{
    lua_State *L = encoder->L;
    int result;
    if (encoder->depth == JSON_DEPTH) {
        return refuse(encoder, step, "is nested deeper than %d levels; is there a cycle?",
                      JSON_DEPTH);
    }
    luaL_checkstack(L, 12, "too many nested values");
    encoder->depth++;
    if (lua_getmetatable(L, index)) {
        result = encode_special(encoder, index, step);
    } else if (lua_istable(L, index)) {
        result = encode_plain(encoder, index, step);
    } else {
        result = refuse(encoder, step, "is a userdata, which JSON cannot express");
    }
    encoder->depth--;
    return result;
}

/* Writes the value at `index` (absolute). What it leaves on the stack its caller removes. */
static int encode_value(struct encoder *encoder, int index, const struct step *step)
{
    int top = lua_gettop(encoder->L);
    int result;
    vm_work(encoder->L, encoder->vm, STEPS_OF_VALUE);
    if (encoder->out->length > BIND_JSON_SIZE) {
        return refuse_size(encoder, step);
    }
    switch (lua_type(encoder->L, index)) {
    case LUA_TNIL:
        buffer_append_text(encoder->out, "null");
        return 0;
    case LUA_TBOOLEAN:
        buffer_append_text(encoder->out, lua_toboolean(encoder->L, index) ? "true" : "false");
        return 0;
    case LUA_TNUMBER:
        return encode_number(encoder, index, step);
    case LUA_TSTRING:
        return encode_string(encoder, index, step);
    case LUA_TLIGHTUSERDATA:
        return encode_light(encoder, index, step);
    case LUA_TTABLE:
    case LUA_TUSERDATA:
        result = encode_compound(encoder, index, step);
        lua_settop(encoder->L, top);
        return result;
    default:
        return refuse(encoder, step, "is a %s, which JSON cannot express",
                      luaL_typename(encoder->L, index));
    }
}

int bind_json_encode(lua_State *L, int index, struct buffer *out, struct error *err)
{
    struct encoder encoder = {.L = L, .vm = vm_of(L), .out = out, .err = err};
    size_t before = out->length;
    int top = lua_gettop(L);
    int result = encode_value(&encoder, lua_absindex(L, index), NULL);
    if (result) {
        out->length = before;
    }
    lua_settop(L, top);
    return result;
}
