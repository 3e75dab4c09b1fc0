/* Batches: items, whose results they own, and what a reset and a rewind leave. The leak check of
 * the sanitizer build tells whether each result is freed once. */
#include "batch.h"

#include <libpq-fe.h>

#include "bulk.h"
#include "pg_result.h"
#include "statement.h"
#include "test.h"

static const struct statement statement = {.name = "get_user", .sql = "select 1"};

static struct pg_result *make_result(void)
{
    return (struct pg_result *)PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
}

static void set(struct batch_item *item, int i, const char *value)
{
    item->parameters[i] = (struct parameter){.value = value, .length = (int32_t)strlen(value)};
}

static void test_items(void)
{
    enum { ITEMS = 100 };
    struct batch batch;
    bool empty = true, kept = true;
    batch_init(&batch);
    for (int i = 0; i < ITEMS; i++) {
        struct batch_item *item = batch_add(&batch, &statement, 2, "scripts/users.lua", i);
        empty = empty && !item->parameters[0].value && !item->parameters[1].value;
        empty = empty && item->state == ITEM_QUEUED && !item->result && !item->count;
        set(item, 0, arena_printf(&batch.arena, "%d", i));
    }
    check(empty, "the parameters of a new item are NULL");
    check_int(batch.count, ITEMS, "items are counted");
    for (int i = 0; i < ITEMS; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        kept = kept && batch.items[i].line == i && batch.items[i].statement == &statement &&
               strcmp(batch.items[i].parameters[0].value, value) == 0;
    }
    check(kept, "and stay as they were while the batch grows");
    batch_finish(&batch);
    check(!batch.items && !batch.count && !batch.arena.chunks, "a finished batch is as new");
}

static const struct {
    const char *name;
    const char *sources[3]; /* of three items, one after the other */
    int copies;             /* how many different copies there are */
} rows[] = {
    {"one source", {"a.lua", "a.lua", "a.lua"}, 1}, {"two in turn", {"a.lua", "b.lua", "a.lua"}, 3},
    {"two", {"a.lua", "b.lua", "b.lua"}, 2},        {"none", {NULL, NULL, NULL}, 0},
    {"ours in front", {NULL, "a.lua", "a.lua"}, 1}, {"ours between", {"a.lua", NULL, "a.lua"}, 2},
};

/* The script's own text may move or die, so that it is overwritten after each item. */
static void test_sources(const char *name, const char *const *sources, int expected)
{
    struct batch batch;
    int copies = 0;
    batch_init(&batch);
    for (int i = 0; i < 3; i++) {
        char source[16] = "";
        strcpy(source, sources[i] ? sources[i] : "");
        batch_add(&batch, &statement, 0, sources[i] ? source : NULL, 1);
        memset(source, 'x', sizeof source);
    }
    for (int i = 0; i < 3; i++) {
        const char *source = batch.items[i].source;
        copies += source && (i == 0 || source != batch.items[i - 1].source);
        if (sources[i]) {
            check_text(source, sources[i], "%s: item %d knows its source", name, i + 1);
        } else {
            check(!source, "%s: item %d has none", name, i + 1);
        }
    }
    check_int(copies, expected, "%s: a source that goes on is kept once", name);
    batch_finish(&batch);
}

/* A batch as it is after a run: BEGIN, a row, a failure. */
static void run(struct batch *batch)
{
    batch_add(batch, &statement, 0, NULL, 0)->state = ITEM_DONE;
    batch->hidden = 1;
    struct batch_item *item = batch_add(batch, &statement, 1, "a.lua", 7);
    set(item, 0, "seven");
    item->state = ITEM_DONE;
    item->result = make_result();
    item = batch_add(batch, &statement, 0, "a.lua", 8);
    item->state = ITEM_FAILED;
    item->result = make_result();
    batch->commit = true;
    batch->isolate = true;
    error_set(&batch->error, ERROR_CONFLICT, "taken");
}

static void test_rewind(void)
{
    struct batch batch;
    batch_init(&batch);
    run(&batch);
    batch_rewind(&batch);
    bool queued = true;
    for (size_t i = 0; i < batch.count; i++) {
        queued = queued && batch.items[i].state == ITEM_QUEUED && !batch.items[i].result;
    }
    check(queued && batch.count == 3, "a batch that is rewound is queued anew");
    check_int(batch.error.code, ERROR_NONE, "and has not failed");
    check_int(batch.hidden, 1, "its hidden items stay hidden");
    check(batch.commit && batch.isolate, "it is still what it was");
    check_text(batch.items[1].parameters[0].value, "seven", "with its parameters");
    batch_finish(&batch);
}

static void test_drop_last(void)
{
    struct batch batch;
    batch_init(&batch);
    run(&batch);
    size_t memory = batch_memory(&batch);
    batch_add(&batch, &statement, 0, NULL, 0)->result = make_result();
    batch_drop_last(&batch);
    check_int(batch.count, 3, "the last item is dropped");
    check_int(batch.items[2].line, 8, "and no other");
    check_int(batch_memory(&batch), memory, "with what it took");
    batch_finish(&batch);
}

static void test_reset(void)
{
    struct batch batch;
    batch_init(&batch);
    run(&batch);
    batch.describe = true;
    size_t capacity = batch.capacity;
    batch_reset(&batch);
    check(!batch.count && !batch.hidden, "a batch that is reset is empty");
    check(!batch.describe && !batch.isolate && !batch.commit, "and nothing special");
    check_int(batch.error.code, ERROR_NONE, "nor failed");
    check_int(batch.capacity, capacity, "it keeps the room for a few items");
    for (int i = 0; i < 2000; i++) {
        batch_add(&batch, &statement, 1, "a.lua", i);
    }
    batch_reset(&batch);
    check_int(batch.capacity, 0, "not that for very many");
    run(&batch);
    check_int(batch.count, 3, "and it can be filled again");
    batch_finish(&batch);
}

static void test_memory(void)
{
    static const struct parameter value = {.value = "a text", .length = 6};
    struct batch batch;
    struct error err;
    batch_init(&batch);
    check_int((long long)batch_memory(&batch), 0, "an empty batch takes no memory");
    struct batch_item *item = batch_add(&batch, &statement, 1, "a.lua", 1);
    item->bulk = bulk_create(&statement, 1);
    size_t before = batch_memory(&batch);
    for (int i = 0; i < 1000; i++) {
        bulk_add(item->bulk, &value, &err);
    }
    size_t rows = batch_memory(&batch) - before;
    check(rows >= 1000 * strlen(value.value), "rows count");
    batch_add(&batch, &statement, 0, "a.lua", 2);
    batch_hold_back(&batch);
    size_t held = batch_memory(&batch);
    for (int i = 0; i < 10; i++) {
        batch_add(&batch, &statement, 0, "a.lua", 2);
        batch_hold_back(&batch);
    }
    check_int((long long)batch_memory(&batch), (long long)held, "once, whatever is held back");
    batch_let_in(&batch);
    check(batch_memory(&batch) > before + rows, "and go on to count behind them");
    batch_reset(&batch);
    check_int((long long)batch_memory(&batch), 0, "until the batch is empty");
    batch_finish(&batch);
}

static void test_bulk(void)
{
    static const struct parameter values[] = {{.value = "a", .length = 1}, {.value = NULL}};
    struct batch batch;
    struct error err;
    batch_init(&batch);
    struct batch_item *item = batch_add(&batch, &statement, 1, "a.lua", 1);
    item->bulk = bulk_create(&statement, 1);
    check_int(bulk_add(item->bulk, &values[0], &err), 0, "a row is gathered");
    check_int(bulk_add(item->bulk, &values[1], &err), 0, "and another one");
    batch_add(&batch, &statement, 1, "a.lua", 2);
    batch_seal(&batch);
    check_text(batch.items[0].parameters[0].value, "{\"a\",NULL}", "sealing makes arrays of rows");
    check(!batch.items[1].parameters[0].value, "and leaves plain items alone");
    check_int((long long)bulk_find_row(batch.items[0].bulk, "a", 1, false), 1,
              "a row is found again");
    check_int((long long)bulk_find_row(batch.items[0].bulk, "b", 1, false), 0, "or is not there");
    batch_rewind(&batch);
    check_text(batch.items[0].parameters[0].value, "{\"a\",NULL}", "which a rewind keeps");
    batch_reset(&batch);
    check_int(batch.count, 0, "and a reset frees");
    batch_finish(&batch);
}

static void test_sealed_behind_ours(void)
{
    static const struct parameter value = {.value = "a", .length = 1};
    struct batch batch;
    struct error err;
    batch_init(&batch);
    struct batch_item *item = batch_add(&batch, &statement, 1, "a.lua", 1);
    item->bulk = bulk_create(&statement, 1);
    check_int(bulk_add(item->bulk, &value, &err), 0, "a row is gathered");
    batch_seal(&batch);
    batch_add_front(&batch, &statement);
    batch_seal(&batch);
    check_text(batch.items[1].parameters[0].value, "{\"a\"}", "and sealed once, behind BEGIN");
    batch_drop_front(&batch);
    batch_add(&batch, &statement, 0, "a.lua", 2)->bulk = bulk_create(&statement, 0);
    check_int(batch.sealed, 1, "what is queued behind it is still open when that has gone");
    batch_finish(&batch);
}

int main(void)
{
    test_items();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        test_sources(rows[i].name, rows[i].sources, rows[i].copies);
    }
    test_rewind();
    test_drop_last();
    test_reset();
    test_memory();
    test_bulk();
    test_sealed_behind_ours();
    return test_end();
}
