/* Results in the hands of Lua, and their rows as JSON. */
#include "bind_result.h"

#include <stdbool.h>
#include <stdint.h>

#include <lua.h>

#include "batch.h"
#include "bind_error.h"
#include "error.h"
#include "generation.h"
#include "pg_result.h"
#include "pgtype.h"
#include "row_form.h"
#include "statement.h"
#include "vm.h"

static int refuse_columns(lua_State *L, const struct batch *batch, const struct batch_item *item)
{
    struct error err;
    shape_check(item->result, &err);
    batch_blame(batch, item, &err);
    return bind_error_raise(L, &err);
}

static int refuse_memory(lua_State *L)
{
    struct error err;
    error_set(&err, ERROR_MEMORY, "the results of this request need more memory than it may have");
    return bind_error_raise(L, &err);
}

/* The load has checked the columns of named statements, but DDL may have changed them since. */
void bind_result_take(lua_State *L, struct bind_result *held, const struct batch *batch,
                      struct batch_item *item)
{
    struct row_form *form = row_forms_get(&generation_of(L)->forms, item->statement, item->result);
    size_t bytes = pg_result_memory(item->result);
    bool sound = form->sound || pg_result_rows(item->result) == 0;
    held->vm = vm_of(L);
    if (!sound || !vm_charge(held->vm, bytes)) {
        row_form_release(form);
        sound ? refuse_memory(L) : refuse_columns(L, batch, item);
    }
    held->form = form;
    held->bytes = bytes;
    held->result = item->result;
    item->result = NULL;
}

void bind_result_release(struct bind_result *held)
{
    vm_discharge(held->vm, held->bytes);
    row_form_release(held->form);
    pg_result_free(held->result);
    buffer_finish(&held->scratch);
    held->form = NULL;
    held->result = NULL;
    held->bytes = 0;
}

/* JSON. */

int bind_result_check_names(const struct bind_result *held, struct error *err)
{
    return held->form->writable
               ? 0
               : error_set(err, ERROR_SCRIPT, "a column's name is not valid UTF-8");
}

static int write_value(const struct bind_result *held, int row, int column,
                       const struct row_form_text *text, struct buffer *out)
{
    size_t length = 0;
    const char *value = pg_result_value(held->result, row, column, &length);
    buffer_append(out, held->form->texts.data + text->start, text->length);
    return pgtype_write_json(out, text->type, value, length);
}

static int write_columns(const struct bind_result *held, int row, struct buffer *out)
{
    int columns = pg_result_columns(held->result);
    for (int i = 0; i < columns; i++) {
        if (write_value(held, row, i, &held->form->text[i], out) != 0) {
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
    const struct shape_member *object = &held->form->shape.member[place];
    const struct row_form_text *text = &held->form->text[place];
    buffer_append(out, held->form->texts.data + text->start, text->length);
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
    const struct shape_member *member = held->form->shape.member;
    for (int i = first; i < behind; i += 1 + member[i].members) {
        int code = member[i].members
                       ? write_object(held, row, i, out)
                       : write_value(held, row, member[i].column, &held->form->text[i], out);
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
    int code = held->form->shape.member
                   ? write_members(held, row, 0, held->form->shape.members, out)
                   : write_columns(held, row, out);
    if (code != 0) {
        return error_set(err, ERROR_SCRIPT, "row %d of a result is not valid UTF-8", row + 1);
    }
    return 0;
}
