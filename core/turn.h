/* Turns: within a worker, transactions that are serialised by the same key wait for each other
 * here, in memory, before they take a connection. Between workers and hosts the database's lock
 * orders them; so at most one transaction per worker holds a connection while it waits for that
 * lock. Who clearly cannot be done by its deadline is refused at once. */
#ifndef MOONPOOL_TURN_H
#define MOONPOOL_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"
#include "loop.h"

struct error;
struct turn_queue;

struct turns {
    struct loop *loop;    /* borrowed */
    struct list queues;   /* of struct turn_queue, one per key in use */
    struct list refused;  /* of struct turn: are to be told */
    struct timer telling; /* when they are */
};

/* One who waits or whose turn it is. Embedded. */
struct turn {
    struct list link;         /* its queue's members: the first one's turn it is; or `refused` */
    struct turn_queue *queue; /* NULL when it neither waits nor has its turn */
    uint64_t deadline;        /* to be done by; 0 for none */
    uint64_t since;           /* when its turn began */
    /* Its turn has come; or, with an error and from the loop, it is refused. */
    void (*granted)(struct turn *turn, const struct error *err);
};

void turns_init(struct turns *turns, struct loop *loop);

/* Tells nobody any more. */
void turns_finish(struct turns *turns);

/* Takes its turn at once (true), or waits for `granted` to be called (false). */
bool turn_take(struct turns *turns, struct turn *turn, const char *key);

/* Ends its turn, or stops waiting; the next one's `granted` is called from here. Nothing if it does
 * neither. */
void turn_end(struct turns *turns, struct turn *turn);

#endif
