/* Sharing the permits. A worker that has waiters but no permit wants one: a worker with idle
 * sessions closes all but one for it. If it has no session at all it starves: even a busy worker
 * gives one up for it after a turn of TURN_MS, and a permit that returns goes to the one that has
 * been starving longest. Lanes are nobody's sessions here: a transaction cannot use them. */
#include "pool.h"

#include "pg.h"
#include "pool_parts.h"
#include "shared.h"

/* How long a busy worker keeps a session that another one starves for: opening a session costs
 * milliseconds, and must not be done for every transaction. */
enum { TURN_MS = 50 };

/* A worker that has not used its last session for so long can spare it. */
enum { SPARE_S = 1 };

/* A session that is cleaned or closed for longer than this may be so for long. */
enum { RETURN_MS = 300 };

/* The last session is kept for a while: to give it up would be to starve next. */
static bool can_spare(const struct pool *pool)
{
    const struct pg *last = list_entry(pool->idle.prev, struct pg, link);
    return !list_is_empty(&pool->idle) &&
           (list_length(&pool->idle) > 1 || last->idle_since + SECONDS(SPARE_S) <= pool->loop->now);
}

bool pool_must_give_up(const struct pool *pool)
{
    uint64_t since;
    if (shared_others_starve(pool->shared, pool->slot, &since)) {
        return list_is_empty(&pool->waiters) || since + MILLISECONDS(TURN_MS) < pool->loop->now;
    }
    return list_is_empty(&pool->waiters) && can_spare(pool) &&
           shared_others_want(pool->shared, pool->slot);
}

/* True if another worker has an older claim on the next permit. */
static bool must_let_pass(const struct pool *pool)
{
    uint64_t since;
    uint64_t ours = atomic_load(&pool->slot->starved);
    return shared_others_starve(pool->shared, pool->slot, &since) &&
           since < (ours ? ours : pool->loop->now);
}

bool pool_has_leaving(const struct pool *pool)
{
    const struct list *leaving = &pool->leaving;
    for (const struct list *item = leaving->next; item != leaving; item = item->next) {
        const struct pg *pg = list_entry((void *)item, struct pg, link);
        if (pg->left_at + MILLISECONDS(RETURN_MS) > pool->loop->now) {
            return true;
        }
    }
    return false;
}

bool pool_can_lend(const struct pool *pool)
{
    const struct list *lent = &pool->lent;
    for (const struct list *item = lent->next; item != lent; item = item->next) {
        if (!list_entry((void *)item, struct pg, link)->pipeline.read_only) {
            return true;
        }
    }
    return !list_is_empty(&pool->idle);
}

static bool has_sessions(const struct pool *pool)
{
    return pool_can_lend(pool) || !list_is_empty(&pool->opening) || pool_has_leaving(pool);
}

/* Those that let this worker pass look again when it is served. */
void pool_tell_need(struct pool *pool)
{
    bool wanting = pool->waiting > list_length(&pool->opening) && !pool->retry.slot;
    bool starved = wanting && !has_sessions(pool);
    uint64_t before = atomic_load(&pool->slot->starved);
    bool wanted = atomic_exchange(&pool->slot->wanting, wanting);
    if (starved != (before != 0)) {
        atomic_store(&pool->slot->starved, starved ? pool->loop->now : 0);
    }
    if (starved != (before != 0) || (wanting && !wanted)) {
        shared_wake_all(pool->shared);
    }
}

static void on_burial(struct timer *timer)
{
    pool_serve(list_entry((void *)timer, struct pool, burial));
}

bool pool_take_permit(struct pool *pool)
{
    if (must_let_pass(pool)) {
        return false;
    }
    if (shared_take_session(pool->shared, pool->slot)) {
        return true;
    }
    uint64_t next = shared_next_permit(pool->shared);
    if (next != DEADLINE_NEVER) {
        loop_arm(pool->loop, &pool->burial, next, on_burial);
    }
    return false;
}
