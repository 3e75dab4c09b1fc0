/* The interrupter: stops Lua code that runs too long, at no cost while it does not.
 *
 * A timer on the thread's CPU clock sends a signal every few milliseconds of computing, and rests
 * while no Lua runs, so that it does not disturb system calls. The handler looks whether the
 * running code is late and only then sets a count hook, which acts in the Lua thread itself before
 * the next instruction:
 *
 *     it can yield       -> yields: preempted, or expired if past the deadline   [on_count]
 *     past the deadline  -> raises, and stays set, so that each further
 *                           instruction raises as well and no pcall gets away    [on_count]
 *     past the slice     -> lets it run and is removed; the next signal looks again
 */
#include "vm.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>

#include "deadline.h"
#include "error.h"
#include "vm_parts.h"

#ifndef sigev_notify_thread_id /* glibc names it from 2.38 on */
#define sigev_notify_thread_id _sigev_un._tid
#endif

enum {
    WATCH_SIGNAL = SIGURG, /* ignored by default: one that comes late does no harm */
    WATCH_PERIOD_NANOSECONDS = 5 * 1000 * 1000,
};

static const char interrupted_text[] = "the deadline passed";

/* The vm that is running. A signal handler has no other way to find it. */
static struct vm *volatile current; /* borrowed; NULL while none runs */
static timer_t timer;
static volatile bool timer_rests; /* it found nothing running; vm_enter() starts it again */

static int set_timer(long period)
{
    struct timespec time = {.tv_nsec = period};
    struct itimerspec times = {.it_interval = time, .it_value = time};
    return timer_settime(timer, 0, &times, NULL);
}

void vm_enter(struct vm *vm, lua_State *thread, uint64_t slice_end, uint64_t deadline)
{
    assert(!current);
    vm->slice_end = slice_end < deadline ? slice_end : deadline;
    vm->deadline = deadline;
    vm->waiting = false;
    vm->preempted = false;
    vm->interrupted = false;
    vm->outward = true;
    vm->depth = 0;
    vm->running = thread;
    current = vm;
    if (timer_rests) {
        timer_rests = false;
        set_timer(WATCH_PERIOD_NANOSECONDS);
    }
}

void vm_leave(struct vm *vm)
{
    current = NULL;
    vm->running = NULL;
}

bool vm_can_yield(lua_State *L)
{
    return vm_of(L)->outward && lua_isyieldable(L);
}

/* The hook of a thread in which a hook has raised: as on_count, but vm_is_spoiled() can tell. */
static void on_count_again(lua_State *L, lua_Debug *activation);

/* Raises, from the hook, where hooks are disabled. While scripts are being loaded the error says
 * what and where; later nobody reads it, and it is Lua's own for want of memory: Lua calls no
 * message handler for that one, and a handler could loop. */
static void raise_in_hook(lua_State *L, lua_Debug *activation)
{
    struct vm *vm = vm_of(L);
    vm->interrupted = true;
    lua_sethook(L, on_count_again, LUA_MASKCOUNT, 1);
    if (vm->source) {
        lua_getinfo(L, "Sl", activation);
        lua_pushfstring(L, "%s:%d: %s", activation->short_src, activation->currentline,
                        interrupted_text);
    } else {
        lua_pushliteral(L, "not enough memory");
    }
    lua_error(L);
}

static void on_count(lua_State *L, lua_Debug *activation)
{
    struct vm *vm = vm_of(L);
    uint64_t now = clock_now();
    if (now >= vm->slice_end && vm_can_yield(L)) {
        vm->preempted = true;
        lua_sethook(L, NULL, 0, 0);
        lua_yield(L, 0);
    } else if (now >= vm->deadline) {
        raise_in_hook(L, activation);
    } else {
        lua_sethook(L, NULL, 0, 0);
    }
}

static void on_count_again(lua_State *L, lua_Debug *activation)
{
    on_count(L, activation);
}

/* lua_sethook() is the one function of Lua that may be called from a signal handler. */
static void set_hook(lua_State *L)
{
    lua_sethook(L, on_count, LUA_MASKCOUNT, 1);
}

void vm_watch_follow(lua_State *from, lua_State *to)
{
    if (lua_gethook(from) && !lua_gethook(to)) {
        set_hook(to);
    }
}

int vm_raise_interrupted(lua_State *L)
{
    set_hook(L);
    return luaL_error(L, "%s", interrupted_text);
}

void vm_check_deadline(lua_State *L)
{
    struct vm *vm = vm_of(L);
    vm->work = 0;
    if (vm->running && clock_now() >= vm->deadline) {
        vm->interrupted = true;
        vm_raise_interrupted(L);
    }
}

bool vm_is_spoiled(lua_State *thread)
{
    int status = lua_status(thread);
    return status != LUA_OK && status != LUA_YIELD && lua_gethook(thread) == on_count_again;
}

static void on_signal(int signal)
{
    struct vm *vm = current;
    if (!vm) {
        timer_rests = true;
        set_timer(0);
        return;
    }
    lua_State *L = vm->running;
    /* Setting a hook walks all frames: with very many that takes longer than the period, and to do
     * it again and again would leave no time to run into it. */
    if (L && !vm->interrupted && !lua_gethook(L) && clock_now() >= vm->slice_end) {
        set_hook(L);
    }
}

int vm_start_watch(struct error *err)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = WATCH_SIGNAL};
    event.sigev_notify_thread_id = gettid();
    if (sigaction(WATCH_SIGNAL, &action, NULL) ||
        timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) ||
        set_timer(WATCH_PERIOD_NANOSECONDS)) {
        return error_set(err, ERROR_MEMORY, "cannot start the timer that interrupts scripts: %s",
                         strerror(errno));
    }
    return 0;
}
