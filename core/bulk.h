/* The rows of a `:bulk` statement: queued one by one, sent as one array per parameter. An array
 * whose elements are numbers, booleans or text is built in PostgreSQL's binary format, any other as
 * text. */
#ifndef MOONPOOL_BULK_H
#define MOONPOOL_BULK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct parameter;
struct statement;

struct bulk_column;

struct bulk {
    size_t rows;
    uint16_t column_count;
    struct bulk_column *columns; /* owned */
};

/* Heap; freed with bulk_destroy(), which does nothing for NULL. */
struct bulk *bulk_create(const struct statement *statement, uint16_t column_count);
void bulk_destroy(struct bulk *bulk);

/* The type a value of this column is to be made a parameter of: the array's element; 0 if unknown.
 * The second is for a first row, which comes before the bulk. */
uint32_t bulk_element_type(const struct bulk *bulk, uint16_t column);
uint32_t bulk_first_type(const struct statement *statement, uint16_t column);

/* Appends one row: a parameter per column, made for its element type. -1 with ERROR_INVALID,
 * nothing added, if one is not of that type. */
int bulk_add(struct bulk *bulk, const struct parameter *row, struct error *err);

/* Bytes of its rows. */
size_t bulk_memory(const struct bulk *bulk);

/* Fills the statement's parameters with the arrays, which stay the bulk's own. No row may be added
 * afterwards. */
void bulk_finish(struct bulk *bulk, struct parameter *parameters);

/* The row, from 1 on, that PostgreSQL must mean by a value that it gives as text, once the arrays
 * are filled: the only one that has it. Of several in the same column the first; or the second, for
 * a `duplicate`, which that is in any case. 0 if it may be another. */
size_t bulk_find_row(const struct bulk *bulk, const char *value, size_t length, bool duplicate);

#endif
