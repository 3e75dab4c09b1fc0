/* Lending connections. Within the worker whoever waits longest is served first. Who waits and
 * clearly cannot be done by its deadline is refused, from the loop. */
#include "pool.h"

#include <assert.h>
#include <string.h>

#include "pg.h"
#include "pool_parts.h"
#include "shared.h"

static void list_move(struct list *head, struct pg *pg)
{
    list_remove(&pg->link);
    list_prepend(head, &pg->link);
}

void pool_depart(struct pool *pool, struct pg *pg)
{
    list_move(&pool->leaving, pg);
    pg->left_at = pool->loop->now;
}

void pool_publish(struct pool *pool)
{
    atomic_store(&pool->slot->opening, (uint32_t)list_length(&pool->opening));
    atomic_store(&pool->slot->idle, (uint32_t)list_length(&pool->idle));
    atomic_store(&pool->slot->lent, (uint32_t)list_length(&pool->lent));
    atomic_store(&pool->slot->lends, pool_can_lend(pool));
    atomic_store(&pool->slot->waiting, pool->waiting);
}

static struct pool_waiter *oldest_waiter(const struct pool *pool)
{
    return list_is_empty(&pool->waiters) ? NULL
                                         : list_entry(pool->waiters.next, struct pool_waiter, link);
}

static void dequeue(struct pool *pool, struct pool_waiter *waiter)
{
    list_remove(&waiter->link);
    pool->waiting--;
    counter_add(pool->slot, pool_wait_seconds_total, pool->loop->now - waiter->since);
}

static void lend(struct pool *pool, const struct pool_waiter *waiter, struct pg *pg)
{
    pg_lend(pg);
    pg->lent_at = pool->loop->now;
    list_move(&pool->lent, pg);
    counter_add(pool->slot, pool_acquires_total, 1);
    counter_add(pool->slot, pool_acquire_seconds_total, pool->loop->now - waiter->since);
    pool_publish(pool);
}

/* Refusing. */

static void on_telling(struct timer *timer)
{
    struct pool *pool = list_entry((void *)timer, struct pool, telling);
    struct error err;
    error_set(&err, ERROR_OVERLOADED,
              "too many requests wait for a database connection for this one to be done by its "
              "deadline");
    while (!list_is_empty(&pool->refused)) {
        struct pool_waiter *waiter = list_entry(pool->refused.next, struct pool_waiter, link);
        list_remove(&waiter->link);
        waiter->refused = false;
        waiter->granted(waiter, NULL, &err);
    }
}

static void refuse(struct pool *pool, struct pool_waiter *waiter)
{
    dequeue(pool, waiter);
    waiter->refused = true;
    list_append(&pool->refused, &waiter->link);
    loop_arm(pool->loop, &pool->telling, pool->loop->now, on_telling);
}

/* Sessions that serve those who wait, or could. */
static uint32_t count_servers(const struct pool *pool)
{
    size_t count = list_length(&pool->idle) + list_length(&pool->opening) +
                   list_length(&pool->leaving) + shared_spare_sessions(pool->shared, pool->slot);
    const struct list *lent = &pool->lent;
    for (const struct list *item = lent->next; item != lent; item = item->next) {
        count += !list_entry((void *)item, struct pg, link)->pipeline.read_only;
    }
    return (uint32_t)count;
}

static bool is_hopeless(struct pool *pool, const struct pool_waiter *waiter, uint32_t ahead)
{
    return pace_is_hopeless(&pool->pace, pool->loop->now, ahead, count_servers(pool),
                            waiter->deadline);
}

/* Those who came last and have nothing to wait for. */
static void refuse_hopeless(struct pool *pool)
{
    while (!list_is_empty(&pool->waiters)) {
        struct pool_waiter *last = list_entry(pool->waiters.prev, struct pool_waiter, link);
        if (!is_hopeless(pool, last, pool->waiting - 1)) {
            return;
        }
        refuse(pool, last);
    }
}

void pool_fail_waiters(struct pool *pool)
{
    struct error err = pool->down;
    struct list failing;
    list_init(&failing);
    list_take(&failing, &pool->waiters);
    while (!list_is_empty(&failing)) {
        struct pool_waiter *w = list_entry(failing.next, struct pool_waiter, link);
        dequeue(pool, w);
        w->granted(w, NULL, &err);
    }
}

/* The idle session to lend next; NULL if there is none. One that has something to say is left out:
 * it may have ended while this worker was busy, and the loop will read it next. */
static struct pg *next_idle(const struct pool *pool)
{
    struct list *item, *following;
    list_for_each (item, following, &pool->idle) {
        struct pg *pg = list_entry(item, struct pg, link);
        if (pg_is_quiet(pg)) {
            return pg;
        }
    }
    return NULL;
}

static void serve_oldest(struct pool *pool, struct pg *pg)
{
    struct pool_waiter *waiter = oldest_waiter(pool);
    if (is_hopeless(pool, waiter, 0)) {
        refuse(pool, waiter);
        return;
    }
    dequeue(pool, waiter);
    lend(pool, waiter, pg);
    waiter->granted(waiter, pg, NULL);
}

void pool_serve(struct pool *pool)
{
    struct pg *pg;
    while (!list_is_empty(&pool->waiters) && (pg = next_idle(pool))) {
        if (pool_must_give_up(pool)) {
            pool_retire(pool, pg);
        } else {
            serve_oldest(pool, pg);
        }
    }
    refuse_hopeless(pool);
    if (!list_is_empty(&pool->waiters) && !pool->retry.slot) {
        pool_open_for_waiters(pool);
    }
    if (list_is_empty(&pool->waiters) && !list_is_empty(&pool->idle) && pool_must_give_up(pool)) {
        pool_retire(pool, list_entry(pool->idle.prev, struct pg, link));
    }
    pool_tell_need(pool);
    pool_publish(pool);
}

void pool_warm(struct pool *pool)
{
    pool_open_session(pool);
}

struct pg *pool_acquire(struct pool *pool, struct pool_waiter *waiter)
{
    waiter->since = pool->loop->now;
    struct pg *pg = list_is_empty(&pool->waiters) ? next_idle(pool) : NULL;
    if (pg) {
        lend(pool, waiter, pg);
        return pg;
    }
    list_append(&pool->waiters, &waiter->link);
    pool->waiting++;
    counter_add(pool->slot, pool_waits_total, 1);
    if (pool->down.code != ERROR_NONE && !pool_can_lend(pool)) {
        /* Told from the loop, as all else: the timer is due at once. */
        loop_arm(pool->loop, &pool->housework, pool->loop->now, pool_on_housework);
    } else {
        pool_serve(pool);
    }
    return NULL;
}

void pool_forget(struct pool *pool, struct pool_waiter *waiter)
{
    if (list_is_empty(&waiter->link)) {
        return;
    }
    if (waiter->refused) {
        waiter->refused = false;
        list_remove(&waiter->link);
        return;
    }
    dequeue(pool, waiter);
    pool_tell_need(pool);
}

void pool_release(struct pool *pool, struct pg *pg, bool cancel)
{
    pg->on_lost = NULL;
    pool_depart(pool, pg);
    if (pg_release(pg, cancel)) {
        pool_on_idle(pg);
    } else {
        pool_publish(pool);
    }
}

void pool_lost(struct pool *pool, struct pg *pg)
{
    pg->on_lost = NULL;
    pool_depart(pool, pg);
}

void pool_attend(struct pool *pool)
{
    pool_heed_forsaken(pool);
    pool_heed_silence(pool);
    pool_serve(pool);
}

void pool_init(struct pool *pool, struct loop *loop, struct helper *helper,
               struct pg_target *target, struct shared *shared, struct shared_worker *slot,
               const struct pool_options *options)
{
    memset(pool, 0, sizeof *pool);
    pool->loop = loop;
    pool->helper = helper;
    pool->target = target;
    pool->shared = shared;
    pool->slot = slot;
    pool->options = *options;
    pool->forsaken = atomic_load(&shared->forsaken);
    pool->silences = atomic_load(&shared->silences);
    list_init(&pool->opening);
    list_init(&pool->idle);
    list_init(&pool->lent);
    list_init(&pool->leaving);
    list_init(&pool->waiters);
    list_init(&pool->refused);
    loop_arm(loop, &pool->housework, loop->now, pool_on_housework);
}

static void destroy_all(struct pool *pool, struct list *sessions)
{
    while (!list_is_empty(sessions)) {
        struct pg *pg = list_entry(sessions->next, struct pg, link);
        list_remove(&pg->link);
        pg_destroy(pg);
        shared_return_session(pool->shared, pool->slot);
    }
}

void pool_finish(struct pool *pool)
{
    assert(list_is_empty(&pool->lent));
    loop_disarm(pool->loop, &pool->retry);
    loop_disarm(pool->loop, &pool->housework);
    loop_disarm(pool->loop, &pool->burial);
    loop_disarm(pool->loop, &pool->telling);
    destroy_all(pool, &pool->opening);
    destroy_all(pool, &pool->idle);
    destroy_all(pool, &pool->leaving);
}
