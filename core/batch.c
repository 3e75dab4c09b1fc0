/* The memory of a batch: an array of items, parameters in an arena. */
#include "batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bulk.h"
#include "pg_result.h"
#include "statement.h"

enum { FIRST_CAPACITY = 8, KEPT_CAPACITY = 1024 };

void batch_init(struct batch *batch)
{
    memset(batch, 0, sizeof *batch);
    arena_init(&batch->arena);
    arena_init(&batch->row_arena);
}

static void free_results(struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        pg_result_free(batch->items[i].result);
    }
}

static void free_items(struct batch *batch)
{
    free_results(batch);
    for (size_t i = 0; i < batch->count; i++) {
        bulk_destroy(batch->items[i].bulk);
    }
}

void batch_finish(struct batch *batch)
{
    free_items(batch);
    free(batch->items);
    arena_finish(&batch->arena);
    arena_finish(&batch->row_arena);
    batch_init(batch);
}

void batch_reset(struct batch *batch)
{
    free_items(batch);
    if (batch->capacity > KEPT_CAPACITY) {
        free(batch->items);
        batch->items = NULL;
        batch->capacity = 0;
    }
    arena_reset(&batch->arena);
    arena_reset(&batch->row_arena);
    batch->bulk_bytes = 0;
    batch->count = 0;
    batch->hidden = 0;
    batch->sealed = 0;
    batch->describe = false;
    batch->isolate = false;
    batch->commit = false;
    batch->read_only = false;
    batch->stale = false;
    memset(&batch->error, 0, sizeof batch->error);
}

void batch_seal(struct batch *batch)
{
    for (; batch->sealed < batch->count; batch->sealed++) {
        struct batch_item *item = &batch->items[batch->sealed];
        if (item->bulk) {
            bulk_finish(item->bulk, item->parameters);
        }
    }
}

void batch_rewind(struct batch *batch)
{
    free_results(batch);
    for (size_t i = 0; i < batch->count; i++) {
        batch->items[i].result = NULL;
        batch->items[i].state = ITEM_QUEUED;
    }
    batch->stale = false;
    memset(&batch->error, 0, sizeof batch->error);
}

static const char *keep_source(struct batch *batch, const char *source)
{
    if (source && batch->count > 0) {
        const char *last = batch->items[batch->count - 1].source;
        if (last && strcmp(last, source) == 0) {
            return last;
        }
    }
    return source ? arena_strdup(&batch->arena, source) : NULL;
}

/* Only the last one still grows. */
static size_t last_bulk_memory(const struct batch *batch)
{
    const struct batch_item *last = batch->count ? &batch->items[batch->count - 1] : NULL;
    return last && last->bulk ? bulk_memory(last->bulk) : 0;
}

struct batch_item *batch_add(struct batch *batch, const struct statement *statement,
                             uint16_t parameter_count, const char *source, int line)
{
    if (batch->count == batch->capacity) {
        batch->capacity = batch->capacity ? batch->capacity * 2 : FIRST_CAPACITY;
        batch->items = memory_realloc(batch->items, batch->capacity * sizeof *batch->items);
    }
    batch->bulk_bytes += last_bulk_memory(batch);
    struct batch_item *item = &batch->items[batch->count];
    memset(item, 0, sizeof *item);
    item->statement = statement;
    item->source = keep_source(batch, source);
    item->line = line;
    item->parameter_count = parameter_count;
    item->parameters = arena_zalloc(&batch->arena, parameter_count * sizeof *item->parameters);
    batch->count++;
    return item;
}

void batch_hold_back(struct batch *batch)
{
    batch->count--;
    batch->bulk_bytes -= last_bulk_memory(batch);
}

void batch_let_in(struct batch *batch)
{
    batch->bulk_bytes += last_bulk_memory(batch);
    batch->count++;
}

void batch_add_front(struct batch *batch, const struct statement *statement)
{
    batch_add(batch, statement, 0, NULL, 0);
    struct batch_item front = batch->items[batch->count - 1];
    memmove(batch->items + 1, batch->items, (batch->count - 1) * sizeof *batch->items);
    batch->items[0] = front;
    batch->hidden++;
    batch->sealed += batch->sealed > 0;
}

void batch_drop_front(struct batch *batch)
{
    pg_result_free(batch->items[0].result);
    batch->count--;
    batch->hidden--;
    batch->sealed -= batch->sealed > 0;
    memmove(batch->items, batch->items + 1, batch->count * sizeof *batch->items);
}

void batch_drop_last(struct batch *batch)
{
    pg_result_free(batch->items[batch->count - 1].result);
    batch_hold_back(batch);
}

void batch_blame(const struct batch *batch, const struct batch_item *item, struct error *err)
{
    size_t index = (size_t)(item - batch->items);
    if (index >= batch->hidden) {
        err->item = index - batch->hidden + 1;
    }
    if (item->source) {
        snprintf(err->where, sizeof err->where, "%s:%d", item->source, item->line);
    }
    if (item->statement->name) {
        snprintf(err->statement, sizeof err->statement, "%s", item->statement->name);
    }
}

size_t batch_memory(const struct batch *batch)
{
    return batch->arena.used + batch->count * sizeof *batch->items + batch->bulk_bytes +
           last_bulk_memory(batch);
}
