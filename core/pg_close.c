/* How a session ends: on purpose, or because it broke or did not open, which whoever uses it is
 * told. Either way the pool hears when the server has closed its end. */
#include "pg.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "pg_parts.h"

/* How long the server may take to close its end: when it does not answer others either, and at
 * most. */
enum { CLOSING_MS = 5000, LONGEST_CLOSING_S = 600 };

static void free_connection(struct pg *pg)
{
    loop_remove(pg->loop, &pg->watch);
    loop_disarm(pg->loop, &pg->timer);
    pg_forget_lookup(pg);
    pg_forget_cancel(pg);
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
    pg_set_state(pg, PG_CLOSED);
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
    pg_set_state(pg, PG_CLOSING);
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

void pg_finish_runs(struct list *finished)
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
void pg_lost(struct pg *pg, const struct error *err)
{
    struct list failed;
    bool was_lent = pg->state == PG_LENT;
    list_init(&failed);
    if (pg->was_open) {
        pipeline_fail(&pg->pipeline, err);
        list_take(&failed, &pg->pipeline.finished);
        mark_lost(&failed);
    }
    struct copy_run *copying = lose_copy(pg, err);
    close_connection(pg);
    pg_finish_runs(&failed);
    if (copying) {
        copying->turned(copying);
    }
    /* Who heard of it by a run has let go of the session already. */
    if (was_lent && pg->on_lost) {
        pg->on_lost(pg);
    }
    pg->events->on_failed(pg, err);
    if (pg->watch.fd < 0) {
        finish_closing(pg);
    }
}

/* libpq's messages end in a line feed and may have several lines. */
void pg_lost_with_message(struct pg *pg, const char *what)
{
    struct error err;
    char text[400];
    snprintf(text, sizeof text, "%s", pg->conn ? PQerrorMessage(pg->conn) : "out of memory");
    for (size_t n = strlen(text); n > 0 && text[n - 1] == '\n'; n--) {
        text[n - 1] = '\0';
    }
    error_set(&err, ERROR_UNAVAILABLE, "%s: %s", what, *text ? text : "the connection broke");
    pg_lost(pg, &err);
}

static void on_lost_later(struct timer *timer)
{
    struct pg *pg = pg_of_timer(timer);
    pg_lost_with_message(pg, pg->was_open ? "the connection to PostgreSQL was lost"
                                          : "could not connect to PostgreSQL");
}

/* For calls that must not call back: the loss is told from the loop. */
void pg_lost_later(struct pg *pg)
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
