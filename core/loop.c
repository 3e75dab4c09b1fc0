/* epoll and timers, one tick at a time. */
#include "loop.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "error.h"

int loop_init(struct loop *loop, struct error *err)
{
    memset(loop, 0, sizeof *loop);
    timers_init(&loop->timers);
    loop->now = clock_now();
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0) {
        return error_set(err, ERROR_MEMORY, "epoll_create1: %s", strerror(errno));
    }
    return 0;
}

void loop_finish(struct loop *loop)
{
    if (loop->epoll_fd >= 0) {
        close(loop->epoll_fd);
        loop->epoll_fd = -1;
    }
    timers_finish(&loop->timers);
}

int loop_add(struct loop *loop, struct watch *watch, int fd, uint32_t events,
             void (*ready)(struct watch *watch, uint32_t events))
{
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        return -1;
    }
    watch->fd = fd;
    watch->events = events;
    watch->ready = ready;
    return 0;
}

void loop_change(struct loop *loop, struct watch *watch, uint32_t events)
{
    if (watch->events == events) {
        return;
    }
    struct epoll_event event = {.events = events, .data.ptr = watch};
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event);
    watch->events = events;
}

void loop_remove(struct loop *loop, struct watch *watch)
{
    if (watch->fd < 0) {
        return;
    }
    epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->fd = -1;
    for (int i = 0; i < loop->event_count; i++) {
        if (loop->events[i].data.ptr == watch) {
            loop->events[i].data.ptr = NULL;
        }
    }
}

static int wait_milliseconds(const struct loop *loop, uint64_t at_most)
{
    uint64_t next = timers_next(&loop->timers);
    uint64_t until = next < at_most ? next : at_most;
    if (until == DEADLINE_NEVER) {
        return -1;
    }
    /* Rounded up: waking a moment too early would spin. */
    uint64_t left = (deadline_left(until, clock_now()) + 999) / 1000;
    return left > 60000 ? 60000 : (int)left;
}

void loop_wait(struct loop *loop, uint64_t at_most)
{
    int timeout = at_most == 0 ? 0 : wait_milliseconds(loop, at_most);
    int count = epoll_wait(loop->epoll_fd, loop->events, LOOP_BATCH, timeout);
    loop->now = clock_now();
    loop->event_count = count > 0 ? count : 0;
    for (int i = 0; i < loop->event_count; i++) {
        struct watch *watch = loop->events[i].data.ptr;
        if (watch) {
            watch->ready(watch, loop->events[i].events);
        }
    }
    loop->event_count = 0;
    timers_run(&loop->timers, loop->now);
}

void loop_arm(struct loop *loop, struct timer *timer, uint64_t at,
              void (*fire)(struct timer *timer))
{
    timer_arm(&loop->timers, timer, at, fire);
}

void loop_disarm(struct loop *loop, struct timer *timer)
{
    timer_disarm(&loop->timers, timer);
}
