/* A batch: statements with their parameters on the way to PostgreSQL, and their results on the way
 * back. Passive data, filled by the Lua binding, run by pg.c, read by the Lua binding. */
#ifndef MOONPOOL_BATCH_H
#define MOONPOOL_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "error.h"
#include "parameter.h"

struct bulk;
struct pg_result; /* libpq's PGresult */
struct statement;

enum item_state {
    ITEM_QUEUED,
    ITEM_SENT,
    ITEM_DONE,
    ITEM_FAILED,
    ITEM_SKIPPED, /* not executed: an item before it failed */
};

struct batch_item {
    const struct statement *statement; /* borrowed; outlives the batch's run */
    struct parameter *parameters;      /* batch arena */
    struct bulk *bulk;                 /* owned; the rows of a :bulk statement, else NULL */
    struct pg_result *result; /* owned: the rows, or why it failed; NULL for a plain count */
    int64_t count;            /* rows affected or returned */
    const char *source;       /* batch arena: file that queued it; NULL for our own items */
    int line;                 /* in that file */
    uint16_t parameter_count;
    uint8_t state; /* enum item_state */
};

struct batch {
    struct arena arena;       /* of parameters and text */
    struct arena row_arena;   /* of the row of a :bulk statement that is being queued */
    struct batch_item *items; /* owned array */
    size_t count;
    size_t capacity;
    size_t bulk_bytes;  /* of the rows of all :bulk items but the last */
    size_t hidden;      /* items in front that are ours: BEGIN and the like */
    size_t sealed;      /* items in front that do not change any more */
    bool describe;      /* describe the statements instead of executing them */
    bool isolate;       /* a Sync after each item: one that fails takes no other with it */
    bool commit;        /* the last item is COMMIT */
    bool read_only;     /* by our own wish: that it writes is not the session's fault */
    bool stale;         /* its failure is that a prepared statement is: that one took no effect */
    struct error error; /* the first failure; ERROR_NONE if there is none */
};

void batch_init(struct batch *batch);
void batch_finish(struct batch *batch);

/* Empties it for reuse, freeing the results that are still there. */
void batch_reset(struct batch *batch);

/* Makes the rows of :bulk statements into their parameters. No more rows may be added to them. */
void batch_seal(struct batch *batch);

/* Makes it as it was before it was run, to be run again. */
void batch_rewind(struct batch *batch);

/* Appends an item with room for its parameters, all NULL. The pointer is good until the next one is
 * appended. `source` is copied unless it is that of the item before. */
struct batch_item *batch_add(struct batch *batch, const struct statement *statement,
                             uint16_t parameter_count, const char *source, int line);

/* Takes the item that was appended last out of the batch, or back into it. In between it keeps its
 * place, and nothing else may be appended. */
void batch_hold_back(struct batch *batch);
void batch_let_in(struct batch *batch);

/* Puts an item of our own, without parameters, in front of all; or takes it away again. */
void batch_add_front(struct batch *batch, const struct statement *statement);
void batch_drop_front(struct batch *batch);

/* Takes away the last item, which is not a :bulk statement. */
void batch_drop_last(struct batch *batch);

/* Says of which item an error is: its index among those of the script, the statement's name and who
 * queued it, as far as it has them. */
void batch_blame(const struct batch *batch, const struct batch_item *item, struct error *err);

/* Bytes that the items and what belongs to them take, without their results. */
size_t batch_memory(const struct batch *batch);

#endif
