/* The transaction's state machine.
 *
 *   NEW        -> QUEUEING    [tx_send]      it is serialised and another one has the turn
 *   NEW        -> ACQUIRING   [acquire]      no connection is idle
 *   QUEUEING   -> ACQUIRING   [on_turn]
 *   NEW, ACQUIRING, OPEN -> RUNNING or COMMITTING  [start]
 *   RUNNING    -> OPEN        [on_done]      or NEW where each batch stands for itself
 *   OPEN      <-> COPYING     [tx_copy, end_copy]  and FEEDING: tx_copy.c
 *   COMMITTING -> ENDED       [on_done]
 *   any        -> ENDED       [break_off, tx_end] */
#include "tx.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "loop.h"
#include "shared.h"
#include "sql.h"
#include "tx_parts.h"

static const struct statement commit_statement = {.sql = "commit", .key = STATEMENT_KEY_COMMIT};

/* SET TRANSACTION outside of a transaction block does the same, but PostgreSQL logs a warning. */
static const struct statement read_only_statement = {
    .sql = "select pg_catalog.set_config('transaction_read_only', 'on', true)",
    .kind = STATEMENT_EXEC,
    .key = STATEMENT_KEY_READ_ONLY};

static const struct statement key_lock_statement = {
    .sql = "select pg_advisory_xact_lock(hashtextextended($1, 0))",
    .kind = STATEMENT_EXEC,
    .key = STATEMENT_KEY_LOCK};

/* In front of a transaction that is begun once more. */
static const struct statement rollback_statement = {.sql = "rollback", .kind = STATEMENT_EXEC};

/* A batch is sent when it has grown by so many items; by fewer where rows of a :bulk statement are
 * to be gathered, since that takes a while. */
enum { STREAM_ITEMS = 128, STREAM_BEFORE_ROWS = 2 };

/* The server's own limit comes so long behind the deadline, which is this process's to keep. */
enum { BACKSTOP_MS = 50 };

static void describe_own(struct statement *statement, const char *sql, bool keep)
{
    statement->sql = sql;
    statement->kind = STATEMENT_EXEC;
    statement->key = keep ? statement_hash(sql, strlen(sql)) : 0;
}

static void write_begin(struct tx *tx)
{
    static const char *const levels[] = {
        [TX_DEFAULT] = "",
        [TX_READ_COMMITTED] = " isolation level read committed",
        [TX_REPEATABLE_READ] = " isolation level repeatable read",
        [TX_SERIALIZABLE] = " isolation level serializable",
    };
    snprintf(tx->begin_sql, sizeof tx->begin_sql, "begin%s%s%s", levels[tx->options.isolation],
             tx->options.read_only ? " read only" : "",
             tx->options.deferrable ? " deferrable" : "");
    describe_own(&tx->begin, tx->begin_sql, true);
}

static void write_lock(struct tx *tx)
{
    snprintf(tx->lock_sql, sizeof tx->lock_sql, "lock table %s in share row exclusive mode",
             tx->options.table);
    describe_own(&tx->lock, tx->lock_sql, true);
}

void tx_init(struct tx *tx, struct database *database, const struct tx_options *options,
             uint64_t deadline, struct request_times *times)
{
    memset(tx, 0, sizeof *tx);
    tx->database = database;
    tx->options = *options;
    tx->deadline = deadline;
    tx->times = times;
    batch_init(&tx->batch);
    list_init(&tx->turn.link);
    list_init(&tx->waiter.link);
    list_init(&tx->run.link);
    list_init(&tx->call.link);
    list_init(&tx->call.run.link);
}

/* A key's lock takes a snapshot before it waits, so that what follows needs one of its own: as it
 * has at the isolation level read committed. */
static void add_key_lock(struct tx *tx)
{
    struct batch_item *item = batch_add(&tx->batch, &key_lock_statement, 1, NULL, 0);
    item->parameters[0] =
        (struct parameter){.value = tx->options.key, .length = (int32_t)strlen(tx->options.key)};
}

/* BEGIN rides in front of the first batch, and with it the lock, taken before any snapshot, and the
 * time limit that holds even if this process dies. */
static void add_front(struct tx *tx)
{
    write_begin(tx);
    batch_add(&tx->batch, &tx->begin, 0, NULL, 0);
    describe_own(&tx->timeout, tx->timeout_sql, false);
    batch_add(&tx->batch, &tx->timeout, 0, NULL, 0);
    if (tx->options.table) {
        write_lock(tx);
        batch_add(&tx->batch, &tx->lock, 0, NULL, 0);
    }
    if (tx->options.key) {
        add_key_lock(tx);
    }
    tx->batch.hidden = tx->batch.count;
    tx->begun = true;
}

struct batch *tx_batch(struct tx *tx)
{
    assert(tx->state == TX_NEW || tx->state == TX_OPEN);
    if (!tx->collecting) {
        batch_reset(&tx->batch);
        tx->batch.read_only = tx->options.read_only;
        tx->collecting = true;
        if (!tx->options.autocommit && !tx->begun) {
            add_front(tx);
        }
    }
    return &tx->batch;
}

static void give_back(struct tx *tx, bool cancel)
{
    struct pg *pg = tx->pg;
    tx->pg = NULL;
    if (pg) {
        pool_release(&tx->database->pool, pg, cancel);
    }
    turn_end(&tx->database->turns, &tx->turn);
}

static void write_timeout(struct tx *tx)
{
    uint64_t left = deadline_left(tx->deadline, clock_now()) / 1000;
    uint64_t limit = left + BACKSTOP_MS;
    snprintf(tx->timeout_sql, sizeof tx->timeout_sql, "set local statement_timeout = %llu",
             (unsigned long long)(limit > INT32_MAX ? INT32_MAX : limit));
}

static void start(struct tx *tx)
{
    /* A batch that stands for itself may be cancelled until its end. */
    tx->state = tx->batch.commit && !tx->options.autocommit ? TX_COMMITTING : TX_RUNNING;
    tx->waiting_since = tx_loop(tx)->now;
    write_timeout(tx);
    pool_renew(&tx->database->pool, tx->pg);
    pg_start(tx->pg, &tx->run);
    pg_flush(tx->pg);
}

static bool may_commit_by_itself(const struct batch *batch)
{
    size_t i = 0;
    while (i < batch->count && !sql_may_commit(batch->items[i].statement->sql)) {
        i++;
    }
    return i < batch->count;
}

/* Statements that stand for themselves are one transaction by their common Sync. What CALL and DO
 * run may end it before, and so does the Sync behind a batch that is abandoned half sent: not in a
 * transaction block. A CALL or DO that is alone may. */
static void run_in_block(struct tx *tx)
{
    const struct batch *batch = &tx->batch;
    bool several = tx->options.autocommit && !batch->describe && batch->count > 1;
    if (several && !tx->reads && (may_commit_by_itself(batch) || !pipeline_fits_window(batch))) {
        write_begin(tx);
        batch_add_front(&tx->batch, &tx->begin);
        batch_add(&tx->batch, &commit_statement, 0, NULL, 0);
        tx->batch.commit = true;
    }
}

/* The script's own statements are left. A COMMIT that was refused is told of the last of them, as
 * it is where there is no block, but for the row. */
static void leave_block(struct tx *tx)
{
    struct batch *batch = &tx->batch;
    if (!batch->commit) {
        return;
    }
    batch->commit = false;
    batch_drop_last(batch);
    if (tx->error.item > batch->count - batch->hidden) {
        batch_blame(batch, &batch->items[batch->count - 1], &tx->error);
    }
}

/* A statement that the server knows no more, or whose result has changed, took no effect: the batch
 * may be sent again where it was a transaction of its own, or the beginning of one, of which the
 * script has seen nothing yet. Nothing in it can have committed. Another stale one may show behind
 * it then. */
static bool may_resend(const struct tx *tx)
{
    bool is_first = tx->options.autocommit || tx->batch.hidden > 0;
    return is_first && tx->batch.stale && tx->batch.error.item + 1 > tx->resent;
}

static void resend(struct tx *tx)
{
    tx->resent = tx->batch.error.item + 1;
    batch_rewind(&tx->batch);
    bool in_block = !tx->options.autocommit || tx->batch.commit;
    if (in_block && tx->batch.items[0].statement != &rollback_statement) {
        batch_add_front(&tx->batch, &rollback_statement);
    }
    start(tx);
}

/* What has no key cannot be remembered to write. */
static bool looks_like_read(const struct tx *tx, const struct statement *statement)
{
    return statement->key && statement->traces == SQL_NO_TRACES &&
           statement_looks_like_read(statement->sql) &&
           !lanes_is_writer(&tx->database->lanes, statement);
}

static bool looks_like_reads(const struct tx *tx)
{
    const struct batch *batch = &tx->batch;
    for (size_t i = batch->hidden; i < batch->count; i++) {
        if (!looks_like_read(tx, batch->items[i].statement)) {
            return false;
        }
    }
    return tx->options.autocommit && !batch->describe;
}

/* Statements that look like reads may call a function that writes. Run read-only, they are known
 * not to have taken effect, whatever becomes of their answer. */
static void run_read_only(struct tx *tx)
{
    tx->reads = looks_like_reads(tx);
    if (tx->reads) {
        batch_add_front(&tx->batch, &read_only_statement);
        tx->batch.read_only = true;
    }
}

static bool has_tried_to_write(const struct tx *tx)
{
    return tx->reads && strcmp(tx->batch.error.sqlstate, "25006") == 0;
}

/* It writes after all: it is run as what it is, now and for some time. */
static void run_writable(struct tx *tx)
{
    const struct batch *batch = &tx->batch;
    size_t failed = batch->hidden + batch->error.item - 1;
    lanes_note_writer(&tx->database->lanes, batch->items[failed].statement);
    tx->reads = false;
    tx->batch.read_only = false;
    batch_rewind(&tx->batch);
    batch_drop_front(&tx->batch);
    run_in_block(tx);
    start(tx);
}

void tx_end(struct tx *tx)
{
    tx_count_end(tx);
    tx->state = TX_ENDED;
    loop_disarm(tx_loop(tx), &tx->limit);
    give_back(tx, true);
}

static void count_run(struct tx *tx)
{
    tx_count_wait(tx);
    tx_count_statements(tx, tx->batch.count);
}

/* Ends it at once from any state. A COMMIT under way is waited for, not cancelled. */
static void break_off(struct tx *tx)
{
    if (tx->state == TX_ENDED) {
        return;
    }
    bool committing = tx->state == TX_COMMITTING;
    tx_count_broken_off(tx);
    if (tx->state == TX_ACQUIRING) {
        pool_forget(&tx->database->pool, &tx->waiter);
    }
    lanes_forget(&tx->database->lanes, &tx->call);
    loop_disarm(tx_loop(tx), &tx->limit);
    tx->state = TX_ENDED;
    give_back(tx, !committing);
}

void tx_finish(struct tx *tx)
{
    break_off(tx);
    batch_finish(&tx->batch);
}

/* Its connection broke: there is none any more. */
static void lose_session(struct tx *tx)
{
    pool_lost(&tx->database->pool, tx->pg);
    tx->pg = NULL;
}

void tx_look_at_session(struct tx *tx, bool lost)
{
    if (lost) {
        lose_session(tx);
    } else {
        pool_look_at(&tx->database->pool, tx->pg);
    }
}

/* What was sent ahead has failed, while the script was queueing. */
static void on_stream_failed(struct tx *tx)
{
    tx->streaming = false;
    tx->run.open = false;
    tx->untold = true;
    tx_count_statements(tx, tx->batch.count);
    tx_look_at_session(tx, tx->run.lost);
    tx_note_outcome(tx);
    if (tx->run.lost) {
        tx_end(tx);
    }
}

static void on_done(struct pg_run *run)
{
    struct tx *tx = list_entry((void *)run, struct tx, run);
    if (tx->streaming) {
        on_stream_failed(tx);
        return;
    }
    count_run(tx);
    tx_look_at_session(tx, tx->run.lost);
    if (!run->lost && may_resend(tx)) {
        resend(tx);
        return;
    }
    if (!run->lost && has_tried_to_write(tx)) {
        run_writable(tx);
        return;
    }
    tx_note_outcome(tx);
    if (tx->options.autocommit) {
        leave_block(tx);
        lanes_note(&tx->database->lanes, &tx->batch, tx_waited(tx));
        tx->state = TX_NEW;
        give_back(tx, true);
    } else if (tx->batch.commit || run->lost) {
        tx_end(tx);
    } else {
        tx->state = TX_OPEN;
    }
    tx->done(tx);
}

/* While nothing is under way on it, so that no run tells of it. */
static void on_lost(struct pg *pg)
{
    struct tx *tx = pg->holder;
    assert(tx->state == TX_OPEN);
    lose_session(tx);
    error_set(&tx->error, ERROR_UNAVAILABLE,
              "the connection was lost, and the transaction with it");
    tx->failed = true;
    tx_end(tx);
}

static void begin_on(struct tx *tx, struct pg *pg)
{
    tx->pg = pg;
    pg->holder = tx;
    pg->on_lost = on_lost;
    start(tx);
}

/* It gets no session, or no turn. */
static void turn_away(struct tx *tx, const struct error *err)
{
    counter_add(tx_counters(tx), shed_total, err->code == ERROR_OVERLOADED);
    tx->error = *err;
    tx->state = tx->options.autocommit ? TX_NEW : TX_ENDED;
    tx->failed = !tx->options.autocommit;
    loop_disarm(tx_loop(tx), &tx->limit);
    give_back(tx, false);
    tx->done(tx);
}

static void on_granted(struct pool_waiter *waiter, struct pg *pg, const struct error *err)
{
    struct tx *tx = list_entry((void *)waiter, struct tx, waiter);
    tx_count_wait(tx);
    if (pg) {
        begin_on(tx, pg);
    } else {
        turn_away(tx, err);
    }
}

static void acquire(struct tx *tx)
{
    tx->state = TX_ACQUIRING;
    tx->waiting_since = tx_loop(tx)->now;
    struct pg *pg = pool_acquire(&tx->database->pool, &tx->waiter);
    if (pg) {
        begin_on(tx, pg);
    }
}

static void on_turn(struct turn *turn, const struct error *err)
{
    struct tx *tx = list_entry((void *)turn, struct tx, turn);
    tx_count_wait(tx);
    if (err) {
        turn_away(tx, err);
    } else {
        acquire(tx);
    }
}

static void on_lane(struct lane_call *call, enum lane_outcome outcome)
{
    struct tx *tx = list_entry((void *)call, struct tx, call);
    count_run(tx);
    if (outcome == LANE_MOVE) {
        batch_rewind(&tx->batch);
        run_read_only(tx);
        acquire(tx);
        return;
    }
    tx->error = tx->batch.error;
    tx->state = TX_NEW;
    tx->done(tx);
}

static bool take_lane(struct tx *tx)
{
    tx->call.done = on_lane;
    if (!tx->options.autocommit || !lanes_submit(&tx->database->lanes, &tx->call, &tx->batch)) {
        return false;
    }
    tx->state = TX_RUNNING;
    tx->reads = true;
    return true;
}

/* Its time is over, whoever it waits for or is used by: nobody else is to wait for its locks. */
static void on_limit(struct timer *timer)
{
    struct tx *tx = list_entry((void *)timer, struct tx, limit);
    bool idle = tx->state == TX_OPEN || tx->state == TX_FEEDING;
    if (tx->state == TX_COMMITTING) {
        return;
    }
    break_off(tx);
    tx_tell_timeout(tx);
    tx->failed = true;
    if (!idle) {
        tx->done(tx);
    }
}

static void limit(struct tx *tx)
{
    if (tx->options.limited && !tx->limit.slot) {
        loop_arm(tx_loop(tx), &tx->limit, tx->deadline, on_limit);
    }
}

/* The whole batch is there, and is waited for. */
static void end_stream(struct tx *tx)
{
    tx->streaming = false;
    tx->run.open = false;
    tx->state = tx->batch.commit ? TX_COMMITTING : TX_RUNNING;
    tx->waiting_since = tx_loop(tx)->now;
    pg_send_more(tx->pg);
}

static void send_ahead(struct tx *tx)
{
    batch_seal(&tx->batch);
    if (!tx->streaming) {
        tx->streaming = true;
        tx->run.batch = &tx->batch;
        tx->run.done = on_done;
        tx->run.open = true;
        pool_renew(&tx->database->pool, tx->pg);
        pg_start(tx->pg, &tx->run);
    }
    pg_send_more(tx->pg);
}

void tx_stream(struct tx *tx)
{
    if (tx->state == TX_OPEN && tx->batch.count % STREAM_ITEMS == 0) {
        send_ahead(tx);
    }
}

void tx_stream_before_rows(struct tx *tx)
{
    if (tx->state == TX_OPEN && tx->batch.count >= tx->batch.sealed + STREAM_BEFORE_ROWS) {
        send_ahead(tx);
    }
}

void tx_flush(struct tx *tx)
{
    if (tx->state == TX_OPEN) {
        send_ahead(tx);
    } else {
        batch_seal(&tx->batch);
    }
}

void tx_forget_batch(struct tx *tx)
{
    assert(tx->state == TX_OPEN);
    if (tx->streaming) {
        tx_count_statements(tx, tx->batch.count);
        tx->streaming = false;
        tx->run.open = false;
        pg_abandon(tx->pg, &tx->run);
    }
    tx->failed = false;
    tx->untold = false;
    tx->collecting = false;
}

static void run(struct tx *tx, void (*done)(struct tx *tx))
{
    assert(!tx->failed && tx->collecting);
    limit(tx);
    tx->done = done;
    tx->run.batch = &tx->batch;
    tx->run.done = on_done;
    tx->waiter.granted = on_granted;
    tx->waiter.deadline = tx->deadline;
    tx->turn.granted = on_turn;
    tx->turn.deadline = tx->deadline;
    tx->collecting = false;
    tx->resent = 0;
    batch_seal(&tx->batch);
    if (tx->streaming) {
        end_stream(tx);
        return;
    }
    if (tx->state == TX_OPEN) {
        start(tx);
        return;
    }
    tx->waiting_since = tx_loop(tx)->now;
    if (take_lane(tx)) {
        return;
    }
    run_read_only(tx);
    run_in_block(tx);
    tx->state = TX_QUEUEING;
    if (!tx->options.turn || turn_take(&tx->database->turns, &tx->turn, tx->options.turn)) {
        acquire(tx);
    }
}

void tx_send(struct tx *tx, void (*done)(struct tx *tx))
{
    tx_batch(tx);
    run(tx, done);
}

bool tx_commit(struct tx *tx, void (*done)(struct tx *tx))
{
    bool nothing_sent = tx->state == TX_NEW;
    bool nothing_queued = !tx->collecting || tx->batch.count == tx->batch.hidden;
    if (nothing_sent && nothing_queued) {
        tx->state = TX_ENDED;
        return true;
    }
    batch_add(tx_batch(tx), &commit_statement, 0, NULL, 0);
    tx->batch.commit = true;
    run(tx, done);
    return false;
}

bool tx_may_take_effect(struct tx *tx)
{
    if (tx->state == TX_RUNNING && tx->pg && tx->options.autocommit) {
        pg_cancel(tx->pg);
        return true;
    }
    return tx->state == TX_COMMITTING;
}
