/* The coroutine library, and waiting through it. A script's coroutine is resumed on the C stack of
 * whoever resumes it; when code inside it waits or is preempted, that yield passes out through
 * every resumer to the scheduler, and its resumption passes back in. Scripts see none of it.
 *
 *     suspended --[advance]--> running --[coroutine.yield]-------> suspended
 *                              running --[vm_wait, on_count]-----> passed over: "normal" to scripts
 *                          passed over --[continuation: advance]-> running
 *                              running --[returns, raises]-------> dead
 */
#include "vm.h"

#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "vm_parts.h"

/* The most coroutines resumed or closed inside one another: each takes C stack, and Lua 5.4.4 does
 * not count those that are closed. */
enum { MOST_LEVELS = 150 };

enum advance {
    ADVANCE_YIELDED, /* or returned: its values are on the resumer's stack */
    ADVANCE_RAISED,  /* the error value is on the resumer's stack */
    ADVANCE_PASSED,  /* it waits or was preempted: the resumer must yield too */
};

static int yield(lua_State *L);

/* Whether the script itself suspended `co`, or has not started it. One that waits for an operation
 * or was preempted is suspended to Lua, but only its own resumer may go on with it. */
static bool is_suspended(lua_State *co)
{
    lua_Debug level;
    if (lua_status(co) == LUA_OK) {
        return !lua_getstack(co, 0, &level) && lua_gettop(co) > 0;
    }
    if (lua_status(co) != LUA_YIELD || !lua_getstack(co, 0, &level) || !lua_checkstack(co, 1)) {
        return false;
    }
    lua_getinfo(co, "f", &level);
    bool by_script = lua_tocfunction(co, -1) == yield;
    lua_pop(co, 1);
    return by_script;
}

static const char *status_name(lua_State *L, lua_State *co)
{
    lua_Debug level;
    if (L == co) {
        return "running";
    }
    if (is_suspended(co)) {
        return "suspended";
    }
    bool alive =
        lua_status(co) == LUA_YIELD || (lua_status(co) == LUA_OK && lua_getstack(co, 0, &level));
    return alive ? "normal" : "dead";
}

/* What `L` must restore after an inner thread ran. */
struct level {
    struct vm *vm;
    bool outward;
};

static struct level go_in(lua_State *L, lua_State *co)
{
    struct vm *vm = vm_of(L);
    struct level level = {.vm = vm, .outward = vm->outward};
    vm->outward = vm_can_yield(L);
    vm->depth++;
    vm_watch_follow(L, co);
    vm->running = co;
    return level;
}

static void come_out(const struct level *level, lua_State *L, lua_State *co)
{
    level->vm->running = L;
    level->vm->depth--;
    level->vm->outward = level->outward;
    vm_watch_follow(co, L);
}

/* Moves what `co` yielded or returned, `count` values, to `L`. */
static enum advance take_values(lua_State *L, lua_State *co, int count)
{
    if (!lua_checkstack(L, count + 1)) {
        lua_pop(co, count);
        lua_pushliteral(L, "too many results to resume");
        return ADVANCE_RAISED;
    }
    lua_xmove(co, L, count);
    return ADVANCE_YIELDED;
}

/* Runs the coroutine at index 1 with all values above it, and puts its own there instead. */
static enum advance advance(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    struct vm *vm = vm_of(L);
    int count = lua_gettop(L) - 1;
    if (!lua_checkstack(co, count)) {
        lua_settop(L, 1);
        lua_pushliteral(L, "too many arguments to resume");
        return ADVANCE_RAISED;
    }
    lua_xmove(L, co, count);
    struct level level = go_in(L, co);
    int status = lua_resume(co, L, count, &count);
    come_out(&level, L, co);
    if (vm->interrupted) {
        vm_raise_interrupted(L);
    }
    if (status == LUA_YIELD && (vm->waiting || vm->preempted)) {
        return ADVANCE_PASSED;
    }
    if (status == LUA_OK || status == LUA_YIELD) {
        return take_values(L, co, count);
    }
    lua_xmove(co, L, 1);
    return ADVANCE_RAISED;
}

/* Closes the to-be-closed variables of `co`. Unless the result is LUA_OK, the error value is on the
 * stack of `co`. */
static int close_thread(lua_State *L, lua_State *co)
{
    struct vm *vm = vm_of(L);
    if (vm->depth >= MOST_LEVELS) {
        luaL_error(L, "too many coroutines are closed inside one another");
    }
    if (vm_is_spoiled(co)) {
        lua_pushliteral(L, "the coroutine died of its deadline");
        lua_xmove(L, co, 1);
        return lua_status(co);
    }
    struct level level = go_in(L, co);
    int status = lua_resetthread(co);
    come_out(&level, L, co);
    if (vm->interrupted) {
        vm_raise_interrupted(L);
    }
    return status;
}

static int create(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, 1);
    lua_xmove(L, co, 1);
    return 1;
}

static lua_State *check_thread(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTHREAD);
    return lua_tothread(L, 1);
}

/* Replaces the values above index 1 by why the coroutine there cannot be resumed; false if it can.
 */
static bool refuse(lua_State *L)
{
    const char *name = status_name(L, lua_tothread(L, 1));
    bool suspended = strcmp(name, "suspended") == 0;
    if (suspended && vm_of(L)->depth < MOST_LEVELS) {
        return false;
    }
    lua_settop(L, 1);
    lua_pushfstring(L, "cannot resume %s coroutine", suspended ? "so deeply nested a" : name);
    return true;
}

/* Also the continuation: what the scheduler resumed the thread with goes on to the coroutine. */
static int go_on_resume(lua_State *L, int status, lua_KContext context)
{
    enum advance outcome = advance(L);
    if (outcome == ADVANCE_PASSED) {
        return lua_yieldk(L, 0, 0, go_on_resume);
    }
    lua_pushboolean(L, outcome == ADVANCE_YIELDED);
    lua_replace(L, 1);
    return lua_gettop(L);
}

static int resume(lua_State *L)
{
    check_thread(L);
    if (refuse(L)) {
        lua_pushboolean(L, false);
        lua_replace(L, 1);
        return 2;
    }
    return go_on_resume(L, LUA_OK, 0);
}

/* Raises the error value on top of the stack, with the caller's position in front of a text. */
static int raise_further(lua_State *L)
{
    if (lua_type(L, -1) == LUA_TSTRING) {
        luaL_where(L, 1);
        lua_insert(L, -2);
        lua_concat(L, 2);
    }
    return lua_error(L);
}

/* The error value of the coroutine at index 1 is on top; closing it may replace that. */
static int raise_from(lua_State *L)
{
    lua_State *co = lua_tothread(L, 1);
    int died_of = lua_status(co);
    if (died_of == LUA_OK || died_of == LUA_YIELD) {
        return raise_further(L);
    }
    lua_pushvalue(L, -1);
    lua_xmove(L, co, 1);
    if (close_thread(L, co) != LUA_OK) {
        lua_xmove(co, L, 1);
    }
    return died_of == LUA_ERRMEM ? lua_error(L) : raise_further(L);
}

static int go_on_wrap(lua_State *L, int status, lua_KContext context)
{
    switch (advance(L)) {
    case ADVANCE_PASSED:
        return lua_yieldk(L, 0, 0, go_on_wrap);
    case ADVANCE_RAISED:
        return raise_from(L);
    default:
        return lua_gettop(L) - 1;
    }
}

/* The function that coroutine.wrap returned; its upvalue is the coroutine. */
static int call_wrapped(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, 1);
    return refuse(L) ? raise_further(L) : go_on_wrap(L, LUA_OK, 0);
}

static int wrap(lua_State *L)
{
    create(L);
    lua_pushcclosure(L, call_wrapped, 1);
    return 1;
}

static int yield(lua_State *L)
{
    if (vm_of(L)->depth == 0) {
        return luaL_error(L, "attempt to yield from outside a coroutine");
    }
    return lua_yield(L, lua_gettop(L));
}

static int status(lua_State *L)
{
    lua_pushstring(L, status_name(L, check_thread(L)));
    return 1;
}

static int is_yieldable(lua_State *L)
{
    lua_State *co = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
    lua_pushboolean(L, lua_isyieldable(co) && (co != L || vm_of(L)->depth > 0));
    return 1;
}

static int running(lua_State *L)
{
    lua_pushthread(L);
    lua_pushboolean(L, vm_of(L)->depth == 0);
    return 2;
}

static int close(lua_State *L)
{
    lua_State *co = check_thread(L);
    const char *name = status_name(L, co);
    if (strcmp(name, "suspended") != 0 && strcmp(name, "dead") != 0) {
        return luaL_error(L, "cannot close a %s coroutine", name);
    }
    bool good = close_thread(L, co) == LUA_OK;
    lua_pushboolean(L, good);
    if (good) {
        return 1;
    }
    lua_xmove(co, L, 1);
    return 2;
}

static const luaL_Reg functions[] = {
    {"create", create},   {"resume", resume}, {"wrap", wrap},
    {"yield", yield},     {"status", status}, {"isyieldable", is_yieldable},
    {"running", running}, {"close", close},   {NULL, NULL},
};

void vm_open_coroutine(lua_State *L)
{
    luaL_newlib(L, functions);
    vm_publish(L, LUA_COLIBNAME);
}

/* Pushes what a script author knows the C function by that keeps `L` from yielding. */
static const char *push_obstacle(lua_State *L)
{
    lua_Debug level;
    for (int i = 1; lua_getstack(L, i, &level); i++) {
        lua_getinfo(L, "Sn", &level);
        if (*level.what == 'C' && level.name && !strstr(level.name, "pcall")) {
            return lua_pushfstring(L, "a callback of '%s'", level.name);
        }
    }
    return lua_pushliteral(L, "a callback");
}

void vm_check_wait(lua_State *L)
{
    struct vm *vm = vm_of(L);
    if (vm->source) {
        luaL_error(L, "cannot wait for the database while the scripts are being loaded");
    }
    if (!vm_can_yield(L)) {
        luaL_error(L, "cannot wait for the database inside %s", push_obstacle(L));
    }
}

int vm_wait(lua_State *L, lua_KFunction k, lua_KContext context)
{
    vm_check_wait(L);
    vm_of(L)->waiting = true;
    return lua_yieldk(L, 0, context, k);
}
