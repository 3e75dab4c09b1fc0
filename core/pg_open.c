/* How a session is opened: names are looked up by a helper thread, libpq connects to one address
 * after the other, and then the session's settings are sent. */
#include "pg.h"

#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "arena.h"
#include "hash.h"
#include "helper.h"
#include "pg_parts.h"
#include "pg_target.h"

/* Results are read as text, which needs these forms. The server looks every second whether we are
 * still there while it runs a statement for us: without us nothing must run on. */
const char pg_setup_sql[] = "select pg_catalog.set_config('timezone', 'UTC', false), "
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

uint64_t pg_hash_reported(const struct pg *pg)
{
    uint64_t hash = HASH_START;
    for (size_t i = 0; i < sizeof reported_settings / sizeof *reported_settings; i++) {
        const char *value = PQparameterStatus(pg->conn, reported_settings[i]);
        hash = value ? hash_bytes(hash, value, strlen(value) + 1) : hash;
    }
    return hash;
}

struct pg_lookup {
    struct job job;
    struct pg *pg; /* NULL once the session has been closed meanwhile */
    const struct pg_target *target;
    struct pg_addresses addresses;
};

/* One that has not begun would only be in the way. */
void pg_forget_lookup(struct pg *pg)
{
    struct pg_lookup *lookup = pg->lookup;
    pg->lookup = NULL;
    if (lookup && helper_withdraw(pg->helper, &lookup->job)) {
        free(lookup);
    } else if (lookup) {
        lookup->pg = NULL;
    }
}

static void on_open_timeout(struct timer *timer)
{
    struct pg *pg = pg_of_timer(timer);
    struct error err;
    error_set(&err, ERROR_UNAVAILABLE, "connecting to PostgreSQL took too long");
    if (pg->conn && pg->target->host_count > 1) {
        pg_target_pass_over(pg->target, pg->conn, pg->loop->now);
    }
    pg_lost(pg, &err);
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
    if (!PQsendQuery(pg->conn, pg_setup_sql)) {
        pg_lost_with_message(pg, "could not set up the session");
        return;
    }
    pg_flush(pg);
}

static void finish_setup(struct pg *pg)
{
    if (!PQenterPipelineMode(pg->conn)) {
        pg_lost_with_message(pg, "could not enter pipeline mode");
        return;
    }
    pipeline_init(&pg->pipeline, pg->conn);
    pg->opened_at = pg->loop->now;
    pg->reported = pg_hash_reported(pg);
    pg->was_open = true;
    pg_set_state(pg, PG_IDLE);
    pg->events->on_idle(pg);
}

void pg_read_setup(struct pg *pg)
{
    if (!PQconsumeInput(pg->conn)) {
        pg_lost_with_message(pg, "the connection to PostgreSQL was lost");
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
            pg_lost_with_message(pg, "could not set up the session");
            return;
        }
    }
    pg_flush(pg);
}

/* The socket may be another one after each step: libpq tries one address after the other. */
static void watch_connecting(struct pg *pg, uint32_t events)
{
    if (loop_add(pg->loop, &pg->watch, PQsocket(pg->conn), events, pg_on_socket) != 0) {
        pg_lost_with_message(pg, "could not connect to PostgreSQL");
    }
}

void pg_step_connecting(struct pg *pg)
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
        pg_lost_with_message(pg, "could not connect to PostgreSQL");
    }
}

static void begin_connecting(struct pg *pg, const struct pg_addresses *addresses)
{
    pg->state = PG_CONNECTING;
    pg->conn = pg_target_connect(pg->target, addresses, pg->loop->now);
    if (!pg->conn || PQstatus(pg->conn) == CONNECTION_BAD) {
        pg_lost_later(pg);
        return;
    }
    if (loop_add(pg->loop, &pg->watch, PQsocket(pg->conn), EPOLLOUT, pg_on_socket) != 0) {
        pg_lost_later(pg);
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
            pg_lost(pg, &err);
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
