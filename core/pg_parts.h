/* What the files of a session tell each other; everyone else includes pg.h. libpq's own header
 * stays in those files. */
#ifndef MOONPOOL_PG_PARTS_H
#define MOONPOOL_PG_PARTS_H

#include <stdint.h>

#include "error.h"
#include "list.h"
#include "loop.h"
#include "pg.h"

static inline struct pg *pg_of_timer(struct timer *timer)
{
    return list_entry((void *)timer, struct pg, timer);
}

/* pg.c. The one place that changes the state. */
void pg_set_state(struct pg *pg, enum pg_state state);

/* Of a session's socket, in any state that has one. */
void pg_on_socket(struct watch *watch, uint32_t events);

/* Of a COPY: the server's answer may have been taken in already, and is to be looked at without
 * waiting for more to come. */
void pg_look_at_answer(struct pg *pg);

/* pg_open.c. The settings of a session: the statement that makes them, and a hash of those that the
 * server reports. */
extern const char pg_setup_sql[];
uint64_t pg_hash_reported(const struct pg *pg);

/* The socket has something to say to libpq, which is connecting. */
void pg_step_connecting(struct pg *pg);

/* The answer to the settings comes. */
void pg_read_setup(struct pg *pg);

/* The lookup goes on without the session, if it has begun. */
void pg_forget_lookup(struct pg *pg);

/* pg_clean.c. One step towards IDLE, to be taken whenever something has come back. */
void pg_clean(struct pg *pg);

/* The cancel goes on without the session, if it has begun. */
void pg_forget_cancel(struct pg *pg);

/* pg_close.c. The session is of no use any more without our doing: all who use it are told. */
void pg_lost(struct pg *pg, const struct error *err);

/* The same, with what libpq says of it behind `what`. */
void pg_lost_with_message(struct pg *pg, const char *what);

/* For calls that must not call back: the loss is told from the loop. */
void pg_lost_later(struct pg *pg);

/* Tells those whose runs are finished. */
void pg_finish_runs(struct list *finished);

#endif
