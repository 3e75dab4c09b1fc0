/* A transaction, or a run of autocommit statements: finds a connection when it first needs one,
 * puts BEGIN in front of its first batch, and gives everything back however it ends.
 *
 *   NEW -> QUEUEING -> ACQUIRING -> RUNNING <-> OPEN -> COMMITTING -> ENDED
 *                                               OPEN <-> COPYING <-> FEEDING
 *             any of them -> ENDED  [tx_finish]
 *
 * Lives in the request's arena or wherever its owner puts it; tx_finish() must have been called
 * before the memory goes. One operation at a time: tx_send(), tx_commit() or a step of a COPY, each
 * told by `done`.
 */
#ifndef MOONPOOL_TX_H
#define MOONPOOL_TX_H

#include <stdbool.h>
#include <stdint.h>

#include "batch.h"
#include "error.h"
#include "lane.h"
#include "pg.h"
#include "pool.h"
#include "statement.h"
#include "turn.h"

struct request_times;

/* What a worker needs to reach the database. */
struct database {
    struct pool pool;
    struct lanes lanes;
    struct turns turns;
};

enum tx_isolation { TX_DEFAULT, TX_READ_COMMITTED, TX_REPEATABLE_READ, TX_SERIALIZABLE };

struct tx_options {
    enum tx_isolation isolation;
    bool read_only;
    bool deferrable;
    bool autocommit;   /* each batch stands for itself: without BEGIN and COMMIT unless it needs a
                          block (run_in_block) */
    bool limited;      /* its deadline is its own, and comes before that of its request */
    const char *turn;  /* name of the line it waits in within this worker; NULL for none. This and
                          the next two outlive the tx */
    const char *table; /* whose lock orders the writers of all workers; NULL for none */
    const char *key;   /* the same for an advisory lock; NULL for none */
};

enum tx_state {
    TX_NEW,        /* nothing was sent yet */
    TX_QUEUEING,   /* waiting for its turn */
    TX_ACQUIRING,  /* waiting for a connection */
    TX_RUNNING,    /* a batch is under way */
    TX_OPEN,       /* has its connection, nothing is under way */
    TX_COPYING,    /* a COPY is under way, and something is waited for */
    TX_FEEDING,    /* a COPY is under way, and wants rows */
    TX_COMMITTING, /* COMMIT is under way: not to be cancelled */
    TX_ENDED,
};

struct tx {
    struct database *database; /* borrowed */
    struct tx_options options;
    enum tx_state state;
    bool failed; /* a statement failed: only a rollback is possible */
    uint64_t deadline;
    struct timer limit;          /* armed from the first operation on if it is limited */
    struct request_times *times; /* borrowed; NULL if nobody counts */

    struct batch batch; /* what is queued, then what is under way, then its results */
    bool collecting;    /* the batch is being filled: neither under way nor full of results */
    bool streaming;     /* while it is being filled, what there is of it is under way */
    bool untold;        /* that failed, and nobody has heard of it */
    struct error error; /* of the last operation; ERROR_NONE if it succeeded */
    size_t resent;      /* 1 + the item for which it was last sent again, having been stale */
    bool reads;         /* the batch is in a read-only transaction, of its own or a lane's */
    bool begun;         /* BEGIN is in a batch already */
    struct pg *pg;      /* borrowed from the pool; NULL when it has none */
    struct turn turn;
    struct pool_waiter waiter;
    struct pg_run run;
    struct copy_run copy;
    bool copy_cut;          /* not all of its rows were handed over */
    struct lane_call call;  /* a statement that stands for itself, on a shared connection */
    uint64_t waiting_since; /* when the present wait began */
    void (*done)(struct tx *tx);

    /* The statements in front, which vary from one transaction to the next, and their text. */
    struct statement begin;
    struct statement timeout;
    struct statement lock;
    char begin_sql[96];
    char timeout_sql[48];
    char lock_sql[192];
};

void tx_init(struct tx *tx, struct database *database, const struct tx_options *options,
             uint64_t deadline, struct request_times *times);

/* Ends it at once from any state: rolled back, cancelled on the server where something is under way
 * (except a COMMIT), everything given back. `done` is not called any more. Frees the batch. */
void tx_finish(struct tx *tx);

/* The batch to queue into. Not while an operation is under way. The first call after an operation
 * frees the results that were not taken. */
struct batch *tx_batch(struct tx *tx);

/* To be called when something was queued that is not the row of a :bulk statement. A long batch of
 * an open transaction is sent while it grows, so that the server does not wait for its last item;
 * if that fails, `failed` and `untold` are set. */
void tx_stream(struct tx *tx);

/* The same before a :bulk statement becomes part of the batch, with its first row: that one goes
 * when all its rows are there, and what stands before it need not wait for them. */
void tx_stream_before_rows(struct tx *tx);

/* Sends what is queued, if the transaction is open, and waits for nothing; if that fails, `failed`
 * and `untold` are set. In any state no row is added any more to a :bulk statement among it. */
void tx_flush(struct tx *tx);

/* Forgets what is queued, and that a statement has failed: for going back to a savepoint, in state
 * OPEN. What of it was executed goes with the savepoint. */
void tx_forget_batch(struct tx *tx);

/* Sends what is queued. `done` is called from the loop; then `tx->error` says how it went and the
 * results are in the batch, behind batch.hidden items of ours, until the next tx_batch(). Not after
 * a failure (`failed`): then only tx_finish() is left. */
void tx_send(struct tx *tx, void (*done)(struct tx *tx));

/* Sends what is queued, and COMMIT behind it. Success only if the server said COMMIT. A transaction
 * in which nothing was ever sent is committed without asking anybody: `done` is not called and the
 * result is true. */
bool tx_commit(struct tx *tx, void (*done)(struct tx *tx));

/* Begins a COPY FROM STDIN in an OPEN transaction with nothing queued. `done` is called when it
 * takes rows (FEEDING), or has failed. `table` is its bare name, and outlives the COPY. */
void tx_copy(struct tx *tx, const char *sql, const char *table, void (*done)(struct tx *tx));

/* Hands over rows in the text format. True if it takes more at once; else `done` is called when it
 * does, or has failed. */
bool tx_copy_feed(struct tx *tx, const char *rows, size_t length);

/* True once the server has refused a row: more of them are of no use. */
bool tx_copy_is_refused(const struct tx *tx);

/* All rows were handed over: `done` is called when the server has them, `copy.count` of them. `cut`
 * says that there were more, kept back because one seemed refused: it fails even if none was. */
void tx_copy_end(struct tx *tx, bool cut);

/* The rows are to be forgotten, and the transaction has failed: `done` is called when that is so.
 */
void tx_copy_refuse(struct tx *tx);

/* A limited transaction whose deadline passes is ended, but for a COMMIT under way: `done` is
 * called if something is waited for, and `failed` set in any case, with ERROR_TIMEOUT. */

/* The deadline has passed. True if what is under way may be committed, by a COMMIT or because it is
 * statements that stand for themselves: those are cancelled, and both report soon whether they took
 * effect. */
bool tx_may_take_effect(struct tx *tx);

/* True if the last operation committed something, or may have. */
bool tx_took_effect(const struct tx *tx);

/* The failure to report when the deadline strikes in the present state. */
void tx_deadline_error(const struct tx *tx, struct error *err);

#endif
