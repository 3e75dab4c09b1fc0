/* The worker's share of the server's connection pool. The maximum is for the whole server: a
 * session needs a permit, taken from and returned to shared memory. First come, first served.
 *
 * A pg is on exactly one list: opening (on its way), idle (ours to lend), lent (somebody's), or
 * leaving (being cleaned or closed). Each of them holds a permit until it is CLOSED. */
#ifndef MOONPOOL_POOL_H
#define MOONPOOL_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "list.h"
#include "loop.h"
#include "pace.h"

struct helper;
struct pg;
struct pg_target;
struct shared;
struct shared_worker;

struct pool_options {
    uint64_t max_lifetime;    /* microseconds; up to a tenth less by jitter */
    uint64_t max_idle;        /* microseconds */
    uint64_t health_check;    /* microseconds between two checks of an idle session */
    uint64_t connect_timeout; /* microseconds */
    uint32_t min_idle;        /* this worker's share */
};

struct pool {
    struct loop *loop; /* borrowed, as the next four */
    struct helper *helper;
    struct pg_target *target;
    struct shared *shared;
    struct shared_worker *slot;
    struct pool_options options;

    struct list opening;
    struct list idle; /* most recently used first */
    struct list lent;
    struct list leaving;
    struct list waiters; /* oldest first */
    uint32_t waiting;    /* how many they are */
    struct list refused; /* of struct pool_waiter: are to be told */
    struct pace pace;    /* for how long sessions are lent */

    struct error down;      /* why the database is away; ERROR_NONE while it is not */
    uint64_t backoff;       /* microseconds until the next attempt */
    struct timer retry;     /* the next attempt */
    struct timer telling;   /* those refused are told */
    struct timer housework; /* lifetimes, idle times, the minimum */
    struct timer burial;    /* permits of a dead worker return */
    uint64_t silent_since;  /* a session fell silent, and none has answered or could be lent since
                               then; 0 if none did */
    uint64_t silences;      /* how often one was heard to fall silent, in any worker */
    uint64_t forsaken;      /* how often the server was found to take no writes any more */
    uint64_t forsaken_at;   /* when this was last heard of; 0 for never */
    uint64_t answered_at;   /* when a session was last opened, or came back whole */
};

/* One who waits for a connection. Embedded. */
struct pool_waiter {
    struct list link;
    uint64_t since;    /* when the wait began */
    uint64_t deadline; /* to be done by; 0 for none */
    bool refused;      /* it is on the pool's list of those */
    /* Called from the loop with a LENT connection, or with NULL and an error: the database is away,
     * or it will clearly not be done by its deadline. */
    void (*granted)(struct pool_waiter *waiter, struct pg *pg, const struct error *err);
};

void pool_init(struct pool *pool, struct loop *loop, struct helper *helper,
               struct pg_target *target, struct shared *shared, struct shared_worker *slot,
               const struct pool_options *options);

/* Closes what is left without waiting. Nobody may wait or hold a connection any more. */
void pool_finish(struct pool *pool);

/* Begins to open a connection, for who will need one soon. */
void pool_warm(struct pool *pool);

/* An idle connection at once, LENT; else NULL, and `waiter->granted` is called later. It waits
 * without end: whoever waits has a deadline and calls pool_forget(). */
struct pg *pool_acquire(struct pool *pool, struct pool_waiter *waiter);

/* Stops waiting. Nothing if it does not wait. */
void pool_forget(struct pool *pool, struct pool_waiter *waiter);

/* Takes a connection back in any condition: cleaned, closed or lent on as it needs. `cancel`: what
 * is under way on it is to be cancelled rather than waited for. */
void pool_release(struct pool *pool, struct pg *pg, bool cancel);

/* The holder was told that its connection is lost: forgets it. */
void pool_lost(struct pool *pool, struct pg *pg);

/* To be called before something is run on a lent connection: what others have found to be stale is
 * prepared anew. */
void pool_renew(struct pool *pool, struct pg *pg);

/* To be called when it has answered: the server is there, and what else it has shown of the
 * database is told to all. */
void pool_look_at(struct pool *pool, struct pg *pg);

/* Somebody else may need a permit, or has returned one: called when the worker was woken. */
void pool_attend(struct pool *pool);

#endif
