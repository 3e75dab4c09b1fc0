/* What one session shows of the database concerns those of all workers: that DDL has made stale
 * what is prepared, that the server takes no writes any more, or that it does not answer. Each
 * piece of news is a count in shared memory; who has heard of fewer acts on it. */
#include "pool.h"

#include "log.h"
#include "pg.h"
#include "pg_target.h"
#include "pool_parts.h"
#include "shared.h"

void pool_renew(struct pool *pool, struct pg *pg)
{
    uint64_t change = atomic_load(&pool->shared->schema_change);
    if (pg->schema_change != change) {
        prepared_renew_all(&pg->pipeline.prepared);
        pg->schema_change = change;
    }
}

/* Unless they know: many sessions meet the same change. */
static void tell_stale(struct pool *pool, struct pg *pg)
{
    uint64_t known = pg->schema_change;
    atomic_compare_exchange_strong(&pool->shared->schema_change, &known, known + 1);
    pg->schema_change = atomic_load(&pool->shared->schema_change);
    pg->pipeline.outdated = false;
}

/* A session that was opened since then has met it anew. */
static void tell_read_only(struct pool *pool, const struct pg *pg)
{
    if (pg->opened_at > pool->forsaken_at) {
        log_event(LOG_WARN, "server read-only", "PostgreSQL takes no writes any more");
        atomic_fetch_add(&pool->shared->forsaken, 1);
        shared_wake_all(pool->shared);
    }
}

void pool_look_at(struct pool *pool, struct pg *pg)
{
    pool->silent_since = 0;
    if (pg->pipeline.outdated) {
        tell_stale(pool, pg);
    }
    if (pg_turned_read_only(pg) && pool->target->writes) {
        tell_read_only(pool, pg);
    }
}

/* What is lent is closed when it comes back, and a lane when it is at rest. */
static void forsake(struct pool *pool)
{
    struct list *item, *following;
    list_for_each (item, following, &pool->lent) {
        list_entry(item, struct pg, link)->pipeline.retire = true;
    }
    list_for_each (item, following, &pool->idle) {
        pool_retire(pool, list_entry(item, struct pg, link));
    }
    pool_look_for_server(pool);
}

void pool_heed_forsaken(struct pool *pool)
{
    uint64_t forsaken = atomic_load(&pool->shared->forsaken);
    if (pool->forsaken != forsaken) {
        pool->forsaken = forsaken;
        pool->forsaken_at = pool->loop->now;
        forsake(pool);
    }
}

void pool_tell_silence(struct pool *pool)
{
    atomic_fetch_add(&pool->shared->silences, 1);
    shared_wake_all(pool->shared);
    pool_heed_silence(pool);
}

void pool_heed_silence(struct pool *pool)
{
    uint64_t silences = atomic_load(&pool->shared->silences);
    if (pool->silences != silences) {
        pool->silences = silences;
        pool_check_idle(pool);
    }
}
