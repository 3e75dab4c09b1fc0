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
    column->element = bulk_first_type(statement, i);
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

uint32_t bulk_first_type(const struct statement *statement, uint16_t column)
{
    uint32_t element = 0;
    if (statement->described) {
        pgtype_classify(statement->parameter_types[column], &element);
    }
    return element;
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

size_t bulk_memory(const struct bulk *bulk)
{
    size_t bytes = 0;
    for (uint16_t i = 0; i < bulk->column_count; i++) {
        bytes += bulk->columns[i].data.capacity;
    }
    return bytes;
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

/* Finding a row again. */

struct search {
    const struct bulk_column *column;
    const char *value; /* NUL-terminated */
    size_t length;
    size_t at; /* the row being looked at, from 1 on */
    size_t first;
    size_t second; /* 0 if there is none, as `first` */
};

static void note_match(struct search *search)
{
    if (search->first == 0) {
        search->first = search->at;
    } else if (search->second == 0) {
        search->second = search->at;
    }
}

static bool is_integer(const struct search *search, int64_t element)
{
    char *end;
    return strtoll(search->value, &end, 10) == element && *end == '\0';
}

static bool is_float(const struct search *search, uint64_t bits)
{
    char *end;
    double element;
    memcpy(&element, &bits, sizeof element);
    return strtod(search->value, &end) == element && *end == '\0';
}

static uint64_t read_network(const char *bytes, size_t length)
{
    uint64_t value = 0;
    for (size_t i = 0; i < length; i++) {
        value = value << 8 | (unsigned char)bytes[i];
    }
    return value;
}

/* The element of a binary array, whose text the value would be. */
static bool is_binary_match(const struct search *search, const char *bytes, size_t length)
{
    uint64_t value = read_network(bytes, length < 8 ? length : 8);
    switch (search->column->element) {
    case INT2:
        return is_integer(search, (int16_t)value);
    case INT4:
        return is_integer(search, (int32_t)value);
    case INT8:
        return is_integer(search, (int64_t)value);
    case FLOAT8:
        return is_float(search, value);
    case BOOL:
        return strcmp(search->value, value ? "t" : "f") == 0;
    default:
        return length == search->length && memcmp(bytes, search->value, length) == 0;
    }
}

static void search_binary(struct search *search)
{
    const struct buffer *data = &search->column->data;
    const char *at = data->data + HEADER_BYTES, *end = data->data + data->length;
    while (at < end) {
        int32_t length = (int32_t)read_network(at, sizeof length);
        at += sizeof length;
        search->at++;
        if (length >= 0 && is_binary_match(search, at, (size_t)length)) {
            note_match(search);
        }
        at += length > 0 ? length : 0;
    }
}

static int ignore_brace(void *context)
{
    return 0;
}

static int compare_text(void *context, const char *text, size_t length)
{
    struct search *search = context;
    search->at++;
    if (text && length == search->length && memcmp(text, search->value, length) == 0) {
        note_match(search);
    }
    return 0;
}

static const struct pgtype_array_handler text_search = {
    .on_open = ignore_brace, .on_element = compare_text, .on_close = ignore_brace};

static void search_text(struct search *search)
{
    const struct buffer *data = &search->column->data;
    struct buffer scratch;
    buffer_init(&scratch);
    pgtype_walk_array(data->data, strlen(data->data), &text_search, search, &scratch);
    buffer_finish(&scratch);
}

/* Nothing is found for certain where columns disagree. */
size_t bulk_find_row(const struct bulk *bulk, const char *value, size_t length, bool duplicate)
{
    size_t row = 0;
    char *text = memory_zalloc(length + 1);
    memcpy(text, value, length);
    for (uint16_t i = 0; i < bulk->column_count; i++) {
        struct search search = {.column = &bulk->columns[i], .value = text, .length = length};
        if (search.column->binary) {
            search_binary(&search);
        } else {
            search_text(&search);
        }
        size_t found = duplicate && search.second ? search.second : search.first;
        bool agrees = row == 0 || found == 0 || (found == row && search.second == 0);
        row = found ? found : row;
        if (!agrees) {
            row = 0;
            break;
        }
    }
    free(text);
    return row;
}
