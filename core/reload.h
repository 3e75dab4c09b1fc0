/* Generations: reads the folders, hands a snapshot to the workers, and decides from what they say
 * whether it becomes the good one. Part of the master. */
#ifndef MOONPOOL_RELOAD_H
#define MOONPOOL_RELOAD_H

#include <stdbool.h>
#include <stdint.h>

struct config;
struct error;
struct shared;

struct reload {
    const struct config *config; /* borrowed */
    struct shared *shared;       /* borrowed */
    bool deciding;               /* workers are loading `candidate` */
    bool changed;                /* the folders are to be read again */
    bool forced;                 /* and published even if they read the same */
    uint64_t digest;             /* of the snapshot read last, whatever came of it */
    uint64_t since;              /* when the candidate was published */
};

/* Reads the first snapshot, which counts as good. -1 if it cannot be read. */
int reload_init(struct reload *reload, const struct config *config, struct shared *shared,
                struct error *err);

/* The folders may have changed. `force` publishes them in any case: what the scripts depend on,
 * such as the schema, may have changed instead. */
void reload_request(struct reload *reload, bool force);

/* Does what can be done now: closes a decision, reads and publishes. To be called whenever a
 * request was made, a worker has spoken or one has died. */
void reload_step(struct reload *reload);

#endif
