/* How a session that is given back becomes clean, step by step, and how one that rested for long
 * shows that it still is.
 *
 * A connection that is being cancelled must not be used before the cancel has returned: the request
 * to cancel is addressed to the backend, not to a statement, and would kill an innocent one. */
#include "pg.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libpq-fe.h>

#include "arena.h"
#include "helper.h"
#include "log.h"
#include "pg_parts.h"

/* How long cleaning may take before the session is thrown away. A COMMIT under way is waited for,
 * be it that a standby has to confirm it: to close would not end it on the server. */
enum { CLEANING_MS = 250, COMMIT_CLEANING_S = 600 };

/* How long the server may take to show that it is there. */
enum { CHECKING_MS = 1000 };

/* Past this many prepared statements the session is replaced rather than grown. */
enum { MOST_PREPARED = 2000 };

struct pg_cancel {
    struct job job;
    struct pg *pg; /* NULL once the session has been closed meanwhile */
    PGcancel *request;
};

static void free_cancel(struct pg_cancel *cancel)
{
    PQfreeCancel(cancel->request);
    free(cancel);
}

/* One that has not begun would only be in the way. */
void pg_forget_cancel(struct pg *pg)
{
    struct pg_cancel *cancel = pg->cancel;
    pg->cancel = NULL;
    if (cancel && helper_withdraw(pg->helper, &cancel->job)) {
        free_cancel(cancel);
    } else if (cancel) {
        cancel->pg = NULL;
    }
}

static void cancel_work(struct job *job)
{
    struct pg_cancel *cancel = list_entry((void *)job, struct pg_cancel, job);
    char message[256];
    PQcancel(cancel->request, message, sizeof message);
}

static void cancel_done(struct job *job)
{
    struct pg_cancel *cancel = list_entry((void *)job, struct pg_cancel, job);
    struct pg *pg = cancel->pg;
    free_cancel(cancel);
    if (pg) {
        pg->cancel = NULL;
    }
    if (pg && pg->state == PG_CLEANING) {
        pg_clean(pg);
    }
}

void pg_cancel(struct pg *pg)
{
    if (pg->cancel) {
        return;
    }
    struct pg_cancel *cancel = memory_zalloc(sizeof *cancel);
    cancel->pg = pg;
    cancel->job.work = cancel_work;
    cancel->job.done = cancel_done;
    cancel->job.bounded = true;
    cancel->request = PQgetCancel(pg->conn);
    pg->cancel = cancel;
    pg->uncancelled = pg->pipeline.expected_count;
    helper_submit(pg->helper, &cancel->job);
    pg->events->on_cancel(pg);
}

static void fall_silent(struct pg *pg, const struct error *err)
{
    pg->silent = true;
    pg_lost(pg, err);
}

static void on_cleaning_timeout(struct timer *timer)
{
    struct error err;
    error_set(&err, ERROR_UNAVAILABLE, "it could not be cleaned in time");
    log_event(LOG_WARN, "session dropped", "%s", err.message);
    fall_silent(pg_of_timer(timer), &err);
}

/* As the server last said. */
static bool is_in_transaction(const struct pg *pg)
{
    PGTransactionStatusType status = PQtransactionStatus(pg->conn);
    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

bool pg_is_worn(const struct pg *pg)
{
    return pg->pipeline.retire || pg_turned_read_only(pg) ||
           pg->pipeline.prepared.held > MOST_PREPARED || PQstatus(pg->conn) != CONNECTION_OK;
}

static bool is_on(const struct pg *pg, const char *setting)
{
    const char *value = PQparameterStatus(pg->conn, setting);
    return value && strcmp(value, "on") == 0;
}

bool pg_turned_read_only(const struct pg *pg)
{
    return pg->pipeline.refused_write &&
           (is_on(pg, "default_transaction_read_only") || is_on(pg, "in_hot_standby"));
}

static bool is_at_rest(const struct pg *pg)
{
    return pipeline_is_idle(&pg->pipeline) && pg->copy.state == COPY_NONE;
}

static bool has_traces(const struct pg *pg)
{
    return pg->pipeline.traces || pg_hash_reported(pg) != pg->reported;
}

/* One that will be closed need not be reset before. */
static bool is_clean(const struct pg *pg)
{
    return !pg->cancel && is_at_rest(pg) && PQtransactionStatus(pg->conn) == PQTRANS_IDLE &&
           (pg->pipeline.retire || !has_traces(pg));
}

static int send_rollback(struct pg *pg)
{
    pg->rolled_back = true;
    return pipeline_send_own(&pg->pipeline, "rollback");
}

/* Makes the session as it was when it was set up. */
static int send_reset(struct pg *pg)
{
    pg->reset = true;
    pg->pipeline.traces = false;
    prepared_forget_all(&pg->pipeline.prepared);
    return pipeline_send_own(&pg->pipeline, "discard all") == 0
               ? pipeline_send_own(&pg->pipeline, pg_setup_sql)
               : -1;
}

static void flush_own(struct pg *pg, int code)
{
    if (code == 0) {
        pg_flush(pg);
    } else {
        pg_lost_later(pg);
    }
}

/* A cancel ends one segment, and the server goes on with the next. Not before it has answered: it
 * may still be at the one that was cancelled. */
static void cancel_next(struct pg *pg)
{
    if (pg->pipeline.read_only && pg->pipeline.expected_count < pg->uncancelled) {
        pg_cancel(pg);
    }
}

/* One step towards IDLE, taken whenever something has come back. */
void pg_clean(struct pg *pg)
{
    if (pg->cancel) {
        return;
    }
    if (!is_at_rest(pg)) {
        cancel_next(pg);
    } else if (is_clean(pg)) {
        pg_set_state(pg, PG_IDLE);
        pg->events->on_idle(pg);
    } else if (is_in_transaction(pg) && !pg->rolled_back) {
        flush_own(pg, send_rollback(pg));
    } else if (PQtransactionStatus(pg->conn) == PQTRANS_IDLE && !pg->reset) {
        flush_own(pg, send_reset(pg));
    } else {
        pg_close(pg);
    }
}

static void on_checking_timeout(struct timer *timer)
{
    struct error err;
    error_set(&err, ERROR_UNAVAILABLE, "an idle connection did not answer");
    fall_silent(pg_of_timer(timer), &err);
}

void pg_check(struct pg *pg)
{
    assert(pg->state == PG_IDLE);
    pg_set_state(pg, PG_CHECKING);
    loop_arm(pg->loop, &pg->timer, pg->loop->now + MILLISECONDS(CHECKING_MS), on_checking_timeout);
    flush_own(pg, pipeline_sync(&pg->pipeline));
}

bool pg_is_quiet(const struct pg *pg)
{
    char byte;
    assert(pg->state == PG_IDLE);
    return recv(PQsocket(pg->conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static int abandon_all(struct pipeline *pipeline)
{
    int code = 0;
    while (code == 0 && !list_is_empty(&pipeline->runs)) {
        code = pipeline_abandon(pipeline, list_entry(pipeline->runs.next, struct pg_run, link));
    }
    return code;
}

bool pg_release(struct pg *pg, bool cancel)
{
    assert(pg->state == PG_LENT);
    bool losing = pg->timer.slot != 0; /* lost_later() is due */
    if (!losing && is_clean(pg)) {
        pg_set_state(pg, PG_IDLE);
        return true;
    }
    bool busy = !is_at_rest(pg);
    pg->state = PG_CLEANING;
    if (abandon_all(&pg->pipeline) != 0 || copy_abandon(&pg->copy) != 0 || losing) {
        pg_lost_later(pg);
        return false;
    }
    uint64_t limit = cancel ? MILLISECONDS(CLEANING_MS) : SECONDS(COMMIT_CLEANING_S);
    loop_arm(pg->loop, &pg->timer, pg->loop->now + limit, on_cleaning_timeout);
    if (busy && cancel) {
        pg_cancel(pg);
    }
    if (pg->copy.state == COPY_NONE) {
        pg_flush(pg);
    } else {
        pg_look_at_answer(pg);
    }
    pg_clean(pg);
    return false;
}
