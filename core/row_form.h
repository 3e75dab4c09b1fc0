/* What is the same for all rows of a statement's results: the objects that their columns make, and
 * the JSON between their values. Made once and kept for the results to come, since for a single row
 * it is more work than the row. */
#ifndef MOONPOOL_ROW_FORM_H
#define MOONPOOL_ROW_FORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"
#include "shape.h"

struct pg_result;
struct statement;

/* What stands before a value, or before an object whose first member says the rest. */
struct row_form_text {
    size_t start; /* in the form's texts: {"name": or ,"name": */
    size_t length;
    uint32_t type; /* of a value */
};

struct row_form {
    unsigned holders;
    struct pg_result *columns;  /* owned; has no rows */
    struct shape shape;         /* owned; of the columns */
    struct row_form_text *text; /* owned; of each member, or each column where none is an object */
    struct buffer texts;        /* owned */
    bool sound;                 /* shape_check() finds nothing wrong with them */
    bool writable;              /* every name is valid UTF-8 */
};

enum { ROW_FORM_SLOTS = 64 };

/* Zeroed before its first use. */
struct row_forms {
    struct row_form *slots[ROW_FORM_SLOTS]; /* held; by the statements' keys */
};

void row_forms_finish(struct row_forms *forms);

/* The form of a statement's result, to be given back by row_form_release(). It is made anew where
 * the columns are others than they were, as after DDL. */
struct row_form *row_forms_get(struct row_forms *forms, const struct statement *statement,
                               const struct pg_result *result);
void row_form_release(struct row_form *form);

#endif
