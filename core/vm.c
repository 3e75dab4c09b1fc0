/* The Lua state: its memory, its threads, and its errors. vm_watch.c ends what runs too long,
 * vm_library.c and vm_coroutine.c are what scripts may call, vm_module.c is what they may require.
 */
#include "vm.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "arena.h"
#include "deadline.h"
#include "error.h"
#include "log.h"
#include "vm_parts.h"

#define SLICE MILLISECONDS(10)       /* a thread runs this long before others get their turn */
#define CLOSE_LIMIT MILLISECONDS(50) /* for what a script does when its request is over */

/* Two collections take about half a millisecond per megabyte, and nothing else is done meanwhile.
 */
enum { MOST_TIDIED_KB = 64 * 1024 };

/* Lua's own text; the string exists before memory can run out. */
static const char memory_text[] = "not enough memory";

struct vm *vm_of(lua_State *L)
{
    return *(struct vm **)lua_getextraspace(L);
}

/* Lua's allocator. Giving back memory never fails, as Lua expects. */
static void *allocate(void *data, void *block, size_t old_size, size_t size)
{
    struct vm *vm = data;
    size_t old = block ? old_size : 0; /* without a block, Lua passes a type there */
    if (size == 0) {
        vm->memory -= old;
        return vm_blocks_resize(&vm->blocks, block, old, 0);
    }
    if (size > old &&
        (vm->memory > vm->memory_limit || size - old > vm->memory_limit - vm->memory)) {
        return NULL;
    }
    void *grown = vm_blocks_resize(&vm->blocks, block, old, size);
    if (grown) {
        vm->memory += size - old;
    }
    return grown;
}

/* An error outside every protected call: one of ours, or no memory where that cannot be survived.
 */
static int on_panic(lua_State *L)
{
    const char *message = lua_tostring(L, -1);
    log_event(LOG_ERROR, "lua panic", "%s", message ? message : "no message");
    log_flush();
    abort();
}

static bool has_room(const struct vm *vm, size_t bytes)
{
    return vm->memory <= vm->memory_limit && bytes <= vm->memory_limit - vm->memory;
}

bool vm_charge(struct vm *vm, size_t bytes)
{
    if (!has_room(vm, bytes)) {
        lua_gc(vm->lua, LUA_GCCOLLECT);
    }
    if (!has_room(vm, bytes)) {
        return false;
    }
    vm->memory += bytes;
    return true;
}

void vm_discharge(struct vm *vm, size_t bytes)
{
    vm->memory -= bytes;
}

void vm_tidy(struct vm *vm)
{
    /* What has a finalizer goes the second time, with all it holds. */
    for (int i = 0; i < 2 && lua_gc(vm->lua, LUA_GCCOUNT) < MOST_TIDIED_KB; i++) {
        lua_gc(vm->lua, LUA_GCCOLLECT);
    }
    vm_blocks_trim(&vm->blocks);
}

static int open_all(lua_State *L)
{
    vm_open_library(L);
    vm_open_coroutine(L);
    vm_open_modules(L);
    return 0;
}

struct vm *vm_create(size_t memory_limit, struct error *err)
{
    struct vm *vm = memory_zalloc(sizeof *vm);
    vm->memory_limit = memory_limit;
    vm->lua = lua_newstate(allocate, vm);
    if (!vm->lua) {
        goto fail;
    }
    *(struct vm **)lua_getextraspace(vm->lua) = vm; /* each new thread inherits it */
    lua_atpanic(vm->lua, on_panic);
    lua_pushcfunction(vm->lua, open_all);
    if (lua_pcall(vm->lua, 0, 0, 0) != LUA_OK) {
        goto fail;
    }
    return vm;
fail:
    vm_destroy(vm);
    error_set(err, ERROR_MEMORY, "a Lua state needs more than %zu bytes", memory_limit);
    return NULL;
}

void vm_destroy(struct vm *vm)
{
    if (!vm) {
        return;
    }
    if (vm->lua) {
        lua_close(vm->lua);
    }
    vm_blocks_trim(&vm->blocks);
    free(vm);
}

static enum vm_outcome outcome_of(const struct vm *vm, int status)
{
    if (vm->interrupted) {
        return VM_EXPIRED;
    }
    if (status == LUA_OK) {
        return VM_FINISHED;
    }
    if (status != LUA_YIELD) {
        return VM_FAILED;
    }
    if (!vm->preempted) {
        return VM_WAITING;
    }
    return clock_now() >= vm->deadline ? VM_EXPIRED : VM_PREEMPTED;
}

/* C code takes memory for its buffers without collecting garbage first, as Lua would, so there must
 * be room before it runs: beyond one half of what there may be, all is collected once a second, and
 * whenever a quarter has come to it. */
static void make_room(struct vm *vm)
{
    if (vm->memory <= vm->memory_limit / 2) {
        return;
    }
    uint64_t now = clock_now();
    if (vm->memory - vm->memory / 5 > vm->live || now >= vm->collected_at + SECONDS(1)) {
        lua_gc(vm->lua, LUA_GCCOLLECT);
        vm->live = vm->memory;
        vm->collected_at = now;
    }
}

/* What a request leaves that used up the memory is garbage now. */
static void note_end(struct vm *vm, enum vm_outcome outcome)
{
    if ((outcome == VM_FAILED || outcome == VM_EXPIRED) &&
        vm->memory > vm->memory_limit - vm->memory_limit / 8) {
        vm->live = 0;
    }
}

enum vm_outcome vm_resume(struct vm *vm, lua_State *thread, int count, uint64_t deadline,
                          int *ret_count)
{
    make_room(vm);
    vm_enter(vm, thread, clock_now() + SLICE, deadline);
    int status = lua_resume(thread, vm->lua, count, ret_count);
    vm_leave(vm);
    enum vm_outcome outcome = outcome_of(vm, status);
    note_end(vm, outcome);
    return outcome;
}

bool vm_reset_thread(struct vm *vm, lua_State *thread)
{
    int status = lua_status(thread);
    if (vm_is_spoiled(thread)) {
        return false;
    }
    if (status != LUA_OK) {
        uint64_t end = clock_now() + CLOSE_LIMIT;
        vm_enter(vm, thread, end, end);
        lua_resetthread(thread);
        vm_leave(vm);
    }
    /* If it yielded within an xpcall, Lua 5.4.4 keeps the place of the message handler, and would
     * call whatever lies there at the next error. */
    if (status == LUA_YIELD || (status != LUA_OK && vm->interrupted)) {
        return false;
    }
    lua_settop(thread, 0);
    lua_sethook(thread, NULL, 0, 0);
    return true;
}

int vm_call(struct vm *vm, int count)
{
    uint64_t end = clock_now() + CLOSE_LIMIT;
    vm_enter(vm, vm->lua, end, end);
    int status = lua_pcall(vm->lua, count, 0, 0);
    vm_leave(vm);
    lua_sethook(vm->lua, NULL, 0, 0);
    return vm->interrupted ? LUA_ERRRUN : status;
}

/* The length of a "file:line" that `text` begins with, in front of ": "; 0 if there is none. */
static size_t position_length(const char *text)
{
    for (const char *colon = strchr(text, ':'); colon; colon = strchr(colon + 1, ':')) {
        size_t digits = strspn(colon + 1, "0123456789");
        size_t file = (size_t)(colon - text);
        if (memchr(text, '\n', file)) {
            return 0;
        }
        if (digits && file && strncmp(colon + 1 + digits, ": ", 2) == 0) {
            bool named = text[0] == '[' || !memchr(text, ' ', file) ||
                         (file > 4 && memcmp(colon - 4, ".lua", 4) == 0);
            return named ? file + 1 + digits : 0;
        }
    }
    return 0;
}

static void set_text(struct error *err, const char *text)
{
    size_t position = position_length(text);
    if (strcmp(text, memory_text) == 0) {
        error_set(err, ERROR_MEMORY, "%s", text);
        return;
    }
    error_set(err, ERROR_SCRIPT, "%s", position ? text + position + 2 : text);
    snprintf(err->where, sizeof err->where, "%.*s", (int)position, text);
}

/* The text of the error value at index 1. Calls nothing of the script's. */
static const char *text_of(lua_State *L)
{
    if (lua_istable(L, 1)) {
        lua_pushliteral(L, "message");
        lua_rawget(L, 1);
    } else {
        lua_pushvalue(L, 1);
    }
    const char *text = lua_tostring(L, -1);
    if (text) {
        return text;
    }
    bool named = luaL_getmetafield(L, 1, "__name") == LUA_TSTRING;
    return lua_pushfstring(L, "a value of type %s was raised",
                           named ? lua_tostring(L, -1) : luaL_typename(L, 1));
}

/* What describe() is given, as light userdata. */
struct description {
    lua_State *thread; /* whose traceback is taken */
    struct error *err;
    char *traceback; /* NULL if none is wanted */
    size_t size;
};

static int describe(lua_State *L)
{
    const struct description *wanted = lua_touserdata(L, 2);
    set_text(wanted->err, text_of(L));
    if (wanted->traceback) {
        luaL_traceback(L, wanted->thread, NULL, 0);
        snprintf(wanted->traceback, wanted->size, "%s", lua_tostring(L, -1));
    }
    return 0;
}

void vm_error(lua_State *L, struct error *err, char *traceback, size_t size)
{
    lua_State *main = vm_of(L)->lua;
    struct description wanted = {.thread = L, .err = err, .traceback = traceback, .size = size};
    error_set(err, ERROR_MEMORY, "%s", memory_text); /* stands if describing needs more memory */
    if (traceback && size) {
        traceback[0] = '\0';
    }
    if (L != main) {
        lua_xmove(L, main, 1);
    }
    lua_pushcfunction(main, describe);
    lua_insert(main, -2);
    lua_pushlightuserdata(main, &wanted);
    if (lua_pcall(main, 2, 0, 0) != LUA_OK) {
        lua_pop(main, 1);
    }
}
