/* What a transaction adds to the metrics, and to the times of its request. */
#include "tx.h"

#include "shared.h"
#include "times.h"
#include "tx_parts.h"

void tx_count_wait(struct tx *tx)
{
    struct request_times unused = {0};
    struct request_times *times = tx->times ? tx->times : &unused;
    uint64_t spent = tx_waited(tx);
    if (tx->state == TX_QUEUEING) {
        counter_add(tx_counters(tx), queue_wait_seconds_total, spent);
        times->queued += spent;
    } else if (tx->state == TX_ACQUIRING) {
        times->pool += spent; /* The pool counts it, too. */
    } else if (tx->state == TX_RUNNING || tx->state == TX_COPYING || tx->state == TX_COMMITTING) {
        counter_add(tx_counters(tx), database_seconds_total, spent);
        times->database += spent;
    }
}

void tx_count_statements(const struct tx *tx, uint64_t count)
{
    counter_add(tx_counters(tx), statements_total, count);
}

void tx_count_end(const struct tx *tx)
{
    if (tx->batch.commit && tx->error.code == ERROR_NONE) {
        counter_add(tx_counters(tx), transactions_committed_total, 1);
    } else if (tx->error.code != ERROR_OUTCOME_UNKNOWN) {
        counter_add(tx_counters(tx), transactions_rolled_back_total, 1);
    }
}

void tx_count_broken_off(struct tx *tx)
{
    bool committing = tx->state == TX_COMMITTING;
    tx_count_wait(tx);
    if (tx->state == TX_RUNNING || committing || tx->streaming) {
        tx_count_statements(tx, tx->batch.count);
    } else if (tx->state == TX_COPYING || tx->state == TX_FEEDING) {
        tx_count_statements(tx, 1);
    }
    if (tx->begun && tx->pg && !committing) {
        counter_add(tx_counters(tx), transactions_rolled_back_total, 1);
    }
    counter_add(tx_counters(tx), pool_timeouts_total, tx->state == TX_ACQUIRING);
}
