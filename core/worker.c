/* A worker puts the parts together and turns the loop: PostgreSQL and timers, then what is ready to
 * run, then HTTP.
 *
 *   BOOTING -> SERVING    [on_booted]
 *   SERVING -> DRAINING   [on_signal]    no new connections, requests run to their end
 *   SERVING -> DRAINING   [on_booted]    it was told so before, while somebody waited for it
 *   any     -> STOPPED    [on_booted, on_signal, drain] */
#include "worker.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "admin.h"
#include "app.h"
#include "config.h"
#include "error.h"
#include "generation.h"
#include "helper.h"
#include "http.h"
#include "listener.h"
#include "log.h"
#include "loop.h"
#include "pg_target.h"
#include "pool.h"
#include "shared.h"
#include "tx.h"
#include "vm.h"

enum {
    HEARTBEAT_MS = 500,
    ADMIN_DEADLINE_S = 5,
    ADMIN_BODY_LIMIT = 1024,
    ADMIN_HEADER_LIMIT = 4096
};

enum { OWN_DESCRIPTORS = 64, ADMIN_CONNECTIONS = 32, MOST_CONNECTIONS = 1000 * 1000 };

/* A worker without a request for this long gives back what the last ones left, if worth it. */
enum { TIDY_AFTER_MS = 1000, TIDY_PAGES = 64 };

/* How long an idle keep-alive connection may still send a request after draining has begun. */
enum { DRAIN_IDLE_MS = 100 };

enum worker_state { WORKER_BOOTING, WORKER_SERVING, WORKER_DRAINING, WORKER_STOPPED };

struct worker {
    enum worker_state state;
    const struct config *config; /* borrowed */
    struct shared *shared;       /* borrowed */
    struct shared_worker *slot;
    uint32_t index;
    int listen_fd; /* our copy of the master's; -1 when closed */
    int admin_fd;  /* the same */
    int exit_code;

    struct loop loop;
    struct helper helper;
    struct pg_target target;
    struct database database;
    struct app app;
    struct http *http;  /* owned; NULL while booting */
    struct http *admin; /* owned; NULL while booting */
    struct watch wake;
    struct watch signals;
    int signal_fd;
    bool told_to_end; /* by SIGTERM */
    uint64_t drain_started;

    bool tidy;         /* since it was busy last */
    uint64_t busy_at;  /* it was last seen with requests */
    uint64_t requests; /* that had ended then */
    long page_faults;  /* by the time it was last tidied */
};

/* Starting. */

static void stop(struct worker *worker, int exit_code)
{
    worker->state = WORKER_STOPPED;
    worker->exit_code = exit_code;
}

/* Descriptors that are not for clients: our own, and two for each session, since one that is being
 * closed is watched on a duplicate. At least half are for clients. */
static unsigned connection_limit(const struct config *config)
{
    struct rlimit files;
    rlim_t reserved = OWN_DESCRIPTORS + ADMIN_CONNECTIONS + 2 * (rlim_t)config->pool_max;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur > MOST_CONNECTIONS) {
        return MOST_CONNECTIONS;
    }
    rlim_t half = files.rlim_cur / 2;
    return (unsigned)(reserved < half ? files.rlim_cur - reserved : half);
}

static int start_http(struct worker *worker, struct error *err)
{
    struct http_handler app = app_handler(&worker->app);
    struct http_handler admin = admin_handler(worker->shared);
    struct http_options options = {.listen_fd = worker->listen_fd,
                                   .deadline = worker->config->deadline,
                                   .body_limit = worker->config->body_limit,
                                   .header_limit = worker->config->header_limit,
                                   .send_timeout = worker->config->send_timeout,
                                   .connection_limit = connection_limit(worker->config),
                                   .access_log = true,
                                   .answer_half_closed =
                                       worker->config->half_closed == HALF_CLOSED_ANSWER};
    struct http_options admin_options = {.listen_fd = worker->admin_fd,
                                         .deadline = SECONDS(ADMIN_DEADLINE_S),
                                         .body_limit = ADMIN_BODY_LIMIT,
                                         .header_limit = ADMIN_HEADER_LIMIT,
                                         .connection_limit = ADMIN_CONNECTIONS};
    if (listener_begin(worker->listen_fd) != 0) {
        return error_set(err, ERROR_MEMORY, "listen: %s", strerror(errno));
    }
    worker->http = http_create(&worker->loop, &options, &app, err);
    worker->admin = worker->http ? http_create(&worker->loop, &admin_options, &admin, err) : NULL;
    return worker->admin ? 0 : -1;
}

static void start_draining(struct worker *worker)
{
    worker->state = WORKER_DRAINING;
    worker->drain_started = worker->loop.now;
    http_drain(worker->http);
}

/* Whom the worker that was here before has left waiting. */
static bool has_queue(const struct worker *worker)
{
    struct pollfd queue = {.fd = worker->listen_fd, .events = POLLIN};
    return poll(&queue, 1, 0) == 1 && (queue.revents & POLLIN);
}

static void on_booted(struct app *app, const struct error *fault)
{
    struct worker *worker = app->owner;
    struct error err;
    if (fault->code != ERROR_NONE) {
        if (app->speaks) {
            error_print(fault);
        }
        stop(worker, WORKER_EXIT_CONFIG);
    } else if (start_http(worker, &err) != 0) {
        log_event(LOG_ERROR, "worker not started", "%s", err.message);
        stop(worker, EXIT_FAILURE);
    } else {
        worker->state = WORKER_SERVING;
        atomic_store(&worker->slot->ready, true);
        atomic_store(&worker->slot->served, true);
        shared_wake_master(worker->shared);
        if (worker->told_to_end) {
            start_draining(worker);
        }
    }
}

static void on_wake(struct watch *watch, uint32_t events)
{
    struct worker *worker = list_entry((void *)watch, struct worker, wake);
    eventfd_t count;
    eventfd_read(watch->fd, &count);
    pool_attend(&worker->database.pool);
    groups_attend(&worker->app.groups);
    app_attend(&worker->app);
}

static void on_signal(struct watch *watch, uint32_t events)
{
    struct worker *worker = list_entry((void *)watch, struct worker, signals);
    struct signalfd_siginfo info;
    while (read(worker->signal_fd, &info, sizeof info) == sizeof info) {
        worker->told_to_end = true;
        if (worker->state == WORKER_BOOTING && !has_queue(worker)) {
            stop(worker, EXIT_SUCCESS);
        } else if (worker->state == WORKER_SERVING) {
            start_draining(worker);
        }
    }
}

static int watch_signals(struct worker *worker, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    worker->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (worker->signal_fd < 0 ||
        loop_add(&worker->loop, &worker->signals, worker->signal_fd, EPOLLIN, on_signal) != 0 ||
        loop_add(&worker->loop, &worker->wake, worker->slot->wake_fd, EPOLLIN, on_wake) != 0) {
        return error_set(err, ERROR_MEMORY, "signalfd: %s", strerror(errno));
    }
    return 0;
}

static struct pool_options pool_options(const struct config *config)
{
    uint32_t workers = (uint32_t)config->workers;
    return (struct pool_options){
        .max_lifetime = config->max_lifetime,
        .max_idle = config->max_idle,
        .health_check = config->health_check,
        .connect_timeout = config->connect_timeout,
        .min_idle = ((uint32_t)config->pool_min_idle + workers - 1) / workers,
    };
}

/* Lanes keep their connections: of those that fall to this worker, at least one half stays for
 * transactions, and where there are too few there are no lanes. */
static uint32_t lane_count(const struct config *config)
{
    uint32_t share = (uint32_t)(config->pool_max / config->workers);
    uint32_t most = share / 2;
    uint32_t wanted = (uint32_t)config->lanes;
    return wanted < most ? wanted : most;
}

static int init(struct worker *worker, struct error *err)
{
    if (loop_init(&worker->loop, err) != 0 ||
        helper_init(&worker->helper, &worker->loop, err) != 0 ||
        pg_target_init(&worker->target, worker->config->database, err) != 0 ||
        watch_signals(worker, err) != 0 || vm_start_watch(err) != 0) {
        return -1;
    }
    struct pool_options options = pool_options(worker->config);
    pool_init(&worker->database.pool, &worker->loop, &worker->helper, &worker->target,
              worker->shared, worker->slot, &options);
    lanes_init(&worker->database.lanes, &worker->database.pool, lane_count(worker->config));
    turns_init(&worker->database.turns, &worker->loop);
    app_init(&worker->app, worker->config, worker->shared, worker->slot, &worker->loop,
             &worker->database, worker->index == 0);
    worker->app.owner = worker;
    return 0;
}

/* Turning. */

/* Who comes now is refused, instead of waiting in a queue that nobody serves; unless the master has
 * the socket still, for the worker that takes our place. */
static void leave_queue(struct worker *worker)
{
    if (worker->listen_fd >= 0) {
        close(worker->listen_fd);
        worker->listen_fd = -1;
    }
}

static void drain(struct worker *worker)
{
    leave_queue(worker);
    uint64_t since = worker->loop.now - worker->drain_started;
    bool busy = http_requests(worker->http) > 0 || groups_are_busy(&worker->app.groups);
    bool idle_ended = http_connections(worker->http) == 0 || since > MILLISECONDS(DRAIN_IDLE_MS);
    if ((!busy && idle_ended) || since > worker->config->shutdown) {
        stop(worker, EXIT_SUCCESS);
    }
}

static void publish(struct worker *worker)
{
    struct shared_worker *slot = worker->slot;
    atomic_store_explicit(&slot->heartbeat, worker->loop.now, memory_order_relaxed);
    if (worker->http) {
        atomic_store_explicit(&slot->in_flight, http_requests(worker->http), memory_order_relaxed);
        atomic_store_explicit(&slot->connections, http_connections(worker->http),
                              memory_order_relaxed);
    }
    if (worker->app.current) {
        atomic_store_explicit(&slot->lua_bytes, worker->app.current->vm->memory,
                              memory_order_relaxed);
    }
}

/* Pages that the process has taken into use, ever: those given back count anew when they are used
 * again. */
static long page_faults(void)
{
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_minflt : 0;
}

/* What is kept for the next requests, garbage that Lua has not collected, and free memory in
 * between would else stay until the next load. */
static void tidy_up(struct worker *worker)
{
    if (page_faults() - worker->page_faults < TIDY_PAGES) {
        return;
    }
    http_tidy(worker->http);
    http_tidy(worker->admin);
    if (worker->app.current) {
        generation_tidy(worker->app.current);
    }
    malloc_trim(0);
    worker->page_faults = page_faults();
}

/* To be called at each turn: it costs two comparisons under load. */
static void tidy_when_idle(struct worker *worker)
{
    uint64_t requests =
        atomic_load_explicit(&worker->slot->counters.requests_total, memory_order_relaxed);
    if (requests != worker->requests || !worker->http || http_requests(worker->http) > 0) {
        worker->requests = requests;
        worker->busy_at = worker->loop.now;
        worker->tidy = false;
    } else if (!worker->tidy && worker->loop.now - worker->busy_at > MILLISECONDS(TIDY_AFTER_MS)) {
        worker->tidy = true;
        tidy_up(worker);
    }
}

static uint64_t next_wake(const struct worker *worker)
{
    uint64_t at = worker->loop.now + MILLISECONDS(HEARTBEAT_MS);
    if (runner_has_ready(&worker->app.runner)) {
        return 0;
    }
    if (worker->http) {
        uint64_t http = http_next(worker->http);
        uint64_t admin = http_next(worker->admin);
        at = http < at ? http : at;
        at = admin < at ? admin : at;
    }
    if (worker->state == WORKER_DRAINING) {
        uint64_t soon = worker->loop.now + MILLISECONDS(10);
        at = soon < at ? soon : at;
    }
    return at;
}

static void turn(struct worker *worker)
{
    loop_wait(&worker->loop, next_wake(worker));
    runner_run(&worker->app.runner);
    if (worker->http) {
        http_run(worker->http);
        http_run(worker->admin);
    }
    lanes_flush(&worker->database.lanes);
    if (worker->state == WORKER_DRAINING) {
        drain(worker);
    }
    publish(worker);
    log_flush();
    tidy_when_idle(worker);
}

static void finish(struct worker *worker)
{
    http_destroy(worker->http);
    http_destroy(worker->admin);
    app_finish(&worker->app);
    lanes_finish(&worker->database.lanes);
    turns_finish(&worker->database.turns);
    pool_finish(&worker->database.pool);
    helper_finish(&worker->helper);
    pg_target_finish(&worker->target);
    loop_remove(&worker->loop, &worker->wake);
    loop_remove(&worker->loop, &worker->signals);
    close(worker->signal_fd);
    loop_finish(&worker->loop);
    log_flush();
}

int worker_run(const struct config *config, struct shared *shared, uint32_t index, int listen_fd,
               int admin_fd)
{
    struct error err;
    struct worker *worker = calloc(1, sizeof *worker);
    if (!worker) {
        return EXIT_FAILURE;
    }
    worker->config = config;
    worker->shared = shared;
    worker->slot = &shared->workers[index];
    worker->index = index;
    worker->listen_fd = listen_fd;
    worker->admin_fd = admin_fd;
    worker->wake.fd = -1;
    worker->signals.fd = -1;
    srandom((unsigned)getpid());
    if (init(worker, &err) != 0) {
        fprintf(stderr, "moonpool: %s\n", err.message);
        free(worker);
        return WORKER_EXIT_CONFIG;
    }
    pool_warm(&worker->database.pool);
    app_boot(&worker->app, on_booted);
    while (worker->state != WORKER_STOPPED) {
        turn(worker);
    }
    finish(worker);
    int exit_code = worker->exit_code;
    free(worker);
    return exit_code;
}
