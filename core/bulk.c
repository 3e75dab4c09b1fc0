/* Arrays that grow by one element at a time.
 *
 * The binary format (array_recv): number of dimensions, flag for NULLs, type of the elements, then
 * length and lower bound of the dimension, then each element's length and bytes; all in network
 * order, a length of -1 for NULL. */
#include "bulk.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "buffer.h"
#include "error.h"
#include "parameter.h"
#include "pgtype.h"
#include "statement.h"

struct bulk_column {
    uint32_t element; /* type; 0 if unknown */
    bool binary;
    bool has_null;
    struct buffer data; /* owned */
};

enum { HEADER_BYTES = 20 };

/* Oids of pg_type that never change. */
enum { BOOL = 16, INT8 = 20, INT2 = 21, INT4 = 23, TEXT = 25, FLOAT8 = 701, VARCHAR = 1043 };

/* Types whose text is their binary form. */
static bool is_text(uint32_t element)
{
    return element == TEXT || element == VARCHAR;
}

static bool is_binary(uint32_t element)
{
    return is_text(element) || element == BOOL || element == INT8 || element == INT2 ||
           element == INT4 || element == FLOAT8;
}

static void init_column(struct bulk_column *column, const struct statement *statement, uint16_t i)
{
    if (statement->described) {
        pgtype_classify(statement->parameter_types[i], &column->element);
    }
    column->binary = is_binary(column->element);
    buffer_init(&column->data);
    if (column->binary) {
        buffer_reserve(&column->data, HEADER_BYTES);
        column->data.length = HEADER_BYTES;
    } else {
        buffer_append_char(&column->data, '{');
    }
}

struct bulk *bulk_create(const struct statement *statement, uint16_t column_count)
{
    struct bulk *bulk = memory_zalloc(sizeof *bulk);
    bulk->column_count = column_count;
    bulk->columns = memory_zalloc(column_count * sizeof *bulk->columns);
    for (uint16_t i = 0; i < column_count; i++) {
        init_column(&bulk->columns[i], statement, i);
    }
    return bulk;
}

void bulk_destroy(struct bulk *bulk)
{
    if (!bulk) {
        return;
    }
    for (uint16_t i = 0; i < bulk->column_count; i++) {
        buffer_finish(&bulk->columns[i].data);
    }
    free(bulk->columns);
    free(bulk);
}

uint32_t bulk_element_type(const struct bulk *bulk, uint16_t column)
{
    return bulk->columns[column].element;
}

static void add_integer(struct buffer *data, int32_t value)
{
    uint32_t bytes = htobe32((uint32_t)value);
    buffer_append(data, (const char *)&bytes, sizeof bytes);
}

static void add_binary(struct bulk_column *column, const struct parameter *value)
{
    add_integer(&column->data, value->value ? value->length : -1);
    if (value->value) {
        buffer_append(&column->data, value->value, (size_t)value->length);
    } else {
        column->has_null = true;
    }
}

static void add_text(struct bulk_column *column, const struct parameter *value, bool first)
{
    if (!first) {
        buffer_append_char(&column->data, ',');
    }
    if (value->value) {
        pgtype_write_array_element(&column->data, value->value, (size_t)value->length);
    } else {
        buffer_append_text(&column->data, "NULL");
    }
}

/* A string for a number would need PostgreSQL's own parser. */
static bool fits(const struct bulk_column *column, const struct parameter *value)
{
    return !column->binary || !value->value || value->binary || is_text(column->element);
}

int bulk_add(struct bulk *bulk, const struct parameter *row, struct error *err)
{
    for (uint16_t i = 0; i < bulk->column_count; i++) {
        if (!fits(&bulk->columns[i], &row[i])) {
            return error_set(err, ERROR_INVALID, "parameter %u is not of its array's type", i + 1u);
        }
    }
    for (uint16_t i = 0; i < bulk->column_count; i++) {
        struct bulk_column *column = &bulk->columns[i];
        if (column->binary) {
            add_binary(column, &row[i]);
        } else {
            add_text(column, &row[i], bulk->rows == 0);
        }
    }
    bulk->rows++;
    return 0;
}

static void write_header(struct bulk_column *column, size_t rows)
{
    uint32_t header[HEADER_BYTES / sizeof(uint32_t)] = {htobe32(1), htobe32(column->has_null),
                                                        htobe32(column->element),
                                                        htobe32((uint32_t)rows), htobe32(1)};
    memcpy(column->data.data, header, sizeof header);
}

void bulk_finish(struct bulk *bulk, struct parameter *parameters)
{
    for (uint16_t i = 0; i < bulk->column_count; i++) {
        struct bulk_column *column = &bulk->columns[i];
        if (column->binary) {
            write_header(column, bulk->rows);
        } else {
            buffer_append_char(&column->data, '}');
        }
        parameters[i] = (struct parameter){.value = column->data.data,
                                           .length = (int32_t)column->data.length,
                                           .binary = column->binary};
        if (!column->binary) {
            buffer_append_char(&column->data, '\0');
            parameters[i].value = column->data.data;
        }
    }
}
