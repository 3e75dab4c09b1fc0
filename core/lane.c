/* Sharing connections.
 *
 *   CLOSED  -> OPENING  [open_lane]    a statement came by
 *   OPENING -> OPEN     [let_in]       the session is read-only now
 *   OPEN, OPENING -> CLOSED  [break_up]  it stands still, in use or at rest: all calls move
 *   OPEN, OPENING -> CLOSED  [on_lost]   the connection broke: all calls move
 *   OPEN    -> CLOSED   [retire_if_old] */
#include "lane.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "log.h"
#include "loop.h"
#include "statement.h"

/* A statement that takes longer is not for lanes, for a while: the database may have been slow. */
enum { PATIENCE_MS = 50, LEARNT_S = 60 };

/* How long the server may take to show that it is there when nobody waits for it, as with a session
 * of the pool. */
enum { CHECKING_MS = 1000 };

/* More calls than this in one lane wait longer than a connection of their own would take. */
enum { MOST_CALLS = 512 };

enum { LEARNT_SLOTS = 1024 };

static const struct statement read_only_statement = {
    .sql = "set default_transaction_read_only = on", .kind = STATEMENT_EXEC};

static struct loop *loop_of(const struct lane *lane)
{
    return lane->lanes->pool->loop;
}

/* What is learnt of statements. */

static uint64_t *place_of(const struct learnt *learnt, uint64_t key)
{
    size_t slot = key & (LEARNT_SLOTS - 1);
    while (learnt->keys[slot] && learnt->keys[slot] != key) {
        slot = (slot + 1) & (LEARNT_SLOTS - 1);
    }
    return &learnt->keys[slot];
}

static void learn(struct learnt *learnt, uint64_t key, uint64_t now)
{
    if (now >= learnt->until || learnt->count >= LEARNT_SLOTS / 2) {
        memset(learnt->keys, 0, LEARNT_SLOTS * sizeof *learnt->keys);
        learnt->count = 0;
        learnt->until = now + SECONDS(LEARNT_S);
    }
    uint64_t *place = place_of(learnt, key);
    learnt->count += *place == 0;
    *place = key;
}

static bool knows(const struct learnt *learnt, uint64_t key, uint64_t now)
{
    return learnt->count > 0 && now < learnt->until && *place_of(learnt, key) == key;
}

static void make_exclusive(struct lanes *lanes, uint64_t key)
{
    learn(&lanes->exclusive, key, lanes->pool->loop->now);
}

void lanes_note_writer(struct lanes *lanes, const struct statement *statement)
{
    learn(&lanes->writers, statement->key, lanes->pool->loop->now);
}

bool lanes_is_writer(const struct lanes *lanes, const struct statement *statement)
{
    return knows(&lanes->writers, statement->key, lanes->pool->loop->now);
}

void lanes_note(struct lanes *lanes, const struct batch *batch, uint64_t duration)
{
    bool alone = batch->count - batch->hidden == 1;
    if (lanes->count > 0 && alone && duration > MILLISECONDS(PATIENCE_MS)) {
        make_exclusive(lanes, batch->items[batch->hidden].statement->key);
    }
}

static bool is_for_lanes(struct lanes *lanes, const struct batch *batch)
{
    const struct statement *statement = batch->items[0].statement;
    return batch->count == 1 && statement->key && !batch->describe &&
           statement->traces == SQL_NO_TRACES &&
           !knows(&lanes->exclusive, statement->key, lanes->pool->loop->now) &&
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
        /* Of a run that is finished already nobody is to be told any more. */
        list_remove(&call->run.link);
        call->lane = NULL;
        call->done(call, LANE_MOVE);
    }
}

/* The connection broke; there may have been no run to hear of it. */
static void on_lost(struct pg *pg)
{
    struct lane *lane = pg->holder;
    struct list calls;
    list_init(&calls);
    list_take(&calls, &lane->calls);
    list_remove(&lane->setup_run.link);
    pool_lost(lane->lanes->pool, pg);
    close_lane(lane);
    move_all(&calls);
}

/* All move to connections of their own. */
static void break_up(struct lane *lane)
{
    struct list calls;
    struct pg *pg = lane->pg;
    list_init(&calls);
    list_take(&calls, &lane->calls);
    close_lane(lane);
    give_back(lane, pg, true);
    move_all(&calls);
}

/* Those that came while it was OPENING have waited for this. */
static void let_in(struct lane *lane)
{
    struct list *item, *following;
    lane->pg->pipeline.read_only = true;
    lane->heard_at = loop_of(lane)->now;
    pool_renew(lane->lanes->pool, lane->pg);
    lane->state = LANE_OPEN;
    loop_disarm(loop_of(lane), &lane->patience);
    list_for_each (item, following, &lane->calls) {
        pg_start(lane->pg, &list_entry(item, struct lane_call, link)->run);
        lane->unflushed = true;
    }
}

/* Only now is whatever runs on it sure to leave nothing behind. */
static void on_setup(struct pg_run *run)
{
    struct lane *lane = list_entry((void *)run, struct lane, setup_run);
    if (run->lost) {
        return;
    }
    if (lane->setup.error.code == ERROR_NONE) {
        let_in(lane);
        return;
    }
    log_event(LOG_WARN, "lane not opened", "%s", lane->setup.error.message);
    break_up(lane);
}

static void on_impatience(struct timer *timer)
{
    struct lane *lane = list_entry((void *)timer, struct lane, patience);
    if (pipeline_is_idle(&lane->pg->pipeline)) {
        /* What has come may have been the answer to a check, or to a call that was forgotten. */
        pool_look_at(lane->lanes->pool, lane->pg);
        return;
    }
    if (lane->state == LANE_OPENING && lane->checking) {
        log_event(LOG_WARN, "lane not opened", "no answer within %d ms", CHECKING_MS);
    }
    /* Something on it is slow, and nobody knows what: the server sends its answers when a segment
     * is done. What is slow will show where it has a connection of its own. */
    break_up(lane);
}

/* What is sent at the end of a long turn of the loop was not waited for since its beginning. */
static void wait_for(struct lane *lane, uint64_t milliseconds)
{
    loop_arm(loop_of(lane), &lane->patience, clock_now() + MILLISECONDS(milliseconds),
             on_impatience);
}

/* Called when something has come back or is about to be sent. */
static void be_patient(struct lane *lane)
{
    lane->checking = false;
    wait_for(lane, PATIENCE_MS);
}

static void wait_for_server(struct lane *lane)
{
    lane->checking = true;
    wait_for(lane, CHECKING_MS);
}

/* True if its patience is that for calls. */
static bool is_patient(const struct lane *lane)
{
    return lane->patience.slot && !lane->checking;
}

static void begin(struct lane *lane, struct pg *pg)
{
    lane->pg = pg;
    pg->holder = lane;
    pg->on_lost = on_lost;
    batch_reset(&lane->setup);
    batch_add(&lane->setup, &read_only_statement, 0, NULL, 0);
    lane->setup_run.batch = &lane->setup;
    lane->setup_run.done = on_setup;
    pg_start(pg, &lane->setup_run);
    pg_flush(pg);
    wait_for_server(lane);
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

static bool retire_if_old(struct lane *lane)
{
    bool old = loop_of(lane)->now >= lane->pg->expires_at || pg_is_worn(lane->pg);
    if (!old || !is_at_rest(lane)) {
        return false;
    }
    struct pg *pg = lane->pg;
    close_lane(lane);
    give_back(lane, pg, true);
    return true;
}

/* A lane that nobody uses would stand for a server that has long fallen silent. Not before the last
 * check is over, however often they are wanted. */
static void check_if_rested(struct lane *lane)
{
    uint64_t now = loop_of(lane)->now;
    bool rested = lane->heard_at + lane->lanes->pool->options.health_check <= now;
    if (rested && !lane->patience.slot && is_at_rest(lane)) {
        lane->heard_at = now;
        pg_sync(lane->pg);
        wait_for_server(lane);
    }
}

/* Calls. */

/* 25006: it writes. What is stale is prepared anew, and a read that broke with its session can be
 * read again. */
static bool must_move(const struct batch *batch)
{
    const struct error *err = &batch->error;
    return strcmp(err->sqlstate, "25006") == 0 || batch->stale || err->code == ERROR_UNAVAILABLE ||
           batch->items[0].state == ITEM_SKIPPED;
}

static void on_done(struct pg_run *run)
{
    struct lane_call *call = list_entry((void *)run, struct lane_call, run);
    struct lane *lane = call->lane;
    const struct error *err = &run->batch->error;
    bool move = must_move(run->batch) || (run->lost && err->code != ERROR_NONE);
    if (!run->lost) {
        pool_look_at(lane->lanes->pool, lane->pg);
    }
    if (strcmp(err->sqlstate, "25006") == 0) {
        make_exclusive(lane->lanes, run->batch->items[0].statement->key);
        lanes_note_writer(lane->lanes, run->batch->items[0].statement);
    }
    take_off(call);
    lane->heard_at = loop_of(lane)->now;
    /* Also if it was the last: the server may still be at one that was forgotten. */
    be_patient(lane);
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
        bool has_room = lane->pg && !pg_is_worn(lane->pg) && lane->count < MOST_CALLS;
        if (has_room && (!best || lane->count < best->count)) {
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
    if (lane->state == LANE_OPEN && is_at_rest(lane)) {
        loop_disarm(loop_of(lane), &lane->patience);
    }
    call->lane = lane;
    call->run.batch = batch;
    call->run.shared = true;
    call->run.done = on_done;
    list_append(&lane->calls, &call->link);
    lane->count++;

    if (lane->state == LANE_OPEN) {
        pool_renew(lanes->pool, lane->pg);
        pg_start(lane->pg, &call->run);
        lane->unflushed = true;
    } else if (!is_patient(lane)) {
        be_patient(lane);
    }
    return true;
}

void lanes_forget(struct lanes *lanes, struct lane_call *call)
{
    if (call->lane) {
        if (call->lane->state == LANE_OPEN) {
            pg_abandon(call->lane->pg, &call->run);
        }
        take_off(call);
    }
}

static void flush_lane(struct lane *lane)
{
    if (lane->unflushed) {
        lane->unflushed = false;
        pg_sync(lane->pg);
        if (!is_patient(lane)) {
            be_patient(lane);
        }
    } else if (!retire_if_old(lane)) {
        check_if_rested(lane);
    }
}

void lanes_flush(struct lanes *lanes)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        if (lanes->lanes[i].state == LANE_OPEN) {
            flush_lane(&lanes->lanes[i]);
        }
    }
}

void lanes_init(struct lanes *lanes, struct pool *pool, uint32_t count)
{
    memset(lanes, 0, sizeof *lanes);
    lanes->pool = pool;
    lanes->count = count < LANES_MOST ? count : LANES_MOST;
    lanes->exclusive.keys = memory_zalloc(LEARNT_SLOTS * sizeof *lanes->exclusive.keys);
    lanes->writers.keys = memory_zalloc(LEARNT_SLOTS * sizeof *lanes->writers.keys);
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
    free(lanes->exclusive.keys);
    free(lanes->writers.keys);
}
