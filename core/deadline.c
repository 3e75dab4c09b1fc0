/* The clock and a binary heap of timers, each of which knows its place. */
#include "deadline.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "arena.h"

uint64_t clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t deadline_left(uint64_t deadline, uint64_t now)
{
    return deadline > now ? deadline - now : 0;
}

void timers_init(struct timers *timers)
{
    memset(timers, 0, sizeof *timers);
}

void timers_finish(struct timers *timers)
{
    free(timers->heap);
    timers_init(timers);
}

static void place(struct timers *timers, size_t slot, struct timer *timer)
{
    timers->heap[slot - 1] = timer;
    timer->slot = slot;
}

static void sift_up(struct timers *timers, struct timer *timer)
{
    size_t slot = timer->slot;
    while (slot > 1 && timers->heap[slot / 2 - 1]->at > timer->at) {
        place(timers, slot, timers->heap[slot / 2 - 1]);
        slot /= 2;
    }
    place(timers, slot, timer);
}

static void sift_down(struct timers *timers, struct timer *timer)
{
    size_t slot = timer->slot;
    for (;;) {
        size_t child = slot * 2;
        if (child > timers->count) {
            break;
        }
        if (child < timers->count && timers->heap[child]->at < timers->heap[child - 1]->at) {
            child++;
        }
        if (timers->heap[child - 1]->at >= timer->at) {
            break;
        }
        place(timers, slot, timers->heap[child - 1]);
        slot = child;
    }
    place(timers, slot, timer);
}

void timer_arm(struct timers *timers, struct timer *timer, uint64_t at,
               void (*fire)(struct timer *timer))
{
    timer->fire = fire;
    /* So that timers which arm themselves or each other cannot hold the loop. */
    timer->at = at > timers->running ? at : timers->running + 1;
    if (!timer->slot) {
        if (timers->count == timers->capacity) {
            timers->capacity = timers->capacity ? timers->capacity * 2 : 64;
            timers->heap = memory_realloc(timers->heap, timers->capacity * sizeof *timers->heap);
        }
        timers->count++;
        place(timers, timers->count, timer);
    }
    sift_up(timers, timer);
    sift_down(timers, timer);
}

void timer_disarm(struct timers *timers, struct timer *timer)
{
    if (!timer->slot) {
        return;
    }
    assert(timers->heap[timer->slot - 1] == timer);
    struct timer *last = timers->heap[timers->count - 1];
    size_t slot = timer->slot;
    timers->count--;
    timer->slot = 0;
    if (last != timer) {
        place(timers, slot, last);
        sift_up(timers, last);
        sift_down(timers, last);
    }
}

uint64_t timers_next(const struct timers *timers)
{
    return timers->count ? timers->heap[0]->at : DEADLINE_NEVER;
}

void timers_run(struct timers *timers, uint64_t now)
{
    timers->running = now;
    while (timers_next(timers) <= now) {
        struct timer *timer = timers->heap[0];
        timer_disarm(timers, timer);
        timer->fire(timer);
    }
    timers->running = 0;
}
