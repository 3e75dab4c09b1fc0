/* Threads for what blocks: one for what ends by itself (resolving names), two for cancelling
 * (PQcancel), which may never end: a job that is `bounded` is cut after a second by closing the
 * files that it has opened. Started by the first job.
 * A job is embedded in the struct that needs it, which must live until `done` was called. */
#ifndef MOONPOOL_HELPER_H
#define MOONPOOL_HELPER_H

#include <pthread.h>
#include <stdbool.h>

#include "list.h"
#include "loop.h"

struct error;
struct helper;

struct job {
    struct list link;
    void (*work)(struct job *job); /* on a helper thread; touches only the job's own data */
    void (*done)(struct job *job); /* back on the loop */
    bool bounded;                  /* sees no file but those that it opens itself */
};

enum { HELPER_THREADS = 2 };

/* The threads for jobs of one kind. */
struct crew {
    struct helper *helper; /* borrowed */
    void *(*main)(void *crew);
    int size;
    pthread_t threads[HELPER_THREADS];
    int started;      /* threads running */
    struct list todo; /* under the helper's lock */
};

struct helper {
    struct loop *loop; /* borrowed */
    struct watch watch;
    int event_fd;
    struct crew plain;
    struct crew bounded;

    pthread_mutex_t lock; /* guards what follows, and each todo */
    pthread_cond_t wake;
    struct list finished;
    bool stopping;
};

int helper_init(struct helper *helper, struct loop *loop, struct error *err);

/* Waits for the running jobs. Those not begun never are, but `done` is called for all. */
void helper_finish(struct helper *helper);

void helper_submit(struct helper *helper, struct job *job);

/* Takes a job back that has not begun: true, and `done` will not be called. */
bool helper_withdraw(struct helper *helper, struct job *job);

#endif
