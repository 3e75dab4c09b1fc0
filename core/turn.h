/* Turns: within a worker, transactions that are serialised by the same key wait for each other
 * here, in memory, before they take a connection. Between workers and hosts the database's lock
 * orders them; so at most one transaction per worker holds a connection while it waits for that
 * lock. */
#ifndef MOONPOOL_TURN_H
#define MOONPOOL_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

struct turn_queue;

struct turns {
    struct list queues; /* of struct turn_queue, one per key in use */
};

/* One who waits or whose turn it is. Embedded. */
struct turn {
    struct list link;         /* its queue's members: the first one's turn it is */
    struct turn_queue *queue; /* NULL when it neither waits nor has its turn */
    void (*granted)(struct turn *turn);
};

void turns_init(struct turns *turns);

/* Takes its turn at once (true), or waits for `granted` to be called (false). */
bool turn_take(struct turns *turns, struct turn *turn, const char *key);

/* Ends its turn, or stops waiting; the next one's `granted` is called from here. Nothing if it does
 * neither. */
void turn_end(struct turns *turns, struct turn *turn);

#endif
