/* A transaction's COPY: rows are handed over while it is FEEDING, and it is COPYING while something
 * is waited for.
 *
 *   OPEN     -> COPYING  [tx_copy]
 *   COPYING <-> FEEDING  [on_turned, tx_copy_feed, tx_copy_end]
 *   COPYING  -> OPEN     [end_copy]  ENDED if the connection is lost */
#include "tx.h"

#include <assert.h>
#include <string.h>

#include "tx_parts.h"

/* That a row was refused is guessed while they are fed: rows kept back for nothing are missing. */
static void take_copy_error(struct tx *tx)
{
    if (tx->error.code == ERROR_NONE) {
        tx->error = tx->copy.error;
        tx_note_refused_write(tx);
    }
    if (tx->error.code == ERROR_NONE && tx->copy_cut) {
        error_set(&tx->error, ERROR_DATABASE,
                  "copy_from was cut short: the server seemed to have refused a row");
    }
    tx->failed = tx->error.code != ERROR_NONE;
}

static void end_copy(struct tx *tx)
{
    take_copy_error(tx);
    tx_count_statements(tx, 1);
    tx_look_at_session(tx, tx->copy.lost);
    if (tx->copy.lost) {
        tx_end(tx);
    } else {
        tx->state = TX_OPEN;
    }
}

/* While it is fed nobody waits: only the loss of the connection matters then. */
static void on_turned(struct copy_run *run)
{
    struct tx *tx = list_entry((void *)run, struct tx, copy);
    bool awaited = tx->state == TX_COPYING;
    if (awaited) {
        tx_count_wait(tx);
        tx->state = TX_FEEDING;
    }
    if (run->over) {
        end_copy(tx);
    }
    if (awaited) {
        tx->done(tx);
    }
}

static void wait_for_copy(struct tx *tx)
{
    tx->state = TX_COPYING;
    tx->waiting_since = tx_loop(tx)->now;
}

void tx_copy(struct tx *tx, const char *sql, const char *table, void (*done)(struct tx *tx))
{
    assert(tx->state == TX_OPEN && !tx->failed && !tx->collecting);
    memset(&tx->error, 0, sizeof tx->error);
    tx->done = done;
    tx->copy.turned = on_turned;
    tx->copy.table = table;
    tx->copy_cut = false;
    wait_for_copy(tx);
    pg_copy_start(tx->pg, &tx->copy, sql);
}

bool tx_copy_feed(struct tx *tx, const char *rows, size_t length)
{
    assert(tx->state == TX_FEEDING);
    if (pg_copy_feed(tx->pg, rows, length)) {
        return true;
    }
    wait_for_copy(tx);
    return false;
}

bool tx_copy_is_refused(const struct tx *tx)
{
    return copy_is_refused(&tx->pg->copy);
}

void tx_copy_end(struct tx *tx, bool cut)
{
    assert(tx->state == TX_FEEDING);
    tx->copy_cut = cut;
    wait_for_copy(tx);
    pg_copy_end(tx->pg, NULL);
}

void tx_copy_refuse(struct tx *tx)
{
    assert(tx->state == TX_FEEDING);
    error_set(&tx->error, ERROR_SCRIPT, "copy_from was given up: its rows could not be made");
    wait_for_copy(tx);
    pg_copy_end(tx->pg, "the script could not make the rows");
}
