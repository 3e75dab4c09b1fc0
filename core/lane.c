/* Sharing connections.
 *
 *   CLOSED  -> OPENING  [open_lane]    a statement came by
 *   OPENING -> OPEN     [begin]
 *   OPEN    -> CLOSED   [detach]       its head is slow and keeps the connection
 *   OPEN    -> CLOSED   [on_lost]      the connection broke: all calls move
 *   OPEN    -> CLOSED   [retire_if_old] */
#include "lane.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "log.h"
#include "loop.h"
#include "statement.h"

/* A head that takes longer is not for lanes. */
enum { PATIENCE_MS = 50 };

/* More calls than this in one lane wait longer than a connection of their own would take. */
enum { MOST_CALLS = 512 };

enum { EXCLUSIVE_SLOTS = 1024 };

static const struct statement read_only_statement = {
    .sql = "set default_transaction_read_only = on", .kind = STATEMENT_EXEC};

static struct loop *loop_of(const struct lane *lane)
{
    return lane->lanes->pool->loop;
}

/* Statements that are not for lanes. */

static uint64_t *exclusive_place(struct lanes *lanes, uint64_t key)
{
    size_t slot = key & (EXCLUSIVE_SLOTS - 1);
    while (lanes->exclusive[slot] && lanes->exclusive[slot] != key) {
        slot = (slot + 1) & (EXCLUSIVE_SLOTS - 1);
    }
    return &lanes->exclusive[slot];
}

static void make_exclusive(struct lanes *lanes, uint64_t key)
{
    uint64_t *place = exclusive_place(lanes, key);
    /* Half full, it begins anew: what does not belong on a lane will prove so again. */
    if (!*place && ++lanes->exclusive_count > EXCLUSIVE_SLOTS / 2) {
        memset(lanes->exclusive, 0, EXCLUSIVE_SLOTS * sizeof *lanes->exclusive);
        lanes->exclusive_count = 1;
        place = exclusive_place(lanes, key);
    }
    *place = key;
}

static bool is_for_lanes(struct lanes *lanes, const struct batch *batch)
{
    const struct statement *statement = batch->items[0].statement;
    return batch->count == 1 && statement->key && !batch->describe &&
           *exclusive_place(lanes, statement->key) == 0 &&
           statement_looks_like_read(statement->sql);
}

/* The life of a lane. */

static void close_lane(struct lane *lane)
{
    loop_disarm(loop_of(lane), &lane->patience);
    lane->state = LANE_CLOSED;
    lane->pg = NULL;
    lane->unflushed = false;
    lane->count = 0;
}

/* What comes back from a lane is closed: its session is not as others are. */
static void give_back(struct lane *lane, struct pg *pg, bool cancel)
{
    pg->pipeline.retire = true;
    pool_release(lane->lanes->pool, pg, cancel);
}

static void take_off(struct lane_call *call)
{
    list_remove(&call->link);
    call->lane->count--;
    call->lane = NULL;
}

static void move_all(struct list *calls)
{
    while (!list_is_empty(calls)) {
        struct lane_call *call = list_entry(calls->next, struct lane_call, link);
        list_remove(&call->link);
        call->lane = NULL;
        call->done(call, LANE_MOVE);
    }
}

static void on_lost(struct lane *lane)
{
    struct list calls;
    if (lane->state != LANE_OPEN) {
        return;
    }
    list_init(&calls);
    list_take(&calls, &lane->calls);
    pool_lost(lane->lanes->pool, lane->pg);
    close_lane(lane);
    move_all(&calls);
}

static void on_setup(struct pg_run *run)
{
    struct lane *lane = list_entry((void *)run, struct lane, setup_run);
    if (run->lost) {
        on_lost(lane);
    } else if (lane->setup.error.code != ERROR_NONE) {
        log_event(LOG_WARN, "lane not opened", "%s", lane->setup.error.message);
        struct pg *pg = lane->pg;
        struct list calls;
        list_init(&calls);
        list_take(&calls, &lane->calls);
        close_lane(lane);
        give_back(lane, pg, true);
        move_all(&calls);
    }
}

static void begin(struct lane *lane, struct pg *pg)
{
    lane->state = LANE_OPEN;
    lane->pg = pg;
    pg->pipeline.read_only = true;
    batch_reset(&lane->setup);
    batch_add(&lane->setup, &read_only_statement, 0, NULL, 0);
    lane->setup_run.batch = &lane->setup;
    lane->setup_run.done = on_setup;
    pg_start(pg, &lane->setup_run);
    lane->unflushed = true;
}

static void on_granted(struct pool_waiter *waiter, struct pg *pg, const struct error *err)
{
    struct lane *lane = list_entry((void *)waiter, struct lane, waiter);
    if (pg) {
        begin(lane, pg);
    } else {
        lane->state = LANE_CLOSED;
    }
}

static void open_lane(struct lane *lane)
{
    lane->state = LANE_OPENING;
    struct pg *pg = pool_acquire(lane->lanes->pool, &lane->waiter);
    if (pg) {
        begin(lane, pg);
    }
}

/* The setup's answer must be in: its run belongs to the lane. */
static bool is_at_rest(const struct lane *lane)
{
    return list_is_empty(&lane->calls) && pipeline_is_idle(&lane->pg->pipeline);
}

static void retire_if_old(struct lane *lane)
{
    bool old = loop_of(lane)->now >= lane->pg->expires_at || pg_is_worn(lane->pg);
    if (old && is_at_rest(lane)) {
        struct pg *pg = lane->pg;
        close_lane(lane);
        give_back(lane, pg, true);
    }
}

/* Slow heads. */

static struct lane_call *head_of(const struct lane *lane)
{
    return list_is_empty(&lane->calls) ? NULL
                                       : list_entry(lane->calls.next, struct lane_call, link);
}

/* Leaves the connection to its head and opens the lane anew for the others. */
static void detach(struct lane *lane)
{
    struct list others;
    struct lane_call *head = head_of(lane);
    struct pg *pg = lane->pg;
    make_exclusive(lane->lanes, head->run.batch->items[0].statement->key);
    take_off(head);
    head->own = pg;
    head->lane = lane;
    list_init(&others);
    list_take(&others, &lane->calls);
    struct list *item, *following;
    if (!list_is_empty(&lane->setup_run.link)) {
        pg_abandon(pg, &lane->setup_run);
    }
    list_for_each (item, following, &others) {
        pg_abandon(pg, &list_entry(item, struct lane_call, link)->run);
    }
    pg_flush(pg);
    close_lane(lane);
    move_all(&others);
}

static void on_impatience(struct timer *timer)
{
    struct lane *lane = list_entry((void *)timer, struct lane, patience);
    if (head_of(lane) && lane->state == LANE_OPEN) {
        detach(lane);
    }
}

static void watch_head(struct lane *lane)
{
    struct loop *loop = loop_of(lane);
    if (list_is_empty(&lane->calls)) {
        loop_disarm(loop, &lane->patience);
    } else {
        loop_arm(loop, &lane->patience, loop->now + MILLISECONDS(PATIENCE_MS), on_impatience);
    }
}

/* Calls. */

/* 57014: somebody else's cancel came late and hit this one; 25006: it writes; the others: its
 * preparation is stale. None of them was executed. */
static bool must_move(const struct error *err)
{
    static const char *const states[] = {"57014", "25006", "26000", "0A000"};
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        if (strcmp(err->sqlstate, states[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void finish_own(struct lane_call *call)
{
    struct lane *lane = call->lane;
    struct pg *pg = call->own;
    call->own = NULL;
    call->lane = NULL;
    if (call->run.lost) {
        pool_lost(lane->lanes->pool, pg);
    } else {
        give_back(lane, pg, false);
    }
}

static void on_done(struct pg_run *run)
{
    struct lane_call *call = list_entry((void *)run, struct lane_call, run);
    struct lane *lane = call->lane;
    const struct error *err = &run->batch->error;
    bool move = must_move(err) || (run->lost && err->code != ERROR_NONE);
    if (strcmp(err->sqlstate, "25006") == 0) {
        make_exclusive(lane->lanes, run->batch->items[0].statement->key);
    }
    if (call->own) {
        finish_own(call);
    } else if (run->lost) {
        take_off(call);
        on_lost(lane);
    } else {
        take_off(call);
        watch_head(lane);
        retire_if_old(lane);
    }
    call->done(call, move ? LANE_MOVE : LANE_DONE);
}

static struct lane *least_busy(struct lanes *lanes)
{
    struct lane *best = NULL;
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        if (lane->state == LANE_CLOSED) {
            open_lane(lane);
        }
        if (lane->state == LANE_OPEN && lane->count < MOST_CALLS &&
            (!best || lane->count < best->count)) {
            best = lane;
        }
    }
    return best;
}

bool lanes_submit(struct lanes *lanes, struct lane_call *call, struct batch *batch)
{
    struct lane *lane = lanes->count > 0 && is_for_lanes(lanes, batch) ? least_busy(lanes) : NULL;
    if (!lane) {
        return false;
    }
    call->lane = lane;
    call->own = NULL;
    call->run.batch = batch;
    call->run.done = on_done;
    list_append(&lane->calls, &call->link);
    lane->count++;
    if (lane->count == 1) {
        watch_head(lane);
    }
    pg_start(lane->pg, &call->run);
    lane->unflushed = true;
    return true;
}

void lanes_forget(struct lanes *lanes, struct lane_call *call)
{
    struct lane *lane = call->lane;
    if (!lane) {
        return;
    }
    if (!call->own && head_of(lane) == call) {
        detach(lane);
    }
    if (call->own) {
        struct pg *pg = call->own;
        call->own = NULL;
        call->lane = NULL;
        give_back(lane, pg, true);
        return;
    }
    pg_abandon(lane->pg, &call->run);
    take_off(call);
}

void lanes_flush(struct lanes *lanes)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        if (lane->unflushed && lane->pg) {
            lane->unflushed = false;
            pg_flush(lane->pg);
        }
    }
}

void lanes_init(struct lanes *lanes, struct pool *pool, uint32_t count)
{
    memset(lanes, 0, sizeof *lanes);
    lanes->pool = pool;
    lanes->count = count < LANES_MOST ? count : LANES_MOST;
    lanes->exclusive = memory_zalloc(EXCLUSIVE_SLOTS * sizeof *lanes->exclusive);
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        lane->lanes = lanes;
        lane->waiter.granted = on_granted;
        list_init(&lane->waiter.link);
        list_init(&lane->calls);
        list_init(&lane->setup_run.link);
        batch_init(&lane->setup);
    }
}

void lanes_finish(struct lanes *lanes)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct lane *lane = &lanes->lanes[i];
        struct pg *pg = lane->pg;
        pool_forget(lanes->pool, &lane->waiter);
        close_lane(lane);
        if (pg) {
            give_back(lane, pg, true);
        }
        batch_finish(&lane->setup);
    }
    free(lanes->exclusive);
}
