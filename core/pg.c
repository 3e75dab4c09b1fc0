/* The life of one session, and what it does while it is lent. How it opens, becomes clean and ends
 * is in files of their own.
 *
 *   RESOLVING    -> CONNECTING  [begin_connecting]   pg_open.c
 *   CONNECTING   -> SETTING_UP  [begin_setup]
 *   SETTING_UP   -> IDLE        [finish_setup]
 *   IDLE         -> LENT        [pg_lend]
 *   IDLE         -> CHECKING    [pg_check]           pg_clean.c
 *   CHECKING     -> IDLE        [pg_clean]
 *   LENT         -> IDLE        [pg_release]
 *   LENT         -> CLEANING    [pg_release]
 *   CLEANING     -> IDLE        [pg_clean]
 *   any          -> CLOSING     [pg_close, pg_lost]  pg_close.c
 *   CLOSING      -> CLOSED      [finish_closing] */
#include "pg.h"

#include <assert.h>

#include <libpq-fe.h>

#include "pg_parts.h"

void pg_set_state(struct pg *pg, enum pg_state state)
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

void pg_lend(struct pg *pg)
{
    assert(pg->state == PG_IDLE);
    pg_set_state(pg, PG_LENT);
}

/* Reading and writing. */

void pg_flush(struct pg *pg)
{
    int left = PQflush(pg->conn);
    if (left < 0) {
        pg_lost_later(pg);
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
        pg_lost_with_message(pg, "the connection to PostgreSQL was lost");
        return false;
    }
    for (PGnotify *note = PQnotifies(pg->conn); note; note = PQnotifies(pg->conn)) {
        PQfreemem(note);
    }
    if (pipeline_send(&pg->pipeline) != 0) {
        pg_lost_with_message(pg, "the connection to PostgreSQL was lost");
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
        pg_lost_later(pg);
    }
}

void pg_send_more(struct pg *pg)
{
    assert(pg->state == PG_LENT);
    if (pipeline_send(&pg->pipeline) != 0) {
        pg_lost_later(pg);
        return;
    }
    pg_flush(pg);
}

void pg_sync(struct pg *pg)
{
    assert(pg->state == PG_LENT);
    if (pipeline_sync(&pg->pipeline) != 0) {
        pg_lost_later(pg);
        return;
    }
    pg_flush(pg);
}

void pg_abandon(struct pg *pg, struct pg_run *run)
{
    assert(pg->state == PG_LENT);
    if (pipeline_abandon(&pg->pipeline, run) != 0) {
        pg_lost_later(pg);
    }
}

/* COPY. */

void pg_copy_start(struct pg *pg, struct copy_run *run, const char *sql)
{
    assert(pg->state == PG_LENT && pipeline_is_idle(&pg->pipeline));
    if (copy_start(&pg->copy, pg->conn, run, sql) != 0) {
        pg_lost_later(pg);
        return;
    }
    pg_flush(pg);
}

/* The server's answer may have been taken in already: it is to be looked at without waiting for
 * more to come. */
void pg_look_at_answer(struct pg *pg)
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
        pg_lost_later(pg);
        return false;
    }
    pg_flush(pg);
    return !has_output(pg);
}

void pg_copy_end(struct pg *pg, const char *refusal)
{
    assert(pg->state == PG_LENT && pg->copy.state == COPY_FEEDING);
    if (copy_end(&pg->copy, refusal) != 0) {
        pg_lost_later(pg);
        return;
    }
    pg_look_at_answer(pg);
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
        pg_lost_with_message(pg, "the connection to PostgreSQL was lost");
        return false;
    }
    pg->pipeline.retire |= pg->copy.retire;
    pg->pipeline.refused_write |= pg->copy.refused_write;
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

/* Events. */

/* An idle session has nothing to say but notices, notifications and goodbyes. */
static void read_idle(struct pg *pg)
{
    if (!PQconsumeInput(pg->conn) || PQstatus(pg->conn) != CONNECTION_OK) {
        pg_lost_with_message(pg, "an idle connection to PostgreSQL was lost");
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
        if (!PQconsumeInput(pg->conn)) {
            pg_lost_with_message(pg, "the connection to PostgreSQL was lost");
        }
        return;
    }
    if (turn_pipeline(pg)) {
        pg_finish_runs(&pg->pipeline.finished);
    }
}

void pg_on_socket(struct watch *watch, uint32_t events)
{
    struct pg *pg = list_entry((void *)watch, struct pg, watch);
    switch (pg->state) {
    case PG_CONNECTING:
        pg_step_connecting(pg);
        break;
    case PG_SETTING_UP:
        pg_read_setup(pg);
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
            pg_clean(pg);
        }
        break;
    default:
        assert(!"an event without a socket");
    }
}
