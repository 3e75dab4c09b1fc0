/* A queue per key, made when the first one comes and freed with the last. */
#include "turn.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "error.h"
#include "pace.h"

struct turn_queue {
    struct list link;
    struct list members; /* the first one's turn it is */
    uint32_t count;      /* how many they are */
    struct pace pace;    /* how long turns take */
    char key[];
};

void turns_init(struct turns *turns, struct loop *loop)
{
    memset(turns, 0, sizeof *turns);
    turns->loop = loop;
    list_init(&turns->queues);
    list_init(&turns->refused);
}

void turns_finish(struct turns *turns)
{
    loop_disarm(turns->loop, &turns->telling);
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
    struct turn_queue *queue = memory_zalloc(sizeof *queue + strlen(key) + 1);
    strcpy(queue->key, key);
    list_init(&queue->members);
    list_append(&turns->queues, &queue->link);
    return queue;
}

static void on_telling(struct timer *timer)
{
    struct turns *turns = list_entry((void *)timer, struct turns, telling);
    struct error err;
    error_set(&err, ERROR_OVERLOADED,
              "too many transactions wait for their turn for this one to be done by its deadline");
    while (!list_is_empty(&turns->refused)) {
        struct turn *turn = list_entry(turns->refused.next, struct turn, link);
        list_remove(&turn->link);
        turn->granted(turn, &err);
    }
}

static void refuse(struct turns *turns, struct turn *turn)
{
    list_append(&turns->refused, &turn->link);
    loop_arm(turns->loop, &turns->telling, turns->loop->now, on_telling);
}

static void leave(struct turn *turn)
{
    list_remove(&turn->link);
    turn->queue->count--;
    turn->queue = NULL;
}

static void send_away(struct turns *turns, struct turn *turn)
{
    leave(turn);
    refuse(turns, turn);
}

static bool is_hopeless(const struct turns *turns, struct turn_queue *queue, uint32_t ahead,
                        const struct turn *turn)
{
    return pace_is_hopeless(&queue->pace, turns->loop->now, ahead, 1, turn->deadline);
}

bool turn_take(struct turns *turns, struct turn *turn, const char *key)
{
    struct turn_queue *queue = find_queue(turns, key);
    bool first = queue->count == 0;
    if (!first && is_hopeless(turns, queue, queue->count - 1, turn)) {
        refuse(turns, turn);
        return false;
    }
    turn->queue = queue;
    turn->since = turns->loop->now;
    list_append(&queue->members, &turn->link);
    queue->count++;
    return first;
}

static struct turn *first_of(const struct turn_queue *queue)
{
    return list_is_empty(&queue->members) ? NULL
                                          : list_entry(queue->members.next, struct turn, link);
}

/* The one who can still make it; the others are refused. */
static struct turn *next_of(struct turns *turns, struct turn_queue *queue)
{
    struct turn *next = first_of(queue);
    while (next && is_hopeless(turns, queue, 0, next)) {
        send_away(turns, next);
        next = first_of(queue);
    }
    return next;
}

/* Those who came last, when turns have become longer. */
static void refuse_last(struct turns *turns, struct turn_queue *queue)
{
    while (queue->count > 1) {
        struct turn *last = list_entry(queue->members.prev, struct turn, link);
        if (!is_hopeless(turns, queue, queue->count - 1, last)) {
            return;
        }
        send_away(turns, last);
    }
}

static void pass_on(struct turns *turns, struct turn_queue *queue)
{
    struct turn *next = next_of(turns, queue);
    if (next) {
        next->since = turns->loop->now;
        refuse_last(turns, queue);
        next->granted(next, NULL);
    } else {
        list_remove(&queue->link);
        free(queue);
    }
}

void turn_end(struct turns *turns, struct turn *turn)
{
    struct turn_queue *queue = turn->queue;
    if (!queue) {
        list_remove(&turn->link); /* It may have been refused, and not told yet. */
        return;
    }
    bool had_turn = queue->members.next == &turn->link;
    leave(turn);
    if (had_turn) {
        pace_note(&queue->pace, turns->loop->now - turn->since, turns->loop->now);
        pass_on(turns, queue);
    }
}
