/* Watches folders, with all that is below them, for changes. Says only that something has changed:
 * what it was is for the reader of the folders to find out. */
#ifndef MOONPOOL_FOLDERS_H
#define MOONPOOL_FOLDERS_H

#include <stdint.h>

#include "loop.h"

struct error;

enum { FOLDERS_ROOTS = 2 };

/* The place where a root will be found again: `name` in the folder that `watch` stands for. */
struct folders_place {
    int descriptor; /* of inotify; -1 if that folder is watched for every name */
    char name[256];
};

struct folders {
    struct loop *loop;                /* borrowed */
    const char *roots[FOLDERS_ROOTS]; /* borrowed */
    struct folders_place places[FOLDERS_ROOTS];
    int inotify_fd;
    struct watch watch;
    struct timer settle;   /* fires when nothing more has come for a while */
    uint64_t settle_until; /* the latest time for that, however much comes */
    void (*changed)(struct folders *folders);
};

/* Starts watching; both roots must outlive it. `changed` is called from the loop once things have
 * settled after a change. A root that vanishes is waited for. -1 if the kernel has no inotify. */
int folders_init(struct folders *folders, struct loop *loop, const char *first, const char *second,
                 void (*changed)(struct folders *folders), struct error *err);

/* Does nothing if it was not initialised but zeroed. */
void folders_finish(struct folders *folders);

/* The same in a child that inherited it: leaves the parent's loop alone. */
void folders_abandon(struct folders *folders);

#endif
