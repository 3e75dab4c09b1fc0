/* What came of a transaction: whether it failed, and whether it may have taken effect. */
#include "tx.h"

#include <string.h>

#include "tx_parts.h"

/* The batch carries its own commit: COMMIT, or the Sync behind statements that stand for
 * themselves. */
static bool commits(const struct tx *tx)
{
    return tx->batch.commit || (tx->options.autocommit && !tx->batch.describe && !tx->reads);
}

/* The server ended the session, perhaps after the commit; other errors mean that it did not commit.
 */
static bool broke_session(const struct error *err)
{
    return !*err->sqlstate || strncmp(err->sqlstate, "57P", 3) == 0 ||
           strncmp(err->sqlstate, "08", 2) == 0;
}

/* An error of the server's makes it skip what is behind, COMMIT too. One without SQLSTATE is
 * libpq's own: it blames the loss of the connection on the item whose answer it was waiting for. */
static bool refused_by_server(const struct tx *tx, const struct batch_item *item)
{
    return item->state == ITEM_FAILED && *tx->batch.error.sqlstate;
}

static bool outcome_is_unknown(const struct tx *tx)
{
    const struct batch_item *last = &tx->batch.items[tx->batch.count - 1];
    if (!commits(tx) || tx->batch.error.code != ERROR_UNAVAILABLE) {
        return false;
    }
    for (const struct batch_item *item = tx->batch.items; item < last; item++) {
        if (refused_by_server(tx, item)) {
            return false;
        }
    }
    /* The Sync behind a last item that is done may have committed it, or not. */
    return last->state == ITEM_SENT || last->state == ITEM_DONE ||
           (last->state == ITEM_FAILED && broke_session(&tx->batch.error));
}

void tx_tell_timeout(struct tx *tx)
{
    error_set(&tx->error, ERROR_TIMEOUT,
              "the transaction took longer than its timeout, and was rolled back");
}

void tx_note_refused_write(struct tx *tx)
{
    bool by_server = tx->pg ? pg_turned_read_only(tx->pg) : !tx->options.read_only;
    if (strcmp(tx->error.sqlstate, "25006") == 0 && !by_server) {
        tx->error.code = ERROR_DATABASE;
    }
}

void tx_note_outcome(struct tx *tx)
{
    tx->error = tx->batch.error;
    if (outcome_is_unknown(tx)) {
        error_set(&tx->error, ERROR_OUTCOME_UNKNOWN, "COMMIT was sent, but its answer was lost");
    }
    tx_note_refused_write(tx);
    if (tx->options.limited && tx->error.code == ERROR_DEADLINE) {
        tx_tell_timeout(tx); /* The server's clock was ahead of ours. */
    }
    bool done = tx->options.autocommit || tx->batch.commit;
    if (tx->run.lost && tx->error.code == ERROR_NONE && !done) {
        error_set(&tx->error, ERROR_UNAVAILABLE,
                  "the connection was lost, and the transaction with it");
    }
    tx->failed = tx->error.code != ERROR_NONE && !tx->options.autocommit;
}

bool tx_took_effect(const struct tx *tx)
{
    return commits(tx) && (tx->error.code == ERROR_NONE || tx->error.code == ERROR_OUTCOME_UNKNOWN);
}

void tx_deadline_error(const struct tx *tx, struct error *err)
{
    switch (tx->state) {
    case TX_QUEUEING:
        error_set(err, ERROR_QUEUE_TIMEOUT,
                  "the deadline passed while waiting for the turn of this transaction");
        break;
    case TX_ACQUIRING:
        error_set(err, ERROR_POOL_TIMEOUT,
                  "the deadline passed while waiting for a database connection");
        break;
    case TX_COMMITTING:
        error_set(err, ERROR_OUTCOME_UNKNOWN,
                  "the deadline passed while COMMIT was under way: it may have happened");
        break;
    default:
        if (tx->state == TX_RUNNING && commits(tx)) {
            error_set(err, ERROR_OUTCOME_UNKNOWN,
                      "the deadline passed while a statement was under way: it may have happened");
            break;
        }
        error_set(err, ERROR_DEADLINE, "the deadline passed while waiting for the database");
    }
}
