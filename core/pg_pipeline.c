/* Pipelining: a ring of what is expected runs beside libpq's own queue. An item is preceded by the
 * preparation of its statement where the connection does not have it yet; a Sync closes the batch.
 * After an error the server skips everything up to the Sync, and so do we: nothing more is sent.
 * What comes back is the business of pg_pipeline_read.c. */
#include "pg_pipeline.h"

#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "arena.h"
#include "batch.h"
#include "error.h"
#include "pg_pipeline_parts.h"
#include "pgtype.h"
#include "statement.h"

/* More in flight brings no more speed, but unread results pile up in libpq. */
enum { WINDOW_ITEMS = 1000, WINDOW_BYTES = 1024 * 1024 };

enum { FIRST_RING = 16, NAME_SIZE = 16, STACK_PARAMETERS = 16 };

void pipeline_init(struct pipeline *pipeline, struct pg_conn *conn)
{
    memset(pipeline, 0, sizeof *pipeline);
    pipeline->conn = conn;
    list_init(&pipeline->runs);
    list_init(&pipeline->finished);
}

void pipeline_finish(struct pipeline *pipeline)
{
    free(pipeline->expected);
    prepared_finish(&pipeline->prepared);
    pipeline_init(pipeline, NULL);
}

bool pipeline_is_idle(const struct pipeline *pipeline)
{
    return pipeline->expected_count == 0 && list_is_empty(&pipeline->runs);
}

/* The ring of expectations. */

static void grow_ring(struct pipeline *pipeline)
{
    size_t capacity = pipeline->capacity ? pipeline->capacity * 2 : FIRST_RING;
    struct expectation *ring = memory_alloc(capacity * sizeof *ring);
    for (size_t i = 0; i < pipeline->expected_count; i++) {
        ring[i] = pipeline->expected[(pipeline->head + i) & (pipeline->capacity - 1)];
    }
    free(pipeline->expected);
    pipeline->expected = ring;
    pipeline->capacity = capacity;
    pipeline->head = 0;
}

static void expect(struct pipeline *pipeline, enum expectation_kind kind, struct pg_run *run,
                   uint64_t item)
{
    if (pipeline->expected_count == pipeline->capacity) {
        grow_ring(pipeline);
    }
    size_t end = (pipeline->head + pipeline->expected_count) & (pipeline->capacity - 1);
    pipeline->expected[end] = (struct expectation){.kind = (uint8_t)kind, .run = run, .item = item};
    pipeline->expected_count++;
}

/* Sending. */

static size_t item_bytes(const struct batch_item *item)
{
    size_t bytes = 0;
    for (uint16_t i = 0; i < item->parameter_count; i++) {
        bytes += item->parameters[i].value ? (size_t)item->parameters[i].length : 0;
    }
    return bytes;
}

void pipeline_leave_window(struct pipeline *pipeline, const struct expectation *expected)
{
    pipeline->items_in_flight--;
    pipeline->bytes_in_flight -= item_bytes(&expected->run->batch->items[expected->item]);
}

/* Noted when it is sent: what is cancelled may have done its work before. */
static void note_traces(struct pipeline *pipeline, const struct statement *statement)
{
    pipeline->traces = pipeline->traces || statement->traces == SQL_TRACES;
    pipeline->retire = pipeline->retire || statement->traces == SQL_LASTING_TRACES;
}

/* libpq wants parameters as parallel arrays; few enough of them lie on the stack. */
struct parameter_arrays {
    const char **values;
    int *lengths;
    int *formats;
    const char *stack_values[STACK_PARAMETERS];
    int stack_numbers[2 * STACK_PARAMETERS];
    void *heap;
};

static void fill_arrays(struct parameter_arrays *arrays, const struct batch_item *item)
{
    size_t n = item->parameter_count;
    arrays->heap = NULL;
    arrays->values = arrays->stack_values;
    arrays->lengths = arrays->stack_numbers;
    if (n > STACK_PARAMETERS) {
        arrays->heap = memory_alloc(n * (sizeof(char *) + 2 * sizeof(int)));
        arrays->values = arrays->heap;
        arrays->lengths = (int *)(arrays->values + n);
    }
    arrays->formats = arrays->lengths + (n > STACK_PARAMETERS ? n : STACK_PARAMETERS);
    for (size_t i = 0; i < n; i++) {
        arrays->values[i] = item->parameters[i].value;
        arrays->lengths[i] = item->parameters[i].length;
        arrays->formats[i] = item->parameters[i].binary;
    }
}

/* "m" and the serial: for every statement sent, so without printf. */
static void write_name(char name[NAME_SIZE], uint32_t serial)
{
    char digits[NAME_SIZE];
    char *first = digits + sizeof digits;
    *--first = '\0';
    do {
        *--first = (char)('0' + serial % 10);
        serial /= 10;
    } while (serial);
    *--first = 'm';
    strcpy(name, first);
}

/* Parameters are encoded for the types that were described, so the server is told these: of its own
 * it would take those that the columns have by now. Types of the user's travel as text, and may
 * have been made anew. */
static int send_preparation(struct pipeline *pipeline, const struct statement *statement,
                            const char *name)
{
    int count = statement->described ? statement->parameter_count : 0;
    Oid *types = memory_alloc((size_t)(count + 1) * sizeof *types);
    for (int i = 0; i < count; i++) {
        uint32_t type = statement->parameter_types[i];
        types[i] = type < PGTYPE_FIRST_USER_TYPE ? type : 0;
    }
    int sent = PQsendPrepare(pipeline->conn, name, statement->sql, count, types);
    free(types);
    return sent ? 0 : -1;
}

static int prepare_if_needed(struct pipeline *pipeline, struct pg_run *run,
                             const struct statement *statement, char name[NAME_SIZE])
{
    bool fresh;
    write_name(name, prepared_take(&pipeline->prepared, statement->key, &fresh));
    if (fresh) {
        if (send_preparation(pipeline, statement, name) != 0) {
            return -1;
        }
        expect(pipeline, EXPECT_PREPARED, run, statement->key);
    }
    return 0;
}

static int send_execution(struct pipeline *pipeline, struct pg_run *run,
                          const struct batch_item *item)
{
    const struct statement *statement = item->statement;
    char name[NAME_SIZE];
    /* A key of 0 marks text that is not worth preparing. */
    if (statement->key && prepare_if_needed(pipeline, run, statement, name) != 0) {
        return -1;
    }
    note_traces(pipeline, statement);
    struct parameter_arrays arrays;
    fill_arrays(&arrays, item);
    int sent = statement->key
                   ? PQsendQueryPrepared(pipeline->conn, name, item->parameter_count, arrays.values,
                                         arrays.lengths, arrays.formats, 0)
                   : PQsendQueryParams(pipeline->conn, statement->sql, item->parameter_count, NULL,
                                       arrays.values, arrays.lengths, arrays.formats, 0);
    free(arrays.heap);
    return sent ? 0 : -1;
}

static int send_description(struct pipeline *pipeline, struct pg_run *run,
                            const struct statement *statement)
{
    char name[NAME_SIZE];
    if (prepare_if_needed(pipeline, run, statement, name) != 0) {
        return -1;
    }
    return PQsendDescribePrepared(pipeline->conn, name) ? 0 : -1;
}

/* `run` is the one that this Sync closes, or NULL. */
static int send_sync(struct pipeline *pipeline, struct pg_run *run)
{
    if (!PQpipelineSync(pipeline->conn)) {
        return -1;
    }
    expect(pipeline, EXPECT_SYNC, run, 0);
    return 0;
}

static int send_item(struct pipeline *pipeline, struct pg_run *run)
{
    struct batch *batch = run->batch;
    struct batch_item *item = &batch->items[run->next];
    int code = batch->describe ? send_description(pipeline, run, item->statement)
                               : send_execution(pipeline, run, item);
    if (code != 0) {
        return -1;
    }
    expect(pipeline, EXPECT_ITEM, run, run->next);
    item->state = ITEM_SENT;
    run->next++;
    pipeline->items_in_flight++;
    pipeline->bytes_in_flight += item_bytes(item);
    return batch->isolate && run->next < batch->count ? send_sync(pipeline, NULL) : 0;
}

void pipeline_start(struct pipeline *pipeline, struct pg_run *run)
{
    run->next = 0;
    run->synced = false;
    run->lost = false;
    list_append(&pipeline->runs, &run->link);
    if (!pipeline->sending) {
        pipeline->sending = run;
    }
}

static bool window_has_room(const struct pipeline *pipeline)
{
    return pipeline->items_in_flight < WINDOW_ITEMS && pipeline->bytes_in_flight < WINDOW_BYTES;
}

bool pipeline_fits_window(const struct batch *batch)
{
    size_t bytes = 0;
    for (size_t i = 0; i < batch->count; i++) {
        bytes += item_bytes(&batch->items[i]);
    }
    return batch->count <= WINDOW_ITEMS && bytes <= WINDOW_BYTES;
}

static struct pg_run *run_behind(const struct pipeline *pipeline, const struct pg_run *run)
{
    return run->link.next == &pipeline->runs ? NULL
                                             : list_entry(run->link.next, struct pg_run, link);
}

static int request_flush(struct pipeline *pipeline)
{
    return PQsendFlushRequest(pipeline->conn) ? 0 : -1;
}

/* Sends of the run what the window allows; true in `ret_whole` if that was all of it. */
static int send_run(struct pipeline *pipeline, struct pg_run *run, bool *ret_whole)
{
    struct batch *batch = run->batch;
    bool stop = batch->error.code != ERROR_NONE && !batch->isolate;
    size_t first = run->next;
    /* Behind the sealed ones may be rows of a :bulk statement that are still being gathered. */
    size_t ready = run->open ? batch->sealed : batch->count;
    while (!stop && run->next < ready && window_has_room(pipeline)) {
        if (send_item(pipeline, run) != 0) {
            return -1;
        }
    }
    *ret_whole = stop || (run->next == ready && !run->open);
    if (*ret_whole) {
        run->synced = true;
        return run->shared ? 0 : send_sync(pipeline, run);
    }
    /* Without a Sync the server keeps its answers until its buffer is full. */
    return run->next == first ? 0 : request_flush(pipeline);
}

int pipeline_send(struct pipeline *pipeline)
{
    /* Refilled when half empty, so that a wake brings more than one statement along. */
    bool refill = pipeline->items_in_flight <= WINDOW_ITEMS / 2 &&
                  pipeline->bytes_in_flight <= WINDOW_BYTES / 2;
    bool whole = true;
    while (refill && whole && pipeline->sending) {
        struct pg_run *run = pipeline->sending;
        if (send_run(pipeline, run, &whole) != 0) {
            return -1;
        }
        if (whole) {
            pipeline->sending = run_behind(pipeline, run);
        }
    }
    if (!pipeline->unsynced) {
        return 0;
    }
    if (!pipeline->sending) {
        pipeline->unsynced = false;
        return send_sync(pipeline, NULL);
    }
    /* The window is full of runs whose answers the server keeps for want of a Sync. */
    return refill ? request_flush(pipeline) : 0;
}

int pipeline_sync(struct pipeline *pipeline)
{
    if (pipeline->sending) {
        pipeline->unsynced = true;
        return request_flush(pipeline);
    }
    return send_sync(pipeline, NULL);
}

int pipeline_send_own(struct pipeline *pipeline, const char *sql)
{
    if (!PQsendQueryParams(pipeline->conn, sql, 0, NULL, NULL, NULL, NULL, 0)) {
        return -1;
    }
    expect(pipeline, EXPECT_OWN, NULL, 0);
    return send_sync(pipeline, NULL);
}

/* What of the run is still to come will be dropped. Its items leave the window at once. */
static void forget_expectations(struct pipeline *pipeline, const struct pg_run *run)
{
    for (size_t i = 0; i < pipeline->expected_count; i++) {
        struct expectation *expected =
            &pipeline->expected[(pipeline->head + i) & (pipeline->capacity - 1)];
        if (expected->run != run) {
            continue;
        }
        if (expected->kind == EXPECT_ITEM) {
            pipeline_leave_window(pipeline, expected);
        }
        expected->run = NULL;
    }
}

int pipeline_abandon(struct pipeline *pipeline, struct pg_run *run)
{
    bool half_sent = run->next > 0 && !run->synced;
    if (pipeline->sending == run) {
        pipeline->sending = run_behind(pipeline, run);
    }
    list_remove(&run->link);
    forget_expectations(pipeline, run);
    return half_sent ? send_sync(pipeline, NULL) : 0;
}
