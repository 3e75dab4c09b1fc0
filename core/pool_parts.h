/* What the files of the pool tell each other; everyone else includes pool.h. */
#ifndef MOONPOOL_POOL_PARTS_H
#define MOONPOOL_POOL_PARTS_H

#include <stdbool.h>
#include <stddef.h>

#include "list.h"
#include "pool.h"

struct pg;
struct timer;

static inline size_t list_length(const struct list *head)
{
    size_t length = 0;
    for (const struct list *item = head->next; item != head; item = item->next) {
        length++;
    }
    return length;
}

/* True if there is a session that works. */
static inline bool pool_is_alive(const struct pool *pool)
{
    return !list_is_empty(&pool->idle) || !list_is_empty(&pool->lent);
}

/* pool_permit.c. True if there is a session that may be lent, now or later: none of a lane's. */
bool pool_can_lend(const struct pool *pool);

/* pool.c. Brings together those who wait and what is idle. */
void pool_serve(struct pool *pool);

/* The database is away: nobody waits for it, since it may be long. */
void pool_fail_waiters(struct pool *pool);

/* The session begins to be cleaned or closed. */
void pool_depart(struct pool *pool, struct pg *pg);

/* Writes into shared memory how many sessions and waiters there are. */
void pool_publish(struct pool *pool);

/* pool_permit.c. False if there is none to be had for now. */
bool pool_take_permit(struct pool *pool);

/* True if a session of ours should go to another worker. */
bool pool_must_give_up(const struct pool *pool);

/* True if a session has left just now: it, or its permit, will be back in a moment. */
bool pool_has_leaving(const struct pool *pool);

/* Tells the other workers what this one lacks. */
void pool_tell_need(struct pool *pool);

/* pool_session.c. False if there is no permit. */
bool pool_open_session(struct pool *pool);

/* As many as those who wait need, and the database bears. */
void pool_open_for_waiters(struct pool *pool);

/* Tries at once whether one can be opened. */
void pool_look_for_server(struct pool *pool);

/* Closes a session that is on one of the lists. */
void pool_retire(struct pool *pool, struct pg *pg);

/* Has those that rest show that the server is there: none is lent before. */
void pool_check_idle(struct pool *pool);

/* The session is IDLE: it is kept and lent on, or closed if it is old or worn. */
void pool_on_idle(struct pg *pg);

/* pool_news.c. Gives up all sessions if the server was found to take no writes any more. */
void pool_heed_forsaken(struct pool *pool);

/* One of our sessions fell silent: those that rest are checked, in all workers. */
void pool_tell_silence(struct pool *pool);

/* Checks those that rest if a session of another worker fell silent. */
void pool_heed_silence(struct pool *pool);

/* pool_session.c. Of the timer `housework`: lifetimes, idle times, the minimum. */
void pool_on_housework(struct timer *timer);

#endif
