/* What the files of a transaction tell each other; everyone else includes tx.h. */
#ifndef MOONPOOL_TX_PARTS_H
#define MOONPOOL_TX_PARTS_H

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

/* Its connection broke: there is none any more. */
void tx_lose_session(struct tx *tx);

/* tx_outcome.c. The batch, or the connection, has ended: sets `error` and `failed`. */
void tx_note_outcome(struct tx *tx);

/* It was ended at its own deadline. */
void tx_tell_timeout(struct tx *tx);

#endif
