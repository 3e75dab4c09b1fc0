/* Types by oid. Numbers and booleans go to PostgreSQL in binary where the statement's parameter has
 * the matching type; everything else goes and comes as text, which for JSON is mostly a copy. */
#include "pgtype.h"

#include <endian.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "buffer.h"
#include "error.h"
#include "json.h"
#include "parameter.h"

/* Oids of pg_type that never change (pg_type.dat). */
enum {
    BOOL = 16,
    BYTEA = 17,
    INT8 = 20,
    INT2 = 21,
    INT4 = 23,
    TEXT = 25,
    OID = 26,
    JSON = 114,
    FLOAT4 = 700,
    FLOAT8 = 701,
    VARCHAR = 1043,
    TIMESTAMP = 1114,
    TIMESTAMPTZ = 1184,
    NUMERIC = 1700,
    JSONB = 3802,
};

struct array_type {
    uint32_t type;
    uint32_t element;
};

/* Sorted. Without box, whose arrays are written in a way of their own. */
static const struct array_type arrays[] = {
    {143, 142 /* xml */},
    {199, JSON},
    {651, 650 /* cidr */},
    {775, 774 /* macaddr8 */},
    {791, 790 /* money */},
    {1000, BOOL},
    {1001, BYTEA},
    {1002, 18 /* "char" */},
    {1003, 19 /* name */},
    {1005, INT2},
    {1007, INT4},
    {1009, TEXT},
    {1014, 1042 /* char */},
    {1015, VARCHAR},
    {1016, INT8},
    {1017, 600 /* point */},
    {1021, FLOAT4},
    {1022, FLOAT8},
    {1028, OID},
    {1040, 829 /* macaddr */},
    {1041, 869 /* inet */},
    {1115, TIMESTAMP},
    {1182, 1082 /* date */},
    {1183, 1083 /* time */},
    {1185, TIMESTAMPTZ},
    {1187, 1186 /* interval */},
    {1231, NUMERIC},
    {1270, 1266 /* timetz */},
    {1561, 1560 /* bit */},
    {1563, 1562 /* varbit */},
    {2951, 2950 /* uuid */},
    {3643, 3614 /* tsvector */},
    {3645, 3615 /* tsquery */},
    {3807, JSONB},
    {3905, 3904 /* int4range */},
    {3907, 3906 /* numrange */},
    {3909, 3908 /* tsrange */},
    {3911, 3910 /* tstzrange */},
    {3913, 3912 /* daterange */},
    {3927, 3926 /* int8range */},
    {4073, 4072 /* jsonpath */},
};

static int compare_array(const void *key, const void *row)
{
    uint32_t type = *(const uint32_t *)key;
    const struct array_type *array = row;
    return (type > array->type) - (type < array->type);
}

static enum pgtype_class classify_array(uint32_t type, uint32_t *ret_element)
{
    size_t count = sizeof arrays / sizeof *arrays;
    const struct array_type *array = bsearch(&type, arrays, count, sizeof *arrays, compare_array);
    if (!array) {
        return PGTYPE_TEXT;
    }
    if (ret_element) {
        *ret_element = array->element;
    }
    return PGTYPE_ARRAY;
}

enum pgtype_class pgtype_classify(uint32_t type, uint32_t *ret_element)
{
    switch (type) {
    case BOOL:
        return PGTYPE_BOOLEAN;
    case INT2:
    case INT4:
    case INT8:
    case OID:
        return PGTYPE_INTEGER;
    case FLOAT4:
    case FLOAT8:
        return PGTYPE_FLOAT;
    case NUMERIC:
        return PGTYPE_NUMERIC;
    case JSON:
    case JSONB:
        return PGTYPE_JSON;
    case TIMESTAMP:
    case TIMESTAMPTZ:
        return PGTYPE_TIMESTAMP;
    case BYTEA:
        return PGTYPE_BYTEA;
    case TEXT:
    case VARCHAR:
        return PGTYPE_TEXT;
    default:
        return classify_array(type, ret_element);
    }
}

/* Parameters. */

static void set_text(struct parameter *parameter, const char *text, size_t length)
{
    *parameter = (struct parameter){.value = text, .length = (int32_t)length, .binary = false};
}

static void set_binary(struct parameter *parameter, const void *bytes, size_t length,
                       struct arena *arena)
{
    char *copy = arena_bytes(arena, length);
    memcpy(copy, bytes, length);
    *parameter = (struct parameter){.value = copy, .length = (int32_t)length, .binary = true};
}

int pgtype_from_boolean(struct parameter *parameter, uint32_t type, bool value, struct error *err)
{
    if (type == BOOL) {
        *parameter = (struct parameter){.value = value ? "\1" : "\0", .length = 1, .binary = true};
    } else {
        set_text(parameter, value ? "true" : "false", value ? 4 : 5);
    }
    return 0;
}

static int out_of_range(const char *type, struct error *err)
{
    return error_set(err, ERROR_INVALID, "a value is out of range for type %s", type);
}

static void set_float8(struct parameter *parameter, double value, struct arena *arena)
{
    uint64_t bytes;
    memcpy(&bytes, &value, sizeof bytes);
    bytes = htobe64(bytes);
    set_binary(parameter, &bytes, sizeof bytes, arena);
}

int pgtype_from_integer(struct parameter *parameter, uint32_t type, int64_t value,
                        struct arena *arena, struct error *err)
{
    switch (type) {
    case INT2: {
        if (value < INT16_MIN || value > INT16_MAX) {
            return out_of_range("smallint", err);
        }
        uint16_t bytes = htobe16((uint16_t)value);
        set_binary(parameter, &bytes, sizeof bytes, arena);
        return 0;
    }
    case INT4: {
        if (value < INT32_MIN || value > INT32_MAX) {
            return out_of_range("integer", err);
        }
        uint32_t bytes = htobe32((uint32_t)value);
        set_binary(parameter, &bytes, sizeof bytes, arena);
        return 0;
    }
    case INT8: {
        uint64_t bytes = htobe64((uint64_t)value);
        set_binary(parameter, &bytes, sizeof bytes, arena);
        return 0;
    }
    case FLOAT8:
        set_float8(parameter, (double)value, arena);
        return 0;
    default: {
        char text[24];
        int length = snprintf(text, sizeof text, "%" PRId64, value);
        set_text(parameter, arena_strndup(arena, text, (size_t)length), (size_t)length);
        return 0;
    }
    }
}

static size_t format_number(char text[JSON_NUMBER_SIZE], double value)
{
    if (isfinite(value)) {
        return json_format_number(text, value);
    }
    const char *name = isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity";
    strcpy(text, name);
    return strlen(name);
}

static bool is_integer(uint32_t type)
{
    return type == INT2 || type == INT4 || type == INT8;
}

/* -1 if the number is none of the integers there are. */
static int check_whole(double value, struct error *err)
{
    if (value != floor(value)) {
        return error_set(err, ERROR_INVALID, "a value for an integer parameter has a fraction");
    }
    if (!(value >= -9223372036854775808.0 && value < 9223372036854775808.0)) {
        return out_of_range("bigint", err);
    }
    return 0;
}

int pgtype_number_text(char text[PGTYPE_NUMBER_SIZE], uint32_t type, double value,
                       size_t *ret_length, struct error *err)
{
    if (!is_integer(type)) {
        *ret_length = format_number(text, value);
        return 0;
    }
    if (check_whole(value, err) != 0) {
        return -1;
    }
    *ret_length = (size_t)snprintf(text, PGTYPE_NUMBER_SIZE, "%" PRId64, (int64_t)value);
    return 0;
}

int pgtype_from_number(struct parameter *parameter, uint32_t type, double value,
                       struct arena *arena, struct error *err)
{
    if (type == FLOAT8) {
        set_float8(parameter, value, arena);
        return 0;
    }
    if (is_integer(type)) {
        return check_whole(value, err) == 0
                   ? pgtype_from_integer(parameter, type, (int64_t)value, arena, err)
                   : -1;
    }
    char text[JSON_NUMBER_SIZE];
    size_t length = format_number(text, value);
    set_text(parameter, arena_strndup(arena, text, length), length);
    return 0;
}

int pgtype_from_text(struct parameter *parameter, uint32_t type, const char *text, size_t length,
                     struct error *err)
{
    if (length > INT32_MAX) {
        return error_set(err, ERROR_INVALID, "a value is longer than PostgreSQL can take");
    }
    set_text(parameter, text, length);
    if (type == BYTEA) {
        parameter->binary = true;
    } else if (memchr(text, '\0', length)) {
        return error_set(err, ERROR_INVALID,
                         "a text contains a NUL character, which PostgreSQL cannot store");
    }
    return 0;
}

/* Columns. */

static bool ends_in(const char *text, size_t length, const char *end)
{
    size_t size = strlen(end);
    return length >= size && memcmp(text + length - size, end, size) == 0;
}

/* Years have four digits or more: the parts are found from the blank that ends the date. */
size_t pgtype_format_timestamp(const char *text, size_t length, char *iso)
{
    static const char era[] = " BC";
    memcpy(iso, text, length);
    char *blank = memchr(iso, ' ', length);
    if (!blank) {
        return length;
    }
    *blank = 'T';
    size_t behind = ends_in(iso, length, era) ? sizeof era - 1 : 0;
    if (!ends_in(iso, length - behind, "+00")) {
        return length;
    }
    char *offset = iso + length - behind - 3;
    *offset = 'Z';
    memmove(offset + 1, offset + 3, behind);
    return length - 2;
}

static int hex_digit(char c)
{
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

size_t pgtype_decode_bytea(const char *text, size_t length, char *bytes)
{
    size_t count = 0;
    for (size_t i = 2; i + 1 < length; i += 2) {
        bytes[count++] = (char)(hex_digit(text[i]) << 4 | hex_digit(text[i + 1]));
    }
    return count;
}

struct array_scan {
    const char *at;
    const char *end;
    const struct pgtype_array_handler *handler;
    void *context;
    struct buffer *scratch;
};

static int scan_quoted(struct array_scan *scan)
{
    struct buffer *text = scan->scratch;
    text->length = 0;
    scan->at++;
    while (scan->at < scan->end && *scan->at != '"') {
        scan->at += *scan->at == '\\' && scan->at + 1 < scan->end;
        buffer_append_char(text, *scan->at++);
    }
    if (scan->at == scan->end) {
        return -1;
    }
    scan->at++;
    return scan->handler->on_element(scan->context, text->length ? text->data : "", text->length);
}

static int scan_plain(struct array_scan *scan)
{
    const char *start = scan->at;
    while (scan->at < scan->end && *scan->at != ',' && *scan->at != '}') {
        scan->at++;
    }
    size_t length = (size_t)(scan->at - start);
    bool is_null = length == 4 && memcmp(start, "NULL", 4) == 0;
    return scan->handler->on_element(scan->context, is_null ? NULL : start, length);
}

/* Braces and elements stand at the beginning of a list or behind a comma, commas and the end of a
 * list behind one of them. */
static bool is_in_place(char next, char before)
{
    if (next == ',') {
        return before == '}';
    }
    return next == '}' ? before != ',' : before != '}';
}

static int scan_one(struct array_scan *scan, int *depth)
{
    switch (*scan->at) {
    case '{':
        (*depth)++;
        scan->at++;
        return scan->handler->on_open(scan->context);
    case '}':
        (*depth)--;
        scan->at++;
        return scan->handler->on_close(scan->context);
    case ',':
        scan->at++;
        return 0;
    case '"':
        return scan_quoted(scan);
    default:
        return scan_plain(scan);
    }
}

int pgtype_walk_array(const char *text, size_t length, const struct pgtype_array_handler *handler,
                      void *context, struct buffer *scratch)
{
    struct array_scan scan = {text, text + length, handler, context, scratch};
    /* Bounds other than 1 are written in front: "[0:2]={1,2,3}". */
    const char *brace = memchr(text, '{', length);
    if (!brace) {
        return -1;
    }
    scan.at = brace;
    int depth = 0;
    char before = '{'; /* what was last: '{', ',', or '}' for an element as well */
    do {
        char next = *scan.at;
        if (!is_in_place(next, before) || scan_one(&scan, &depth) != 0) {
            return -1;
        }
        before = next == '{' || next == ',' ? next : '}';
    } while (scan.at < scan.end && depth > 0);
    return depth == 0 && scan.at == scan.end ? 0 : -1;
}

struct array_writer {
    struct buffer *out;
    uint32_t element;
    bool comma;
};

static void write_comma(struct array_writer *writer)
{
    if (writer->comma) {
        buffer_append_char(writer->out, ',');
    }
    writer->comma = true;
}

static int write_open(void *context)
{
    struct array_writer *writer = context;
    write_comma(writer);
    buffer_append_char(writer->out, '[');
    writer->comma = false;
    return 0;
}

static int write_close(void *context)
{
    struct array_writer *writer = context;
    buffer_append_char(writer->out, ']');
    writer->comma = true;
    return 0;
}

static int write_element(void *context, const char *text, size_t length)
{
    struct array_writer *writer = context;
    write_comma(writer);
    return pgtype_write_json(writer->out, writer->element, text, length);
}

static const struct pgtype_array_handler array_writer_handler = {
    .on_open = write_open, .on_element = write_element, .on_close = write_close};

static int write_timestamp(struct buffer *out, const char *text, size_t length)
{
    char iso[80];
    if (length > sizeof iso) {
        return json_write_string(out, text, length);
    }
    return json_write_string(out, iso, pgtype_format_timestamp(text, length, iso));
}

/* NaN and Infinity have no form in JSON but a string's, as PostgreSQL's own to_json does it. */
static int write_number(struct buffer *out, const char *text, size_t length)
{
    char last = length ? text[length - 1] : 'y';
    if (last < '0' || last > '9') {
        return json_write_string(out, text, length);
    }
    buffer_append(out, text, length);
    return 0;
}

static int write_array(struct array_writer *writer, const char *text, size_t length)
{
    struct buffer scratch;
    buffer_init(&scratch);
    int code = pgtype_walk_array(text, length, &array_writer_handler, writer, &scratch);
    buffer_finish(&scratch);
    return code;
}

int pgtype_write_json(struct buffer *out, uint32_t type, const char *text, size_t length)
{
    struct array_writer writer = {.out = out};
    if (!text) {
        buffer_append_text(out, "null");
        return 0;
    }
    switch (pgtype_classify(type, &writer.element)) {
    case PGTYPE_INTEGER:
    case PGTYPE_FLOAT:
    case PGTYPE_NUMERIC:
        return write_number(out, text, length);
    case PGTYPE_BOOLEAN:
        buffer_append_text(out, *text == 't' ? "true" : "false");
        return 0;
    case PGTYPE_JSON:
        buffer_append(out, text, length);
        return 0;
    case PGTYPE_TIMESTAMP:
        return write_timestamp(out, text, length);
    case PGTYPE_ARRAY:
        return write_array(&writer, text, length);
    default:
        return json_write_string(out, text, length);
    }
}

void pgtype_write_array_element(struct buffer *out, const char *text, size_t length)
{
    buffer_append_char(out, '"');
    for (size_t i = 0; i < length;) {
        size_t plain = i + 1;
        while (plain < length && text[plain] != '"' && text[plain] != '\\') {
            plain++;
        }
        if (text[i] == '"' || text[i] == '\\') {
            buffer_append_char(out, '\\');
        }
        buffer_append(out, text + i, plain - i);
        i = plain;
    }
    buffer_append_char(out, '"');
}
