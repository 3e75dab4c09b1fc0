/* JSON into Lua and back: what is decoded can be encoded, and that text, decoded and encoded once
 * more, is the same text; a column takes all that a body does. The stack is left as it was,
 * whatever the input. */
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_json.h"
#include "buffer.h"
#include "error.h"
#include "fuzz.h"
#include "json.h"
#include "vm.h"

static lua_State *open_state(void)
{
    static struct vm vm;
    lua_State *L = luaL_newstate();
    claim(L);
    *(struct vm **)lua_getextraspace(L) = &vm;
    luaL_requiref(L, "json", bind_json_open, 0);
    lua_settop(L, 0);
    return L;
}

/* Encodes the value on top, which it pops. */
static void encode(lua_State *L, struct buffer *out)
{
    struct error err;
    buffer_init(out);
    claim(bind_json_encode(L, -1, out, &err) == 0);
    claim(lua_gettop(L) == 1);
    claim(json_is_utf8(out->data, out->length));
    lua_settop(L, 0);
}

/* The value on top was decoded with the order of its keys. */
static void check_stable(lua_State *L)
{
    struct buffer first, second;
    struct error err;
    encode(L, &first);
    claim(bind_json_decode_ordered(L, first.data, first.length, &err) == 0);
    encode(L, &second);
    claim(first.length == second.length);
    claim(memcmp(first.data, second.data, first.length) == 0);
    buffer_finish(&first);
    buffer_finish(&second);
}

static void check(lua_State *L, const char *text, size_t length)
{
    struct error err;
    struct buffer plain;
    if (bind_json_decode(L, text, length, &err) != 0) {
        claim(lua_gettop(L) == 0);
        claim(err.message[0] && json_is_utf8(err.message, strlen(err.message)));
        claim(bind_json_decode_ordered(L, text, length, &err) != 0);
        return;
    }
    claim(lua_gettop(L) == 1);
    encode(L, &plain);
    claim(bind_json_decode_column(L, text, length, &err) == 0);
    lua_settop(L, 0);
    claim(bind_json_decode_ordered(L, plain.data, plain.length, &err) == 0);
    lua_settop(L, 0);
    buffer_finish(&plain);
    claim(bind_json_decode_ordered(L, text, length, &err) == 0);
    check_stable(L);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* A state for each input: one that grew would look like a leak. */
    lua_State *L = open_state();
    check(L, (const char *)data, size);
    lua_close(L);
    return 0;
}
