/* Lending connections. Within the worker whoever waits longest is served first. A worker that has
 * waiters but no permit wants one: a worker with idle sessions closes all but one for it. If it has
 * no session at all it starves: even a busy worker gives one up for it after a turn of TURN_MS, and
 * a permit that returns goes to the one that has been starving longest. Lanes are nobody's sessions
 * here: a transaction cannot use them. Who waits and clearly cannot be done by its deadline is
 * refused, from the loop. */
#include "pool.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "pg.h"
#include "shared.h"

enum { BACKOFF_MS = 50, LONGEST_BACKOFF_MS = 800, HOUSEWORK_MS = 1000 };

/* How long a busy worker keeps a session that another one starves for: opening a session costs
 * milliseconds, and must not be done for every transaction. */
enum { TURN_MS = 50 };

/* A worker that has not used its last session for so long can spare it. */
enum { SPARE_S = 1 };

/* A session that rested for longer is looked at before it is lent. */
enum { TRUSTED_S = 1 };

/* A session that is cleaned or closed for longer than this may be so for long. */
enum { RETURN_MS = 300 };

/* A server that answered this lately is there. */
enum { ANSWERING_S = 5 };

static void serve(struct pool *pool);
static void on_housework(struct timer *timer);

static void list_move(struct list *head, struct pg *pg)
{
    list_remove(&pg->link);
    list_prepend(head, &pg->link);
}

static void depart(struct pool *pool, struct pg *pg)
{
    list_move(&pool->leaving, pg);
    pg->left_at = pool->loop->now;
}

static bool is_alive(const struct pool *pool)
{
    return !list_is_empty(&pool->idle) || !list_is_empty(&pool->lent);
}

static size_t list_length(const struct list *head)
{
    size_t length = 0;
    for (const struct list *item = head->next; item != head; item = item->next) {
        length++;
    }
    return length;
}

static void publish(struct pool *pool)
{
    atomic_store(&pool->slot->opening, (uint32_t)list_length(&pool->opening));
    atomic_store(&pool->slot->idle, (uint32_t)list_length(&pool->idle));
    atomic_store(&pool->slot->lent, (uint32_t)list_length(&pool->lent));
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
    publish(pool);
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

/* When the database is away nobody waits for it: it may be long. */
static void fail_waiters(struct pool *pool)
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

/* Permits. */

/* The last session is kept for a while: to give it up would be to starve next. */
static bool can_spare(const struct pool *pool)
{
    const struct pg *last = list_entry(pool->idle.prev, struct pg, link);
    return !list_is_empty(&pool->idle) &&
           (list_length(&pool->idle) > 1 || last->idle_since + SECONDS(SPARE_S) <= pool->loop->now);
}

/* True if a session of ours should go to another worker. */
static bool must_give_up(const struct pool *pool)
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

/* True if a session has left just now: it, or its permit, will be back in a moment. */
static bool has_leaving(const struct pool *pool)
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

static bool has_sessions(const struct pool *pool)
{
    const struct list *lent = &pool->lent;
    for (const struct list *item = lent->next; item != lent; item = item->next) {
        if (!list_entry((void *)item, struct pg, link)->pipeline.read_only) {
            return true;
        }
    }
    return !list_is_empty(&pool->idle) || !list_is_empty(&pool->opening) || has_leaving(pool);
}

/* Tells the other workers what this one lacks. Those that let it pass look again when it is served.
 */
static void tell_need(struct pool *pool)
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

/* Sessions coming and going. */

static void on_idle(struct pg *pg);
static void on_failed(struct pg *pg, const struct error *err);
static bool server_answers(struct pg *pg);
static void on_closed(struct pg *pg);

static const struct pg_events pool_events = {
    .on_idle = on_idle,
    .on_failed = on_failed,
    .server_answers = server_answers,
    .on_closed = on_closed,
};

static void on_retry(struct timer *timer);

static void on_burial(struct timer *timer)
{
    serve(list_entry((void *)timer, struct pool, burial));
}

static bool take_permit(struct pool *pool)
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

static bool open_session(struct pool *pool)
{
    if (!take_permit(pool)) {
        return false;
    }
    struct pg *pg = pg_open(pool->loop, pool->helper, pool->target, &pool_events, pool,
                            pool->loop->now + pool->options.connect_timeout);
    list_prepend(&pool->opening, &pg->link);
    return true;
}

static void retire(struct pool *pool, struct pg *pg)
{
    depart(pool, pg);
    pg_close(pg);
    publish(pool);
}

static uint64_t jitter(uint64_t span)
{
    return span ? (uint64_t)random() % span : 0;
}

static void note_failure(struct pool *pool, const struct error *err)
{
    if (pool->down.code == ERROR_NONE) {
        log_event(LOG_ERROR, "database away", "%s", err->message);
        pool->backoff = MILLISECONDS(BACKOFF_MS);
    } else if (pool->backoff < MILLISECONDS(LONGEST_BACKOFF_MS)) {
        pool->backoff *= 2;
    }
    pool->down = *err;
    counter_add(pool->slot, pool_connect_failures_total, 1);
    loop_arm(pool->loop, &pool->retry, pool->loop->now + pool->backoff - jitter(pool->backoff / 4),
             on_retry);
    if (!is_alive(pool)) {
        atomic_store(&pool->shared->database_up, false);
        fail_waiters(pool);
    }
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
    if (atomic_load(&pool->shared->database_up)) {
        note_success(pool);
        return;
    }
    if (pool->down.code == ERROR_NONE) {
        error_set(&pool->down, ERROR_UNAVAILABLE, "the database is not available");
        pool->backoff = MILLISECONDS(BACKOFF_MS);
    }
    if (!is_alive(pool)) {
        fail_waiters(pool);
    }
    loop_arm(pool->loop, &pool->retry, pool->loop->now + pool->backoff, on_retry);
}

static void on_retry(struct timer *timer)
{
    struct pool *pool = list_entry((void *)timer, struct pool, retry);
    if (!list_is_empty(&pool->opening) || open_session(pool)) {
        return;
    }
    if (!is_alive(pool) && has_leaving(pool)) {
        /* Those that broke hold the permits. All workers may be in this place: somebody must find
         * out whether the database is there. */
        loop_arm(pool->loop, timer, pool->loop->now + MILLISECONDS(BACKOFF_MS), on_retry);
    } else {
        learn_from_others(pool);
    }
}

static bool retire_if_old(struct pool *pool, struct pg *pg)
{
    if (pool->loop->now < pg->expires_at) {
        return false;
    }
    counter_add(pool->slot, pool_lifetime_closes_total, 1);
    retire(pool, pg);
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

static void on_idle(struct pg *pg)
{
    struct pool *pool = pg->owner;
    pool->answered_at = pool->loop->now;
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
        retire(pool, pg);
        return;
    }
    note_use(pool, pg);
    put_to_rest(pool, pg);
    serve(pool);
}

static void on_failed(struct pg *pg, const struct error *err)
{
    struct pool *pool = pg->owner;
    depart(pool, pg);
    if (!pg->was_open) {
        note_failure(pool, err);
    } else if (!is_alive(pool) && list_is_empty(&pool->opening)) {
        /* Find out at once whether the database is there, rather than on the next request. */
        log_event(LOG_WARN, "session lost", "%s", err->message);
        loop_arm(pool->loop, &pool->retry, pool->loop->now, on_retry);
    }
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
    serve(pool);
}

static void open_for_waiters(struct pool *pool)
{
    size_t waiting = pool->waiting;
    size_t coming = list_length(&pool->opening);
    /* One attempt at a time while it is not known that the database answers. */
    size_t most = is_alive(pool) && pool->down.code == ERROR_NONE ? waiting : 1;
    while (coming < waiting && coming < most && open_session(pool)) {
        coming++;
    }
}

/* The idle session to lend next; NULL if there is none. One that has rested for long and has
 * something to say is left out: it may have ended, and the loop will read it next. */
static struct pg *next_idle(const struct pool *pool)
{
    struct list *item, *following;
    list_for_each (item, following, &pool->idle) {
        struct pg *pg = list_entry(item, struct pg, link);
        if (pg->idle_since + SECONDS(TRUSTED_S) > pool->loop->now || pg_is_quiet(pg)) {
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

/* Brings together those who wait and what is idle. */
static void serve(struct pool *pool)
{
    struct pg *pg;
    while (!list_is_empty(&pool->waiters) && (pg = next_idle(pool))) {
        if (must_give_up(pool)) {
            retire(pool, pg);
        } else {
            serve_oldest(pool, pg);
        }
    }
    refuse_hopeless(pool);
    if (!list_is_empty(&pool->waiters) && !pool->retry.slot) {
        open_for_waiters(pool);
    }
    if (list_is_empty(&pool->waiters) && !list_is_empty(&pool->idle) && must_give_up(pool)) {
        retire(pool, list_entry(pool->idle.prev, struct pg, link));
    }
    tell_need(pool);
    publish(pool);
}

void pool_warm(struct pool *pool)
{
    open_session(pool);
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
    if (pool->down.code != ERROR_NONE && !is_alive(pool)) {
        /* Told from the loop, as all else: the timer is due at once. */
        loop_arm(pool->loop, &pool->housework, pool->loop->now, on_housework);
    } else {
        serve(pool);
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
    tell_need(pool);
}

void pool_release(struct pool *pool, struct pg *pg, bool cancel)
{
    if (cancel) {
        counter_add(pool->slot, cancels_total, !pipeline_is_idle(&pg->pipeline));
    }
    depart(pool, pg);
    if (pg_release(pg, cancel)) {
        on_idle(pg);
    } else {
        publish(pool);
    }
}

void pool_lost(struct pool *pool, struct pg *pg)
{
    depart(pool, pg);
}

void pool_attend(struct pool *pool)
{
    serve(pool);
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
            retire(pool, pg);
            idle--;
        }
    }
}

static void check_idle(struct pool *pool)
{
    struct list *item, *following;
    list_for_each (item, following, &pool->idle) {
        struct pg *pg = list_entry(item, struct pg, link);
        if (pg->heard_at + pool->options.health_check <= pool->loop->now) {
            depart(pool, pg);
            pg_check(pg);
        }
    }
}

static void keep_minimum(struct pool *pool)
{
    size_t have = list_length(&pool->idle) + list_length(&pool->opening);
    while (have < pool->options.min_idle && !pool->retry.slot && open_session(pool)) {
        have++;
    }
}

static void on_housework(struct timer *timer)
{
    struct pool *pool = list_entry((void *)timer, struct pool, housework);
    /* First, since who asks again on being refused wants it sooner. */
    loop_arm(pool->loop, timer, pool->loop->now + MILLISECONDS(HOUSEWORK_MS), on_housework);
    if (pool->down.code != ERROR_NONE && !is_alive(pool)) {
        fail_waiters(pool);
    }
    retire_idle(pool);
    keep_minimum(pool);
    check_idle(pool);
    serve(pool);
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
    list_init(&pool->opening);
    list_init(&pool->idle);
    list_init(&pool->lent);
    list_init(&pool->leaving);
    list_init(&pool->waiters);
    list_init(&pool->refused);
    loop_arm(loop, &pool->housework, loop->now, on_housework);
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
