/* Shared memory: the permits for sessions, over processes and over their deaths. */
#include "shared.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "test.h"

static struct shared *create(uint32_t workers, uint32_t pool_max)
{
    struct error err;
    struct shared *shared = shared_create(workers, pool_max, &err);
    check(shared != NULL, "%u workers share a mapping", workers);
    return shared;
}

static bool is_woken(int fd)
{
    uint64_t count;
    return read(fd, &count, sizeof count) == sizeof count;
}

static void test_permits(void)
{
    struct shared *shared = create(2, 3);
    struct shared_worker *a = &shared->workers[0], *b = &shared->workers[1];
    check(shared_take_session(shared, a), "the first permit is taken");
    check(shared_take_session(shared, a), "so is the second");
    check(shared_take_session(shared, b), "and the third, by another worker");
    check(!shared_take_session(shared, b), "there is no fourth");
    check(!is_woken(b->wake_fd), "nobody has been woken yet");
    shared_return_session(shared, a);
    check(is_woken(b->wake_fd), "a permit returned to an exhausted pool wakes the others");
    check(!is_woken(a->wake_fd), "but not who returned it");
    shared_return_session(shared, a);
    check(!is_woken(b->wake_fd), "one that returns when there are more wakes nobody");
    check_int(a->sessions, 0, "the slot holds none");
    check_int(b->sessions, 1, "the other slot keeps its own");
    shared_destroy(shared);
}

static void test_bury(void)
{
    struct shared *shared = create(2, 2);
    struct shared_worker *dead = &shared->workers[0], *other = &shared->workers[1];
    shared_take_session(shared, dead);
    shared_take_session(shared, dead);
    dead->pid = 1234;
    dead->ready = true;
    dead->starved = 5;
    dead->idle = 1;
    counter_add(dead, requests_total, 7);
    check(!shared_take_session(shared, other), "the dead worker holds all permits");
    shared_bury(shared, dead);
    check(is_woken(other->wake_fd), "burying it wakes the others");
    check(shared_take_session(shared, other), "the permit of its idle session is free");
    check(!shared_take_session(shared, other), "that of a busy one not before it has ended");
    dead->ghosts_until = 0;
    check(shared_take_session(shared, other), "and then it is");
    check_int(dead->pid, 0, "its slot has no process");
    check(!dead->ready, "and is not ready");
    check_int(dead->starved, 0, "and waits for nothing");
    check_int(dead->counters.requests_total, 7, "what it had counted stays");
    shared_destroy(shared);
}

static void test_starving(void)
{
    struct shared *shared = create(3, 1);
    uint64_t since = 99;
    check(!shared_others_starve(shared, &shared->workers[0], &since), "nobody starves");
    check_int(since, 99, "and the result is left alone");
    shared->workers[0].starved = 10;
    check(!shared_others_starve(shared, &shared->workers[0], &since), "oneself is not another");
    shared->workers[1].starved = 30;
    shared->workers[2].starved = 20;
    check(shared_others_starve(shared, &shared->workers[0], &since), "others starve");
    check_int(since, 20, "the longest since 20");
    shared_destroy(shared);
}

static void test_wakes(void)
{
    struct shared *shared = create(2, 1);
    shared_wake_all(shared);
    check(is_woken(shared->workers[0].wake_fd), "all are woken: the first");
    check(is_woken(shared->workers[1].wake_fd), "all are woken: the second");
    check(!is_woken(shared->master_wake_fd), "the master sleeps on");
    shared_wake_master(shared);
    check(is_woken(shared->master_wake_fd), "the master wakes too");
    shared_destroy(shared);
}

/* A child that dies with the lock in its hands. */
static void die_locked(struct shared *shared)
{
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(&shared->lock);
        shared->workers[1].sessions++;
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
}

static void test_robust(void)
{
    struct shared *shared = create(2, 2);
    die_locked(shared);
    check(shared_take_session(shared, &shared->workers[0]), "the lock outlives its dead owner");
    check(!shared_take_session(shared, &shared->workers[0]), "the dead one's permit is missed");
    shared->workers[1].idle = 1;
    shared_bury(shared, &shared->workers[1]);
    check(shared_take_session(shared, &shared->workers[0]), "until it is buried");
    die_locked(shared);
    shared->workers[1].idle = 1;
    shared_bury(shared, &shared->workers[1]);
    shared_return_session(shared, &shared->workers[0]);
    check_int(shared->workers[0].sessions, 1, "and again");
    shared_destroy(shared);
}

enum { RACERS = 4, ROUNDS = 20000, PERMITS = 3 };

/* Takes and returns permits; exits 1 if ever more are out than there are. */
static void race(struct shared *shared, uint32_t index)
{
    struct shared_worker *self = &shared->workers[index];
    for (int i = 0; i < ROUNDS; i++) {
        if (shared_take_session(shared, self)) {
            uint64_t out = atomic_fetch_add(&shared->generation, 1) + 1;
            if (out > PERMITS) {
                _exit(1);
            }
            atomic_fetch_sub(&shared->generation, 1);
            shared_return_session(shared, self);
        }
    }
    _exit(0);
}

static void test_race(void)
{
    struct shared *shared = create(RACERS, PERMITS);
    pid_t children[RACERS];
    for (uint32_t i = 0; i < RACERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            race(shared, i);
        }
    }
    bool good = true;
    for (uint32_t i = 0; i < RACERS; i++) {
        int status = -1;
        waitpid(children[i], &status, 0);
        good = good && status == 0 && shared->workers[i].sessions == 0;
    }
    check(good, "%d processes never hold more than %d permits", RACERS, PERMITS);
    shared_destroy(shared);
}

int main(void)
{
    test_permits();
    test_bury();
    test_starving();
    test_wakes();
    test_robust();
    test_race();
    shared_destroy(NULL);
    return test_end();
}
