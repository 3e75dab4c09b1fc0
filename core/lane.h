/* Lanes: connections shared by the short reading statements of many requests, pipelined, so that
 * one write and one read of the socket carry many of them. Sessions on a lane are set to read-only
 * transactions: whatever is on it may be executed again elsewhere, or once too often, without harm.
 *
 *   CLOSED -> OPENING -> OPEN -> CLOSED
 *
 * What is submitted in one tick of the loop goes out as one segment, closed by one Sync: one write,
 * and for the server one transaction. An error in it skips the statements behind, which move to
 * connections of their own. So do all of them when the lane stands still for too long; the one that
 * proves slow there goes past the lanes for some time, as does one that turns out to write. */
#ifndef MOONPOOL_LANE_H
#define MOONPOOL_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "batch.h"
#include "deadline.h"
#include "list.h"
#include "pg.h"
#include "pool.h"

struct lanes;
struct statement;

enum lane_state {
    LANE_CLOSED,
    LANE_OPENING, /* waiting for a connection, or for it to be read-only */
    LANE_OPEN,
};

enum { LANES_MOST = 8 };

struct lane {
    struct lanes *lanes;
    enum lane_state state;
    struct pool_waiter waiter;
    struct pg *pg;         /* LENT by the pool; NULL while there is none */
    struct list calls;     /* under way, oldest first */
    uint32_t count;        /* how many they are */
    bool unflushed;        /* something was queued since the last flush */
    struct timer patience; /* how long it may stand still */
    bool checking;         /* it is that for the server, while no call is waited for */
    uint64_t heard_at;     /* when an answer last came, or was last asked for at rest */
    struct batch setup;    /* makes the session read-only */
    struct pg_run setup_run;
};

/* Statements of which something was learnt, for some time. */
struct learnt {
    uint64_t *keys; /* owned set; 0 marks a free place */
    uint32_t count;
    uint64_t until; /* then all is forgotten */
};

struct lanes {
    struct pool *pool; /* borrowed */
    uint32_t count;    /* 0: there are none */
    struct lane lanes[LANES_MOST];
    struct learnt exclusive; /* they go past the lanes */
    struct learnt writers;   /* they look like reads, and write */
};

enum lane_outcome {
    LANE_DONE, /* the batch has its results, or its error */
    LANE_MOVE, /* it must be run elsewhere: nothing of it is to be used */
};

/* One statement on a lane. Embedded. */
struct lane_call {
    struct list link;  /* in lane.calls */
    struct lane *lane; /* NULL when it is on none */

    struct pg_run run;
    void (*done)(struct lane_call *call, enum lane_outcome outcome);
};

void lanes_init(struct lanes *lanes, struct pool *pool, uint32_t count);

/* Gives the connections back. No call may be left. */
void lanes_finish(struct lanes *lanes);

/* Puts a batch of one statement on a lane. False if it has to go elsewhere: it does not look like a
 * read, is known not to be for lanes, or no lane is open. `done` is called from the loop. */
bool lanes_submit(struct lanes *lanes, struct lane_call *call, struct batch *batch);

/* Stops waiting for a call. Its statement may be executed all the same, for as long as a lane may
 * stand still. */
void lanes_forget(struct lanes *lanes, struct lane_call *call);

/* A read took this long, in microseconds, on a connection of its own. */
void lanes_note(struct lanes *lanes, const struct batch *batch, uint64_t duration);

/* A statement that looks like a read has written, or tried to. Whether it did lately. */
void lanes_note_writer(struct lanes *lanes, const struct statement *statement);
bool lanes_is_writer(const struct lanes *lanes, const struct statement *statement);

/* Sends what was submitted since the last time: once per tick. */
void lanes_flush(struct lanes *lanes);

#endif
