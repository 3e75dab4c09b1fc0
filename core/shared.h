/* Memory shared by the master and its workers: one anonymous mapping made before the first fork.
 * Who writes what is said at each field; counters are relaxed atomics. */
#ifndef MOONPOOL_SHARED_H
#define MOONPOOL_SHARED_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "desk.h"
#include "source.h"

struct error;

enum { SHARED_WORKERS = 128 }; /* the most workers there may be */

/* How far a worker is with the candidate generation. */
enum shared_load { SHARED_LOADING, SHARED_LOADED, SHARED_REFUSED };

/* X(name, help): counters that only rise, summed over the workers by /metrics. */
#define SHARED_COUNTERS(X)                                                                         \
    X(requests_total, "Requests answered")                                                         \
    X(requests_failed_total, "Requests answered with a status of 500 or more")                     \
    X(deadlines_total, "Requests whose deadline passed")                                           \
    X(request_seconds_total, "Time from headers to answer")                                        \
    X(pool_acquires_total, "Connections taken from the pool")                                      \
    X(pool_waits_total, "Acquires that had to wait")                                               \
    X(pool_wait_seconds_total, "Time spent waiting for a connection")                              \
    X(pool_acquire_seconds_total, "Time until connections were taken")                             \
    X(pool_timeouts_total, "Waits given up")                                                       \
    X(shed_total, "Waits refused early because the deadline could not be met")                     \
    X(pool_connects_total, "Sessions opened")                                                      \
    X(pool_connect_failures_total, "Sessions that could not be opened")                            \
    X(pool_closes_total, "Sessions closed")                                                        \
    X(pool_lifetime_closes_total, "Sessions closed because of their age")                          \
    X(pool_idle_closes_total, "Sessions closed because nobody used them")                          \
    X(queue_wait_seconds_total, "Time spent waiting for a turn")                                   \
    X(database_seconds_total, "Time spent waiting for PostgreSQL")                                 \
    X(group_wait_seconds_total, "Time spent waiting for groups")                                   \
    X(statements_total, "Statements executed")                                                     \
    X(transactions_committed_total, "Transactions committed")                                      \
    X(transactions_rolled_back_total, "Transactions rolled back")                                  \
    X(cancels_total, "Statements cancelled on the server")                                         \
    X(reloads_total, "Generations taken over")                                                     \
    X(worker_restarts_total, "Workers replaced")

struct shared_counters {
#define SHARED_FIELD(name, help) _Atomic uint64_t name;
    SHARED_COUNTERS(SHARED_FIELD)
#undef SHARED_FIELD
};

/* One worker's slot. It survives the worker: the next one in this slot finds its counters. */
struct shared_worker {
    _Atomic int32_t pid;         /* master; 0 while there is none */
    _Atomic uint64_t heartbeat;  /* worker: clock_now() of its last tick */
    _Atomic bool ready;          /* worker: a generation is serving */
    _Atomic bool served;         /* worker: one in this slot has been ready once */
    _Atomic uint64_t generation; /* worker: number of the generation it has decided on */
    _Atomic int load;            /* worker: enum shared_load for that generation */
    _Atomic uint32_t sessions;   /* pool, under `lock`: sessions it holds or is closing */
    uint32_t ghosts;             /* under `lock`: sessions of a dead worker that may still run */
    uint64_t ghosts_until;       /* when the server will have ended them */
    _Atomic uint64_t starved;    /* pool: since when it has waiters, but no session and no permit;
                                    0 if it does not */
    _Atomic bool wanting;        /* pool: it could use one more permit */
    _Atomic uint32_t opening;    /* pool: sessions on their way now */
    _Atomic uint32_t idle;       /* pool: sessions idle now */
    _Atomic uint32_t lent;       /* pool: sessions in use now, lanes included */
    _Atomic bool lends;         /* pool: it has a session to lend, now or later: none of a lane's */
    _Atomic uint32_t waiting;   /* pool: requests waiting for a session now */
    _Atomic uint32_t in_flight; /* worker: requests in the application's hands */
    _Atomic uint32_t connections; /* worker: open client connections */
    _Atomic uint64_t lua_bytes;   /* worker: memory of its lua_State */
    struct shared_counters counters;
    int wake_fd; /* an eventfd: a write wakes this worker */
};

struct shared {
    pthread_mutex_t lock; /* robust: guards the sum of `sessions` against `pool_max` */
    uint32_t pool_max;
    uint32_t worker_count;
    int master_wake_fd;       /* an eventfd: a write wakes the master */
    _Atomic bool draining;    /* master: TERM was received */
    _Atomic bool database_up; /* pools: the last attempt to connect succeeded */
    _Atomic uint64_t
        forsaken; /* pools: how often the server was found to take no writes any more */
    _Atomic uint64_t silences;      /* pools: how often a session fell silent */
    _Atomic uint64_t schema_change; /* pools: how often DDL was found to have made what is prepared
                                       stale */
    _Atomic uint64_t generation;    /* master: number of the newest snapshot */
    _Atomic int good;               /* master: which of `sources` last proved good */
    _Atomic int candidate;          /* master: which of `sources` carries `generation` */
    struct shared_worker workers[SHARED_WORKERS];
    struct source sources[2];
    struct desk desk; /* of group-committed functions */
};

/* Maps it, zeroed, with the lock and the eventfds made. NULL on failure. */
struct shared *shared_create(uint32_t worker_count, uint32_t pool_max, struct error *err);
void shared_destroy(struct shared *shared);

/* Takes one of `pool_max` permits for a session. False if there is none. */
bool shared_take_session(struct shared *shared, struct shared_worker *worker);

/* How many of the permits are out, those of dead workers included. */
uint32_t shared_count_sessions(struct shared *shared);

/* Sessions that `self` could have besides its own: free permits, and what is idle elsewhere.
 * Without the lock: about so many. */
uint32_t shared_spare_sessions(const struct shared *shared, const struct shared_worker *self);

/* True if a worker has a session that works, and may be lent. */
bool shared_can_lend(const struct shared *shared);

/* When the next permit of a dead worker returns by itself; DEADLINE_NEVER if none will. */
uint64_t shared_next_permit(struct shared *shared);

/* Gives one back; wakes the other workers if it was the last there was. */
void shared_return_session(struct shared *shared, struct shared_worker *worker);

/* A dead worker's permits return, its flags fall, and waiting workers are woken. Master only. */
void shared_bury(struct shared *shared, struct shared_worker *worker);

/* Wakes one worker, or all. */
void shared_wake(struct shared_worker *worker);
void shared_wake_all(struct shared *shared);

/* Makes the master look at the slots again: after `ready`, `load` or `generation` has changed. */
void shared_wake_master(struct shared *shared);

/* True if another worker waits for a permit; `ret_since` tells since when the longest has. */
bool shared_others_starve(struct shared *shared, const struct shared_worker *self,
                          uint64_t *ret_since);

/* True if another worker could use one more permit, starving or not. */
bool shared_others_want(struct shared *shared, const struct shared_worker *self);

/* counter_add(worker, pool_waits_total, 1) */
#define counter_add(worker, name, amount)                                                          \
    atomic_fetch_add_explicit(&(worker)->counters.name, (amount), memory_order_relaxed)

#endif
