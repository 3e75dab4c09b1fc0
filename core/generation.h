/* A generation: one lua_State and all that its scripts registered, with the statements they were
 * checked with. Built beside the one that serves, taken over when it is whole (load.h), and freed
 * when the last request that began on it has ended. */
#ifndef MOONPOOL_GENERATION_H
#define MOONPOOL_GENERATION_H

#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "row_form.h"
#include "statement.h"

struct error;
struct handling;
struct lua_State;
struct router;
struct vm;

/* What a script registered for a method and path. */
struct route {
    const char *pattern; /* generation arena */
    const char *where;   /* generation arena; file:line */
    int function;        /* in the Lua registry */
    uint64_t deadline;   /* microseconds; 0 for the server's */
    size_t body_limit;   /* bytes; 0 for the server's */
};

/* A function that group commit calls; led as a request to this route. */
struct generation_group {
    struct generation_group *next;
    const char *name; /* generation arena */
    struct route route;
};

/* A Lua thread at rest, or at work for one handling. */
struct script_thread {
    struct lua_State *lua;
    int reference; /* in the Lua registry, which keeps it alive */
};

enum { GENERATION_THREADS = 256 }; /* kept at rest */

struct generation {
    struct vm *vm;          /* owned */
    struct router *router;  /* owned; its targets are struct route */
    struct catalog catalog; /* the statements of the SQL folder */
    struct arena arena;     /* of the routes and groups */
    struct generation_group *groups;
    struct statement **text_slots; /* owned hash table of SQL texts seen in scripts */
    size_t text_count;
    struct row_forms forms;
    unsigned holders;         /* requests on it, and one for being current */
    struct handling *current; /* the one whose Lua code is running; NULL while none is */
    struct script_thread threads[GENERATION_THREADS];
    size_t thread_count;
    int (*entry)(struct lua_State *L); /* called with a route's function and the request */
};

struct generation *generation_create(size_t lua_memory, struct error *err);

void generation_hold(struct generation *generation);

/* Frees it with the last holder. */
void generation_release(struct generation *generation);

/* Frees the threads at rest, and tidies the vm. */
void generation_tidy(struct generation *generation);

/* The generation of running Lua code. */
struct generation *generation_of(struct lua_State *L);

/* The statement for a name or an SQL text; `arena` keeps the text when there are too many to
 * remember. NULL if `text` looks like a name but no statement has it. */
const struct statement *generation_statement(struct generation *generation, const char *text,
                                             size_t length, struct arena *arena);

/* Adds a group; -1 if there is one of this name. `function` is in the Lua registry. */
int generation_add_group(struct generation *generation, const char *name, int function);

/* The route to lead the group by; NULL if this generation has no group of this name. */
struct route *generation_group(struct generation *generation, const char *name);

/* A thread to run Lua code in; may raise for want of memory only inside a protected call, and
 * returns -1 then. */
int generation_take_thread(struct generation *generation, struct script_thread *ret_thread);

/* Gives it back after whatever happened in it. */
void generation_return_thread(struct generation *generation, struct script_thread *thread);

#endif
