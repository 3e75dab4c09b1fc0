/* What COPY FROM STDIN takes: its command, and rows in its text format, a line per row, tabs
 * between the columns, \N for NULL. Values are written for the type of their column, as parameters
 * are. */
#ifndef MOONPOOL_COPYTEXT_H
#define MOONPOOL_COPYTEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffer.h"

struct error;

enum { COPYTEXT_NAME = 64 }; /* of PostgreSQL's names, with the NUL */

/* All zero is an empty one. */
struct copytext {
    char bare[COPYTEXT_NAME]; /* the table's name as it is, without its schema */
    struct buffer table;      /* owned; quoted, with its schema */
    struct buffer list;       /* owned; the columns, quoted */
    struct buffer names;      /* owned; the columns as an array literal without its end */
    struct buffer command;    /* owned */
    uint32_t *types;          /* owned; of the columns, 0 where unknown */
    uint16_t columns;

    struct buffer rows; /* owned; those that were not handed over yet */
    size_t whole;       /* bytes of whole rows in it */
    uint64_t count;     /* whole rows so far */
    bool first;         /* the next value is the first of its row */
};

void copytext_finish(struct copytext *text);

/* The command, piece by piece: the table ("users" or "schema.users"; whatever stands in the names
 * is taken literally), then its columns, whose types are unknown at first. */
void copytext_set_table(struct copytext *text, const char *name);
void copytext_add_column(struct copytext *text, const char *name);

/* NUL-terminated, once all columns are there; they live until copytext_finish(). */
const char *copytext_command(struct copytext *text);
const char *copytext_table(struct copytext *text);
const char *copytext_names(struct copytext *text);

/* One value after the other. -1 with ERROR_INVALID if the value does not fit: a fraction for an
 * integer, a NUL in text. `type` is the column's. */
void copytext_null(struct copytext *text);
void copytext_boolean(struct copytext *text, bool value);
void copytext_integer(struct copytext *text, int64_t value);
int copytext_number(struct copytext *text, uint32_t type, double value, struct error *err);
int copytext_text(struct copytext *text, uint32_t type, const char *value, size_t length,
                  struct error *err);

/* A row, before its first value; what was left of one that was not ended is forgotten. */
void copytext_begin_row(struct copytext *text);
void copytext_end_row(struct copytext *text);

/* The rows were handed over. */
void copytext_empty(struct copytext *text);

#endif
