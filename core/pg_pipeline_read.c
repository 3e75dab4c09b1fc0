/* What comes back: a result belongs to what is expected next, a failure to one item of its batch,
 * and a Sync ends a run. */
#include "pg_pipeline.h"

#include <string.h>

#include <libpq-fe.h>

#include "batch.h"
#include "bulk.h"
#include "error.h"
#include "pg_pipeline_parts.h"
#include "pg_result.h"
#include "sql.h"
#include "statement.h"

/* Statements from which on results are packed, and how far back one like them is looked for. */
enum { LARGE_BATCH = 64, MOST_BACK = 16 };

static void pop_expectation(struct pipeline *pipeline)
{
    pipeline->head = (pipeline->head + 1) & (pipeline->capacity - 1);
    pipeline->expected_count--;
}

static void item_error(struct batch *batch, size_t index, const struct error *err)
{
    struct batch_item *item = &batch->items[index];
    item->state = ITEM_FAILED;
    if (batch->error.code != ERROR_NONE) {
        return;
    }
    batch->error = *err;
    batch_blame(batch, item, &batch->error);
}

/* A session that is read-only by our own wish does so, too. */
static bool refuses_write(const struct pipeline *pipeline, const struct batch *batch,
                          const struct error *err)
{
    return strcmp(err->sqlstate, "25006") == 0 && !pipeline->read_only && !batch->read_only;
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

/* Where DDL has changed one result it will have changed others. */
static void note_stale(struct pipeline *pipeline, const struct statement *statement,
                       const struct pg_result *result, const struct error *err)
{
    if (pg_result_is_outdated(result)) {
        pipeline->outdated = true;
        prepared_renew_all(&pipeline->prepared);
    } else if (strcmp(err->sqlstate, "26000") == 0) {
        prepared_renew_all(&pipeline->prepared);
    } else {
        prepared_forget(&pipeline->prepared, statement->key);
    }
}

/* What is stale may stand within a procedure, which may have committed before it met that. */
static bool took_no_effect(const struct statement *statement, const struct pg_result *result)
{
    return !pg_result_has_context(result) || !sql_may_commit(statement->sql);
}

static void take_failure(struct pipeline *pipeline, struct batch *batch, size_t index,
                         struct pg_result *result)
{
    const struct statement *statement = batch->items[index].statement;
    bool stale = pg_result_is_stale(result), undone = took_no_effect(statement, result);
    struct error err;
    pg_result_error(result, &err, NULL);
    err.row = find_row(&batch->items[index], result, &err);
    pipeline->retire |= error_ends_session(&err);
    pipeline->refused_write |= refuses_write(pipeline, batch, &err);
    if (stale) {
        note_stale(pipeline, statement, result, &err);
    }
    if (undone && pg_result_is_outdated(result)) {
        /* Of nobody's doing: who prepares it anew will have its new result. */
        err.code = ERROR_SERIALIZATION;
    }
    if (batch->error.code == ERROR_NONE) {
        batch->stale = stale && undone;
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
    prepared_forget(&pipeline->prepared, expected->item);
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
        pipeline_leave_window(pipeline, expected);
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
