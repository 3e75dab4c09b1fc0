/* The mapping that master and workers share, and the count of sessions in it. Owned by the master;
 * the workers inherit it. A worker may die at any instruction: the lock is robust, and what it
 * guards is one number per worker, which is whole at any time. */
#include "shared.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "deadline.h"
#include "error.h"

static int init_lock(pthread_mutex_t *lock)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    int status = pthread_mutex_init(lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    return status;
}

static int make_eventfd(void)
{
    return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static int make_eventfds(struct shared *shared)
{
    shared->master_wake_fd = make_eventfd();
    bool good = shared->master_wake_fd >= 0;
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        shared->workers[i].wake_fd = make_eventfd();
        good = good && shared->workers[i].wake_fd >= 0;
    }
    return good ? 0 : -1;
}

struct shared *shared_create(uint32_t worker_count, uint32_t pool_max, struct error *err)
{
    assert(worker_count > 0 && worker_count <= SHARED_WORKERS);
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE,
                                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (shared == MAP_FAILED) {
        error_set(err, ERROR_MEMORY, "shared memory: %s", strerror(errno));
        return NULL;
    }
    shared->worker_count = worker_count;
    shared->pool_max = pool_max;
    if (make_eventfds(shared) != 0 || init_lock(&shared->lock) != 0 ||
        init_lock(&shared->desk.lock) != 0) {
        error_set(err, ERROR_MEMORY, "shared memory: %s", strerror(errno));
        shared_destroy(shared);
        return NULL;
    }
    return shared;
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

void shared_destroy(struct shared *shared)
{
    if (!shared) {
        return;
    }
    close_if_open(shared->master_wake_fd);
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        close_if_open(shared->workers[i].wake_fd);
    }
    munmap(shared, sizeof *shared);
}

static void lock(struct shared *shared)
{
    int status = pthread_mutex_lock(&shared->lock);
    if (status == EOWNERDEAD) {
        status = pthread_mutex_consistent(&shared->lock);
    }
    assert(status == 0);
}

static void unlock(struct shared *shared)
{
    pthread_mutex_unlock(&shared->lock);
}

/* Under the lock. */
static uint32_t count_sessions(const struct shared *shared)
{
    uint32_t sum = 0;
    uint64_t now = clock_now();
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        const struct shared_worker *worker = &shared->workers[i];
        sum += worker->sessions + (now < worker->ghosts_until ? worker->ghosts : 0);
    }
    return sum;
}

static void wake_others(struct shared *shared, const struct shared_worker *self)
{
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        if (&shared->workers[i] != self) {
            shared_wake(&shared->workers[i]);
        }
    }
}

bool shared_take_session(struct shared *shared, struct shared_worker *worker)
{
    lock(shared);
    bool taken = count_sessions(shared) < shared->pool_max;
    if (taken) {
        worker->sessions++;
    }
    unlock(shared);
    return taken;
}

uint32_t shared_count_sessions(struct shared *shared)
{
    lock(shared);
    uint32_t count = count_sessions(shared);
    unlock(shared);
    return count;
}

uint32_t shared_spare_sessions(const struct shared *shared, const struct shared_worker *self)
{
    uint32_t used = 0;
    uint32_t idle = 0;
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        const struct shared_worker *worker = &shared->workers[i];
        used += worker->sessions;
        idle += worker == self ? 0 : worker->idle;
    }
    return idle + (used < shared->pool_max ? shared->pool_max - used : 0);
}

bool shared_can_lend(const struct shared *shared)
{
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        if (shared->workers[i].lends) {
            return true;
        }
    }
    return false;
}

uint64_t shared_next_permit(struct shared *shared)
{
    uint64_t next = DEADLINE_NEVER;
    uint64_t now = clock_now();
    lock(shared);
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        const struct shared_worker *worker = &shared->workers[i];
        if (worker->ghosts > 0 && now < worker->ghosts_until && worker->ghosts_until < next) {
            next = worker->ghosts_until;
        }
    }
    unlock(shared);
    return next;
}

/* All others are woken rather than those that say they starve: one whose attempt has just failed
 * may not have said so yet. Sessions are returned seldom, so this costs little. */
void shared_return_session(struct shared *shared, struct shared_worker *worker)
{
    lock(shared);
    assert(worker->sessions > 0);
    bool exhausted = count_sessions(shared) >= shared->pool_max;
    worker->sessions--;
    unlock(shared);
    if (exhausted) {
        wake_others(shared, worker);
    }
}

/* An idle session ends with its client. One in the middle of a statement is noticed by the server
 * within client_connection_check_interval, which is a second (pg_open.c). */
enum { GHOSTS_MS = 1500 };

static void leave_ghosts(struct shared_worker *worker)
{
    uint32_t idle = worker->idle;
    uint64_t now = clock_now();
    uint32_t busy = worker->sessions > idle ? worker->sessions - idle : 0;
    worker->ghosts = busy + (now < worker->ghosts_until ? worker->ghosts : 0);
    worker->ghosts_until = now + MILLISECONDS(GHOSTS_MS);
}

/* Its counters stay: what the dead worker has done was done. */
void shared_bury(struct shared *shared, struct shared_worker *worker)
{
    lock(shared);
    leave_ghosts(worker);
    worker->sessions = 0;
    unlock(shared);
    desk_bury(&shared->desk, (uint32_t)(worker - shared->workers));
    worker->pid = 0;
    worker->ready = false;
    worker->starved = 0;
    worker->wanting = false;
    worker->opening = 0;
    worker->idle = 0;
    worker->lent = 0;
    worker->lends = false;
    worker->waiting = 0;
    worker->in_flight = 0;
    worker->connections = 0;
    worker->lua_bytes = 0;
    wake_others(shared, worker);
}

static void signal_eventfd(int fd)
{
    uint64_t one = 1;
    /* It fails only when the count is at its end, and then the reader is as good as awake. */
    ssize_t written = write(fd, &one, sizeof one);
    (void)written;
}

void shared_wake(struct shared_worker *worker)
{
    signal_eventfd(worker->wake_fd);
}

void shared_wake_all(struct shared *shared)
{
    wake_others(shared, NULL);
}

void shared_wake_master(struct shared *shared)
{
    signal_eventfd(shared->master_wake_fd);
}

bool shared_others_starve(struct shared *shared, const struct shared_worker *self,
                          uint64_t *ret_since)
{
    uint64_t oldest = UINT64_MAX;
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        uint64_t since = shared->workers[i].starved;
        if (&shared->workers[i] != self && since != 0 && since < oldest) {
            oldest = since;
        }
    }
    if (oldest == UINT64_MAX) {
        return false;
    }
    *ret_since = oldest;
    return true;
}

bool shared_others_want(struct shared *shared, const struct shared_worker *self)
{
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        if (&shared->workers[i] != self && shared->workers[i].wanting) {
            return true;
        }
    }
    return false;
}
