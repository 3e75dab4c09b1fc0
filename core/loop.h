/* One epoll and its timers: where a worker waits. A watch is a file descriptor and a callback; its
 * owner embeds it. Level-triggered. */
#ifndef MOONPOOL_LOOP_H
#define MOONPOOL_LOOP_H

#include <stdint.h>
#include <sys/epoll.h>

#include "deadline.h"

struct error;

struct watch {
    int fd;          /* borrowed; -1 while not watched */
    uint32_t events; /* EPOLLIN, EPOLLOUT, ... as last set */
    /* Called with what happened. May remove this or any other watch. */
    void (*ready)(struct watch *watch, uint32_t events);
};

enum { LOOP_BATCH = 256 }; /* events taken from the kernel at once */

struct loop {
    int epoll_fd;
    struct timers timers;
    uint64_t now; /* clock_now() as of the start of this tick */
    struct epoll_event events[LOOP_BATCH];
    int event_count;
};

int loop_init(struct loop *loop, struct error *err);
void loop_finish(struct loop *loop);

/* Starts watching `fd`; the watch must not be watching already. -1 with errno set if the kernel
 * refuses. */
int loop_add(struct loop *loop, struct watch *watch, int fd, uint32_t events,
             void (*ready)(struct watch *watch, uint32_t events));

/* Changes the events; costs a system call only if they differ. */
void loop_change(struct loop *loop, struct watch *watch, uint32_t events);

/* Stops watching. Must be called before the descriptor is closed. Nothing if not watched. Events
 * already taken from the kernel in this tick are not delivered any more. */
void loop_remove(struct loop *loop, struct watch *watch);

/* Waits until something happens, a timer is due or `at_most` (absolute) has come; then calls what
 * is ready, then the timers. Pass 0 to poll without waiting. */
void loop_wait(struct loop *loop, uint64_t at_most);

/* For short: arms and disarms on the loop's timers. */
void loop_arm(struct loop *loop, struct timer *timer, uint64_t at,
              void (*fire)(struct timer *timer));
void loop_disarm(struct loop *loop, struct timer *timer);

#endif
