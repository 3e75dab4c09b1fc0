/* What the files of the vm tell each other; everyone else includes vm.h. */
#ifndef MOONPOOL_VM_PARTS_H
#define MOONPOOL_VM_PARTS_H

#include <stdbool.h>
#include <stdint.h>

struct lua_State;
struct vm;

/* vm_watch.c. Between enter and leave `thread` and what it resumes are watched: preempted after
 * `slice_end`, stopped after `deadline`. Clears what the last run left in the vm. */
void vm_enter(struct vm *vm, struct lua_State *thread, uint64_t slice_end, uint64_t deadline);
void vm_leave(struct vm *vm);

/* Takes a hook that the signal set on `from` along to `to`, which runs from now on. */
void vm_watch_follow(struct lua_State *from, struct lua_State *to);

/* Whether `L`, which is running, and every resumer outside it can yield. */
bool vm_can_yield(struct lua_State *L);

/* Raises the sticky error of an interrupted vm in `L`. */
int vm_raise_interrupted(struct lua_State *L);

/* Whether `thread` died of an error that the hook raised. Lua leaves hooks disabled in such a
 * thread, so nothing in it may run again: a loop in one of its __close handlers could not be
 * stopped. */
bool vm_is_spoiled(struct lua_State *thread);

/* vm_library.c, vm_coroutine.c and vm_module.c: each sets globals; may raise for want of memory. */
void vm_open_library(struct lua_State *L);
void vm_open_coroutine(struct lua_State *L);
void vm_open_modules(struct lua_State *L);

/* vm_pattern.c, vm_string.c and vm_table.c put their functions in place of Lua's into the library's
 * table, which is on top of the stack. */
void vm_open_patterns(struct lua_State *L);
void vm_open_strings(struct lua_State *L);
void vm_open_utf8(struct lua_State *L);
void vm_open_dates(struct lua_State *L);
void vm_open_tables(struct lua_State *L);

/* vm_cjson.c. The module "cjson". */
int vm_open_cjson(struct lua_State *L);

/* Makes the table on top of the stack the global and the loaded module `name`, and pops it. */
void vm_publish(struct lua_State *L, const char *name);

#endif
