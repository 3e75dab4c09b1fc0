/* Making and keeping forms of rows. */
#include "row_form.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "error.h"
#include "json.h"
#include "pg_result.h"
#include "statement.h"

static void add_text(struct row_form *form, int i, bool first, const char *name, size_t length)
{
    struct row_form_text *text = &form->text[i];
    text->start = form->texts.length;
    buffer_append_char(&form->texts, first ? '{' : ',');
    form->writable = json_write_string(&form->texts, name, length) == 0 && form->writable;
    buffer_append_char(&form->texts, ':');
    text->length = form->texts.length - text->start;
}

static void add_columns(struct row_form *form)
{
    int columns = pg_result_columns(form->columns);
    form->text = memory_alloc(((size_t)columns + 1) * sizeof *form->text);
    for (int i = 0; i < columns; i++) {
        const char *name = pg_result_name(form->columns, i);
        form->text[i].type = pg_result_type(form->columns, i);
        add_text(form, i, i == 0, name, strlen(name));
    }
}

static void add_members(struct row_form *form)
{
    const struct shape *shape = &form->shape;
    form->text = memory_alloc((size_t)shape->members * sizeof *form->text);
    for (int i = 0; i < shape->members; i++) {
        const struct shape_member *member = &shape->member[i];
        bool first = i == 0 || shape->member[i - 1].members > 0;
        form->text[i].type = pg_result_type(form->columns, member->column);
        add_text(form, i, first, member->name, member->length);
    }
}

static struct row_form *create(const struct pg_result *result)
{
    struct error ignored;
    struct row_form *form = memory_zalloc(sizeof *form);
    form->holders = 1;
    form->columns = pg_result_copy_columns(result);
    form->sound = shape_check(form->columns, &ignored) == 0;
    form->writable = true;
    shape_init(&form->shape, form->columns);
    if (form->shape.member) {
        add_members(form);
    } else {
        add_columns(form);
    }
    return form;
}

void row_form_release(struct row_form *form)
{
    if (form && --form->holders == 0) {
        shape_finish(&form->shape);
        pg_result_free(form->columns);
        free(form->text);
        buffer_finish(&form->texts);
        free(form);
    }
}

struct row_form *row_forms_get(struct row_forms *forms, const struct statement *statement,
                               const struct pg_result *result)
{
    struct row_form **slot = &forms->slots[statement->key % ROW_FORM_SLOTS];
    if (!*slot || !pg_result_has_columns(result, (*slot)->columns)) {
        row_form_release(*slot);
        *slot = create(result);
    }
    (*slot)->holders++;
    return *slot;
}

void row_forms_finish(struct row_forms *forms)
{
    for (int i = 0; i < ROW_FORM_SLOTS; i++) {
        row_form_release(forms->slots[i]);
    }
}
