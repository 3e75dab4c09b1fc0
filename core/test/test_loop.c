/* The loop: what a callback may do to watches that are ready in the same tick, and waiting. */
#include "loop.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "list.h"
#include "test.h"

struct source {
    struct watch watch;
    int fd; /* an eventfd */
    unsigned calls;
    struct source *removes; /* what its callback removes, or NULL */
};

static struct loop loop;
static struct source sources[2];

static void on_ready(struct watch *watch, uint32_t events)
{
    struct source *source = list_entry(watch, struct source, watch);
    source->calls++;
    if (source->removes) {
        loop_remove(&loop, &source->removes->watch);
    }
}

static void open_sources(unsigned value)
{
    struct error err;
    check_int(loop_init(&loop, &err), 0, "a loop begins");
    for (int i = 0; i < 2; i++) {
        sources[i] = (struct source){.watch.fd = -1, .fd = eventfd(value, EFD_NONBLOCK)};
        check_int(loop_add(&loop, &sources[i].watch, sources[i].fd, EPOLLIN, on_ready), 0,
                  "a descriptor is watched");
    }
}

static void close_sources(void)
{
    for (int i = 0; i < 2; i++) {
        loop_remove(&loop, &sources[i].watch);
        close(sources[i].fd);
    }
    loop_finish(&loop);
}

/* Whichever comes first removes the other. */
static void test_remove_other(void)
{
    open_sources(1);
    sources[0].removes = &sources[1];
    sources[1].removes = &sources[0];
    loop_wait(&loop, 0);
    check_int(sources[0].calls + sources[1].calls, 1, "a removed watch is not called in its tick");
    loop_wait(&loop, 0);
    check_int(sources[0].calls + sources[1].calls, 2, "nor in the next one");
    close_sources();
}

static void test_remove_itself(void)
{
    open_sources(1);
    sources[0].removes = &sources[0];
    loop_wait(&loop, 0);
    loop_wait(&loop, 0);
    check_int(sources[0].calls, 1, "a watch that removes itself is called once");
    check_int(sources[1].calls, 2, "the other in each tick, while it is ready");
    check_int(sources[0].watch.fd, -1, "a removed watch says so");
    loop_remove(&loop, &sources[0].watch);
    close_sources();
}

static void test_change(void)
{
    open_sources(0);
    loop_wait(&loop, 0);
    check_int(sources[0].calls, 0, "nothing to read, nothing called");
    loop_change(&loop, &sources[0].watch, EPOLLOUT);
    loop_wait(&loop, 0);
    check_int(sources[0].calls, 1, "the events looked for are changed");
    loop_change(&loop, &sources[0].watch, 0);
    loop_wait(&loop, 0);
    check_int(sources[0].calls, 1, "and can be none");
    struct watch again = {.fd = -1};
    check_int(loop_add(&loop, &again, sources[0].fd, EPOLLIN, on_ready), -1,
              "what is watched cannot be watched twice");
    check_int(again.fd, -1, "and the second watch stays unused");
    close_sources();
}

static unsigned fired;

static void on_timer(struct timer *timer)
{
    fired++;
}

static void test_wait(void)
{
    struct timer timer = {0};
    open_sources(0);
    uint64_t begun = clock_now();
    loop_wait(&loop, begun + MILLISECONDS(5));
    check(clock_now() >= begun + MILLISECONDS(5), "a wait ends at its time, not before");
    loop_arm(&loop, &timer, begun + MILLISECONDS(12), on_timer);
    while (!fired) {
        loop_wait(&loop, DEADLINE_NEVER);
    }
    check(loop.now >= begun + MILLISECONDS(12), "a timer ends a wait, in time");
    loop_arm(&loop, &timer, 1, on_timer);
    loop_wait(&loop, DEADLINE_NEVER);
    check_int(fired, 2, "one for the past fires at once");
    loop_arm(&loop, &timer, 1, on_timer);
    loop_disarm(&loop, &timer);
    loop_wait(&loop, 0);
    check_int(fired, 2, "a disarmed one does not");
    close_sources();
}

int main(void)
{
    test_remove_other();
    test_remove_itself();
    test_change();
    test_wait();
    return test_end();
}
