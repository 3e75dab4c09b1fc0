/* A queue per key, made when the first one comes and freed with the last. */
#include "turn.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"

struct turn_queue {
    struct list link;
    struct list members; /* the first one's turn it is */
    char key[];
};

void turns_init(struct turns *turns)
{
    list_init(&turns->queues);
}

static struct turn_queue *find_queue(struct turns *turns, const char *key)
{
    struct list *item, *following;
    list_for_each (item, following, &turns->queues) {
        struct turn_queue *queue = list_entry(item, struct turn_queue, link);
        if (strcmp(queue->key, key) == 0) {
            return queue;
        }
    }
    struct turn_queue *queue = memory_alloc(sizeof *queue + strlen(key) + 1);
    strcpy(queue->key, key);
    list_init(&queue->members);
    list_append(&turns->queues, &queue->link);
    return queue;
}

bool turn_take(struct turns *turns, struct turn *turn, const char *key)
{
    struct turn_queue *queue = find_queue(turns, key);
    bool first = list_is_empty(&queue->members);
    turn->queue = queue;
    list_append(&queue->members, &turn->link);
    return first;
}

void turn_end(struct turns *turns, struct turn *turn)
{
    struct turn_queue *queue = turn->queue;
    if (!queue) {
        return;
    }
    bool had_turn = queue->members.next == &turn->link;
    list_remove(&turn->link);
    turn->queue = NULL;
    if (list_is_empty(&queue->members)) {
        list_remove(&queue->link);
        free(queue);
    } else if (had_turn) {
        struct turn *next = list_entry(queue->members.next, struct turn, link);
        next->granted(next);
    }
}
