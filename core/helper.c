/* Queues of jobs, threads that take them, an eventfd that brings them back to the loop.
 *
 * A bounded job blocks where nobody else can reach: libpq keeps the socket to itself. So its thread
 * has a table of files of its own, with nothing in it but the eventfd, and a timer whose signal
 * closes whatever else has come into it. */
#include "helper.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "error.h"
#include "log.h"

#ifndef sigev_notify_thread_id /* glibc names it from 2.38 on */
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define LIMIT_SIGNAL (SIGRTMIN + 1)

enum { LIMIT_S = 1 };

static bool take_job(struct crew *crew, struct job **ret_job)
{
    struct helper *helper = crew->helper;
    while (list_is_empty(&crew->todo) && !helper->stopping) {
        pthread_cond_wait(&helper->wake, &helper->lock);
    }
    if (helper->stopping) {
        return false;
    }
    *ret_job = list_entry(crew->todo.next, struct job, link);
    list_remove(&(*ret_job)->link);
    return true;
}

static void set_limit(timer_t timer, time_t seconds)
{
    /* Again and again, should the thread not have come to what blocks yet. */
    struct itimerspec when = {.it_value.tv_sec = seconds, .it_interval.tv_sec = seconds};
    timer_settime(timer, 0, &when, NULL);
}

/* `timer` may be NULL. */
static void work(struct crew *crew, const timer_t *timer)
{
    struct helper *helper = crew->helper;
    struct job *job;
    pthread_mutex_lock(&helper->lock);
    while (take_job(crew, &job)) {
        pthread_mutex_unlock(&helper->lock);
        if (timer) {
            set_limit(*timer, LIMIT_S);
        }
        job->work(job);
        if (timer) {
            set_limit(*timer, 0);
        }
        pthread_mutex_lock(&helper->lock);
        list_append(&helper->finished, &job->link);
        eventfd_write(helper->event_fd, 1);
    }
    pthread_mutex_unlock(&helper->lock);
}

static void *plain_main(void *crew)
{
    work(crew, NULL);
    return NULL;
}

/* The one file that a bounded thread has at rest; for the signal's handler. */
static _Thread_local int resting_fd;

static int close_all_but(int fd, int flags)
{
    return close_range((unsigned)fd + 1, UINT_MAX, flags) ||
                   (fd > 0 && close_range(0, (unsigned)fd - 1, flags))
               ? -1
               : 0;
}

static void on_limit(int signal)
{
    int saved = errno;
    close_all_but(resting_fd, 0);
    errno = saved;
}

static int start_limit(timer_t *ret_timer)
{
    struct sigaction action = {.sa_handler = on_limit};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = LIMIT_SIGNAL};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, LIMIT_SIGNAL);
    event.sigev_notify_thread_id = gettid();
    return sigaction(LIMIT_SIGNAL, &action, NULL) ||
                   timer_create(CLOCK_MONOTONIC, &event, ret_timer) ||
                   pthread_sigmask(SIG_UNBLOCK, &set, NULL)
               ? -1
               : 0;
}

static void *bounded_main(void *argument)
{
    struct crew *crew = argument;
    timer_t timer;
    resting_fd = crew->helper->event_fd;
    /* Linux has this since 5.9; before, the files are everyone's and nothing may be closed. */
    bool limited = close_all_but(resting_fd, CLOSE_RANGE_UNSHARE) == 0 && start_limit(&timer) == 0;
    work(crew, limited ? &timer : NULL);
    if (limited) {
        timer_delete(timer);
    }
    return NULL;
}

static void on_finished(struct watch *watch, uint32_t events)
{
    struct helper *helper = list_entry((void *)watch, struct helper, watch);
    eventfd_t count;
    eventfd_read(helper->event_fd, &count);
    pthread_mutex_lock(&helper->lock);
    while (!list_is_empty(&helper->finished)) {
        struct job *job = list_entry(helper->finished.next, struct job, link);
        list_remove(&job->link);
        pthread_mutex_unlock(&helper->lock);
        job->done(job);
        pthread_mutex_lock(&helper->lock);
    }
    pthread_mutex_unlock(&helper->lock);
}

static void init_crew(struct crew *crew, struct helper *helper, void *(*main)(void *), int size)
{
    crew->helper = helper;
    crew->main = main;
    crew->size = size;
    list_init(&crew->todo);
}

int helper_init(struct helper *helper, struct loop *loop, struct error *err)
{
    memset(helper, 0, sizeof *helper);
    helper->loop = loop;
    helper->watch.fd = -1;
    init_crew(&helper->plain, helper, plain_main, 1);
    init_crew(&helper->bounded, helper, bounded_main, HELPER_THREADS);
    list_init(&helper->finished);
    pthread_mutex_init(&helper->lock, NULL);
    pthread_cond_init(&helper->wake, NULL);
    helper->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (helper->event_fd < 0 ||
        loop_add(loop, &helper->watch, helper->event_fd, EPOLLIN, on_finished) != 0) {
        return error_set(err, ERROR_MEMORY, "eventfd: %s", strerror(errno));
    }
    return 0;
}

static void finish_jobs(struct list *jobs)
{
    while (!list_is_empty(jobs)) {
        struct job *job = list_entry(jobs->next, struct job, link);
        list_remove(&job->link);
        job->done(job);
    }
}

static void join(struct crew *crew)
{
    for (int i = 0; i < crew->started; i++) {
        pthread_join(crew->threads[i], NULL);
    }
}

void helper_finish(struct helper *helper)
{
    pthread_mutex_lock(&helper->lock);
    helper->stopping = true;
    pthread_cond_broadcast(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
    join(&helper->plain);
    join(&helper->bounded);
    finish_jobs(&helper->finished);
    finish_jobs(&helper->plain.todo);
    finish_jobs(&helper->bounded.todo);
    loop_remove(helper->loop, &helper->watch);
    if (helper->event_fd >= 0) {
        close(helper->event_fd);
    }
    pthread_cond_destroy(&helper->wake);
    pthread_mutex_destroy(&helper->lock);
}

/* The threads take no signals: those belong to the worker's own thread. */
static void start_threads(struct crew *crew)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (crew->started < crew->size) {
        int code = pthread_create(&crew->threads[crew->started], NULL, crew->main, crew);
        if (code != 0) {
            log_event(LOG_ERROR, "helper thread not started", "%s", strerror(code));
            break;
        }
        crew->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void helper_submit(struct helper *helper, struct job *job)
{
    struct crew *crew = job->bounded ? &helper->bounded : &helper->plain;
    if (crew->started == 0) {
        start_threads(crew);
    }
    list_init(&job->link);
    pthread_mutex_lock(&helper->lock);
    list_append(&crew->todo, &job->link);
    pthread_cond_broadcast(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
}

static bool list_has(const struct list *head, const struct list *wanted)
{
    const struct list *item = head->next;
    while (item != head && item != wanted) {
        item = item->next;
    }
    return item == wanted;
}

bool helper_withdraw(struct helper *helper, struct job *job)
{
    struct crew *crew = job->bounded ? &helper->bounded : &helper->plain;
    pthread_mutex_lock(&helper->lock);
    bool waiting = list_has(&crew->todo, &job->link);
    if (waiting) {
        list_remove(&job->link);
    }
    pthread_mutex_unlock(&helper->lock);
    return waiting;
}
