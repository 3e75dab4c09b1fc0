/* Sessions coming and going: opened one at a time while it is not known that the database is there,
 * closed when they are old, unused or worn, and looked at when they have rested for long. */
#include "pool.h"

#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "pg.h"
#include "pg_target.h"
#include "pool_parts.h"
#include "shared.h"

enum { BACKOFF_MS = 50, LONGEST_BACKOFF_MS = 800, HOUSEWORK_MS = 1000 };

/* A server that answered this lately is there. */
enum { ANSWERING_S = 5 };

/* A server on which sessions fall silent, while no worker has one left that works, is away after so
 * long: more than from one look to the next, since one that a worker gives up for another is
 * nobody's for a moment. */
enum { SILENCE_MS = 1500 };

static void on_failed(struct pg *pg, const struct error *err);
static void on_cancel(struct pg *pg);
static bool server_answers(struct pg *pg);
static void on_closed(struct pg *pg);

static const struct pg_events pool_events = {
    .on_idle = pool_on_idle,
    .on_failed = on_failed,
    .on_cancel = on_cancel,
    .server_answers = server_answers,
    .on_closed = on_closed,
};

static void on_retry(struct timer *timer);

bool pool_open_session(struct pool *pool)
{
    if (!pool_take_permit(pool)) {
        return false;
    }
    struct pg *pg = pg_open(pool->loop, pool->helper, pool->target, &pool_events, pool,
                            pool->loop->now + pool->options.connect_timeout);
    list_prepend(&pool->opening, &pg->link);
    return true;
}

void pool_retire(struct pool *pool, struct pg *pg)
{
    pool_depart(pool, pg);
    pg_close(pg);
    pool_publish(pool);
}

static uint64_t jitter(uint64_t span)
{
    return span ? (uint64_t)random() % span : 0;
}

/* Lanes say nothing of writes. */
static bool is_up(const struct pool *pool)
{
    return pool->target->writes ? pool_can_lend(pool) : pool_is_alive(pool);
}

static void note_away(struct pool *pool, const struct error *err)
{
    if (pool->down.code == ERROR_NONE) {
        log_event(LOG_ERROR, "database away", "%s", err->message);
        pool->backoff = MILLISECONDS(BACKOFF_MS);
    } else if (pool->backoff < MILLISECONDS(LONGEST_BACKOFF_MS)) {
        pool->backoff *= 2;
    }
    pool->down = *err;
    loop_arm(pool->loop, &pool->retry, pool->loop->now + pool->backoff - jitter(pool->backoff / 4),
             on_retry);
    if (!is_up(pool)) {
        atomic_store(&pool->shared->database_up, false);
    }
    if (!pool_can_lend(pool)) {
        pool_fail_waiters(pool);
    }
}

static void note_failure(struct pool *pool, const struct error *err)
{
    counter_add(pool->slot, pool_connect_failures_total, 1);
    note_away(pool, err);
}

static void note_success(struct pool *pool)
{
    if (pool->down.code != ERROR_NONE) {
        log_event(LOG_INFO, "database back", "%s", "");
        memset(&pool->down, 0, sizeof pool->down);
        loop_disarm(pool->loop, &pool->retry);
    }
    atomic_store(&pool->shared->database_up, true);
}

/* The others hold all the permits: what they know of the database has to do. */
static void learn_from_others(struct pool *pool)
{
    if (atomic_load(&pool->shared->database_up) || shared_can_lend(pool->shared)) {
        note_success(pool);
        return;
    }
    if (pool->down.code == ERROR_NONE) {
        error_set(&pool->down, ERROR_UNAVAILABLE, "the database is not available");
        pool->backoff = MILLISECONDS(BACKOFF_MS);
    }
    if (!pool_can_lend(pool)) {
        pool_fail_waiters(pool);
    }
    loop_arm(pool->loop, &pool->retry, pool->loop->now + pool->backoff, on_retry);
}

static void on_retry(struct timer *timer)
{
    struct pool *pool = list_entry((void *)timer, struct pool, retry);
    if (!list_is_empty(&pool->opening) || pool_open_session(pool)) {
        return;
    }
    if (!pool_is_alive(pool) && pool_has_leaving(pool)) {
        /* Those that broke hold the permits. All workers may be in this place: somebody must find
         * out whether the database is there. */
        loop_arm(pool->loop, timer, pool->loop->now + MILLISECONDS(BACKOFF_MS), on_retry);
    } else {
        learn_from_others(pool);
    }
}

void pool_look_for_server(struct pool *pool)
{
    loop_arm(pool->loop, &pool->retry, pool->loop->now, on_retry);
}

static bool retire_if_old(struct pool *pool, struct pg *pg)
{
    if (pool->loop->now < pg->expires_at) {
        return false;
    }
    counter_add(pool->slot, pool_lifetime_closes_total, 1);
    pool_retire(pool, pg);
    return true;
}

/* The one used last comes first. */
static void put_to_rest(struct pool *pool, struct pg *pg)
{
    list_remove(&pg->link);
    if (pg->idle_since == pool->loop->now) {
        list_prepend(&pool->idle, &pg->link);
    } else {
        list_append(&pool->idle, &pg->link);
    }
}

static void note_use(struct pool *pool, struct pg *pg)
{
    if (pg->lent_at) {
        pace_note(&pool->pace, pool->loop->now - pg->lent_at, pool->loop->now);
        pg->lent_at = 0;
    }
}

void pool_on_idle(struct pg *pg)
{
    struct pool *pool = pg->owner;
    pool->answered_at = pool->loop->now;
    pool->silent_since = 0;
    if (pg->expires_at == 0) {
        uint64_t lifetime = pool->options.max_lifetime;
        pg->expires_at = pg->opened_at + lifetime - jitter(lifetime / 10);
        counter_add(pool->slot, pool_connects_total, 1);
        note_success(pool);
    }
    if (retire_if_old(pool, pg)) {
        return;
    }
    if (pg_is_worn(pg)) {
        pool_retire(pool, pg);
        return;
    }
    note_use(pool, pg);
    put_to_rest(pool, pg);
    pool_serve(pool);
}

static void check(struct pool *pool, struct pg *pg)
{
    pool_depart(pool, pg);
    pg_check(pg);
}

void pool_check_idle(struct pool *pool)
{
    struct list *item, *following;
    list_for_each (item, following, &pool->idle) {
        check(pool, list_entry(item, struct pg, link));
    }
    pool_publish(pool);
}

/* The others may be silent too, and are not to be lent before they have answered. */
static void note_silence(struct pool *pool)
{
    pool_tell_silence(pool);
    pool->silent_since = pool->silent_since ? pool->silent_since : pool->loop->now;
}

static void on_failed(struct pg *pg, const struct error *err)
{
    struct pool *pool = pg->owner;
    pool_depart(pool, pg);
    bool last = !pool_is_alive(pool) && list_is_empty(&pool->opening);
    if (pg->silent) {
        note_silence(pool);
    }
    if (!pg->was_open) {
        note_failure(pool, err);
    } else if (last) {
        /* Find out at once whether the database is there, rather than on the next request. */
        log_event(LOG_WARN, "session lost", "%s", err->message);
        pool_look_for_server(pool);
    }
    pool_publish(pool);
}

static void on_cancel(struct pg *pg)
{
    const struct pool *pool = pg->owner;
    counter_add(pool->slot, cancels_total, 1);
}

/* What has answered since the last look will not have gone away meanwhile. */
static bool server_answers(struct pg *pg)
{
    const struct pool *pool = pg->owner;
    return pool->answered_at + SECONDS(ANSWERING_S) > pool->loop->now;
}

static void on_closed(struct pg *pg)
{
    struct pool *pool = pg->owner;
    list_remove(&pg->link);
    counter_add(pool->slot, pool_closes_total, pg->was_open);
    pg_destroy(pg);
    shared_return_session(pool->shared, pool->slot);
    pool_serve(pool);
}

void pool_open_for_waiters(struct pool *pool)
{
    size_t waiting = pool->waiting;
    size_t coming = list_length(&pool->opening);
    /* One attempt at a time while it is not known that the database answers. */
    size_t most = pool_is_alive(pool) && pool->down.code == ERROR_NONE ? waiting : 1;
    while (coming < waiting && coming < most && pool_open_session(pool)) {
        coming++;
    }
}

/* Housework. */

static void retire_idle(struct pool *pool)
{
    struct list *item, *following;
    size_t idle = list_length(&pool->idle);
    list_for_each (item, following, &pool->idle) {
        struct pg *pg = list_entry(item, struct pg, link);
        bool unused = pg->idle_since + pool->options.max_idle <= pool->loop->now;
        if (retire_if_old(pool, pg)) {
            idle--;
        } else if (unused && idle > pool->options.min_idle) {
            counter_add(pool->slot, pool_idle_closes_total, 1);
            pool_retire(pool, pg);
            idle--;
        }
    }
}

static void check_rested(struct pool *pool)
{
    struct list *item, *following;
    list_for_each (item, following, &pool->idle) {
        struct pg *pg = list_entry(item, struct pg, link);
        if (pg->heard_at + pool->options.health_check <= pool->loop->now) {
            check(pool, pg);
        }
    }
}

/* A session that is being opened would tell, but much later. One that another worker has is to be
 * had: it will give it up. While this worker stood still, and was `late`, it has not listened. */
static void end_silence(struct pool *pool, uint64_t late)
{
    struct error err;
    if (!pool->silent_since || pool_is_alive(pool) || pool->down.code != ERROR_NONE) {
        return;
    }
    uint64_t now = pool->loop->now;
    uint64_t since = shared_can_lend(pool->shared) ? now : pool->silent_since + late;
    pool->silent_since = since < now ? since : now;
    if (pool->silent_since + MILLISECONDS(SILENCE_MS) <= now) {
        error_set(&err, ERROR_UNAVAILABLE, "PostgreSQL does not answer");
        note_away(pool, &err);
    }
}

static void keep_minimum(struct pool *pool)
{
    size_t have = list_length(&pool->idle) + list_length(&pool->opening);
    while (have < pool->options.min_idle && !pool->retry.slot && pool_open_session(pool)) {
        have++;
    }
}

void pool_on_housework(struct timer *timer)
{
    struct pool *pool = list_entry((void *)timer, struct pool, housework);
    uint64_t late = pool->loop->now - timer->at;
    /* First, since who asks again on being refused wants it sooner. */
    loop_arm(pool->loop, timer, pool->loop->now + MILLISECONDS(HOUSEWORK_MS), pool_on_housework);
    if (pool->down.code != ERROR_NONE && !pool_can_lend(pool)) {
        pool_fail_waiters(pool);
    }
    end_silence(pool, late);
    retire_idle(pool);
    keep_minimum(pool);
    check_rested(pool);
    pool_serve(pool);
}
