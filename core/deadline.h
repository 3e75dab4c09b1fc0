/* Time: the clock, and a heap of timers. Every deadline is absolute: microseconds on
 * CLOCK_MONOTONIC in a uint64_t. Relative times become absolute where they enter the program. */
#ifndef MOONPOOL_DEADLINE_H
#define MOONPOOL_DEADLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEADLINE_NEVER UINT64_MAX
#define MILLISECONDS(n) ((uint64_t)(n)*1000)
#define SECONDS(n) ((uint64_t)(n)*1000000)

/* Now, in microseconds. The only reader of the clock; safe in a signal handler. */
uint64_t clock_now(void);

/* What is left until `deadline`, in microseconds; 0 if it has passed. */
uint64_t deadline_left(uint64_t deadline, uint64_t now);

/* Embedded in the struct that waits. Zeroed memory is a timer that is not armed. */
struct timer {
    uint64_t at;
    size_t slot; /* 1-based place in the heap; 0 when not armed */
    void (*fire)(struct timer *timer);
};

struct timers {
    struct timer **heap; /* owned array of borrowed timers; earliest first */
    size_t count;
    size_t capacity;
    uint64_t running; /* the time up to which timers_run() is firing; 0 outside of it */
};

void timers_init(struct timers *timers);
void timers_finish(struct timers *timers);

/* Arms `timer` to call `fire` once at `at`; moves it if it is armed already. */
void timer_arm(struct timers *timers, struct timer *timer, uint64_t at,
               void (*fire)(struct timer *timer));

/* Does nothing if the timer is not armed. */
void timer_disarm(struct timers *timers, struct timer *timer);

/* The earliest armed time, or DEADLINE_NEVER. */
uint64_t timers_next(const struct timers *timers);

/* Fires every timer whose time has come. A timer is disarmed before its `fire` is called, which may
 * arm and disarm any timer. What a `fire` arms for the past or for `now` is due right after `now`,
 * in a later call. */
void timers_run(struct timers *timers, uint64_t now);

#endif
