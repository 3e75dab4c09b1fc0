/* JSON for scripts: rows of Lua expressions against the text they give, of text against what it
 * becomes, and both with the memory running out at every step. */
#include "bind_json.h"

#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "buffer.h"
#include "error.h"
#include "json.h"
#include "test.h"
#include "vm.h"

/* Allocations that may still succeed; negative for no limit. */
static long allocations_left = -1;

static void *allocate(void *context, void *old, size_t old_size, size_t size)
{
    if (size == 0) {
        free(old);
        return NULL;
    }
    if (allocations_left == 0 && (!old || size > old_size)) {
        return NULL;
    }
    allocations_left -= allocations_left > 0;
    return realloc(old, size);
}

static int encode_hook(lua_State *L, int index, struct buffer *out, struct error *err)
{
    buffer_append_text(out, lua_istable(L, index) ? "\"hooked table\"" : "\"hooked userdata\"");
    return 0;
}

static int refuse_hook(lua_State *L, int index, struct buffer *out, struct error *err)
{
    buffer_append_text(out, "half");
    return error_set(err, ERROR_SCRIPT, "the hook refuses");
}

static const struct bind_json_hook good_hook = {.encode = encode_hook};
static const struct bind_json_hook bad_hook = {.encode = refuse_hook};

static lua_State *open_state(void)
{
    static struct vm vm;
    lua_State *L = lua_newstate(allocate, NULL);
    *(struct vm **)lua_getextraspace(L) = &vm;
    luaL_openlibs(L);
    luaL_requiref(L, "json", bind_json_open, 1);
    luaL_requiref(L, "moonpool.json", bind_json_open, 0);
    lua_pop(L, 2);
    lua_pushlightuserdata(L, (void *)&good_hook);
    lua_setglobal(L, "good_hook");
    lua_pushlightuserdata(L, (void *)&bad_hook);
    lua_setglobal(L, "bad_hook");
    lua_newuserdatauv(L, 1, 0);
    lua_setglobal(L, "userdata");
    return L;
}

/* Leaves the values of a chunk on the stack. */
static void run(lua_State *L, const char *chunk)
{
    if (luaL_dostring(L, chunk) != LUA_OK) {
        printf("Bail out! %s: %s\n", chunk, lua_tostring(L, -1));
        exit(1);
    }
}

struct row {
    const char *given;
    const char *expected; /* the text, or the message of a refusal */
};

static const struct row encoded[] = {
    {"nil", "null"},
    {"json.null", "null"},
    {"true", "true"},
    {"42", "42"},
    {"math.mininteger", "-9223372036854775808"},
    {"0.1", "0.1"},
    {"3.0", "3"},
    {"-0.0", "-0"},
    {"'J\\u{f6}hn \"x\"\\n'", "\"J\xc3\xb6hn \\\"x\\\"\\n\""},
    {"{}", "{}"},
    {"json.array({})", "[]"},
    {"json.empty_array", "[]"},
    {"{1, 2, {3, {}}}", "[1,2,[3,{}]]"},
    {"{[1] = 'a', [2] = 'b', [3] = 'c'}", "[\"a\",\"b\",\"c\"]"},
    {"{a = {b = {json.null}}}", "{\"a\":{\"b\":[null]}}"},
    {"{['1'] = 1}", "{\"1\":1}"},
    {"{[''] = false}", "{\"\":false}"},
    {"setmetatable({a = 1}, {})", "{\"a\":1}"},
    {"setmetatable({c = 3, a = 1}, {__columns = {'a', 'b', 'c'}})", "{\"a\":1,\"b\":null,\"c\":3}"},
    {"setmetatable({b = 2, z = 9}, {__columns = {'b'}})", "{\"b\":2,\"z\":9}"},
    {"setmetatable({z = 9}, {__columns = {}})", "{\"z\":9}"},
    {"setmetatable({}, {__columns = {}})", "{}"},
    {"setmetatable({a = 0/0, b = 1/0}, {__columns = {'a', 'b'}})",
     "{\"a\":\"NaN\",\"b\":\"Infinity\"}"},
    {"{setmetatable({a = {1, -1/0}}, {__columns = {'a'}})}", "[{\"a\":[1,\"-Infinity\"]}]"},
    {"setmetatable({x = 1}, {__json = function(t) return {t.x, 2} end})", "[1,2]"},
    {"{setmetatable({}, {__json = good_hook}), 1}", "[\"hooked table\",1]"},
    {"debug.setmetatable(userdata, {__json = good_hook})", "\"hooked userdata\""},
};

static const struct row unencodable[] = {
    {"0/0", "$ is not a finite number"},
    {"{users = {{}, {}, {score = 1/0}}}", "$.users[3].score is not a finite number"},
    {"{setmetatable({}, {__columns = {}}), 0/0}", "$[2] is not a finite number"},
    {"{['odd key'] = {print}}", "$[\"odd key\"][1] is a function, which JSON cannot express"},
    {"coroutine.create(print)", "$ is a thread, which JSON cannot express"},
    {"io.stdout", "$ is a userdata, which JSON cannot express"},
    {"debug.setmetatable(userdata, nil)", "$ is a userdata, which JSON cannot express"},
    {"good_hook", "$ is a light userdata, which JSON cannot express"},
    {"{a = 'bad \\xff'}", "$.a is not valid UTF-8"},
    {"{['\\xff'] = 1}", "$[?] is not valid UTF-8"},
    {"{1, nil, 3}", "$ is an array with a hole: [2] is missing"},
    {"{[2] = 1}", "$ is an array with a hole: [1] is missing"},
    {"{[5] = 'x', [1] = 'y'}", "$ is an array with a hole: [2] is missing"},
    {"{1, 2, x = 3}", "$.x is a member of an array"},
    {"json.array({x = 3})", "$.x is a member of an array"},
    {"{[0] = 1}", "$ has the key 0"},
    {"{[1.5] = 1}", "$ has a key that is a number"},
    {"{[true] = 1}", "$ has a key that is a boolean"},
    {"setmetatable({1}, {__columns = {'a'}})", "$ is an object with a key that is a number"},
    {"setmetatable({}, {__columns = {1}})", "$ has __columns that are not all strings"},
    {"setmetatable({}, {__columns = 1})", "$ has __columns that are not a table"},
    {"setmetatable({}, {__json = 1})", "$ has a __json that is a number"},
    {"setmetatable({}, {__json = json.null})", "$ has a __json that is a userdata"},
    {"setmetatable({}, {__json = json.empty_array})", "$ has a __json that is a userdata"},
    {"{1, setmetatable({}, {__json = bad_hook})}", "the hook refuses"},
    {"setmetatable({}, {__json = function() return print end})",
     "$ is a function, which JSON cannot express"},
};

/* Encodes the value of an expression behind a text that has to stay. Leaves the JSON or the message
 * in `out`, NUL-terminated. */
static int encode(lua_State *L, const char *expression, struct buffer *out)
{
    struct error err;
    char chunk[512];
    snprintf(chunk, sizeof chunk, "return (%s)", expression);
    run(L, chunk);
    out->length = 0;
    buffer_append_text(out, "kept");
    int result = bind_json_encode(L, -1, out, &err);
    bool kept = memcmp(out->data, "kept", 4) == 0 && (result == 0 || out->length == 4);
    memmove(out->data, out->data + 4, out->length - 4);
    out->length -= 4;
    if (result) {
        buffer_append_text(out, err.code == ERROR_SCRIPT ? err.message : "another code");
    }
    buffer_append_char(out, '\0');
    check(kept && lua_gettop(L) == 1, "the buffer and the stack are as they should be");
    lua_settop(L, 0);
    return result;
}

static void test_encode(lua_State *L, const struct row *rows, size_t count, int result)
{
    struct buffer out;
    buffer_init(&out);
    for (size_t i = 0; i < count; i++) {
        check_int(encode(L, rows[i].given, &out), result, "encoding %s", rows[i].given);
        check_text(out.data, rows[i].expected, "gives %s", rows[i].expected);
    }
    buffer_finish(&out);
}

static void test_nesting(lua_State *L)
{
    struct buffer out;
    buffer_init(&out);
    run(L, "deep = 1; for i = 1, 128 do deep = {deep} end; deeper = {deep}");
    run(L, "cycle = {}; cycle.a = cycle");
    run(L, "endless = setmetatable({}, {__json = function(t) return t end})");
    check_int(encode(L, "deep", &out), 0, "128 levels are written");
    check_int(encode(L, "deeper", &out), -1, "129 are not");
    check_int(encode(L, "cycle", &out), -1, "a cycle is not");
    check(strstr(out.data, "$.a.a.a") && strstr(out.data, "... is nested deeper than 128 levels"),
          "but explained: %s", out.data);
    check_int(encode(L, "endless", &out), -1, "a __json that returns itself is not");
    run(L, "long = {}; long[('\\u{e9}'):rep(300)] = print");
    check_int(encode(L, "long", &out), -1, "a long path");
    check(json_is_utf8(out.data, strlen(out.data)), "is cut between characters");
    buffer_finish(&out);
}

/* A text that is met again and again takes memory once, its JSON each time. */
static void test_size(lua_State *L)
{
    struct buffer out;
    buffer_init(&out);
    run(L, "text = ('x'):rep(64 << 20); texts = {text, text, text}");
    check_int(encode(L, "texts", &out), 0, "192 MiB are written");
    run(L, "texts[4] = text");
    check_int(encode(L, "texts", &out), -1, "more than 256 MiB are not");
    check_text(out.data, "$[4] lies beyond the first 268435456 bytes, which are the most",
               "but explained");
    run(L, "text = nil; texts = nil; collectgarbage()");
    buffer_finish(&out);
}

/* ---- decoding ---- */

/* An expression of Lua about the decoded value `v` that has to be true. */
static const struct row decoded[] = {
    {"null", "v == json.null"},
    {" true ", "v == true"},
    {"9223372036854775807", "v == math.maxinteger and math.type(v) == 'integer'"},
    {"1.0", "math.type(v) == 'float' and v == 1"},
    {"-0", "math.type(v) == 'float' and 1 / v < 0"},
    {"\"a\\u0000b\"", "v == 'a\\0b'"},
    {"[]", "next(v) == nil and getmetatable(v) == getmetatable(json.array({}))"},
    {"{}", "next(v) == nil and getmetatable(v) == nil"},
    {"[1,[2,{\"a\":[null]}],\"x\"]",
     "#v == 3 and v[1] == 1 and v[2][2].a[1] == json.null and v[3] == 'x'"},
    {"{\"a\":{\"b\":1},\"c\":false}", "v.a.b == 1 and v.c == false"},
    {"{\"a\":{\"a\":1},\"b\":{\"a\":2}}", "v.a.a == 1 and v.b.a == 2"},
};

static const struct row undecodable[] = {
    {"", "line 1, column 1: expected a value, found the end"},
    {"[1,", "line 1, column 4: expected a value, found the end"},
    {"{\"a\":1,\"a\":2}", "line 1, column 8: the key \"a\" stands twice in one object"},
    {"{\"a\":null,\"\\u0061\":2}", "line 1, column 11: the key \"a\" stands twice in one object"},
    {"[{\"x\":{\"b\\n\":[],\"b\\n\":2}}]",
     "line 1, column 17: the key \"b\\n\" stands twice in one object"},
};

/* Pops the value on top and sees whether the expression about it, `v`, is true. */
static void check_value(lua_State *L, const char *expression)
{
    char chunk[512];
    check_int(lua_gettop(L), 1, "pushes one value");
    lua_setglobal(L, "v");
    snprintf(chunk, sizeof chunk, "return %s", expression);
    run(L, chunk);
    check(lua_toboolean(L, -1), "%s", expression);
    lua_settop(L, 0);
}

static void test_decode(lua_State *L)
{
    struct error err;
    for (size_t i = 0; i < sizeof decoded / sizeof *decoded; i++) {
        const char *text = decoded[i].given;
        check_int(bind_json_decode(L, text, strlen(text), &err), 0, "decoding %s", text);
        check_value(L, decoded[i].expected);
    }
    for (size_t i = 0; i < sizeof undecodable / sizeof *undecodable; i++) {
        const char *text = undecodable[i].given;
        check_int(bind_json_decode(L, text, strlen(text), &err), -1, "refusing %s", text);
        check_text(err.message, undecodable[i].expected, "says why");
        check_int(err.code, ERROR_MALFORMED, "calls it malformed");
        check_int(lua_gettop(L), 0, "pushes nothing");
    }
}

static void test_beyond_double(lua_State *L)
{
    struct error err;
    check_int(bind_json_decode(L, "[1,-1e400]", 10, &err), -1, "a number beyond a double");
    check_text(err.message, "line 1, column 4: the number is beyond the range of a double",
               "says so");
    check_int(err.code, ERROR_INVALID, "and is no fault of the syntax");
    check_int(lua_gettop(L), 0, "pushes nothing");
}

/* What PostgreSQL's json takes. */
static const struct row columns[] = {
    {"{\"a\":1,\"a\":2}", "v.a == 2"},
    {"{\"a\":{\"b\":1},\"a\":null}", "v.a == json.null"},
    {"[1e999,-1e999]", "v[1] == math.huge and v[2] == -math.huge"},
    {"[]", "json.encode(v) == '[]'"},
};

static void test_columns(lua_State *L)
{
    struct error err;
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        const char *text = columns[i].given;
        check_int(bind_json_decode_column(L, text, strlen(text), &err), 0, "a column %s", text);
        check_value(L, columns[i].expected);
    }
    check_int(bind_json_decode_column(L, "[", 1, &err), -1, "a column that is no JSON");
    check_int(lua_gettop(L), 0, "pushes nothing");
}

static void test_long_key(lua_State *L)
{
    struct buffer text;
    struct error err;
    buffer_init(&text);
    buffer_append_char(&text, '{');
    for (int i = 0; i < 2; i++) {
        buffer_append_text(&text, i ? ",\"x" : "\"x");
        for (int n = 0; n < 1000; n++) {
            buffer_append_text(&text, "\xc3\xa9");
        }
        buffer_append_text(&text, "\":1");
    }
    buffer_append_char(&text, '}');
    check_int(bind_json_decode(L, text.data, text.length, &err), -1,
              "a long key that stands twice");
    check(json_is_utf8(err.message, strlen(err.message)), "is cut between characters");
    buffer_finish(&text);
}

/* ---- the module ---- */

static const char *const assertions[] = {
    "require 'json' == require 'moonpool.json'",
    "json.encode({1, 'a'}) == '[1,\"a\"]'",
    "json.encode(nil) == 'null'",
    "json.decode('[1]')[1] == 1",
    "json.null == json.decode('null') and type(json.null) == 'userdata'",
    "json.encode(json.decode('{\"a\":[]}')) == '{\"a\":[]}'",
    "not pcall(json.encode)",
    "not pcall(json.decode, {})",
    "not pcall(json.array, 1)",
    "select(2, pcall(json.encode, {print})):find('%$%[1%] is a function')",
    "select(2, pcall(json.decode, '[')):find('line 1, column 2')",
    "select(2, pcall(json.encode, hooked(function() error('mine', 0) end))) == 'mine'",
    "json.encode({hooked(function() return json.encode({1}) end)}) == '[\"[1]\"]'",
};

static void test_module(lua_State *L)
{
    run(L, "function hooked(hook) return setmetatable({}, {__json = hook}) end");
    for (size_t i = 0; i < sizeof assertions / sizeof *assertions; i++) {
        char chunk[512];
        snprintf(chunk, sizeof chunk, "return %s", assertions[i]);
        run(L, chunk);
        check(lua_toboolean(L, 1), "%s", assertions[i]);
        lua_settop(L, 0);
    }
}

/* ---- memory that runs out ---- */

static const char big_text[] =
    "{\"list\":[1,2,3,4,5,6,7,8,9,[\"a fairly long string, longer than forty characters\"]],"
    "\"escaped\":\"line\\nanother line that is longer than forty characters\",\"o\":{\"p\":{}}}";

/* Decodes with ever more allocations allowed, until it succeeds; false if anything else happens. */
static bool decode_starved(void)
{
    for (long allowed = 0; allowed < 1000; allowed++) {
        struct error err;
        lua_State *L = open_state();
        allocations_left = allowed;
        int result = bind_json_decode(L, big_text, sizeof big_text - 1, &err);
        allocations_left = -1;
        bool good = lua_gettop(L) == (result ? 0 : 1) && (!result || err.code == ERROR_MEMORY);
        lua_close(L);
        if (!good || result == 0) {
            return good && allowed > 5;
        }
    }
    return false;
}

/* The same for what json.encode() needs, in a protected call. */
static bool encode_starved(void)
{
    for (long allowed = 0; allowed < 1000; allowed++) {
        lua_State *L = open_state();
        run(L,
            "return json.encode, setmetatable({b = ('x'):rep(1000), {1}}, {__columns = {'b', 'a'},"
            "__json = function(t) return {t.b, {t.b}, {}} end})");
        allocations_left = allowed;
        int status = lua_pcall(L, 1, 1, 0);
        allocations_left = -1;
        lua_close(L);
        if (status != LUA_ERRMEM) {
            return status == LUA_OK && allowed > 2;
        }
    }
    return false;
}

int main(void)
{
    lua_State *L = open_state();
    test_encode(L, encoded, sizeof encoded / sizeof *encoded, 0);
    test_encode(L, unencodable, sizeof unencodable / sizeof *unencodable, -1);
    test_nesting(L);
    test_size(L);
    test_decode(L);
    test_beyond_double(L);
    test_columns(L);
    test_long_key(L);
    test_module(L);
    lua_close(L);
    check(decode_starved(), "decoding without memory fails cleanly at every step");
    check(encode_starved(), "so does encoding");
    return test_end();
}
