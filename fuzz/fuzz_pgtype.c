/* Columns as PostgreSQL writes them. The first byte of an input chooses the type, the rest is the
 * text. Arrays are balanced; text, timestamps and arrays of them become JSON that parses; elements
 * of an array literal are read as they were written. */
#include <string.h>

#include "buffer.h"
#include "error.h"
#include "fuzz.h"
#include "json.h"
#include "pgtype.h"

static int take_nothing(void *context, struct error *err)
{
    return 0;
}

static int take_boolean(void *context, bool value, struct error *err)
{
    return 0;
}

static int take_integer(void *context, int64_t value, struct error *err)
{
    return 0;
}

static int take_number(void *context, double value, struct error *err)
{
    return 0;
}

static int take_text(void *context, const char *text, size_t length, struct error *err)
{
    return 0;
}

static const struct json_handler json_handler = {
    .on_null = take_nothing,
    .on_boolean = take_boolean,
    .on_integer = take_integer,
    .on_number = take_number,
    .on_string = take_text,
    .on_key = take_text,
    .on_object = take_nothing,
    .on_object_end = take_nothing,
    .on_array = take_nothing,
    .on_array_end = take_nothing,
};

/* Types whose text, whatever it is, is quoted. */
static const uint32_t quoted_types[] = {
    25 /* text */,     17 /* bytea */,     1114 /* timestamp */,   1184 /* timestamptz */,
    1009 /* text[] */, 1001 /* bytea[] */, 1115 /* timestamp[] */, 1185 /* timestamptz[] */,
};

/* The walk deep into brackets is bounded by JSON_DEPTH only where the text is read as JSON. */
static size_t deepest(const char *text, size_t length)
{
    size_t depth = 0, most = 0;
    for (size_t i = 0; i < length; i++) {
        depth += text[i] == '{';
        most = depth > most ? depth : most;
    }
    return most;
}

static void check_json(uint32_t type, const char *text, size_t length)
{
    struct buffer out, scratch;
    struct error err;
    buffer_init(&out);
    buffer_init(&scratch);
    if (pgtype_write_json(&out, type, text, length) == 0 && deepest(text, length) < JSON_DEPTH) {
        claim(json_parse(out.data, out.length, &json_handler, NULL, &scratch, &err) == 0);
    }
    buffer_finish(&out);
    buffer_finish(&scratch);
}

static int count_open(void *context)
{
    ++*(int *)context;
    return 0;
}

static int count_close(void *context)
{
    claim(--*(int *)context >= 0);
    return 0;
}

static int count_element(void *context, const char *text, size_t length)
{
    claim(*(int *)context > 0);
    return 0;
}

static void check_walk(const char *text, size_t length)
{
    static const struct pgtype_array_handler counter = {count_open, count_element, count_close};
    struct buffer scratch;
    int depth = 0;
    buffer_init(&scratch);
    if (pgtype_walk_array(text, length, &counter, &depth, &scratch) == 0) {
        claim(depth == 0);
    }
    buffer_finish(&scratch);
}

struct element {
    const char *text;
    size_t length;
    int seen;
};

static int compare_element(void *context, const char *text, size_t length)
{
    struct element *element = context;
    claim(text && length == element->length && memcmp(text, element->text, length) == 0);
    element->seen++;
    return 0;
}

static int pass(void *context)
{
    return 0;
}

static void check_element(const char *text, size_t length)
{
    static const struct pgtype_array_handler comparer = {pass, compare_element, pass};
    struct element element = {.text = text, .length = length};
    struct buffer literal, scratch;
    buffer_init(&literal);
    buffer_init(&scratch);
    for (int i = 0; i < 2; i++) {
        buffer_append_char(&literal, i ? ',' : '{');
        pgtype_write_array_element(&literal, text, length);
    }
    buffer_append_char(&literal, '}');
    claim(pgtype_walk_array(literal.data, literal.length, &comparer, &element, &scratch) == 0);
    claim(element.seen == 2);
    buffer_finish(&literal);
    buffer_finish(&scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t types = sizeof quoted_types / sizeof *quoted_types;
    if (size == 0) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    size_t length = size - 1;
    check_json(quoted_types[data[0] % types], text, length);
    check_walk(text, length);
    check_element(text, length);
    return 0;
}
