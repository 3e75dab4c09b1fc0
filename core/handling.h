/* The handling of one request in Lua: a coroutine that runs until its handler returns or waits.
 * Knows requests and transactions, not HTTP.
 *
 *   READY -> RUNNING -> WAITING -> READY ...      RUNNING -> DONE
 *                    -> READY (preempted)         any     -> DONE  [handling_stop]
 *
 * READY means being on the runner's list. */
#ifndef MOONPOOL_HANDLING_H
#define MOONPOOL_HANDLING_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "copytext.h"
#include "generation.h"
#include "list.h"
#include "loop.h"
#include "tx.h"

struct error;
struct groups;
struct lua_State;
struct request;

/* What all handlings of a worker share. */
struct runner {
    struct loop *loop;         /* borrowed */
    struct database *database; /* borrowed */
    struct groups *groups;     /* borrowed */
    bool development;          /* script errors go to the client */
    int64_t last_row;          /* the number of the newest unread row */
    struct list ready;         /* of struct handling: woken; these may hold locks and sessions */
    struct list starting;  /* of struct handling: there was no time to start them when they came */
    struct list preempted; /* of struct handling: those that have used up their slice */
    uint64_t starts_until; /* for what comes later in this turn of the loop there is no time */
};

/* What a handling waits for, if it is neither a transaction nor a sleep. Embedded by its owner. */
struct waiting {
    /* The handling does not wait any more: it was answered, or its request is over. */
    void (*leave)(struct waiting *waiting);
    /* The deadline has passed. True if what it waits for will not happen: `err` is what to answer,
     * and `leave` is not called. False if it may have happened; `err` says so. */
    bool (*withdraw)(struct waiting *waiting, struct error *err);
};

/* Something outside Lua that a Lua value holds for the time of a request. Embedded by its owner. */
struct holding {
    struct list link; /* in handling.holdings */
    /* The request is over: frees it. Its Lua value may live on. */
    void (*release)(struct holding *holding);
};

enum handling_state { HANDLING_READY, HANDLING_RUNNING, HANDLING_WAITING, HANDLING_DONE };

enum { PLACE_SIZE = 128 }; /* of "file:line" */

/* What Lua holds of a transaction; it may outlive it. */
struct tx_handle {
    struct script_tx *script_tx; /* NULL once it has ended */
    const char *end;             /* static; how it ended: "was committed" */
    char where[PLACE_SIZE];      /* file:line that began it */
};

/* A transaction that a script has in hand. In the request's arena. */
struct script_tx {
    struct tx tx;
    struct list link; /* in handling.transactions */
    struct handling *handling;
    struct tx_handle *handle; /* the userdata; NULL once Lua has collected it */
    const char *where;        /* arena; file:line that began it */
    size_t charged;           /* bytes of what is queued, counted against the Lua memory */
    char sent_at[PLACE_SIZE]; /* file:line that sent what was queued; "" once something is again */
    struct copytext copy;     /* of the last copy_from */
    char copy_where[PLACE_SIZE]; /* file:line of it */
};

/* In the request's arena. */
struct handling {
    struct list ready;
    enum handling_state state;
    struct runner *runner;
    struct request *request;
    struct generation *generation; /* the request holds it */
    struct script_thread thread;
    int resumed_with;            /* values on the thread's stack that it starts with; then 0 */
    struct list transactions;    /* open ones: at most one, but for what is being ended */
    struct script_tx statements; /* autocommit; `handling` is NULL until it is first used */
    struct tx *waiting_for;      /* the operation under way; NULL if none or a sleep */
    struct waiting *waiting;     /* borrowed; NULL if it is one of those or none */
    struct timer sleep;
    bool committed;          /* a transaction of this request was committed, or may have been */
    bool granted_grace;      /* the deadline was moved on because of a COMMIT */
    struct request **handle; /* the request's userdata, on the thread's stack; NULL before */
    struct list holdings;    /* of struct holding */
    struct list unread;      /* of struct holding: rows that no script has looked at */
    uint32_t unread_count;
    uint64_t changes;      /* of transactions by scripts: begun, queued, flushed, ended */
    struct buffer scratch; /* owned; for callbacks that may raise */
};

void runner_init(struct runner *runner, struct loop *loop, struct database *database,
                 bool development);

/* Runs those that were woken, then those to be started, then those that were preempted: each for
 * one slice, as far as there is time in a turn of the loop, but one of each kind in any case. What
 * is put on a list meanwhile waits for the next call. */
void runner_run(struct runner *runner);
bool runner_has_ready(const struct runner *runner);

/* Runs the request's route in its generation, at once or soon. The response comes by
 * request_done(), perhaps before this returns. */
void handling_start(struct runner *runner, struct request *request);

/* Its deadline has passed: answers for it and ends it, or moves request->deadline on for the short
 * time a COMMIT may still take. */
void handling_expire(struct handling *handling);

/* Ends it wherever it is, without an answer. Nothing if it has ended. */
void handling_stop(struct handling *handling);

/* The handling whose Lua code is running; raises if there is none (while scripts are loaded). */
struct handling *handling_of(struct lua_State *L);

/* Yields until the operation on `tx`, begun with handling_on_tx as `done`, has finished; `k` then
 * continues. Call vm_check_wait() before beginning the operation. */
int handling_wait(struct lua_State *L, struct handling *handling, struct tx *tx,
                  int (*k)(struct lua_State *L, int status, intptr_t context), intptr_t context);
void handling_on_tx(struct tx *tx);

/* Yields until handling_wake(), having set `waiting` before. */
int handling_wait_else(struct lua_State *L, struct handling *handling,
                       int (*k)(struct lua_State *L, int status, intptr_t context),
                       intptr_t context);
void handling_wake(struct handling *handling);
void handling_stop_waiting(struct handling *handling);

/* Yields for `duration` microseconds. */
int handling_sleep(struct lua_State *L, struct handling *handling, uint64_t duration,
                   int (*k)(struct lua_State *L, int status, intptr_t context));

/* Wakes it early, if it sleeps. */
void handling_end_sleep(struct handling *handling);

/* Ends a transaction that is over, or not wanted any more (rolled back then). `how` is what a
 * script is told that uses it yet: "was committed". */
void script_tx_end(struct script_tx *script_tx, const char *how);

#endif
