/* One connection's pipeline: sends the items of batches, one batch after the other, never more than
 * a window of items ahead of the results, and puts the results where they belong. Knows libpq's
 * pipeline mode and the statements prepared on the connection; when to read and write is the
 * business of pg.c. */
#ifndef MOONPOOL_PG_PIPELINE_H
#define MOONPOOL_PG_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "list.h"
#include "pg_prepared.h"

struct batch;
struct error;
struct pg_conn;
struct pg_result;

/* A batch under way. Embedded by whoever runs it. */
struct pg_run {
    struct list link;    /* in pipeline.runs, then in pipeline.finished */
    struct batch *batch; /* borrowed until `done`, or until the run is abandoned */
    /* All results are in, or batch->error says what went wrong. With `lost` set the connection is
     * gone besides, be it that all results had come. */
    void (*done)(struct pg_run *run);
    bool lost;
    bool shared; /* no Sync of its own: pipeline_sync() closes its segment along with others. An
                    error in one skips those behind it, which are then ITEM_SKIPPED without an error
                  */
    bool open;   /* the batch still grows: no Sync behind what there is of it */
    size_t next; /* index of the item to be sent next */
    bool synced; /* it is wholly sent */
};

/* What is next to come from the server. */
struct expectation {
    uint8_t kind;       /* enum in pg_pipeline_parts.h */
    struct pg_run *run; /* NULL once that was abandoned: the result is dropped */
    uint64_t item;      /* index in the batch, or for a preparation the statement's key */
};

struct pipeline {
    struct pg_conn *conn;   /* borrowed */
    struct list runs;       /* under way, in the order of their start */
    struct list finished;   /* all results are in; whoever turns the pipeline calls `done` */
    struct pg_run *sending; /* the first run that is not wholly sent; NULL if all are */
    bool read_only;         /* the session was set to read only transactions: a lane's */
    bool unsynced;          /* pipeline_sync() waits for a run that is not wholly sent */
    bool unconfirmed;       /* the commit of the segment under way was not confirmed by a standby */
    bool traces;            /* what ran on it may have left something behind in the session */
    bool refused_write;     /* 25006, not by our own wish: see pg_turned_read_only() */
    bool outdated;          /* DDL has made what is prepared stale: others have to hear of it */
    bool retire;       /* the session is of no more use: an error said so (57P01, 08), or it cannot
                        be made clean */
    bool sync_failed;  /* the Sync expected has failed, and its own answer is still to come */
    bool broken;       /* COPY was begun by SQL text: the protocol cannot go on from there */
    uint64_t executed; /* statements executed since the connection was opened */

    struct expectation *expected; /* owned ring of `capacity`, a power of two */
    size_t head;
    size_t expected_count;
    size_t capacity;
    size_t items_in_flight;
    size_t bytes_in_flight; /* of parameters */

    struct prepared_set prepared;
};

void pipeline_init(struct pipeline *pipeline, struct pg_conn *conn);
void pipeline_finish(struct pipeline *pipeline);

/* Takes a run on, behind those under way. */
void pipeline_start(struct pipeline *pipeline, struct pg_run *run);

/* True if the window takes the whole batch: then it goes off together with its Sync. Else it may be
 * abandoned half sent, with a Sync behind that. */
bool pipeline_fits_window(const struct batch *batch);

/* Queues what the window allows into libpq's buffer; to be called again when an open run has grown
 * or is not open any more. -1 if libpq refuses: the connection is lost. */
int pipeline_send(struct pipeline *pipeline);

/* Takes in the results that have arrived. -1 if the connection is not usable any more. */
int pipeline_read(struct pipeline *pipeline);

/* True when nothing is to come and all was sent. */
bool pipeline_is_idle(const struct pipeline *pipeline);

/* Closes the segment of the shared runs sent so far; libpq sends it off at once. -1 if it refuses.
 */
int pipeline_sync(struct pipeline *pipeline);

/* Lets go of a run: what was sent will be read and dropped, the rest is never sent. -1 if libpq
 * refuses. */
int pipeline_abandon(struct pipeline *pipeline, struct pg_run *run);

/* Sends a statement of our own (ROLLBACK), whose result is dropped; if it fails, the session is to
 * retire. */
int pipeline_send_own(struct pipeline *pipeline, const char *sql);

/* The connection is lost: every run is finished, with `err` as its batch's error if it has none
 * yet. Items still ITEM_SENT are those whose outcome nobody knows. */
void pipeline_fail(struct pipeline *pipeline, const struct error *err);

#endif
