/* One lua_State: a reviewed standard library, a cap on memory, modules from a source snapshot, and
 * an end to code that runs too long. The only place that knows how Lua is interrupted. */
#ifndef MOONPOOL_VM_H
#define MOONPOOL_VM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm_blocks.h"

struct error;
struct lua_State;
struct source;

struct vm {
    struct lua_State *lua;       /* owned */
    const struct source *source; /* borrowed while loading; NULL afterwards */
    void *owner;                 /* borrowed; whatever its maker wants to find again by vm_of() */
    size_t memory;               /* bytes in use */
    size_t memory_limit;         /* bytes; beyond it Lua raises "not enough memory" */
    size_t live;                 /* bytes left by the last collection for want of room */
    uint64_t collected_at;       /* when that was */
    struct vm_blocks blocks;

    /* The watch over running code; written by vm_enter() and vm_leave(), read by the signal. */
    struct lua_State *volatile running; /* the innermost running thread; NULL when none runs */
    volatile uint64_t slice_end;        /* when it should let others run */
    volatile uint64_t deadline;         /* when it must end */
    /* The deadline struck where a yield was impossible: the error raised is sticky until the next
     * vm_enter(). */
    volatile bool interrupted;
    bool preempted; /* the last yield came from the hook */
    bool waiting;   /* the last yield was vm_wait()'s */
    bool outward;   /* every resumer outside `running` can itself yield */
    int depth;      /* inner coroutines around `running`; 0 is the scheduler's */
    size_t work;    /* steps of C code since it last looked at the clock */
};

/* Makes the state with the reviewed library. NULL with ERROR_MEMORY. */
struct vm *vm_create(size_t memory_limit, struct error *err);
void vm_destroy(struct vm *vm);

/* Counts memory that Lua's values hold outside of Lua against the limit. False if there is too
 * much, even after a collection; nothing is counted then. */
bool vm_charge(struct vm *vm, size_t bytes);
void vm_discharge(struct vm *vm, size_t bytes);

/* Collects all garbage, unless there is so much in Lua that this takes long, and gives back memory
 * that is kept at hand. */
void vm_tidy(struct vm *vm);

/* The vm of a thread (kept in its extra space). */
struct vm *vm_of(struct lua_State *L);

/* Runs every top-level script of `source` in order, `require` resolving "a.b" to "a/b.lua" or
 * "a/b/init.lua" in it. A script that was required before is not run twice. -1 with ERROR_SCRIPT,
 * `where` file:line and the message of Lua. Bounded by `deadline`. */
int vm_load(struct vm *vm, const struct source *source, uint64_t deadline, struct error *err);

/* Registers a C or Lua module that `require` finds before it looks into the source. `text` is Lua
 * source of `length` bytes, given a name for messages. */
void vm_preload_c(struct vm *vm, const char *name, int (*open)(struct lua_State *L));
void vm_preload_lua(struct vm *vm, const char *name, const char *text, size_t length);

/* How lua_resume ended. */
enum vm_outcome {
    VM_FINISHED,  /* returned: *ret_count values are on the thread's stack */
    VM_WAITING,   /* yielded for an operation */
    VM_PREEMPTED, /* used up its slice: to be resumed, with no values, after others have run */
    VM_FAILED,    /* raised: the error value is on top of the thread's stack */
    VM_EXPIRED,   /* ran into its deadline: must not be resumed */
};

/* Resumes `thread` with `count` values on its stack, watched: it is preempted after a slice of some
 * milliseconds and stopped at `deadline`. */
enum vm_outcome vm_resume(struct vm *vm, struct lua_State *thread, int count, uint64_t deadline,
                          int *ret_count);

/* Makes a thread usable again after it has returned or raised. One that waited or was preempted is
 * closed, its to-be-closed variables watched by a short deadline, and must be dropped: false. */
bool vm_reset_thread(struct vm *vm, struct lua_State *thread);

/* Raises unless `L` may wait: a C function in between may forbid it ("cannot wait for the database
 * inside a callback of 'sort'"). To be called before an operation is begun. */
void vm_check_wait(struct lua_State *L);

/* Checks, then yields `L` for an operation, with continuation `k`, all the way out of inner
 * coroutines. Use: return vm_wait(...). */
int vm_wait(struct lua_State *L, int (*k)(struct lua_State *L, int status, intptr_t context),
            intptr_t context);

/* For C code between two instructions of Lua, where no hook can act. vm_work() counts steps of some
 * nanoseconds each, and every so many of them looks at the clock, as vm_check_deadline() does: if
 * the deadline of the running code has passed it raises, and the error is sticky as the hook's. */
enum { VM_MOST_STEPS = 20000 };
void vm_check_deadline(struct lua_State *L);
static inline void vm_work(struct lua_State *L, struct vm *vm, size_t steps)
{
    vm->work += steps;
    if (vm->work >= VM_MOST_STEPS) {
        vm_check_deadline(L);
    }
}

/* Calls the function that the running one stands before, its first upvalue, with the arguments that
 * are on the stack, and returns all it returns. Use: return vm_call_upvalue(L). */
int vm_call_upvalue(struct lua_State *L);

/* As lua_setmetatable(), for a metatable that scripts can get hold of: takes out a __gc that they
 * have put there, since a loop in a finalizer could not be stopped. */
void vm_set_metatable(struct lua_State *L, int index);

/* Calls a function on the main thread, between requests, as lua_pcall() without results would; what
 * it calls of a script's is stopped after some milliseconds. */
int vm_call(struct vm *vm, int count);

/* Fills `err` (ERROR_SCRIPT, or ERROR_MEMORY) from the error value on top of L's stack, and pops
 * it; `traceback` may be NULL, else receives up to `size` bytes of traceback of L. */
void vm_error(struct lua_State *L, struct error *err, char *traceback, size_t size);

/* Starts the process's interrupter (a CPU-time timer and its signal) for the calling thread. */
int vm_start_watch(struct error *err);

#endif
