/* Pipelining: a ring of what is expected runs beside libpq's own queue. An item is preceded by the
 * preparation of its statement where the connection does not have it yet; a Sync closes the batch.
 * After an error the server skips everything up to the Sync, and so do we: nothing more is sent. */
#include "pg_pipeline.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "arena.h"
#include "batch.h"
#include "bulk.h"
#include "error.h"
#include "pg_result.h"
#include "pgtype.h"
#include "statement.h"

/* More in flight brings no more speed, but unread results pile up in libpq. */
enum { WINDOW_ITEMS = 1000, WINDOW_BYTES = 1024 * 1024 };
/* Statements from which on results are packed, and how far back one like them is looked for. */
enum { LARGE_BATCH = 64, MOST_BACK = 16 };

enum { FIRST_RING = 16, FIRST_SLOTS = 32, NAME_SIZE = 16, STACK_PARAMETERS = 16 };

enum expectation_kind { EXPECT_PREPARED, EXPECT_ITEM, EXPECT_SYNC, EXPECT_OWN };

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
    free(pipeline->prepared);
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

static void pop_expectation(struct pipeline *pipeline)
{
    pipeline->head = (pipeline->head + 1) & (pipeline->capacity - 1);
    pipeline->expected_count--;
}

/* The statements prepared on this connection. */

static struct prepared *find_place(struct prepared *table, size_t slots, uint64_t key)
{
    size_t i = key & (slots - 1);
    while (table[i].key && table[i].key != key) {
        i = (i + 1) & (slots - 1);
    }
    return &table[i];
}

static void grow_prepared(struct pipeline *pipeline)
{
    size_t slots = pipeline->slots ? pipeline->slots * 2 : FIRST_SLOTS;
    struct prepared *table = memory_zalloc(slots * sizeof *table);
    for (size_t i = 0; i < pipeline->slots; i++) {
        if (pipeline->prepared[i].key) {
            *find_place(table, slots, pipeline->prepared[i].key) = pipeline->prepared[i];
        }
    }
    free(pipeline->prepared);
    pipeline->prepared = table;
    pipeline->slots = slots;
}

static struct prepared *prepared_for(struct pipeline *pipeline, uint64_t key)
{
    if (pipeline->prepared_count * 2 >= pipeline->slots) {
        grow_prepared(pipeline);
    }
    struct prepared *place = find_place(pipeline->prepared, pipeline->slots, key);
    if (!place->key) {
        place->key = key;
        pipeline->prepared_count++;
    }
    return place;
}

static void forget_prepared(struct pipeline *pipeline, uint64_t key)
{
    if (key && pipeline->slots) {
        struct prepared *place = find_place(pipeline->prepared, pipeline->slots, key);
        place->serial = 0;
    }
}

void pipeline_forget_prepared(struct pipeline *pipeline)
{
    for (size_t i = 0; i < pipeline->slots; i++) {
        pipeline->prepared[i] = (struct prepared){0};
    }
    pipeline->prepared_count = 0;
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
    struct prepared *prepared = prepared_for(pipeline, statement->key);
    bool fresh = prepared->serial == 0;
    if (fresh) {
        prepared->serial = ++pipeline->last_serial;
    }
    write_name(name, prepared->serial);
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
            pipeline->items_in_flight--;
            pipeline->bytes_in_flight -= item_bytes(&run->batch->items[expected->item]);
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

/* Reading. */

static void item_error(struct batch *batch, size_t index, const struct error *err)
{
    struct batch_item *item = &batch->items[index];
    item->state = ITEM_FAILED;
    if (batch->error.code != ERROR_NONE) {
        return;
    }
    batch->error = *err;
    if (index >= batch->hidden) {
        batch->error.item = index - batch->hidden + 1;
    }
    if (item->source) {
        snprintf(batch->error.where, sizeof batch->error.where, "%s:%d", item->source, item->line);
    }
    if (item->statement->name) {
        snprintf(batch->error.statement, sizeof batch->error.statement, "%s",
                 item->statement->name);
    }
}

/* A session that is read-only by our own wish may say 25006; class 53 is a lack of space or memory,
 * which the next session would meet too. */
static bool ends_session(const struct pipeline *pipeline, const struct batch *batch,
                         const struct error *err)
{
    bool read_only = pipeline->read_only || batch->read_only;
    return err->code == ERROR_UNAVAILABLE && strncmp(err->sqlstate, "53", 2) != 0 &&
           !(read_only && strcmp(err->sqlstate, "25006") == 0);
}

/* PostgreSQL knows one statement; the values that it tells show which of the rows it was. */
static size_t find_row(const struct batch_item *item, const struct pg_result *result,
                       const struct error *err)
{
    size_t length;
    const char *value = item->bulk ? pg_result_blamed(result, &length) : NULL;
    bool duplicate = strcmp(err->sqlstate, "23505") == 0;
    return value ? bulk_find_row(item->bulk, value, length, duplicate) : 0;
}

static void take_failure(struct pipeline *pipeline, struct batch *batch, size_t index,
                         struct pg_result *result)
{
    struct error err;
    pg_result_error(result, &err, NULL);
    err.row = find_row(&batch->items[index], result, &err);
    if (ends_session(pipeline, batch, &err)) {
        pipeline->retire = true;
    }
    if (error_is_stale_statement(&err)) {
        forget_prepared(pipeline, batch->items[index].statement->key);
    }
    pg_result_free(batch->items[index].result);
    batch->items[index].result = result;
    item_error(batch, index, &err);
}

static void check_commit(struct batch *batch, size_t index, const struct pg_result *result)
{
    if (!batch->commit || index != batch->count - 1 ||
        strcmp(pg_result_tag(result), "COMMIT") == 0) {
        return;
    }
    struct error err;
    error_set(&err, ERROR_DATABASE,
              "the transaction was rolled back: a statement in it had failed before");
    item_error(batch, index, &err);
}

/* The results of a large batch wait for each other, so that small ones are made smaller. */
static struct pg_result *keep(struct batch *batch, size_t index, struct pg_result *result)
{
    const struct pg_result *like = NULL;
    if (batch->count < LARGE_BATCH || batch->describe) {
        return result;
    }
    for (size_t back = 1; back <= index && back <= MOST_BACK && !like; back++) {
        const struct batch_item *before = &batch->items[index - back];
        bool alike = before->statement == batch->items[index].statement;
        like = alike && pg_result_is_packed(before->result) ? before->result : NULL;
    }
    return pg_result_pack(result, like);
}

static void take_success(struct pipeline *pipeline, struct batch *batch, size_t index,
                         struct pg_result *result)
{
    struct batch_item *item = &batch->items[index];
    if (item->state == ITEM_FAILED) {
        pg_result_free(result); /* The rest of an answer that libpq has found to be broken. */
        return;
    }
    item->state = ITEM_DONE;
    pipeline->executed++;
    check_commit(batch, index, result);
    item->count = pg_result_count(result);
    if (pg_result_columns(result) > 0 || batch->describe) {
        item->result = keep(batch, index, result);
    } else {
        pg_result_free(result);
    }
}

static bool is_copy(const struct pg_result *result)
{
    ExecStatusType status = PQresultStatus(result);
    return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

static void refuse_copy(struct batch *batch, size_t index, struct pg_result *result)
{
    struct error err;
    error_set(&err, ERROR_SCRIPT, "COPY cannot be run as SQL text; use copy_from");
    item_error(batch, index, &err);
    pg_result_free(result);
}

static void take_item(struct pipeline *pipeline, struct batch *batch, size_t index,
                      struct pg_result *result)
{
    switch (PQresultStatus(result)) {
    case PGRES_TUPLES_OK:
    case PGRES_COMMAND_OK:
    case PGRES_EMPTY_QUERY:
        take_success(pipeline, batch, index, result);
        return;
    case PGRES_PIPELINE_ABORTED:
        if (batch->items[index].state == ITEM_SENT) {
            batch->items[index].state = ITEM_SKIPPED;
        }
        pg_result_free(result);
        return;
    default:
        if (is_copy(result)) {
            refuse_copy(batch, index, result);
        } else {
            take_failure(pipeline, batch, index, result);
        }
    }
}

/* The item a preparation was for is the next one expected. */
static void take_prepared(struct pipeline *pipeline, const struct expectation *expected,
                          struct pg_result *result)
{
    if (PQresultStatus(result) == PGRES_COMMAND_OK) {
        pg_result_free(result);
        return;
    }
    forget_prepared(pipeline, expected->item);
    const struct expectation *following =
        &pipeline->expected[(pipeline->head + 1) & (pipeline->capacity - 1)];
    if (expected->run && PQresultStatus(result) == PGRES_FATAL_ERROR &&
        pipeline->expected_count > 1 && following->kind == EXPECT_ITEM) {
        take_failure(pipeline, expected->run->batch, following->item, result);
        return;
    }
    pg_result_free(result);
}

static void take_own(struct pipeline *pipeline, struct pg_result *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        pipeline->retire = true;
    }
    pg_result_free(result);
}

static void take_result(struct pipeline *pipeline, struct pg_result *result)
{
    const struct expectation *expected = &pipeline->expected[pipeline->head];
    /* Whether or not somebody waits for it: libpq would return it for ever. */
    pipeline->broken = pipeline->broken || is_copy(result);
    if (expected->kind == EXPECT_PREPARED) {
        take_prepared(pipeline, expected, result);
    } else if (expected->kind == EXPECT_ITEM && expected->run) {
        take_item(pipeline, expected->run->batch, expected->item, result);
    } else if (expected->kind == EXPECT_OWN) {
        take_own(pipeline, result);
    } else {
        pg_result_free(result);
    }
}

static void finish_run(struct pipeline *pipeline, struct pg_run *run)
{
    list_remove(&run->link);
    list_append(&pipeline->finished, &run->link);
}

/* The end of one answer. A shared run need not wait for the Sync. */
static void end_expectation(struct pipeline *pipeline)
{
    const struct expectation *expected = &pipeline->expected[pipeline->head];
    struct pg_run *run = expected->kind == EXPECT_ITEM ? expected->run : NULL;
    bool last = run && expected->item == run->batch->count - 1;
    if (expected->kind == EXPECT_ITEM && expected->run) {
        pipeline->items_in_flight--;
        pipeline->bytes_in_flight -= item_bytes(&expected->run->batch->items[expected->item]);
    }
    pop_expectation(pipeline);
    if (last && run->shared) {
        finish_run(pipeline, run);
    }
}

/* The server has committed, but ended the wait for its standby, perhaps because we cancelled it. */
static void doubt_commit(struct pg_run *run)
{
    if (run->batch->error.code == ERROR_NONE) {
        error_set(&run->batch->error, ERROR_OUTCOME_UNKNOWN,
                  "it was committed, but no standby has confirmed it");
    }
}

/* A Sync has come: the end of a run, if it is not one of those in between. */
static void end_segment(struct pipeline *pipeline)
{
    struct pg_run *run = pipeline->expected[pipeline->head].run;
    pop_expectation(pipeline);
    if (run && pipeline->unconfirmed) {
        doubt_commit(run);
    }
    pipeline->unconfirmed = false;
    if (run) {
        finish_run(pipeline, run);
    }
}

/* COMMIT's tag has come: what is lost behind it changes nothing. */
static bool is_committed(const struct pipeline *pipeline, const struct batch *batch)
{
    return batch->commit && batch->items[batch->count - 1].state == ITEM_DONE &&
           !pipeline->unconfirmed;
}

/* Statements that stand for themselves are committed at their Sync: a deferred constraint may fail
 * only there. The Sync's own answer is still to come. -1 if it is the connection that failed. */
static int take_sync_failure(struct pipeline *pipeline, struct pg_result *result)
{
    struct pg_run *run = pipeline->expected[pipeline->head].run;
    struct error err;
    pg_result_error(result, &err, NULL);
    if (PQresultStatus(result) != PGRES_FATAL_ERROR || !*err.sqlstate) {
        pg_result_free(result);
        return -1;
    }
    pipeline->sync_failed = true;
    if (run && run->batch->count > 0 && !is_committed(pipeline, run->batch)) {
        take_failure(pipeline, run->batch, run->batch->count - 1, result);
    } else {
        pg_result_free(result);
    }
    return 0;
}

static int take_sync(struct pipeline *pipeline, struct pg_result *result)
{
    if (!result) {
        /* A Sync has a result, and one NULL behind a failure: else the connection is lost. */
        bool failed = pipeline->sync_failed;
        pipeline->sync_failed = false;
        return failed ? 0 : -1;
    }
    if (PQresultStatus(result) != PGRES_PIPELINE_SYNC) {
        return take_sync_failure(pipeline, result);
    }
    pg_result_free(result);
    pipeline->sync_failed = false;
    end_segment(pipeline);
    return 0;
}

int pipeline_read(struct pipeline *pipeline)
{
    int code = 0;
    while (code == 0 && pipeline->expected_count > 0 && !PQisBusy(pipeline->conn)) {
        struct pg_result *result = PQgetResult(pipeline->conn);
        if (pipeline->expected[pipeline->head].kind == EXPECT_SYNC) {
            code = take_sync(pipeline, result);
        } else if (!result) {
            end_expectation(pipeline);
        } else {
            take_result(pipeline, result);
        }
        if (pipeline->broken || PQstatus(pipeline->conn) != CONNECTION_OK) {
            code = -1;
        }
    }
    return code;
}

void pipeline_fail(struct pipeline *pipeline, const struct error *err)
{
    while (!list_is_empty(&pipeline->runs)) {
        struct pg_run *run = list_entry(pipeline->runs.next, struct pg_run, link);
        if (run->batch->error.code == ERROR_NONE && !is_committed(pipeline, run->batch)) {
            run->batch->error = *err;
        }
        list_remove(&run->link);
        list_append(&pipeline->finished, &run->link);
    }
    pipeline->sending = NULL;
    pipeline->unsynced = false;
    pipeline->expected_count = 0;
}
