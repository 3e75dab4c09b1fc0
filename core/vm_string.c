/* What is left of string and utf8, and os.date: functions that go over a whole string count their
 * steps, and those that cannot be made to get limits on what they are given. */
#include "vm.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "vm_parts.h"

enum {
    CHUNK = 64 * 1024,        /* bytes gone over between two looks at the clock, at most */
    MOST_FORMAT = 256 * 1024, /* bytes of a format that Lua's own functions take apart */
};

/* ---- string ---- */

/* Fills `bytes` with its first `unit` bytes again and again; `length` is a multiple of that. */
static void repeat_first(lua_State *L, char *bytes, size_t unit, size_t length)
{
    struct vm *vm = vm_of(L);
    size_t most = unit > CHUNK ? unit : CHUNK - CHUNK % unit;
    for (size_t done = unit, size; done < length; done += size) {
        size = done < most ? done : most;
        size = size < length - done ? size : length - done;
        memcpy(bytes + done, bytes, size);
        vm_work(L, vm, 1 + size / 16);
    }
}

/* Refuses at once what no collection could make room for. */
static void check_size(lua_State *L, size_t unit, lua_Unsigned count)
{
    if (count > INT_MAX / unit) {
        luaL_error(L, "resulting string too large");
    } else if (unit * count > vm_of(L)->memory_limit) {
        lua_pushliteral(L, "not enough memory");
        lua_error(L);
    }
}

/* rep(text, count [, separator]) */
static int rep(lua_State *L)
{
    size_t length, gap;
    luaL_Buffer out;
    const char *text = luaL_checklstring(L, 1, &length);
    lua_Integer count = luaL_checkinteger(L, 2);
    const char *separator = luaL_optlstring(L, 3, "", &gap);
    if (count <= 0 || length + gap == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    check_size(L, length + gap, (lua_Unsigned)count);
    size_t total = (length + gap) * (size_t)count;
    char *bytes = luaL_buffinitsize(L, &out, total);
    memcpy(bytes, text, length);
    memcpy(bytes + length, separator, gap);
    repeat_first(L, bytes, length + gap, total);
    luaL_pushresultsize(&out, total - gap);
    return 1;
}

/* Maps each byte of the string at index 1. */
static int map(lua_State *L, int (*each)(int c))
{
    size_t length;
    luaL_Buffer out;
    struct vm *vm = vm_of(L);
    const char *text = luaL_checklstring(L, 1, &length);
    char *bytes = luaL_buffinitsize(L, &out, length);
    for (size_t i = 0; i < length; i++) {
        bytes[i] = (char)each((unsigned char)text[i]);
        vm_work(L, vm, 1);
    }
    luaL_pushresultsize(&out, length);
    return 1;
}

static int lower(lua_State *L)
{
    return map(L, tolower);
}

static int upper(lua_State *L)
{
    return map(L, toupper);
}

static int reverse(lua_State *L)
{
    size_t length;
    luaL_Buffer out;
    struct vm *vm = vm_of(L);
    const char *text = luaL_checklstring(L, 1, &length);
    char *bytes = luaL_buffinitsize(L, &out, length);
    for (size_t i = 0; i < length; i++) {
        bytes[i] = text[length - 1 - i];
        vm_work(L, vm, 1);
    }
    luaL_pushresultsize(&out, length);
    return 1;
}

/* ---- functions of Lua's own, within limits ---- */

static void check_format(lua_State *L)
{
    if (lua_type(L, 1) == LUA_TSTRING) {
        luaL_argcheck(L, lua_rawlen(L, 1) <= MOST_FORMAT, 1, "the format is too long");
    }
}

/* Lua's function, the upvalue, in place of this one. */
static int go_on(lua_State *L)
{
    return lua_tocfunction(L, lua_upvalueindex(1))(L);
}

static int with_short_format(lua_State *L)
{
    check_format(L);
    return go_on(L);
}

/* "%q" takes long for each byte. */
static void check_quoted(lua_State *L)
{
    size_t length = 0;
    for (int i = lua_gettop(L); i > 1; i--) {
        length += lua_type(L, i) == LUA_TSTRING ? lua_rawlen(L, i) : 0;
    }
    if (length > MOST_FORMAT && lua_isstring(L, 1) && strstr(lua_tostring(L, 1), "%q")) {
        luaL_error(L, "'%%q' cannot quote more than %d bytes", MOST_FORMAT);
    }
}

static int format(lua_State *L)
{
    check_format(L);
    check_quoted(L);
    return go_on(L);
}

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Counts the characters from `first` to `last` with Lua's function, the upvalue; false with its two
 * results on the stack if it refuses one. */
static bool count_piece(lua_State *L, lua_Integer first, lua_Integer last, lua_Integer *count)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushvalue(L, 1);
    lua_pushinteger(L, first);
    lua_pushinteger(L, last);
    lua_pushvalue(L, 4);
    lua_call(L, 4, 2);
    if (lua_isnil(L, -2)) {
        return false;
    }
    *count += lua_tointeger(L, -2);
    lua_pop(L, 2);
    return true;
}

/* utf8.len(text [, first [, last [, lax]]]): what is long in pieces, none of which ends within a
 * character. */
static int count_characters(lua_State *L)
{
    size_t length;
    const char *text = luaL_checklstring(L, 1, &length);
    lua_Integer first = luaL_optinteger(L, 2, 1), last = luaL_optinteger(L, 3, -1), count = 0;
    first += first < 0 ? (lua_Integer)length + 1 : 0;
    last += last < 0 ? (lua_Integer)length + 1 : 0;
    if (length <= CHUNK || first < 1 || first > last || last > (lua_Integer)length) {
        return go_on(L);
    }
    lua_settop(L, 4);
    while (first <= last) {
        lua_Integer end = last - first > CHUNK ? first + CHUNK : last;
        while (end < last && is_continuation(text[end])) {
            end++;
        }
        if (!count_piece(L, first, end, &count)) {
            return 2;
        }
        first = end + 1;
        vm_check_deadline(L);
    }
    lua_pushinteger(L, count);
    return 1;
}

/* ---- the libraries ---- */

static const luaL_Reg string_functions[] = {
    {"rep", rep}, {"lower", lower}, {"upper", upper}, {"reverse", reverse}, {NULL, NULL},
};

/* Puts `function` in place of that of Lua, which becomes its upvalue. */
static void wrap(lua_State *L, const char *name, lua_CFunction function)
{
    lua_getfield(L, -1, name);
    lua_pushcclosure(L, function, 1);
    lua_setfield(L, -2, name);
}

void vm_open_strings(lua_State *L)
{
    luaL_setfuncs(L, string_functions, 0);
    wrap(L, "format", format);
    wrap(L, "pack", with_short_format);
    wrap(L, "packsize", with_short_format);
    wrap(L, "unpack", with_short_format);
}

void vm_open_utf8(lua_State *L)
{
    wrap(L, "len", count_characters);
}

void vm_open_dates(lua_State *L)
{
    wrap(L, "date", with_short_format);
}
