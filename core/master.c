/* Supervises the workers. It owns the listening sockets, the shared memory and the processes.
 *
 *     BOOTING  -> SERVING    worker 0 is ready: the others start       [step]
 *     BOOTING  -> DRAINING   worker 0 cannot load the scripts          [on_death]
 *     any      -> DRAINING   SIGTERM or SIGINT                         [on_stop_signal]
 *     DRAINING -> OVER       the last worker has ended                 [step]
 *
 * A member is due when its timer says so, alive while its slot has a pid. */
#include "master.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "config.h"
#include "error.h"
#include "folders.h"
#include "list.h"
#include "listener.h"
#include "log.h"
#include "loop.h"
#include "reload.h"
#include "shared.h"
#include "worker.h"

/* A worker that lives shorter than this, twice in a row, is replaced less and less eagerly. */
#define SHORT_LIFE SECONDS(1)
#define FIRST_BACKOFF MILLISECONDS(100)
#define LAST_BACKOFF SECONDS(5)

/* How often heartbeats are looked at, and how old one may at least be. */
#define CHECK_INTERVAL SECONDS(1)
#define HEARTBEAT_AGE SECONDS(5)

/* What workers get beyond the time to drain, before they are killed. */
#define DRAIN_GRACE SECONDS(1)

enum phase { MASTER_BOOTING, MASTER_SERVING, MASTER_DRAINING, MASTER_OVER };

struct master;

/* A worker as its parent sees it; the rest is in its slot of the shared memory. */
struct member {
    struct master *master;      /* borrowed */
    struct shared_worker *slot; /* borrowed */
    uint32_t index;
    int listen_fd; /* owned; -1 when closed */
    bool due;      /* to be started */
    struct timer restart;
    uint64_t born;
    unsigned short_lives; /* in a row */
};

struct master {
    const struct config *config; /* borrowed */
    struct shared *shared;       /* owned */
    enum phase phase;
    int exit_code;
    pid_t pid;
    struct loop loop;
    struct reload reload;
    struct folders folders; /* zeroed unless watching */
    struct watch signals;
    struct watch wakes;
    struct timer check;
    uint64_t check_due;
    struct timer patience; /* for draining */
    int signal_fd;         /* owned */
    int admin_fd;          /* owned */
    sigset_t old_mask;
    struct member members[SHARED_WORKERS];
};

static bool is_alive(const struct member *member)
{
    return member->slot->pid != 0;
}

static uint32_t count_alive(const struct master *master)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < master->shared->worker_count; i++) {
        count += is_alive(&master->members[i]);
    }
    return count;
}

static void signal_all(const struct master *master, int number)
{
    for (uint32_t i = 0; i < master->shared->worker_count; i++) {
        if (is_alive(&master->members[i])) {
            kill(master->members[i].slot->pid, number);
        }
    }
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
        *fd = -1;
    }
}

static void kill_all(struct master *master)
{
    master->exit_code = 1;
    signal_all(master, SIGKILL);
}

static void on_patience_over(struct timer *timer)
{
    struct master *master = list_entry(timer, struct master, patience);
    log_event(LOG_WARN, "killing workers", "%u have not ended in time", count_alive(master));
    kill_all(master);
}

/* The master lets go of the sockets, so that each closes with its worker: clients are refused then
 * instead of waiting in a queue that nobody serves. */
static void start_draining(struct master *master)
{
    master->shared->draining = true;
    folders_finish(&master->folders);
    loop_disarm(&master->loop, &master->check);
    for (uint32_t i = 0; i < master->shared->worker_count; i++) {
        struct member *member = &master->members[i];
        loop_disarm(&master->loop, &member->restart);
        member->due = false;
        close_fd(&member->listen_fd);
    }
    close_fd(&master->admin_fd);
    signal_all(master, SIGTERM);
    loop_arm(&master->loop, &master->patience, clock_now() + master->config->shutdown + DRAIN_GRACE,
             on_patience_over);
}

static void log_serving(const struct master *master)
{
    char url[128], admin[128], database[512];
    listener_url(master->members[0].listen_fd, url, sizeof url);
    listener_url(master->admin_fd, admin, sizeof admin);
    config_redact(master->config->database, database, sizeof database);
    struct log_line line = log_begin(LOG_INFO, "serving");
    log_text(&line, "url", url);
    log_text(&line, "admin", admin);
    log_int(&line, "workers", master->shared->worker_count);
    log_text(&line, "database", database);
    log_int(&line, "pid", master->pid);
    log_end(&line);
}

static void on_folders_changed(struct folders *folders)
{
    reload_request(&list_entry(folders, struct master, folders)->reload, false);
}

static void start_watching(struct master *master)
{
    struct error err;
    if (master->config->watch &&
        folders_init(&master->folders, &master->loop, master->config->scripts, master->config->sql,
                     on_folders_changed, &err) != 0) {
        log_event(LOG_WARN, "watch failed", "%s; SIGHUP reloads", err.message);
    }
}

/* What was saved while the first worker was loading is read now. */
static void start_serving(struct master *master)
{
    for (uint32_t i = 1; i < master->shared->worker_count; i++) {
        master->members[i].due = true;
    }
    start_watching(master);
    if (master->config->watch) {
        reload_request(&master->reload, false);
    }
    log_serving(master);
}

static void log_stopped(const struct master *master)
{
    struct log_line line = log_begin(LOG_INFO, "stopped");
    log_int(&line, "exit_code", master->exit_code);
    log_end(&line);
}

/* The one place where the phase changes. */
static void enter_phase(struct master *master, enum phase phase)
{
    master->phase = phase;
    if (phase == MASTER_SERVING) {
        start_serving(master);
    } else if (phase == MASTER_DRAINING) {
        start_draining(master);
    } else if (phase == MASTER_OVER) {
        log_stopped(master);
    }
}

/* In the child: leaves behind what belongs to the master. */
static void forget_master(struct master *master, const struct member *self)
{
    folders_abandon(&master->folders);
    loop_finish(&master->loop);
    close(master->signal_fd);
    for (uint32_t i = 0; i < master->shared->worker_count; i++) {
        if (&master->members[i] != self) {
            close_fd(&master->members[i].listen_fd);
        }
    }
}

/* In the child. SIGINT and SIGHUP reach the whole group of a terminal: they are for the master, who
 * passes on what they mean. SIGTERM waits until the worker looks at it.
 */
static void set_child_signals(const struct master *master)
{
    sigset_t mask = master->old_mask;
    sigaddset(&mask, SIGTERM);
    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

_Noreturn static void run_child(struct master *master, struct member *member)
{
    char name[32];
    snprintf(name, sizeof name, "worker-%u", member->index + 1);
    log_set_process(name);
    set_child_signals(master);
    if (getppid() != master->pid) {
        exit(1); /* The master died before the kernel knew that we want to follow it. */
    }
    forget_master(master, member);
    int code = worker_run(master->config, master->shared, member->index, member->listen_fd,
                          master->admin_fd);
    log_flush();
    exit(code);
}

static void on_restart(struct timer *timer)
{
    list_entry(timer, struct member, restart)->due = true;
}

static void restart_later(struct member *member, uint64_t delay)
{
    loop_arm(&member->master->loop, &member->restart, clock_now() + delay, on_restart);
}

/* What is buffered would otherwise be written twice. */
static pid_t fork_flushed(void)
{
    log_flush();
    fflush(stdout);
    return fork();
}

static void start_member(struct member *member)
{
    struct master *master = member->master;
    struct shared_worker *slot = member->slot;
    member->due = false;
    member->born = clock_now();
    slot->heartbeat = member->born;
    /* Until it says otherwise, it is taken to run the good one, and to want no newer. */
    slot->generation = master->shared->generation;
    slot->load = SHARED_LOADED;
    pid_t pid = fork_flushed();
    if (pid == 0) {
        run_child(master, member);
    }
    if (pid < 0) {
        log_event(LOG_ERROR, "fork failed", "%s", strerror(errno));
        restart_later(member, FIRST_BACKOFF);
        return;
    }
    slot->pid = pid;
}

static void log_death(const struct member *member, pid_t pid, int status, uint64_t lived)
{
    struct log_line line = log_begin(LOG_ERROR, "worker died");
    log_int(&line, "worker", member->index + 1);
    log_int(&line, "pid", pid);
    if (WIFSIGNALED(status)) {
        const char *name = sigabbrev_np(WTERMSIG(status));
        log_text(&line, "signal", name ? name : "?");
    } else {
        log_int(&line, "exit_code", WEXITSTATUS(status));
    }
    log_ms(&line, "lived_ms", lived);
    log_end(&line);
}

/* How long to wait before the next try. */
static uint64_t backoff(struct member *member, uint64_t lived)
{
    member->short_lives = lived < SHORT_LIFE ? member->short_lives + 1 : 0;
    if (member->short_lives < 2) {
        return 0;
    }
    unsigned doublings = member->short_lives - 2;
    uint64_t delay = doublings < 10 ? FIRST_BACKOFF << doublings : LAST_BACKOFF;
    return delay < LAST_BACKOFF ? delay : LAST_BACKOFF;
}

static void replace(struct member *member, uint64_t lived)
{
    counter_add(member->slot, worker_restarts_total, 1);
    restart_later(member, backoff(member, lived));
}

/* Ended as it should when draining: by itself, or by a SIGTERM that came before it was listening.
 */
static bool has_drained(int status)
{
    return WIFSIGNALED(status) ? WTERMSIG(status) == SIGTERM : WEXITSTATUS(status) == 0;
}

static void on_death(struct member *member, pid_t pid, int status)
{
    struct master *master = member->master;
    uint64_t lived = clock_now() - member->born;
    bool misconfigured = WIFEXITED(status) && WEXITSTATUS(status) == WORKER_EXIT_CONFIG;
    shared_bury(master->shared, member->slot);
    if (master->phase == MASTER_BOOTING && misconfigured) {
        master->exit_code = 1;
        enter_phase(master, MASTER_DRAINING);
    } else if (master->phase != MASTER_DRAINING) {
        log_death(member, pid, status, lived);
        replace(member, lived);
    } else if (!has_drained(status)) {
        log_death(member, pid, status, lived);
        master->exit_code = 1;
    }
}

/* One signal may stand for several deaths. */
static void reap(struct master *master)
{
    for (uint32_t i = 0; i < master->shared->worker_count; i++) {
        struct member *member = &master->members[i];
        pid_t pid = member->slot->pid;
        int status;
        if (pid != 0 && waitpid(pid, &status, WNOHANG) == pid) {
            on_death(member, pid, status);
        }
    }
}

static void on_stop_signal(struct master *master, uint32_t number)
{
    log_event(LOG_INFO, "stopping", "SIG%s", sigabbrev_np((int)number));
    if (master->phase == MASTER_DRAINING) {
        kill_all(master);
    } else {
        enter_phase(master, MASTER_DRAINING);
    }
}

static void on_signals(struct watch *watch, uint32_t events)
{
    struct master *master = list_entry(watch, struct master, signals);
    struct signalfd_siginfo info;
    while (read(master->signal_fd, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            reap(master);
        } else if (info.ssi_signo == SIGHUP) {
            reload_request(&master->reload, true);
        } else {
            on_stop_signal(master, info.ssi_signo);
        }
    }
}

/* What has changed is in the shared memory: step() looks. */
static void on_wake(struct watch *watch, uint32_t events)
{
    uint64_t count;
    ssize_t length = read(watch->fd, &count, sizeof count);
    (void)length;
}

static void check_heartbeat(const struct member *member, uint64_t now, uint64_t oldest)
{
    uint64_t age = deadline_left(now, member->slot->heartbeat);
    if (is_alive(member) && age > oldest) {
        struct log_line line = log_begin(LOG_ERROR, "worker hangs");
        log_int(&line, "worker", member->index + 1);
        log_int(&line, "pid", member->slot->pid);
        log_ms(&line, "heartbeat_age_ms", age);
        log_end(&line);
        kill(member->slot->pid, SIGKILL);
    }
}

/* A check that comes late itself, because the machine or the whole group was stopped, says nothing
 * about the workers. */
static void on_check(struct timer *timer)
{
    struct master *master = list_entry(timer, struct master, check);
    uint64_t now = clock_now();
    uint64_t longest = 2 * master->config->deadline;
    bool punctual = now < master->check_due + CHECK_INTERVAL;
    for (uint32_t i = 0; punctual && i < master->shared->worker_count; i++) {
        check_heartbeat(&master->members[i], now,
                        longest > HEARTBEAT_AGE ? longest : HEARTBEAT_AGE);
    }
    master->check_due = now + CHECK_INTERVAL;
    loop_arm(&master->loop, &master->check, master->check_due, on_check);
}

static void start_due(struct master *master)
{
    for (uint32_t i = 0; i < master->shared->worker_count; i++) {
        if (master->members[i].due) {
            start_member(&master->members[i]);
        }
    }
}

/* After every wake-up: does what the phase allows. */
static void step(struct master *master)
{
    if (master->phase == MASTER_BOOTING && master->members[0].slot->ready) {
        enter_phase(master, MASTER_SERVING);
    }
    if (master->phase == MASTER_SERVING) {
        reload_step(&master->reload);
    }
    if (master->phase == MASTER_DRAINING && count_alive(master) == 0) {
        enter_phase(master, MASTER_OVER);
    } else if (!master->reload.deciding) {
        start_due(master);
    }
    log_flush();
}

static int init_signals(struct master *master, struct error *err)
{
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGCHLD);
    sigaddset(&mask, SIGHUP);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGTERM);
    sigprocmask(SIG_BLOCK, &mask, &master->old_mask);
    signal(SIGPIPE, SIG_IGN); /* A log that nobody reads any more ends no server. */
    master->signal_fd = signalfd(-1, &mask, SFD_NONBLOCK | SFD_CLOEXEC);
    if (master->signal_fd < 0) {
        return error_set(err, ERROR_UNAVAILABLE, "signalfd: %s", strerror(errno));
    }
    return 0;
}

static int init_watches(struct master *master, struct error *err)
{
    if (loop_add(&master->loop, &master->signals, master->signal_fd, EPOLLIN, on_signals) != 0 ||
        loop_add(&master->loop, &master->wakes, master->shared->master_wake_fd, EPOLLIN, on_wake) !=
            0) {
        return error_set(err, ERROR_UNAVAILABLE, "epoll: %s", strerror(errno));
    }
    master->check_due = clock_now() + CHECK_INTERVAL;
    loop_arm(&master->loop, &master->check, master->check_due, on_check);
    return 0;
}

static int open_listeners(struct master *master, struct error *err)
{
    int fds[SHARED_WORKERS];
    uint32_t count = master->shared->worker_count;
    if (listener_open("--listen", master->config->listen, fds, count, err) != 0) {
        return -1;
    }
    for (uint32_t i = 0; i < count; i++) {
        master->members[i].listen_fd = fds[i];
    }
    return listener_open("--admin-listen", master->config->admin_listen, &master->admin_fd, 1, err);
}

static void init_members(struct master *master)
{
    for (uint32_t i = 0; i < SHARED_WORKERS; i++) {
        master->members[i].master = master;
        master->members[i].slot = &master->shared->workers[i];
        master->members[i].index = i;
    }
    master->members[0].due = true;
}

/* Whatever has been made when it fails is released by finish(). */
static int init(struct master *master, struct error *err)
{
    const struct config *config = master->config;
    assert(config->workers > 0 && config->workers <= SHARED_WORKERS);
    if (loop_init(&master->loop, err) != 0 || init_signals(master, err) != 0) {
        return -1;
    }
    master->shared = shared_create((uint32_t)config->workers, (uint32_t)config->pool_max, err);
    if (!master->shared) {
        return -1;
    }
    init_members(master);
    if (reload_init(&master->reload, config, master->shared, err) != 0 ||
        open_listeners(master, err) != 0) {
        return -1;
    }
    return init_watches(master, err);
}

static void finish(struct master *master)
{
    folders_finish(&master->folders);
    loop_finish(&master->loop);
    close_fd(&master->signal_fd);
    close_fd(&master->admin_fd);
    for (uint32_t i = 0; i < SHARED_WORKERS; i++) {
        close_fd(&master->members[i].listen_fd);
    }
    shared_destroy(master->shared);
    sigprocmask(SIG_SETMASK, &master->old_mask, NULL);
}

/* Nothing is open yet. */
static void clear(struct master *master, const struct config *config)
{
    memset(master, 0, sizeof *master);
    master->config = config;
    master->pid = getpid();
    master->loop.epoll_fd = -1;
    master->signal_fd = -1;
    master->admin_fd = -1;
    for (uint32_t i = 0; i < SHARED_WORKERS; i++) {
        master->members[i].listen_fd = -1;
    }
    sigprocmask(SIG_SETMASK, NULL, &master->old_mask);
}

int master_run(const struct config *config)
{
    struct master master;
    struct error err;
    log_set_process("master");
    clear(&master, config);
    if (init(&master, &err) == 0) {
        step(&master);
        while (master.phase != MASTER_OVER) {
            loop_wait(&master.loop, DEADLINE_NEVER);
            step(&master);
        }
    } else {
        fprintf(stderr, "moonpool: %s\n", err.message);
        master.exit_code = 1;
    }
    finish(&master);
    return master.exit_code;
}
