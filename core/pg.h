/* One session with PostgreSQL: a state machine on a non-blocking libpq connection in pipeline mode.
 * The pool opens it, lends it and takes it back; a transaction runs batches on it.
 *
 *   RESOLVING -> CONNECTING -> SETTING_UP -> IDLE <-> LENT -> CLEANING -> IDLE
 *                                            IDLE -> CHECKING -> IDLE
 *                                             any of them -> CLOSING -> CLOSED
 *
 * Events come from the loop, never from inside a call below, so that a caller need not fear to be
 * called back in the middle. Only pg_release() may turn IDLE at once, and says so. */
#ifndef MOONPOOL_PG_H
#define MOONPOOL_PG_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"
#include "list.h"
#include "loop.h"
#include "pg_copy.h"
#include "pg_pipeline.h"

struct batch;
struct helper;
struct pg;
struct pg_conn;
struct pg_target;

enum pg_state {
    PG_RESOLVING,  /* a helper thread looks up the host names */
    PG_CONNECTING, /* libpq is connecting and authenticating */
    PG_SETTING_UP, /* the session's settings are on their way */
    PG_IDLE,       /* clean, nobody's */
    PG_CHECKING,   /* nobody's: has to show that the server is still there */
    PG_LENT,       /* somebody's */
    PG_CLEANING,   /* given back dirty: being cancelled, drained, rolled back, reset */
    PG_CLOSING,    /* said goodbye; the server has not closed its end yet */
    PG_CLOSED,
};

struct pg_events {
    /* The session is IDLE: opened, clean again, checked; or it is so still, and was read from. */
    void (*on_idle)(struct pg *pg);
    /* It broke, fell silent, or could not be opened: on_closed() follows. Not for a close that was
     * asked for. */
    void (*on_failed)(struct pg *pg, const struct error *err);
    /* What it is at is being cancelled on the server. */
    void (*on_cancel)(struct pg *pg);
    /* It has been CLOSING for long. True if the server answers others, so that it has only this one
     * left to end; false if nothing is known of it. */
    bool (*server_answers)(struct pg *pg);
    /* The session is CLOSED, and gone from the server as far as one can know. The owner calls
     * pg_destroy(). */
    void (*on_closed)(struct pg *pg);
};

struct pg {
    struct list link; /* the owner's */
    enum pg_state state;
    struct loop *loop; /* borrowed, as the next four */
    struct helper *helper;
    struct pg_target *target;
    const struct pg_events *events;
    void *owner;

    struct pg_conn *conn; /* owned; NULL before CONNECTING and from CLOSING on */
    struct watch watch;   /* the socket; while CLOSING a duplicate of it */
    struct timer timer;   /* how long the present state may last */
    struct pipeline pipeline;
    struct pg_copy copy; /* while it is under way the pipeline rests */

    /* Of the one it is lent to: called when it is lost while LENT, after the runs were told, unless
     * that one has let go of it then. The pool forgets it when it has the session back. */
    void (*on_lost)(struct pg *pg);
    void *holder;
    struct pg_lookup *lookup; /* what a helper thread is resolving; NULL when done */
    struct pg_cancel *cancel; /* the cancellation under way; NULL when done */
    size_t uncancelled;       /* answers that were awaited when it was last to be cancelled */
    bool was_open;            /* it has been IDLE at least once */
    bool silent;              /* it was given up because the server did not answer in time */
    bool rolled_back;         /* CLEANING: ROLLBACK was sent */
    bool reset;               /* CLEANING: DISCARD ALL was sent */
    uint64_t schema_change;   /* the pool's: the last that what is prepared was renewed for */
    uint64_t reported;        /* hash of the settings that the server reports, as set up */
    uint64_t opened_at;       /* when it was first IDLE */
    uint64_t expires_at;      /* the pool's: max lifetime with jitter */
    uint64_t lent_at;         /* the pool's: when it was last lent */
    uint64_t left_at;         /* the pool's: when it was given back, or began to close */
    uint64_t idle_since;      /* when it was given back; a check does not count */
    uint64_t heard_at;        /* when it last became IDLE */
    uint64_t closing_since;
};

/* Begins to open a session, to be done by `deadline`. */
struct pg *pg_open(struct loop *loop, struct helper *helper, struct pg_target *target,
                   const struct pg_events *events, void *owner, uint64_t deadline);

/* IDLE -> CHECKING -> IDLE, or lost if the server does not answer for a second. */
void pg_check(struct pg *pg);

/* False if an IDLE session has something to tell that was not read yet: perhaps that it has ended.
 * Costs a system call. */
bool pg_is_quiet(const struct pg *pg);

/* IDLE -> LENT. */
void pg_lend(struct pg *pg);

/* Runs a batch on a LENT connection, behind those that are under way; each is a segment of its own,
 * so that one that fails takes no other with it. Nothing may be sent before pg_flush(). */
void pg_start(struct pg *pg, struct pg_run *run);
void pg_flush(struct pg *pg);

/* Sends what an open run has grown by, or the rest of one that is not open any more. */
void pg_send_more(struct pg *pg);

/* Closes the segment of the shared runs started so far and sends it off. */
void pg_sync(struct pg *pg);

/* Begins a COPY FROM STDIN on a LENT connection whose pipeline is idle; `turned` follows. */
void pg_copy_start(struct pg *pg, struct copy_run *run, const char *sql);

/* Hands over rows. True if there is room for more at once; else `turned` follows when there is. */
bool pg_copy_feed(struct pg *pg, const char *rows, size_t length);

/* No more rows are to come, or with `refusal` none is to be stored. `turned` follows, then it is
 * over. */
void pg_copy_end(struct pg *pg, const char *refusal);

/* Cancels what is under way on a LENT connection; its result still comes. The connection is not
 * lent on before the cancel has returned. */
void pg_cancel(struct pg *pg);

/* Lets go of one batch of several; it may be executed all the same. */
void pg_abandon(struct pg *pg, struct pg_run *run);

/* LENT -> IDLE at once if the session is clean (returns true; on_idle() is not called); else it is
 * cleaned first, or closed. What is under way is cancelled on the server if `cancel`, else waited
 * for (a COMMIT). No run's `done` is called any more. */
bool pg_release(struct pg *pg, bool cancel);

/* True if the session should not be used again, whatever its state. */
bool pg_is_worn(const struct pg *pg);

/* True if the server has refused a write on it, and reports that it is read-only: by its own
 * settings or as a standby, not by what a transaction has set. To be asked when a run has ended: it
 * reports a change before it is ready for the next one. */
bool pg_turned_read_only(const struct pg *pg);

/* Says goodbye; on_closed() follows when the server has closed too. Not while it is LENT. */
void pg_close(struct pg *pg);

/* Frees it in any state, without waiting for the server and without events. */
void pg_destroy(struct pg *pg);

#endif
