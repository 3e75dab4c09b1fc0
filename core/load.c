/* From bytes to a generation. */
#include "load.h"

#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "batch.h"
#include "bind_app.h"
#include "bind_db.h"
#include "bind_error.h"
#include "bind_group.h"
#include "bind_json.h"
#include "bind_request.h"
#include "bind_row.h"
#include "bind_rows.h"
#include "config.h"
#include "generation.h"
#include "lua_modules.h"
#include "pg_result.h"
#include "pgtype.h"
#include "shape.h"
#include "source.h"
#include "statement.h"
#include "vm.h"

/* Loading holds the loop, so it must end well before the master gives the worker up. */
enum { LOAD_LIMIT_S = 3 };

static int parse_statements(struct generation *generation, const struct source *source,
                            struct error *err)
{
    struct source_file file;
    for (uint32_t i = 0; source_sql(source, i, &file) == 0; i++) {
        if (catalog_parse(&generation->catalog, file.path, file.data, file.length, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int open_metatables(lua_State *L)
{
    bind_error_open(L);
    bind_row_open(L);
    bind_rows_open(L);
    bind_request_open(L);
    return 0;
}

static int open_modules(struct vm *vm, struct error *err)
{
    lua_pushcfunction(vm->lua, open_metatables);
    if (lua_pcall(vm->lua, 0, 0, 0) != LUA_OK) {
        vm_error(vm->lua, err, NULL, 0);
        return -1;
    }
    vm_preload_c(vm, "json", bind_json_open);
    vm_preload_c(vm, "moonpool.json", bind_json_open);
    vm_preload_c(vm, "moonpool.app", bind_app_open);
    vm_preload_c(vm, "moonpool.db", bind_db_open);
    vm_preload_c(vm, "moonpool.group", bind_group_open);
    for (size_t i = 0; i < lua_module_count; i++) {
        const struct lua_module *module = &lua_modules[i];
        vm_preload_lua(vm, module->name, module->text, (size_t)(module->end - module->text));
    }
    return 0;
}

struct generation *load_generation(const struct source *source, const struct config *config,
                                   struct error *err)
{
    struct generation *generation = generation_create(config->lua_memory, err);
    if (!generation) {
        return NULL;
    }
    generation->entry = bind_request_entry;
    if (parse_statements(generation, source, err) != 0 || open_modules(generation->vm, err) != 0 ||
        vm_load(generation->vm, source, clock_now() + SECONDS(LOAD_LIMIT_S), err) != 0) {
        generation_release(generation);
        return NULL;
    }
    return generation;
}

/* Checking. */

/* Line feeds in front of the 1-based character `position` of UTF-8 text. */
static int lines_before(const char *text, int position)
{
    int lines = 0;
    for (int seen = 1; *text && seen < position; text++) {
        lines += *text == '\n';
        seen += (text[1] & 0xc0) != 0x80;
    }
    return lines;
}

static void refuse(struct load_check *check, const struct batch_item *item)
{
    const struct statement *statement = item->statement;
    int position = 0;
    pg_result_error(item->result, &check->error, &position);
    check->error.code = ERROR_SCRIPT;
    snprintf(check->error.statement, sizeof check->error.statement, "%s", statement->name);
    snprintf(check->error.where, sizeof check->error.where, "%s:%d", statement->file,
             statement->line + 1 + lines_before(statement->sql, position));
}

/* Sent along so that the database is asked even where there are no statements. */
static const struct statement probe = {
    .sql = "select 1", .kind = STATEMENT_MANY, .key = STATEMENT_KEY_PROBE};

static void take_description(struct generation *generation, const struct batch_item *item)
{
    /* The catalog owns the statement; the batch only looked at it. */
    struct statement *statement = catalog_find(&generation->catalog, item->statement->name);
    int count = pg_result_parameters(item->result);
    statement->parameter_count = (uint16_t)count;
    statement->column_count = (uint16_t)pg_result_columns(item->result);
    statement->parameter_types =
        arena_alloc(&generation->catalog.arena, (size_t)count * sizeof(uint32_t));
    for (int i = 0; i < count; i++) {
        statement->parameter_types[i] = pg_result_parameter_type(item->result, i);
    }
    statement->described = true;
}

static void check_bulk(struct load_check *check, const struct statement *statement)
{
    for (uint16_t i = 0; statement->kind == STATEMENT_BULK && i < statement->parameter_count; i++) {
        uint32_t type = statement->parameter_types[i];
        /* Whether a type of the user's is an array is not known here. */
        if (type < PGTYPE_FIRST_USER_TYPE && pgtype_classify(type, NULL) != PGTYPE_ARRAY &&
            check->error.code == ERROR_NONE) {
            error_set(
                &check->error, ERROR_SCRIPT,
                "parameter $%d of a :bulk statement must be an array: cast it, as in $%d::int[]",
                i + 1, i + 1);
            snprintf(check->error.where, sizeof check->error.where, "%s:%d", statement->file,
                     statement->line);
        }
    }
}

static void check_columns(struct load_check *check, const struct batch_item *item)
{
    const struct statement *statement = item->statement;
    bool gives_rows = statement->kind == STATEMENT_ONE || statement->kind == STATEMENT_MANY;
    if (gives_rows && check->error.code == ERROR_NONE &&
        shape_check(item->result, &check->error) != 0) {
        snprintf(check->error.where, sizeof check->error.where, "%s:%d", statement->file,
                 statement->line);
    }
}

static void on_described(struct tx *tx)
{
    struct load_check *check = list_entry((void *)tx, struct load_check, tx);
    bool complete = true;
    for (size_t i = tx->batch.hidden; i < tx->batch.count; i++) {
        const struct batch_item *item = &tx->batch.items[i];
        if (item->state == ITEM_DONE) {
            take_description(check->generation, item);
            check_bulk(check, item->statement);
            check_columns(check, item);
        } else if (item->state == ITEM_FAILED && item->result && check->error.code == ERROR_NONE &&
                   tx->error.code != ERROR_UNAVAILABLE) {
            refuse(check, item);
        }
        complete = complete && item->state != ITEM_QUEUED && item->state != ITEM_SENT;
    }
    if (!complete || tx->error.code == ERROR_UNAVAILABLE) {
        check->error = tx->error;
    }
    check->done(check);
}

void load_check_start(struct load_check *check, struct generation *generation,
                      struct database *database, void (*done)(struct load_check *check))
{
    static const struct tx_options options = {.autocommit = true};
    memset(check, 0, sizeof *check);
    check->generation = generation;
    check->done = done;
    /* Without a deadline: it waits however many do, since only a session can tell what is wrong. */
    tx_init(&check->tx, database, &options, 0, NULL);
    struct batch *batch = tx_batch(&check->tx);
    batch->describe = true;
    batch->isolate = true;
    batch_add(batch, &probe, 0, NULL, 0);
    batch->hidden = 1;
    for (size_t i = 0; i < generation->catalog.count; i++) {
        batch_add(batch, generation->catalog.statements[i], 0, NULL, 0);
    }
    tx_send(&check->tx, on_described);
}

void load_check_finish(struct load_check *check)
{
    tx_finish(&check->tx);
}
