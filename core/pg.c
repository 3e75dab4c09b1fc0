/* The life of one session.
 *
 *   RESOLVING    -> CONNECTING  [begin_connecting]
 *   CONNECTING   -> SETTING_UP  [begin_setup]
 *   SETTING_UP   -> IDLE        [finish_setup]
 *   IDLE         -> LENT        [pg_lend]
 *   IDLE         -> CHECKING    [pg_check]
 *   CHECKING     -> IDLE        [clean]
 *   LENT         -> IDLE        [pg_release]
 *   LENT         -> CLEANING    [pg_release]
 *   CLEANING     -> IDLE        [clean]
 *   any          -> CLOSING     [pg_close, lost]
 *   CLOSING      -> CLOSED      [finish_closing]
 *
 * A connection that is being cancelled must not be used before the cancel has returned: the request
 * to cancel is addressed to the backend, not to a statement, and would kill an innocent one. */
#include "pg.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "arena.h"
#include "batch.h"
#include "hash.h"
#include "helper.h"
#include "log.h"
#include "pg_target.h"

/* How long cleaning may take before the session is thrown away. A COMMIT under way is waited for,
 * be it that a standby has to confirm it: to close would not end it on the server. */
enum { CLEANING_MS = 250, COMMIT_CLEANING_S = 600 };

/* How long the server may take to show that it is there. */
enum { CHECKING_MS = 1000 };

/* How long the server may take to close its end: when it does not answer others either, and at
 * most. */
enum { CLOSING_MS = 5000, LONGEST_CLOSING_S = 600 };

/* Past this many prepared statements the session is replaced rather than grown. */
enum { MOST_PREPARED = 2000 };

/* Results are read as text, which needs these forms. The server looks every second whether we are
 * still there while it runs a statement for us: without us nothing must run on. */
static const char setup_sql[] = "select pg_catalog.set_config('timezone', 'UTC', false), "
                                "pg_catalog.set_config('datestyle', 'ISO, YMD', false), "
                                "pg_catalog.set_config('bytea_output', 'hex', false), "
                                "pg_catalog.set_config('extra_float_digits', '1', false), "
                                "pg_catalog.set_config('client_connection_check_interval', '1s', "
                                "false)";

/* What the server reports without being asked: a change by a function in the database shows too. */
static const char *const reported_settings[] = {
    "client_encoding",
    "DateStyle",
    "TimeZone",
    "IntervalStyle",
    "standard_conforming_strings",
    "session_authorization",
    "is_superuser",
    "default_transaction_read_only",
    "application_name",
};

struct pg_lookup {
    struct job job;
    struct pg *pg; /* NULL once the session has been closed meanwhile */
    const struct pg_target *target;
    struct pg_addresses addresses;
};

struct pg_cancel {
    struct job job;
    struct pg *pg; /* NULL once the session has been closed meanwhile */
    PGcancel *request;
};

static void on_socket(struct watch *watch, uint32_t events);
static void clean(struct pg *pg);

static void set_state(struct pg *pg, enum pg_state state)
{
    loop_disarm(pg->loop, &pg->timer);
    if (state == PG_IDLE) {
        pg->idle_since = pg->state == PG_CHECKING ? pg->idle_since : pg->loop->now;
        pg->heard_at = pg->loop->now;
        pg->rolled_back = false;
        pg->reset = false;
    }
    pg->state = state;
}

static struct pg *pg_of_timer(struct timer *timer)
{
    return list_entry((void *)timer, struct pg, timer);
}

/* The end. */

static void free_cancel(struct pg_cancel *cancel)
{
    PQfreeCancel(cancel->request);
    free(cancel);
}

/* Jobs that have begun go on without the session; those that have not would only be in the way. */

static void forget_lookup(struct pg *pg)
{
    struct pg_lookup *lookup = pg->lookup;
    pg->lookup = NULL;
    if (lookup && helper_withdraw(pg->helper, &lookup->job)) {
        free(lookup);
    } else if (lookup) {
        lookup->pg = NULL;
    }
}

static void forget_cancel(struct pg *pg)
{
    struct pg_cancel *cancel = pg->cancel;
    pg->cancel = NULL;
    if (cancel && helper_withdraw(pg->helper, &cancel->job)) {
        free_cancel(cancel);
    } else if (cancel) {
        cancel->pg = NULL;
    }
}

static void free_connection(struct pg *pg)
{
    loop_remove(pg->loop, &pg->watch);
    loop_disarm(pg->loop, &pg->timer);
    forget_lookup(pg);
    forget_cancel(pg);
    if (pg->conn) {
        PQfinish(pg->conn);
        pg->conn = NULL;
    }
    pipeline_finish(&pg->pipeline);
}

static void finish_closing(struct pg *pg)
{
    int duplicate = pg->watch.fd;
    loop_remove(pg->loop, &pg->watch);
    if (duplicate >= 0) {
        close(duplicate);
    }
    set_state(pg, PG_CLOSED);
    pg->events->on_closed(pg);
}

static void on_farewell(struct watch *watch, uint32_t events)
{
    char rest[4096];
    ssize_t n = recv(watch->fd, rest, sizeof rest, MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        finish_closing(list_entry((void *)watch, struct pg, watch));
    }
}

static void on_farewell_timeout(struct timer *timer)
{
    struct pg *pg = pg_of_timer(timer);
    uint64_t now = pg->loop->now;
    if (now - pg->closing_since < SECONDS(LONGEST_CLOSING_S) && pg->watch.fd >= 0 &&
        pg->events->server_answers(pg)) {
        loop_arm(pg->loop, timer, now + MILLISECONDS(CLOSING_MS), on_farewell_timeout);
    } else {
        finish_closing(pg);
    }
}

/* -1 if there is no connection any more, or there has never been one. */
static int watch_farewell(struct pg *pg, int duplicate)
{
    if (duplicate < 0) {
        return -1;
    }
    if (shutdown(duplicate, SHUT_WR) != 0 ||
        loop_add(pg->loop, &pg->watch, duplicate, EPOLLIN | EPOLLRDHUP, on_farewell) != 0) {
        close(duplicate);
        return -1;
    }
    return 0;
}

/* The server's end closes when the backend has exited: seeing that on a duplicate of the socket is
 * how we know that the session does not count against max_connections any more. */
static void close_connection(struct pg *pg)
{
    int socket = pg->conn ? PQsocket(pg->conn) : -1;
    int duplicate = socket >= 0 ? dup(socket) : -1;
    free_connection(pg);
    set_state(pg, PG_CLOSING);
    pg->closing_since = pg->loop->now;
    bool waits = watch_farewell(pg, duplicate) == 0;
    uint64_t until = pg->loop->now + (waits ? MILLISECONDS(CLOSING_MS) : 0);
    loop_arm(pg->loop, &pg->timer, until, on_farewell_timeout);
}

void pg_close(struct pg *pg)
{
    assert(pg->state != PG_LENT);
    close_connection(pg);
}

static void mark_lost(struct list *runs)
{
    struct list *item, *following;
    list_for_each (item, following, runs) {
        list_entry(item, struct pg_run, link)->lost = true;
    }
}

static void finish_runs(struct list *finished)
{
    while (!list_is_empty(finished)) {
        struct pg_run *run = list_entry(finished->next, struct pg_run, link);
        list_remove(&run->link);
        run->done(run);
    }
}

/* The run of a COPY under way, if there is one, after its connection broke. */
static struct copy_run *lose_copy(struct pg *pg, const struct error *err)
{
    struct copy_run *run = pg->copy.state == COPY_NONE ? NULL : pg->copy.run;
    pg->copy.state = COPY_NONE;
    if (run) {
        run->over = true;
        run->lost = true;
        run->error = *err;
    }
    return run;
}

/* The session is of no use any more without our doing. */
static void lost(struct pg *pg, const struct error *err)
{
    struct list failed;
    void (*on_lost)(struct pg *) = pg->state == PG_LENT ? pg->on_lost : NULL;
    list_init(&failed);
    if (pg->was_open) {
        pipeline_fail(&pg->pipeline, err);
        list_take(&failed, &pg->pipeline.finished);
        mark_lost(&failed);
    }
    struct copy_run *copying = lose_copy(pg, err);
    close_connection(pg);
    finish_runs(&failed);
    if (copying) {
        copying->turned(copying);
    }
    if (on_lost) {
        on_lost(pg);
    }
    pg->events->on_failed(pg, err);
    if (pg->watch.fd < 0) {
        finish_closing(pg);
    }
}

/* libpq's messages end in a line feed and may have several lines. */
static void lost_with_message(struct pg *pg, const char *what)
{
    struct error err;
    char text[400];
    snprintf(text, sizeof text, "%s", pg->conn ? PQerrorMessage(pg->conn) : "out of memory");
    for (size_t n = strlen(text); n > 0 && text[n - 1] == '\n'; n--) {
        text[n - 1] = '\0';
    }
    error_set(&err, ERROR_UNAVAILABLE, "%s: %s", what, *text ? text : "the connection broke");
    lost(pg, &err);
}

static void on_lost_later(struct timer *timer)
{
    struct pg *pg = pg_of_timer(timer);
    lost_with_message(pg, pg->was_open ? "the connection to PostgreSQL was lost"
                                       : "could not connect to PostgreSQL");
}

/* For calls that must not call back: the loss is told from the loop. */
static void lost_later(struct pg *pg)
{
    loop_arm(pg->loop, &pg->timer, pg->loop->now, on_lost_later);
}

void pg_destroy(struct pg *pg)
{
    if (!pg) {
        return;
    }
    int duplicate = pg->state == PG_CLOSING ? pg->watch.fd : -1;
    free_connection(pg);
    if (duplicate >= 0) {
        close(duplicate);
    }
    free(pg);
}

/* Reading and writing. */

void pg_flush(struct pg *pg)
{
    int left = PQflush(pg->conn);
    if (left < 0) {
        lost_later(pg);
        return;
    }
    loop_change(pg->loop, &pg->watch, left ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* Takes in what came, sends what that made room for. False if the session is lost. */
static bool turn_pipeline(struct pg *pg)
{
    bool readable = PQconsumeInput(pg->conn);
    /* Even then the server's last words may be in the buffer. */
    if (pipeline_read(&pg->pipeline) != 0 || !readable) {
        lost_with_message(pg, "the connection to PostgreSQL was lost");
        return false;
    }
    for (PGnotify *note = PQnotifies(pg->conn); note; note = PQnotifies(pg->conn)) {
        PQfreemem(note);
    }
    if (pipeline_send(&pg->pipeline) != 0) {
        lost_with_message(pg, "the connection to PostgreSQL was lost");
        return false;
    }
    pg_flush(pg);
    return true;
}

void pg_start(struct pg *pg, struct pg_run *run)
{
    assert(pg->state == PG_LENT);
    pipeline_start(&pg->pipeline, run);
    if (pipeline_send(&pg->pipeline) != 0) {
        lost_later(pg);
    }
}

void pg_send_more(struct pg *pg)
{
    assert(pg->state == PG_LENT);
    if (pipeline_send(&pg->pipeline) != 0) {
        lost_later(pg);
        return;
    }
    pg_flush(pg);
}

void pg_sync(struct pg *pg)
{
    assert(pg->state == PG_LENT);
    if (pipeline_sync(&pg->pipeline) != 0) {
        lost_later(pg);
        return;
    }
    pg_flush(pg);
}

void pg_abandon(struct pg *pg, struct pg_run *run)
{
    assert(pg->state == PG_LENT);
    if (pipeline_abandon(&pg->pipeline, run) != 0) {
        lost_later(pg);
    }
}

/* COPY. */

void pg_copy_start(struct pg *pg, struct copy_run *run, const char *sql)
{
    assert(pg->state == PG_LENT && pipeline_is_idle(&pg->pipeline));
    if (copy_start(&pg->copy, pg->conn, run, sql) != 0) {
        lost_later(pg);
        return;
    }
    pg_flush(pg);
}

/* The server's answer may have been taken in already: it is to be looked at without waiting for
 * more to come. */
static void look_at_answer(struct pg *pg)
{
    pg_flush(pg);
    loop_change(pg->loop, &pg->watch, EPOLLIN | EPOLLOUT);
}

static bool has_output(const struct pg *pg)
{
    return (pg->watch.events & EPOLLOUT) != 0;
}

bool pg_copy_feed(struct pg *pg, const char *rows, size_t length)
{
    assert(pg->state == PG_LENT && pg->copy.state == COPY_FEEDING);
    if (copy_feed(&pg->copy, rows, length) != 0) {
        lost_later(pg);
        return false;
    }
    pg_flush(pg);
    return !has_output(pg);
}

void pg_copy_end(struct pg *pg, const char *refusal)
{
    assert(pg->state == PG_LENT && pg->copy.state == COPY_FEEDING);
    if (copy_end(&pg->copy, refusal) != 0) {
        lost_later(pg);
        return;
    }
    look_at_answer(pg);
}

/* Writes what is left, and takes in what came. False if the session is lost. */
static bool turn_copy(struct pg *pg, uint32_t events)
{
    bool readable = (events & ~(uint32_t)EPOLLOUT) != 0;
    bool alive = !readable || PQconsumeInput(pg->conn);
    for (PGnotify *note = PQnotifies(pg->conn); note; note = PQnotifies(pg->conn)) {
        pg->copy.notices++;
        PQfreemem(note);
    }
    bool feeding = pg->copy.state == COPY_FEEDING;
    if (((readable || !feeding) && copy_read(&pg->copy) != 0) || !alive) {
        lost_with_message(pg, "the connection to PostgreSQL was lost");
        return false;
    }
    pg->pipeline.retire = pg->pipeline.retire || pg->copy.retire;
    pg_flush(pg);
    return true;
}

static void read_copy(struct pg *pg, uint32_t events)
{
    struct copy_run *run = pg->copy.run;
    if (!turn_copy(pg, events)) {
        return;
    }
    if (run->over || (pg->copy.state == COPY_FEEDING && !has_output(pg))) {
        run->turned(run);
    }
}

static int abandon_all(struct pipeline *pipeline)
{
    int code = 0;
    while (code == 0 && !list_is_empty(&pipeline->runs)) {
        code = pipeline_abandon(pipeline, list_entry(pipeline->runs.next, struct pg_run, link));
    }
    return code;
}

/* Cleaning. */

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
        clean(pg);
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
    helper_submit(pg->helper, &cancel->job);
}

static void on_cleaning_timeout(struct timer *timer)
{
    struct pg *pg = pg_of_timer(timer);
    log_event(LOG_WARN, "session dropped", "it could not be cleaned in time");
    pg_close(pg);
}

bool pg_in_transaction(const struct pg *pg)
{
    PGTransactionStatusType status = PQtransactionStatus(pg->conn);
    return status == PQTRANS_INTRANS || status == PQTRANS_INERROR;
}

bool pg_is_worn(const struct pg *pg)
{
    return pg->pipeline.retire || pg->pipeline.prepared_count > MOST_PREPARED ||
           PQstatus(pg->conn) != CONNECTION_OK;
}

static bool is_at_rest(const struct pg *pg)
{
    return pipeline_is_idle(&pg->pipeline) && pg->copy.state == COPY_NONE;
}

static uint64_t hash_reported(const struct pg *pg)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < sizeof reported_settings / sizeof *reported_settings; i++) {
        const char *value = PQparameterStatus(pg->conn, reported_settings[i]);
        hash = value ? hash_bytes(hash, value, strlen(value) + 1) : hash;
    }
    return hash;
}

static bool has_traces(const struct pg *pg)
{
    return pg->pipeline.traces || hash_reported(pg) != pg->reported;
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
    pipeline_forget_prepared(&pg->pipeline);
    return pipeline_send_own(&pg->pipeline, "discard all") == 0
               ? pipeline_send_own(&pg->pipeline, setup_sql)
               : -1;
}

static void flush_own(struct pg *pg, int code)
{
    if (code == 0) {
        pg_flush(pg);
    } else {
        lost_later(pg);
    }
}

/* One step towards IDLE, taken whenever something has come back. */
static void clean(struct pg *pg)
{
    if (pg->cancel || !is_at_rest(pg)) {
        return;
    }
    if (is_clean(pg)) {
        set_state(pg, PG_IDLE);
        pg->events->on_idle(pg);
    } else if (pg_in_transaction(pg) && !pg->rolled_back) {
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
    lost(pg_of_timer(timer), &err);
}

void pg_check(struct pg *pg)
{
    assert(pg->state == PG_IDLE);
    set_state(pg, PG_CHECKING);
    loop_arm(pg->loop, &pg->timer, pg->loop->now + MILLISECONDS(CHECKING_MS), on_checking_timeout);
    flush_own(pg, pipeline_sync(&pg->pipeline));
}

bool pg_is_quiet(const struct pg *pg)
{
    char byte;
    assert(pg->state == PG_IDLE);
    return recv(PQsocket(pg->conn), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

void pg_lend(struct pg *pg)
{
    assert(pg->state == PG_IDLE);
    set_state(pg, PG_LENT);
}

bool pg_release(struct pg *pg, bool cancel)
{
    assert(pg->state == PG_LENT);
    bool losing = pg->timer.slot != 0; /* lost_later() is due */
    if (!losing && is_clean(pg)) {
        set_state(pg, PG_IDLE);
        return true;
    }
    bool busy = !is_at_rest(pg);
    pg->state = PG_CLEANING;
    if (abandon_all(&pg->pipeline) != 0 || copy_abandon(&pg->copy) != 0 || losing) {
        lost_later(pg);
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
        look_at_answer(pg);
    }
    clean(pg);
    return false;
}

/* Opening. */

static void on_open_timeout(struct timer *timer)
{
    struct pg *pg = pg_of_timer(timer);
    struct error err;
    error_set(&err, ERROR_UNAVAILABLE, "connecting to PostgreSQL took too long");
    if (pg->conn && pg->target->host_count > 1) {
        pg_target_pass_over(pg->target, pg->conn, pg->loop->now);
    }
    lost(pg, &err);
}

/* libpq goes on to the next host when one refuses, but would wait for one that does not answer
 * until the last moment: each gets its share of the time. */
static uint64_t share_of_time(const struct pg *pg, uint64_t deadline)
{
    int hosts = pg->target->host_count;
    return hosts > 1 ? pg->loop->now + deadline_left(deadline, pg->loop->now) / (uint64_t)hosts
                     : deadline;
}

/* One remark changes an outcome: a commit of which the server did not wait for the standby's
 * confirmation. It is known by the function that makes it, in all languages. */
static bool is_unconfirmed_commit(const PGresult *result)
{
    const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
    return function && strcmp(function, "SyncRepWaitForLSN") == 0;
}

static void on_notice(void *context, const PGresult *result)
{
    struct pg *pg = context;
    pg->copy.notices++;
    pg->pipeline.unconfirmed |= is_unconfirmed_commit(result);
}

static void begin_setup(struct pg *pg)
{
    pg->state = PG_SETTING_UP;
    PQsetnonblocking(pg->conn, 1);
    PQsetNoticeReceiver(pg->conn, on_notice, pg);
    if (!PQsendQuery(pg->conn, setup_sql)) {
        lost_with_message(pg, "could not set up the session");
        return;
    }
    pg_flush(pg);
}

static void finish_setup(struct pg *pg)
{
    if (!PQenterPipelineMode(pg->conn)) {
        lost_with_message(pg, "could not enter pipeline mode");
        return;
    }
    pipeline_init(&pg->pipeline, pg->conn);
    pg->opened_at = pg->loop->now;
    pg->reported = hash_reported(pg);
    pg->was_open = true;
    set_state(pg, PG_IDLE);
    pg->events->on_idle(pg);
}

static void read_setup(struct pg *pg)
{
    if (!PQconsumeInput(pg->conn)) {
        lost_with_message(pg, "the connection to PostgreSQL was lost");
        return;
    }
    while (!PQisBusy(pg->conn)) {
        PGresult *result = PQgetResult(pg->conn);
        if (!result) {
            finish_setup(pg);
            return;
        }
        ExecStatusType status = PQresultStatus(result);
        PQclear(result);
        if (status != PGRES_TUPLES_OK) {
            lost_with_message(pg, "could not set up the session");
            return;
        }
    }
    pg_flush(pg);
}

/* The socket may be another one after each step: libpq tries one address after the other. */
static void watch_connecting(struct pg *pg, uint32_t events)
{
    if (loop_add(pg->loop, &pg->watch, PQsocket(pg->conn), events, on_socket) != 0) {
        lost_with_message(pg, "could not connect to PostgreSQL");
    }
}

static void step_connecting(struct pg *pg)
{
    loop_remove(pg->loop, &pg->watch);
    switch (PQconnectPoll(pg->conn)) {
    case PGRES_POLLING_READING:
        watch_connecting(pg, EPOLLIN);
        break;
    case PGRES_POLLING_WRITING:
        watch_connecting(pg, EPOLLOUT);
        break;
    case PGRES_POLLING_OK:
        watch_connecting(pg, EPOLLIN);
        if (pg->state == PG_CONNECTING) {
            begin_setup(pg);
        }
        break;
    default:
        lost_with_message(pg, "could not connect to PostgreSQL");
    }
}

static void begin_connecting(struct pg *pg, const struct pg_addresses *addresses)
{
    pg->state = PG_CONNECTING;
    pg->conn = pg_target_connect(pg->target, addresses, pg->loop->now);
    if (!pg->conn || PQstatus(pg->conn) == CONNECTION_BAD) {
        lost_later(pg);
        return;
    }
    if (loop_add(pg->loop, &pg->watch, PQsocket(pg->conn), EPOLLOUT, on_socket) != 0) {
        lost_later(pg);
    }
}

static void lookup_work(struct job *job)
{
    struct pg_lookup *lookup = list_entry((void *)job, struct pg_lookup, job);
    pg_target_resolve(lookup->target, &lookup->addresses);
}

static void lookup_done(struct job *job)
{
    struct pg_lookup *lookup = list_entry((void *)job, struct pg_lookup, job);
    struct pg *pg = lookup->pg;
    if (pg) {
        pg->lookup = NULL;
        if (lookup->addresses.failed) {
            struct error err;
            error_set(&err, ERROR_UNAVAILABLE, "%s", lookup->addresses.message);
            lost(pg, &err);
        } else {
            begin_connecting(pg, &lookup->addresses);
        }
    }
    free(lookup);
}

static void begin_lookup(struct pg *pg)
{
    struct pg_lookup *lookup = memory_zalloc(sizeof *lookup);
    lookup->pg = pg;
    lookup->target = pg->target;
    lookup->job.work = lookup_work;
    lookup->job.done = lookup_done;
    pg->lookup = lookup;
    helper_submit(pg->helper, &lookup->job);
}

struct pg *pg_open(struct loop *loop, struct helper *helper, struct pg_target *target,
                   const struct pg_events *events, void *owner, uint64_t deadline)
{
    struct pg *pg = memory_zalloc(sizeof *pg);
    list_init(&pg->link);
    pg->loop = loop;
    pg->helper = helper;
    pg->target = target;
    pg->events = events;
    pg->owner = owner;
    pg->watch.fd = -1;
    pg->state = PG_RESOLVING;
    loop_arm(loop, &pg->timer, share_of_time(pg, deadline), on_open_timeout);
    if (target->resolve) {
        begin_lookup(pg);
    } else {
        begin_connecting(pg, NULL);
    }
    return pg;
}

/* An idle session has nothing to say but notices, notifications and goodbyes. */
static void read_idle(struct pg *pg)
{
    if (!PQconsumeInput(pg->conn) || PQstatus(pg->conn) != CONNECTION_OK) {
        lost_with_message(pg, "an idle connection to PostgreSQL was lost");
        return;
    }
    while (!PQisBusy(pg->conn)) {
        PGresult *result = PQgetResult(pg->conn);
        if (!result) {
            break;
        }
        PQclear(result);
    }
    pg->events->on_idle(pg);
}

static void read_lent(struct pg *pg, uint32_t events)
{
    if (pg->copy.state != COPY_NONE) {
        read_copy(pg, events);
        return;
    }
    if (pipeline_is_idle(&pg->pipeline)) {
        /* The holder learns of a loss from its next batch, or we when it is given back. */
        if (!PQconsumeInput(pg->conn)) {
            loop_remove(pg->loop, &pg->watch);
        }
        return;
    }
    if (turn_pipeline(pg)) {
        finish_runs(&pg->pipeline.finished);
    }
}

static void on_socket(struct watch *watch, uint32_t events)
{
    struct pg *pg = list_entry((void *)watch, struct pg, watch);
    switch (pg->state) {
    case PG_CONNECTING:
        step_connecting(pg);
        break;
    case PG_SETTING_UP:
        read_setup(pg);
        break;
    case PG_IDLE:
        read_idle(pg);
        break;
    case PG_LENT:
        read_lent(pg, events);
        break;
    case PG_CHECKING:
    case PG_CLEANING:
        if (pg->copy.state != COPY_NONE ? turn_copy(pg, events) : turn_pipeline(pg)) {
            clean(pg);
        }
        break;
    default:
        assert(!"an event without a socket");
    }
}
