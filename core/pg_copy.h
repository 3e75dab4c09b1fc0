/* COPY FROM STDIN on one connection: leaves pipeline mode, in which libpq knows no COPY, sends the
 * rows it is fed, and enters it again when the server's answer is in. When to read and write is the
 * business of pg.c.
 *
 *   NONE -> STARTING -> FEEDING -> ENDING -> NONE
 */
#ifndef MOONPOOL_PG_COPY_H
#define MOONPOOL_PG_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

struct pg_conn;

/* Whoever feeds it embeds one. */
struct copy_run {
    /* It takes rows now, or takes more of them; or it is over. */
    void (*turned)(struct copy_run *run);
    const char *table;  /* borrowed; its name as PostgreSQL writes it, without a schema */
    bool over;          /* `error` says how it went */
    bool lost;          /* the connection is gone besides */
    int64_t count;      /* of the rows stored */
    struct error error; /* with the row, where PostgreSQL tells which it was */
};

enum copy_state {
    COPY_NONE,
    COPY_STARTING, /* the command was sent */
    COPY_FEEDING,  /* the server takes rows */
    COPY_ENDING,   /* all rows were sent, or their end was */
};

struct pg_copy {
    enum copy_state state;
    struct pg_conn *conn; /* borrowed */
    struct copy_run *run; /* borrowed; NULL once it was abandoned */
    bool answered;        /* the server has said something before the end: most likely an error */
    unsigned fed_in_vain; /* times it was fed since then */
    bool retire;          /* an error said that the session is of no more use */
    bool refused_write;   /* 25006 */
    uint64_t notices;     /* that have come while it is fed */
    uint64_t notices_before; /* as of the last copy_read() */
};

/* Sends the command on a connection whose pipeline is idle. -1 if libpq refuses. */
int copy_start(struct pg_copy *copy, struct pg_conn *conn, struct copy_run *run, const char *sql);

/* Hands rows to libpq. -1 if it refuses. */
int copy_feed(struct pg_copy *copy, const char *rows, size_t length);

/* True once it makes no sense to feed it any more: the server has refused a row. */
bool copy_is_refused(const struct pg_copy *copy);

/* Ends the rows; with `refusal`, which is for the server's log, none of them is stored. -1 if libpq
 * refuses. */
int copy_end(struct pg_copy *copy, const char *refusal);

/* Lets go of it: the server is told to forget the rows, and its answer is dropped. -1 if libpq
 * refuses. */
int copy_abandon(struct pg_copy *copy);

/* Takes in what has arrived. -1 if the connection is not usable any more. */
int copy_read(struct pg_copy *copy);

#endif
