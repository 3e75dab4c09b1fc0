/* The desk: where inputs of a group-committed function meet, whichever worker they come to. A
 * member leaves its input in a parcel; one worker at a time leads the group, takes the parcels, and
 * puts the outputs into them. In shared memory, every step under one robust lock.
 *
 *   FREE -> POSTED -> TAKEN -> SEALED -> ANSWERED -> FREE
 *     POSTED -> FREE      the member went away in time: nothing was done for it
 *     TAKEN -> ABANDONED  it was answered with a failure, so the leader must not commit it
 *     TAKEN -> POSTED     the leader tries again
 *
 * SEALED means that COMMIT may be on its way: from then on the outcome is the leader's to tell. */
#ifndef MOONPOOL_DESK_H
#define MOONPOOL_DESK_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { DESK_PARCELS = 1024, DESK_GROUPS = 32, DESK_BYTES = 8192, DESK_NAME = 64, DESK_TAKE = 256 };

enum parcel_state {
    PARCEL_FREE,
    PARCEL_POSTED,
    PARCEL_TAKEN,
    PARCEL_SEALED,
    PARCEL_ABANDONED,
    PARCEL_ANSWERED,
};

struct parcel {
    int state;         /* enum parcel_state */
    int group;         /* index in desk.groups */
    uint32_t member;   /* the worker whose request it is */
    uint32_t leader;   /* the worker that took it */
    bool orphan;       /* its member is gone: whoever finishes it frees it */
    uint64_t sequence; /* the order of posting */
    uint64_t deadline; /* the request's */
};

/* Apart from the states, so that looking at those touches little memory. */
struct parcel_body {
    struct error error; /* ANSWERED: ERROR_NONE, or why there is no output */
    size_t length;
    char data[DESK_BYTES]; /* JSON: the input, then the output or what more there is of the error */
};

struct desk_group {
    char name[DESK_NAME]; /* "" while unused */
    bool led;
    uint32_t leader;   /* the worker that leads; of meaning while `led` */
    uint64_t average;  /* microseconds from taking to answering, smoothed */
    uint64_t ended_at; /* when the last group ended */
    uint32_t crowd;    /* how many were in it, or waited behind it */
    uint32_t awaited;  /* the leader lingers until so many wait; 0 if it does not */
};

/* Zeroed memory with `lock` initialised (robust, between processes). */
struct desk {
    pthread_mutex_t lock;
    uint64_t sequence;
    uint32_t posted[DESK_GROUPS]; /* parcels waiting, per group */
    struct desk_group groups[DESK_GROUPS];
    struct parcel parcels[DESK_PARCELS];
    struct parcel_body bodies[DESK_PARCELS];
};

/* The group's index, made when it is new; -1 if there are too many. */
int desk_group(struct desk *desk, const char *name);

/* Posts an input. The parcel's index, or -1 if the desk is full or the input too long. */
int desk_post(struct desk *desk, int group, uint32_t worker, uint64_t deadline, const char *data,
              size_t length);

/* Becomes the leader if there is none and a parcel waits. */
bool desk_lead(struct desk *desk, int group, uint32_t worker);

/* The latest deadline of those that wait; 0 if none does. */
uint64_t desk_latest(struct desk *desk, int group);

/* Stops leading. */
void desk_resign(struct desk *desk, int group, uint32_t worker);

/* Takes up to `most` waiting parcels, oldest first, into `ret_parcels`; those that cannot be done
 * by their deadline, as the group's average goes, are answered with ERROR_OVERLOADED instead, and
 * `ret_answered` says whether there were any; if that befalls all of them, the average is lowered.
 * Returns how many were taken. */
int desk_take(struct desk *desk, int group, uint32_t worker, int most, uint64_t now,
              int *ret_parcels, bool *ret_answered);

/* Before COMMIT: false if a member was answered meanwhile, and nothing is changed then. What is
 * sealed already, for a COMMIT that failed, may be sealed again. */
bool desk_seal(struct desk *desk, const int *parcels, int count);

/* Those abandoned, and those whose member has left, are freed; the others wait again. */
void desk_put_back(struct desk *desk, const int *parcels, int count);

/* Puts an output into a parcel or, with `err`, an error; `data` is what more there is of it then,
 * left out if it is too long. */
void desk_answer(struct desk *desk, int parcel, const char *data, size_t length,
                 const struct error *err);

/* A group of `count` has ended after `duration`, for the average and for desk_linger(). */
void desk_note(struct desk *desk, int group, uint64_t duration, int count, uint64_t now);

/* How long the leader should wait for company before it takes up to `most`, in microseconds:
 * clients that were answered just now come back in a moment, and would have to wait for the next
 * group. 0 if as many wait as there were, or the moment is over: an eighth of what a group takes,
 * and 2 ms at the most. */
uint64_t desk_linger(struct desk *desk, int group, int most, uint64_t now);

/* To be asked after a parcel was posted: the worker whose leader lingers, and has no more to wait
 * for now; -1 if there is none. Said once. */
int desk_gathered(struct desk *desk, int group);

/* The state of a parcel as its member sees it. */
enum parcel_state desk_state(struct desk *desk, int parcel);

/* The member gives up, as its request is to be answered with a failure. The state before says what
 * was the case: POSTED and TAKEN were prevented; SEALED and ANSWERED were not, and nothing changed.
 */
enum parcel_state desk_withdraw(struct desk *desk, int parcel);

/* The member is gone without an answer: the work goes on, its output is dropped. */
void desk_leave(struct desk *desk, int parcel);

/* After an ANSWERED parcel was read. */
void desk_free(struct desk *desk, int parcel);

/* A worker has died: what it led is posted again, or of unknown outcome if it was sealed; what it
 * had posted is dropped. */
void desk_bury(struct desk *desk, uint32_t worker);

#endif
