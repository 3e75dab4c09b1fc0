/* Results in the hands of Lua, and their rows as JSON. */
#include "bind_result.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "arena.h"
#include "bind_error.h"
#include "error.h"
#include "json.h"
#include "pg_result.h"
#include "pgtype.h"
#include "vm.h"

void bind_result_take(lua_State *L, struct bind_result *held, struct pg_result **result)
{
    struct error err;
    size_t bytes = pg_result_memory(*result);
    held->vm = vm_of(L);
    if (!vm_charge(held->vm, bytes)) {
        error_set(&err, ERROR_MEMORY,
                  "the results of this request need more memory than it may have");
        bind_error_raise(L, &err);
    }
    held->bytes = bytes;
    held->result = *result;
    *result = NULL;
    shape_init(&held->shape, held->result);
}

static void drop_texts(struct bind_result *held)
{
    free(held->text);
    held->text = NULL;
    buffer_finish(&held->texts);
}

void bind_result_release(struct bind_result *held)
{
    vm_discharge(held->vm, held->bytes);
    shape_finish(&held->shape);
    pg_result_free(held->result);
    drop_texts(held);
    buffer_finish(&held->scratch);
    held->result = NULL;
    held->bytes = 0;
}

/* JSON. */

struct bind_result_text {
    size_t start; /* in the texts: {"name": or ,"name": */
    size_t length;
    uint32_t type; /* of a value */
};

static int add_text(struct bind_result *held, struct bind_result_text *text, bool first,
                    const char *name, size_t length)
{
    text->start = held->texts.length;
    buffer_append_char(&held->texts, first ? '{' : ',');
    if (json_write_string(&held->texts, name, length) != 0) {
        return -1;
    }
    buffer_append_char(&held->texts, ':');
    text->length = held->texts.length - text->start;
    return 0;
}

static int add_columns(struct bind_result *held)
{
    int columns = pg_result_columns(held->result);
    held->text = memory_alloc(((size_t)columns + 1) * sizeof *held->text);
    for (int i = 0; i < columns; i++) {
        const char *name = pg_result_name(held->result, i);
        held->text[i].type = pg_result_type(held->result, i);
        if (add_text(held, &held->text[i], i == 0, name, strlen(name)) != 0) {
            return -1;
        }
    }
    return 0;
}

static int add_members(struct bind_result *held)
{
    const struct shape *shape = &held->shape;
    held->text = memory_alloc((size_t)shape->members * sizeof *held->text);
    for (int i = 0; i < shape->members; i++) {
        const struct shape_member *member = &shape->member[i];
        bool first = i == 0 || shape->member[i - 1].members > 0;
        held->text[i].type = pg_result_type(held->result, member->column);
        if (add_text(held, &held->text[i], first, member->name, member->length) != 0) {
            return -1;
        }
    }
    return 0;
}

int bind_result_prepare(struct bind_result *held, struct error *err)
{
    if (held->text) {
        return 0;
    }
    if ((held->shape.member ? add_members(held) : add_columns(held)) != 0) {
        drop_texts(held);
        return error_set(err, ERROR_SCRIPT, "a column's name is not valid UTF-8");
    }
    return 0;
}

static int write_value(const struct bind_result *held, int row, int column,
                       const struct bind_result_text *text, struct buffer *out)
{
    size_t length = 0;
    const char *value = pg_result_value(held->result, row, column, &length);
    buffer_append(out, held->texts.data + text->start, text->length);
    return pgtype_write_json(out, text->type, value, length);
}

static int write_columns(const struct bind_result *held, int row, struct buffer *out)
{
    int columns = pg_result_columns(held->result);
    for (int i = 0; i < columns; i++) {
        if (write_value(held, row, i, &held->text[i], out) != 0) {
            return -1;
        }
    }
    buffer_append_text(out, columns ? "}" : "{}");
    return 0;
}

static int write_members(const struct bind_result *held, int row, int first, int behind,
                         struct buffer *out);

static int write_object(const struct bind_result *held, int row, int place, struct buffer *out)
{
    const struct shape_member *object = &held->shape.member[place];
    const struct bind_result_text *text = &held->text[place];
    buffer_append(out, held->texts.data + text->start, text->length);
    if (shape_is_null(object, held->result, row)) {
        buffer_append_text(out, "null");
        return 0;
    }
    return write_members(held, row, place + 1, place + 1 + object->members, out);
}

/* The members from `first` to before `behind`, of which there is one at least, and the brace that
 * closes what they are in. */
static int write_members(const struct bind_result *held, int row, int first, int behind,
                         struct buffer *out)
{
    const struct shape_member *member = held->shape.member;
    for (int i = first; i < behind; i += 1 + member[i].members) {
        int code = member[i].members
                       ? write_object(held, row, i, out)
                       : write_value(held, row, member[i].column, &held->text[i], out);
        if (code != 0) {
            return -1;
        }
    }
    buffer_append_char(out, '}');
    return 0;
}

int bind_result_write(const struct bind_result *held, int row, struct buffer *out,
                      struct error *err)
{
    int code = held->shape.member ? write_members(held, row, 0, held->shape.members, out)
                                  : write_columns(held, row, out);
    if (code != 0) {
        return error_set(err, ERROR_SCRIPT, "row %d of a result is not valid UTF-8", row + 1);
    }
    return 0;
}
