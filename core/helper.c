/* A queue of jobs, threads that take them, an eventfd that brings them back to the loop. */
#include "helper.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "error.h"
#include "log.h"

static void *thread_main(void *argument)
{
    struct helper *helper = argument;
    pthread_mutex_lock(&helper->lock);
    for (;;) {
        while (list_is_empty(&helper->todo) && !helper->stopping) {
            pthread_cond_wait(&helper->wake, &helper->lock);
        }
        if (helper->stopping) {
            break;
        }
        struct job *job = list_entry(helper->todo.next, struct job, link);
        list_remove(&job->link);
        pthread_mutex_unlock(&helper->lock);
        job->work(job);
        pthread_mutex_lock(&helper->lock);
        list_append(&helper->finished, &job->link);
        eventfd_write(helper->event_fd, 1);
    }
    pthread_mutex_unlock(&helper->lock);
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

int helper_init(struct helper *helper, struct loop *loop, struct error *err)
{
    memset(helper, 0, sizeof *helper);
    helper->loop = loop;
    helper->watch.fd = -1;
    list_init(&helper->todo);
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

void helper_finish(struct helper *helper)
{
    pthread_mutex_lock(&helper->lock);
    helper->stopping = true;
    pthread_cond_broadcast(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
    for (int i = 0; i < helper->started; i++) {
        pthread_join(helper->threads[i], NULL);
    }
    finish_jobs(&helper->finished);
    finish_jobs(&helper->todo);
    loop_remove(helper->loop, &helper->watch);
    if (helper->event_fd >= 0) {
        close(helper->event_fd);
    }
    pthread_cond_destroy(&helper->wake);
    pthread_mutex_destroy(&helper->lock);
}

/* The threads take no signals: those belong to the worker's own thread. */
static void start_threads(struct helper *helper)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (helper->started < HELPER_THREADS) {
        int code = pthread_create(&helper->threads[helper->started], NULL, thread_main, helper);
        if (code != 0) {
            log_event(LOG_ERROR, "helper thread not started", "%s", strerror(code));
            break;
        }
        helper->started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void helper_submit(struct helper *helper, struct job *job)
{
    if (helper->started == 0) {
        start_threads(helper);
    }
    list_init(&job->link);
    pthread_mutex_lock(&helper->lock);
    list_append(&helper->todo, &job->link);
    pthread_cond_signal(&helper->wake);
    pthread_mutex_unlock(&helper->lock);
}
