/* The functions of the table library that go over many elements, as in Lua 5.4, but for one thing:
 * they count their steps, so that huge ranges end at the deadline. */
#include "vm.h"

#include <limits.h>
#include <stdbool.h>

#include <lauxlib.h>
#include <lua.h>

#include "vm_parts.h"

enum { STEPS_OF_ACCESS = 8 }; /* of reading or writing an element */

/* What a value that is no table must have to be used as one. */
static const char *const reads[] = {"__index", NULL};
static const char *const writes[] = {"__newindex", NULL};
static const char *const reads_length[] = {"__index", "__len", NULL};
static const char *const writes_length[] = {"__newindex", "__index", "__len", NULL};

static bool has_all(lua_State *L, int index, const char *const *fields)
{
    for (; *fields; fields++) {
        if (luaL_getmetafield(L, index, *fields) == LUA_TNIL) {
            return false;
        }
        lua_pop(L, 1);
    }
    return true;
}

static void check_table(lua_State *L, int index, const char *const *fields)
{
    if (!lua_istable(L, index) && !has_all(L, index, fields)) {
        luaL_checktype(L, index, LUA_TTABLE);
    }
}

/* t[to] = u[from], for the tables at the indices `t` and `u`. */
static void copy(lua_State *L, struct vm *vm, int t, lua_Integer to, int u, lua_Integer from)
{
    vm_work(L, vm, STEPS_OF_ACCESS);
    lua_geti(L, u, from);
    lua_seti(L, t, to);
}

static int insert(lua_State *L)
{
    check_table(L, 1, writes_length);
    struct vm *vm = vm_of(L);
    lua_Integer end = (lua_Integer)((lua_Unsigned)luaL_len(L, 1) + 1); /* may wrap around */
    lua_Integer position = end;
    if (lua_gettop(L) == 3) {
        position = luaL_checkinteger(L, 2);
        luaL_argcheck(L, (lua_Unsigned)position - 1 < (lua_Unsigned)end, 2,
                      "position out of bounds");
        for (lua_Integer i = end; i > position; i--) {
            copy(L, vm, 1, i, 1, i - 1);
        }
    } else if (lua_gettop(L) != 2) {
        return luaL_error(L, "wrong number of arguments to 'insert'");
    }
    lua_seti(L, 1, position);
    return 0;
}

static int take_out(lua_State *L)
{
    check_table(L, 1, writes_length);
    struct vm *vm = vm_of(L);
    lua_Integer size = luaL_len(L, 1);
    lua_Integer position = luaL_optinteger(L, 2, size);
    luaL_argcheck(L, position == size || (lua_Unsigned)position - 1 <= (lua_Unsigned)size, 2,
                  "position out of bounds");
    lua_geti(L, 1, position);
    for (; position < size; position++) {
        copy(L, vm, 1, position, 1, position + 1);
    }
    lua_pushnil(L);
    lua_seti(L, 1, position);
    return 1;
}

/* move(source, first, last, to [, target]) */
static int move(lua_State *L)
{
    struct vm *vm = vm_of(L);
    lua_Integer first = luaL_checkinteger(L, 2), last = luaL_checkinteger(L, 3);
    lua_Integer to = luaL_checkinteger(L, 4);
    int target = lua_isnoneornil(L, 5) ? 1 : 5;
    check_table(L, 1, reads);
    check_table(L, target, writes);
    if (last >= first) {
        luaL_argcheck(L, first > 0 || last < LUA_MAXINTEGER + first, 3,
                      "too many elements to move");
        lua_Integer further = last - first;
        luaL_argcheck(L, to <= LUA_MAXINTEGER - further, 4, "destination wrap around");
        bool apart = to > last || to <= first || (target != 1 && !lua_compare(L, 1, 5, LUA_OPEQ));
        for (lua_Integer i = 0; i <= further; i++) {
            lua_Integer offset = apart ? i : further - i;
            copy(L, vm, target, to + offset, 1, first + offset);
        }
    }
    lua_pushvalue(L, target);
    return 1;
}

static void add_element(lua_State *L, struct vm *vm, luaL_Buffer *text, lua_Integer i)
{
    lua_geti(L, 1, i);
    if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid value (%s) at index %I in table for 'concat'", luaL_typename(L, -1),
                   (LUAI_UACINT)i);
    }
    vm_work(L, vm, STEPS_OF_ACCESS + lua_rawlen(L, -1) / 16);
    luaL_addvalue(text);
}

/* concat(table [, separator [, first [, last]]]) */
static int concat(lua_State *L)
{
    luaL_Buffer text;
    size_t length;
    check_table(L, 1, reads_length);
    struct vm *vm = vm_of(L);
    lua_Integer last = luaL_len(L, 1);
    const char *separator = luaL_optlstring(L, 2, "", &length);
    lua_Integer i = luaL_optinteger(L, 3, 1);
    last = luaL_optinteger(L, 4, last);
    luaL_buffinit(L, &text);
    for (; i < last; i++) {
        add_element(L, vm, &text, i);
        vm_work(L, vm, length / 16);
        luaL_addlstring(&text, separator, length);
    }
    if (i == last) {
        add_element(L, vm, &text, i);
    }
    luaL_pushresult(&text);
    return 1;
}

/* ---- sort ---- */

/* A quicksort around the median of three. The pivot stays on the stack, and is known to be in the
 * table on both sides of what is looked at: who runs past it has a comparator that contradicts
 * itself.
 */
struct sorting {
    lua_State *L;
    struct vm *vm;
};

/* Whether the value at stack index `a` comes before that at `b`, both below zero. */
static bool is_less(struct sorting *sorting, int a, int b)
{
    lua_State *L = sorting->L;
    size_t length = lua_type(L, a) == LUA_TSTRING ? lua_rawlen(L, a) : 0;
    vm_work(L, sorting->vm, STEPS_OF_ACCESS + length / 64);
    if (lua_isnil(L, 2)) {
        return lua_compare(L, a, b, LUA_OPLT);
    }
    lua_pushvalue(L, 2);
    lua_pushvalue(L, a - 1);
    lua_pushvalue(L, b - 2);
    lua_call(L, 2, 1);
    bool less = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return less;
}

/* Pops the elements for `i` and, above it, for `j` into each other's place. */
static void put_crosswise(lua_State *L, lua_Integer i, lua_Integer j)
{
    lua_seti(L, 1, i);
    lua_seti(L, 1, j);
}

/* Puts the elements `i` and `j`, i < j, into order. */
static void put_in_order(struct sorting *sorting, lua_Integer i, lua_Integer j)
{
    lua_State *L = sorting->L;
    lua_geti(L, 1, i);
    lua_geti(L, 1, j);
    if (is_less(sorting, -1, -2)) {
        put_crosswise(L, i, j);
    } else {
        lua_pop(L, 2);
    }
}

/* Leaves on the stack, above the pivot, the next element from `i` on, by `step`, that does not
 * belong on the side where it is, and returns its place. `limit` is the last that may be looked at.
 */
static lua_Integer find_misplaced(struct sorting *sorting, lua_Integer i, int step,
                                  lua_Integer limit)
{
    lua_State *L = sorting->L;
    int pivot = step > 0 ? -2 : -3; /* an element from the other side lies between */
    for (;; i += step) {
        lua_geti(L, 1, i);
        if (!(step > 0 ? is_less(sorting, -1, pivot) : is_less(sorting, pivot, -1))) {
            return i;
        }
        if (i == limit) {
            luaL_error(L, "invalid order function for sorting");
        }
        lua_pop(L, 1);
    }
}

/* Parts the elements between `low` and `high`, which are on their sides already, around the pivot,
 * which is on top of the stack and at high - 1. Pops it and returns where it has come to stand. */
static lua_Integer part(struct sorting *sorting, lua_Integer low, lua_Integer high)
{
    lua_State *L = sorting->L;
    lua_Integer i = low, j = high - 1;
    for (;;) {
        i = find_misplaced(sorting, i + 1, 1, high - 1);
        j = find_misplaced(sorting, j - 1, -1, low);
        if (j < i) {
            break;
        }
        put_crosswise(L, i, j);
    }
    lua_pop(L, 2);
    lua_pop(L, 1);
    lua_geti(L, 1, i);
    lua_geti(L, 1, high - 1);
    put_crosswise(L, i, high - 1);
    return i;
}

/* The middle is best for what is sorted already; where it was a bad choice, one that looks random
 * but is the same each time. */
static lua_Integer choose_pivot(lua_Integer low, lua_Integer high, bool lopsided)
{
    lua_Unsigned half = (lua_Unsigned)(high - low) / 2;
    if (!lopsided) {
        return low + (lua_Integer)half;
    }
    lua_Unsigned mixed = ((lua_Unsigned)low * 31 + (lua_Unsigned)high) * 2654435761u;
    return low + (lua_Integer)(half / 2 + (mixed >> 7) % half);
}

static void sort_range(struct sorting *sorting, lua_Integer low, lua_Integer high)
{
    lua_State *L = sorting->L;
    bool lopsided = false;
    while (low < high) {
        lua_Integer size = high - low, middle = choose_pivot(low, high, lopsided);
        put_in_order(sorting, low, high);
        if (size == 1) {
            return;
        }
        put_in_order(sorting, low, middle);
        put_in_order(sorting, middle, high);
        if (size == 2) {
            return;
        }
        lua_geti(L, 1, middle);
        lua_pushvalue(L, -1);
        lua_geti(L, 1, high - 1);
        put_crosswise(L, middle, high - 1);
        lua_Integer border = part(sorting, low, high);
        bool left_is_smaller = border - low < high - border;
        lopsided = (left_is_smaller ? border - low : high - border) < size / 128;
        if (left_is_smaller) {
            sort_range(sorting, low, border - 1);
            low = border + 1;
        } else {
            sort_range(sorting, border + 1, high);
            high = border - 1;
        }
    }
}

static int sort(lua_State *L)
{
    struct sorting sorting = {.L = L, .vm = vm_of(L)};
    check_table(L, 1, writes_length);
    lua_Integer count = luaL_len(L, 1);
    if (count > 1) {
        luaL_argcheck(L, count < INT_MAX, 1, "array too big");
        if (!lua_isnoneornil(L, 2)) {
            luaL_checktype(L, 2, LUA_TFUNCTION);
        }
        lua_settop(L, 2);
        luaL_checkstack(L, 8, "no room to sort");
        sort_range(&sorting, 1, count);
    }
    return 0;
}

static const luaL_Reg functions[] = {
    {"insert", insert}, {"remove", take_out}, {"move", move},
    {"concat", concat}, {"sort", sort},       {NULL, NULL},
};

void vm_open_tables(lua_State *L)
{
    luaL_setfuncs(L, functions, 0);
}
