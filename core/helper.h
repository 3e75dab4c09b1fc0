/* Two threads for what blocks: cancelling (PQcancel) and resolving names. Started by the first job.
 * A job is embedded in the struct that needs it, which must live until `done` was called. */
#ifndef MOONPOOL_HELPER_H
#define MOONPOOL_HELPER_H

#include <pthread.h>
#include <stdbool.h>

#include "list.h"
#include "loop.h"

struct error;

struct job {
    struct list link;
    void (*work)(struct job *job); /* on a helper thread; touches only the job's own data */
    void (*done)(struct job *job); /* back on the loop */
};

enum { HELPER_THREADS = 2 };

struct helper {
    struct loop *loop; /* borrowed */
    struct watch watch;
    int event_fd;
    pthread_t threads[HELPER_THREADS];
    int started; /* threads running */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t wake;
    struct list todo;
    struct list finished;
    bool stopping;
};

int helper_init(struct helper *helper, struct loop *loop, struct error *err);

/* Waits for the running jobs. Those not begun never are, but `done` is called for all. */
void helper_finish(struct helper *helper);

void helper_submit(struct helper *helper, struct job *job);

#endif
