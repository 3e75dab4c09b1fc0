/* What the files of a transaction tell each other; everyone else includes tx.h. */
#ifndef MOONPOOL_TX_PARTS_H
#define MOONPOOL_TX_PARTS_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "shared.h"
#include "tx.h"

static inline struct loop *tx_loop(const struct tx *tx)
{
    return tx->database->pool.loop;
}

static inline struct shared_worker *tx_counters(const struct tx *tx)
{
    return tx->database->pool.slot;
}

/* How long the present wait has lasted. */
static inline uint64_t tx_waited(const struct tx *tx)
{
    return tx_loop(tx)->now - tx->waiting_since;
}

/* tx.c. It has its outcome: counts it, and gives everything back. */
void tx_end(struct tx *tx);

/* What a run or a COPY has done to its session. */
void tx_look_at_session(struct tx *tx, bool lost);

/* tx_count.c. The wait of the present state ends, be it in vain. */
void tx_count_wait(struct tx *tx);

/* So many were sent. */
void tx_count_statements(const struct tx *tx, uint64_t count);

/* It was committed, or was not; where nobody knows, it counts as neither. */
void tx_count_end(const struct tx *tx);

/* It is left in the midst of what it is at. One that has no session has not begun on the server. */
void tx_count_broken_off(struct tx *tx);

/* tx_outcome.c. A write that was refused because the script has made its transaction read-only is
 * its mistake, not a server that takes none any more. */
void tx_note_refused_write(struct tx *tx);

/* The batch, or the connection, has ended: sets `error` and `failed`. */
void tx_note_outcome(struct tx *tx);

/* It was ended at its own deadline. */
void tx_tell_timeout(struct tx *tx);

#endif
