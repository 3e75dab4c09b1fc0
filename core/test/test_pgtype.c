/* PostgreSQL's types: parameters on their way there, columns on their way back. */
#include "pgtype.h"

#include <math.h>
#include <stdlib.h>

#include "arena.h"
#include "buffer.h"
#include "error.h"
#include "parameter.h"
#include "test.h"

/* Oids of pg_type. */
enum {
    UNKNOWN = 0,
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
    BOOLS = 1000,
    INTS = 1007,
    TEXTS = 1009,
    FLOATS = 1022,
    TIMESTAMP = 1114,
    TIMESTAMPTZ = 1184,
    TIMESTAMPS = 1185,
    NUMERIC = 1700,
    JSONB = 3802,
    JSONBS = 3807,
};

static struct arena arena;

/* "text:" and the text, or "binary:" and the bytes in hexadecimal. */
static const char *show(const struct parameter *parameter)
{
    static char shown[256];
    if (!parameter->binary) {
        snprintf(shown, sizeof shown, "text:%.*s", (int)parameter->length, parameter->value);
        return shown;
    }
    int used = snprintf(shown, sizeof shown, "binary:");
    for (int i = 0; i < parameter->length; i++) {
        used += snprintf(shown + used, sizeof shown - (size_t)used, "%02x",
                         (unsigned char)parameter->value[i]);
    }
    return shown;
}

/* What became of a value; `expected` NULL: it was refused. */
static void check_parameter(int result, const struct parameter *parameter, const struct error *err,
                            const char *expected, const char *name)
{
    if (expected) {
        check(result == 0, "%s is taken", name);
        check_text(result == 0 ? show(parameter) : "refused", expected, "%s is sent so", name);
    } else {
        check(result == -1 && err->code == ERROR_INVALID && err->message[0], "%s is refused", name);
    }
}

static const struct {
    uint32_t type;
    int64_t value;
    const char *sent;
} integers[] = {
    {INT2, 0, "binary:0000"},
    {INT2, INT16_MAX, "binary:7fff"},
    {INT2, INT16_MIN, "binary:8000"},
    {INT2, INT16_MAX + 1, NULL},
    {INT2, INT16_MIN - 1, NULL},
    {INT4, -1, "binary:ffffffff"},
    {INT4, INT32_MAX, "binary:7fffffff"},
    {INT4, INT32_MIN, "binary:80000000"},
    {INT4, INT32_MAX + 1LL, NULL},
    {INT4, INT32_MIN - 1LL, NULL},
    {INT8, INT64_MAX, "binary:7fffffffffffffff"},
    {INT8, INT64_MIN, "binary:8000000000000000"},
    {FLOAT8, 1, "binary:3ff0000000000000"},
    {FLOAT4, 7, "text:7"},
    {NUMERIC, INT64_MIN, "text:-9223372036854775808"},
    {TEXT, 7, "text:7"},
    {UNKNOWN, -7, "text:-7"},
};

static const struct {
    uint32_t type;
    double value;
    const char *sent;
} numbers[] = {
    {FLOAT8, 0.5, "binary:3fe0000000000000"},
    {FLOAT8, -0.0, "binary:8000000000000000"},
    {FLOAT8, INFINITY, "binary:7ff0000000000000"},
    {FLOAT4, 0.1, "text:0.1"},
    {FLOAT4, -INFINITY, "text:-Infinity"},
    {NUMERIC, 0.1, "text:0.1"},
    {NUMERIC, NAN, "text:NaN"},
    {UNKNOWN, INFINITY, "text:Infinity"},
    {INT2, 7.0, "binary:0007"},
    {INT4, 7.5, NULL},
    {INT4, 2147483648.0, NULL},
    {INT4, NAN, NULL},
    {INT8, -INFINITY, NULL},
    {INT8, -9223372036854775808.0, "binary:8000000000000000"},
    {INT8, 9223372036854775808.0, NULL},
    {INT8, 1e300, NULL},
};

static const struct {
    uint32_t type;
    const char *text;
    size_t length;
    const char *sent;
} strings[] = {
    {TEXT, "moon", 4, "text:moon"}, {INT4, "7", 1, "text:7"},   {UNKNOWN, "", 0, "text:"},
    {TEXT, "a\0b", 3, NULL},        {JSONB, "\"\0\"", 3, NULL}, {BYTEA, "a\0b", 3, "binary:610062"},
    {BYTEA, "", 0, "binary:"},
};

static void test_parameters(void)
{
    struct parameter parameter;
    struct error err;
    char name[64];
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
        snprintf(name, sizeof name, "%lld for type %u", (long long)integers[i].value,
                 integers[i].type);
        int result =
            pgtype_from_integer(&parameter, integers[i].type, integers[i].value, &arena, &err);
        check_parameter(result, &parameter, &err, integers[i].sent, name);
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        snprintf(name, sizeof name, "%g for type %u", numbers[i].value, numbers[i].type);
        int result =
            pgtype_from_number(&parameter, numbers[i].type, numbers[i].value, &arena, &err);
        check_parameter(result, &parameter, &err, numbers[i].sent, name);
    }
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        snprintf(name, sizeof name, "string %zu for type %u", i, strings[i].type);
        int result =
            pgtype_from_text(&parameter, strings[i].type, strings[i].text, strings[i].length, &err);
        check_parameter(result, &parameter, &err, strings[i].sent, name);
    }
}

static void test_booleans(void)
{
    static const struct {
        uint32_t type;
        bool value;
        const char *sent;
    } rows[] = {
        {BOOL, true, "binary:01"},
        {BOOL, false, "binary:00"},
        {TEXT, true, "text:true"},
        {UNKNOWN, false, "text:false"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct parameter parameter;
        struct error err;
        int result = pgtype_from_boolean(&parameter, rows[i].type, rows[i].value, &err);
        check_parameter(result, &parameter, &err, rows[i].sent, rows[i].value ? "true" : "false");
    }
}

static const struct {
    uint32_t type;
    enum pgtype_class class;
    uint32_t element;
} types[] = {
    {BOOL, PGTYPE_BOOLEAN, 99},        {INT2, PGTYPE_INTEGER, 99},
    {INT4, PGTYPE_INTEGER, 99},        {INT8, PGTYPE_INTEGER, 99},
    {OID, PGTYPE_INTEGER, 99},         {FLOAT4, PGTYPE_FLOAT, 99},
    {FLOAT8, PGTYPE_FLOAT, 99},        {NUMERIC, PGTYPE_NUMERIC, 99},
    {JSON, PGTYPE_JSON, 99},           {JSONB, PGTYPE_JSON, 99},
    {TIMESTAMP, PGTYPE_TIMESTAMP, 99}, {TIMESTAMPTZ, PGTYPE_TIMESTAMP, 99},
    {BYTEA, PGTYPE_BYTEA, 99},         {TEXT, PGTYPE_TEXT, 99},
    {UNKNOWN, PGTYPE_TEXT, 99},        {123456, PGTYPE_TEXT, 99},
    {INTS, PGTYPE_ARRAY, INT4},        {TEXTS, PGTYPE_ARRAY, TEXT},
    {JSONBS, PGTYPE_ARRAY, JSONB},     {143, PGTYPE_ARRAY, 142},
    {4073, PGTYPE_ARRAY, 4072},        {1020, PGTYPE_TEXT, 99},
    {1007 - 1, PGTYPE_TEXT, 99},       {TIMESTAMPS, PGTYPE_ARRAY, TIMESTAMPTZ},
};

static void test_classes(void)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        uint32_t element = 99;
        check_int(pgtype_classify(types[i].type, &element), types[i].class, "the class of type %u",
                  types[i].type);
        check_int(element, types[i].element, "and its elements");
        pgtype_classify(types[i].type, NULL);
    }
}

static const struct {
    const char *text;
    const char *iso;
} timestamps[] = {
    {"2026-11-23 10:00:00+00", "2026-11-23T10:00:00Z"},
    {"2026-11-23 10:00:00.5+00", "2026-11-23T10:00:00.5Z"},
    {"2026-11-23 10:00:00.123456+00", "2026-11-23T10:00:00.123456Z"},
    {"2026-11-23 10:00:00", "2026-11-23T10:00:00"},
    {"2026-11-23 10:00:00.000001", "2026-11-23T10:00:00.000001"},
    {"2026-11-23 10:00:00+05:30", "2026-11-23T10:00:00+05:30"},
    {"infinity", "infinity"},
    {"-infinity", "-infinity"},
    {"0044-03-15 10:00:00+00 BC", "0044-03-15T10:00:00Z BC"},
    {"0044-03-15 10:00:00.25 BC", "0044-03-15T10:00:00.25 BC"},
    {"12026-11-23 10:00:00+00", "12026-11-23T10:00:00Z"},
    {"294276-12-31 23:59:59.999999+00", "294276-12-31T23:59:59.999999Z"},
    {"2026-11-23 10:00:00+00:30", "2026-11-23T10:00:00+00:30"},
    {"2026-11-23", "2026-11-23"},
    {"", ""},
};

static void test_timestamp(const char *text, const char *expected)
{
    size_t length = strlen(text);
    char *iso = malloc(length ? length : 1);
    size_t written = pgtype_format_timestamp(text, length, iso);
    check(written == strlen(expected) && memcmp(iso, expected, written) == 0,
          "the timestamp \"%s\"", text);
    free(iso);
}

static const struct {
    const char *text;
    const char *bytes;
    size_t count;
} byteas[] = {
    {"\\x", "", 0},
    {"\\x48656c6c6f", "Hello", 5},
    {"\\x00ff7f80", "\0\xff\x7f\x80", 4},
    {"\\xabcdef", "\xab\xcd\xef", 3},
};

static void test_bytea(const char *text, const char *expected, size_t count)
{
    char *bytes = malloc(strlen(text) / 2);
    size_t written = pgtype_decode_bytea(text, strlen(text), bytes);
    check(written == count && memcmp(bytes, expected, count) == 0, "the bytea \"%s\"", text);
    free(bytes);
}

/* A walk as text: "(" and ")" for the braces, "[...]" for an element, "-" for NULL. An element
 * "stop" stops it. */
static int note_open(void *context)
{
    buffer_append_char(context, '(');
    return 0;
}

static int note_close(void *context)
{
    buffer_append_char(context, ')');
    return 0;
}

static int note_element(void *context, const char *text, size_t length)
{
    if (!text) {
        buffer_append_char(context, '-');
        return 0;
    }
    buffer_printf(context, "[%.*s]", (int)length, text);
    return length == 4 && memcmp(text, "stop", 4) == 0 ? -1 : 0;
}

static const struct {
    const char *text;
    const char *walk; /* NULL: the text is refused */
} arrays[] = {
    {"{}", "()"},
    {"{1}", "([1])"},
    {"{1,NULL,3}", "([1]-[3])"},
    {"{\"NULL\",null,NULLS}", "([NULL][null][NULLS])"},
    {"{\"\",\"a b\",\",\",\"{}\"}", "([][a b][,][{}])"},
    {"{\"a\\\"b\\\\c\"}", "([a\"b\\c])"},
    {"{\"\\\\\"}", "([\\])"},
    {"{{1,2},{3,NULL}}", "(([1][2])([3]-))"},
    {"{{{a}},{{b}}}", "((([a]))(([b])))"},
    {"[0:2]={1,2,3}", "([1][2][3])"},
    {"[1:1][-2:-1]={{1,2}}", "(([1][2]))"},
    {"{\"caf\xc3\xa9\"}", "([caf\xc3\xa9])"},
    {"{1,stop,3}", NULL},
    {"", NULL},
    {"1", NULL},
    {"{", NULL},
    {"}", NULL},
    {"{1", NULL},
    {"{1,", NULL},
    {"{\"1", NULL},
    {"{\"1\\", NULL},
    {"{\"1\\\"", NULL},
    {"{{1}", NULL},
    {"{1}}", NULL},
    {"{1},2", NULL},
    {"{1}2", NULL},
    {"{1}{2}", NULL},
    {"{1,,2}", NULL},
    {"{,1}", NULL},
    {"{1,}", NULL},
    {"{\"a\"b}", NULL},
    {"{\"a\"\"b\"}", NULL},
    {"{{1}{2}}", NULL},
    {"{{1}2}", NULL},
};

/* From memory of the exact size, so that a byte too far is found. */
static void test_array(const char *text, const char *expected)
{
    static const struct pgtype_array_handler handler = {note_open, note_element, note_close};
    struct buffer walk, scratch;
    size_t length = strlen(text);
    char *copy = malloc(length);
    memcpy(copy, text, length);
    buffer_init(&walk);
    buffer_init(&scratch);
    int result = pgtype_walk_array(copy, length, &handler, &walk, &scratch);
    buffer_append_char(&walk, '\0');
    if (expected) {
        check_int(result, 0, "the array %s is well-formed", text);
        check_text(walk.data, expected, "and its elements come in order");
    } else {
        check_int(result, -1, "the array %s is refused", text);
    }
    buffer_finish(&walk);
    buffer_finish(&scratch);
    free(copy);
}

static const struct {
    uint32_t type;
    const char *text;
    const char *json; /* NULL: refused */
} columns[] = {
    {INT4, NULL, "null"},
    {INTS, NULL, "null"},
    {INT8, "9223372036854775807", "9223372036854775807"},
    {FLOAT8, "1e+20", "1e+20"},
    {FLOAT8, "-0", "-0"},
    {FLOAT8, "NaN", "\"NaN\""},
    {FLOAT4, "-Infinity", "\"-Infinity\""},
    {NUMERIC, "1.00000000000000000001", "1.00000000000000000001"},
    {BOOL, "t", "true"},
    {BOOL, "f", "false"},
    {JSON, "{ \"a\" : [1.0] }", "{ \"a\" : [1.0] }"},
    {JSONB, "null", "null"},
    {TIMESTAMPTZ, "2026-11-23 10:00:00+00", "\"2026-11-23T10:00:00Z\""},
    {TIMESTAMP, "infinity", "\"infinity\""},
    {BYTEA, "\\x48", "\"\\\\x48\""},
    {TEXT, "", "\"\""},
    {TEXT, "a\"b\t\xc3\xa9", "\"a\\\"b\\t\xc3\xa9\""},
    {TEXT, "\xff", NULL},
    {123456, "point", "\"point\""},
    {INTS, "{}", "[]"},
    {INTS, "{1,NULL,3}", "[1,null,3]"},
    {INTS, "{{1,2},{3,4}}", "[[1,2],[3,4]]"},
    {INTS, "[0:1]={1,2}", "[1,2]"},
    {BOOLS, "{t,f,NULL}", "[true,false,null]"},
    {FLOATS, "{0.5,NaN}", "[0.5,\"NaN\"]"},
    {TEXTS, "{a,\"b c\",\"NULL\",\"\\\"\"}", "[\"a\",\"b c\",\"NULL\",\"\\\"\"]"},
    {TEXTS, "{\"\xff\"}", NULL},
    {TEXTS, "{a", NULL},
    {TIMESTAMPS, "{\"2026-11-23 10:00:00+00\"}", "[\"2026-11-23T10:00:00Z\"]"},
    {JSONBS, "{\"{\\\"a\\\": 1}\",NULL}", "[{\"a\": 1},null]"},
};

static void test_column(uint32_t type, const char *text, const char *expected)
{
    struct buffer out;
    buffer_init(&out);
    int result = pgtype_write_json(&out, type, text, text ? strlen(text) : 0);
    buffer_append_char(&out, '\0');
    if (expected) {
        check_int(result, 0, "%s of type %u has a form in JSON", text ? text : "NULL", type);
        check_text(out.data, expected, "which is right");
    } else {
        check_int(result, -1, "%s of type %u has none", text, type);
    }
    buffer_finish(&out);
}

/* What is written as an element is read as it was. */
static void test_round_trip(void)
{
    static const char *const elements[] = {"", "a", "NULL", "a\"b\\c", "{,}", "\\", " "};
    static const struct pgtype_array_handler handler = {note_open, note_element, note_close};
    struct buffer literal, walk, expected, scratch;
    buffer_init(&literal);
    buffer_init(&walk);
    buffer_init(&expected);
    buffer_init(&scratch);
    for (size_t i = 0; i < sizeof elements / sizeof *elements; i++) {
        buffer_append_char(&literal, i ? ',' : '{');
        pgtype_write_array_element(&literal, elements[i], strlen(elements[i]));
        buffer_printf(&expected, "%s[%s]", i ? "" : "(", elements[i]);
    }
    buffer_append_char(&literal, '}');
    buffer_append(&expected, ")", 2);
    check_int(pgtype_walk_array(literal.data, literal.length, &handler, &walk, &scratch), 0,
              "a literal of our own is well-formed");
    buffer_append_char(&walk, '\0');
    check_text(walk.data, expected.data, "and holds what was written");
    buffer_finish(&literal);
    buffer_finish(&walk);
    buffer_finish(&expected);
    buffer_finish(&scratch);
}

int main(void)
{
    arena_init(&arena);
    test_parameters();
    test_booleans();
    test_classes();
    for (size_t i = 0; i < sizeof timestamps / sizeof *timestamps; i++) {
        test_timestamp(timestamps[i].text, timestamps[i].iso);
    }
    for (size_t i = 0; i < sizeof byteas / sizeof *byteas; i++) {
        test_bytea(byteas[i].text, byteas[i].bytes, byteas[i].count);
    }
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        test_array(arrays[i].text, arrays[i].walk);
    }
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        test_column(columns[i].type, columns[i].text, columns[i].json);
    }
    test_round_trip();
    arena_finish(&arena);
    return test_end();
}
