/* The JSON parser and writers: rows of text against what the handler is told, or the complaint. */
#include "json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "error.h"
#include "test.h"

/* ---- a handler that writes down what it is told ---- */

static int tell_null(void *context, struct error *err)
{
    buffer_append_text(context, "null ");
    return 0;
}

static int tell_boolean(void *context, bool value, struct error *err)
{
    buffer_append_text(context, value ? "true " : "false ");
    return 0;
}

static int tell_integer(void *context, int64_t value, struct error *err)
{
    buffer_printf(context, "i%lld ", (long long)value);
    return 0;
}

static int tell_number(void *context, double value, struct error *err)
{
    buffer_printf(context, "d%.17g ", value);
    return 0;
}

static void tell_text(struct buffer *out, char kind, const char *text, size_t length)
{
    buffer_printf(out, "%c<", kind);
    for (size_t i = 0; i < length; i++) {
        if (text[i] >= 0x20 && text[i] < 0x7f) {
            buffer_append_char(out, text[i]);
        } else {
            buffer_printf(out, "|%02x", (unsigned char)text[i]);
        }
    }
    buffer_append_text(out, "> ");
}

static int tell_string(void *context, const char *text, size_t length, struct error *err)
{
    tell_text(context, 's', text, length);
    return 0;
}

static int tell_key(void *context, const char *text, size_t length, struct error *err)
{
    tell_text(context, 'k', text, length);
    return length == 4 && memcmp(text, "stop", 4) == 0
               ? error_set(err, ERROR_INVALID, "the handler stops")
               : 0;
}

static int tell_object(void *context, struct error *err)
{
    buffer_append_text(context, "{ ");
    return 0;
}

static int tell_object_end(void *context, struct error *err)
{
    buffer_append_text(context, "} ");
    return 0;
}

static int tell_array(void *context, struct error *err)
{
    buffer_append_text(context, "[ ");
    return 0;
}

static int tell_array_end(void *context, struct error *err)
{
    buffer_append_text(context, "] ");
    return 0;
}

static const struct json_handler handler = {
    .on_null = tell_null,
    .on_boolean = tell_boolean,
    .on_integer = tell_integer,
    .on_number = tell_number,
    .on_string = tell_string,
    .on_key = tell_key,
    .on_object = tell_object,
    .on_object_end = tell_object_end,
    .on_array = tell_array,
    .on_array_end = tell_array_end,
};

/* Parses a copy that ends where the text ends, so that a sanitizer sees a read beyond it. Leaves in
 * `out`, NUL-terminated, what the handler was told, or the complaint. */
static int parse(const char *text, size_t length, struct buffer *out, struct error *err)
{
    struct buffer scratch;
    char *copy = malloc(length ? length : 1);
    buffer_init(&scratch);
    memcpy(copy, text, length);
    out->length = 0;
    int result = json_parse(copy, length, &handler, out, &scratch, err);
    free(copy);
    buffer_finish(&scratch);
    if (result) {
        out->length = 0;
        buffer_printf(out, "%s: %s", error_kind(err->code)->slug, err->message);
    } else if (out->length) {
        out->length--;
    }
    buffer_append_char(out, '\0');
    return result;
}

struct row {
    const char *text;
    const char *expected; /* what the handler is told, or "slug: message" */
};

/* For texts with a NUL in them. */
#define NUL_TEXT "\"a\0b\""

static const struct row accepted[] = {
    {"null", "null"},
    {" \t\r\n true \n", "true"},
    {"false", "false"},
    {"[]", "[ ]"},
    {"[ ]", "[ ]"},
    {"{}", "{ }"},
    {"{ }", "{ }"},
    {"[1,[2,[]],{\"a\":{}}]", "[ i1 [ i2 [ ] ] { k<a> { } } ]"},
    {"{\"a\":1 , \"b\" : [null]}", "{ k<a> i1 k<b> [ null ] }"},
    {"{\"a\":1,\"a\":2}", "{ k<a> i1 k<a> i2 }"},
    {"{\"\":0}", "{ k<> i0 }"},
    {"0", "i0"},
    {"-0", "d-0"},
    {"-0.0", "d-0"},
    {"0e0", "d0"},
    {"0E+7", "d0"},
    {"-1", "i-1"},
    {"9223372036854775807", "i9223372036854775807"},
    {"-9223372036854775808", "i-9223372036854775808"},
    {"9223372036854775808", "d9.2233720368547758e+18"},
    {"-9223372036854775809", "d-9.2233720368547758e+18"},
    {"9007199254740993.0", "d9007199254740992"},
    {"9007199254740993", "i9007199254740993"},
    {"1.0", "d1"},
    {"1.5e1", "d15"},
    {"1e-2", "d0.01"},
    {"0.1", "d0.10000000000000001"},
    {"-123.456", "d-123.456"},
    {"1e308", "d1e+308"},
    {"1.7976931348623157e308", "d1.7976931348623157e+308"},
    {"5e-324", "d4.9406564584124654e-324"},
    {"2.4703282292062327e-324", "d0"},
    {"2.4703282292062328e-324", "d4.9406564584124654e-324"},
    {"1e-400", "d0"},
    {"1e309", "dinf"},
    {"[1,-1e400]", "[ i1 d-inf ]"},
    {"1.00000000000000011102230246251565404236316680908203125", "d1"},
    {"1.00000000000000011102230246251565404236316680908203126", "d1.0000000000000002"},
    {"\"\"", "s<>"},
    {"\"plain text, longer than one word\"", "s<plain text, longer than one word>"},
    {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "s<\"\\/|08|0c|0a|0d|09>"},
    {"\"\\u0041\\u00e9\\u20AC\\uD834\\uDd1e\\u0000\"", "s<A|c3|a9|e2|82|ac|f0|9d|84|9e|00>"},
    {"\"before \\n after, which goes on\"", "s<before |0a after, which goes on>"},
    {"\"\x7f\"", "s<|7f>"},
    {"\"\\ufffe\\uffff\"", "s<|ef|bf|be|ef|bf|bf>"},
    {"\"\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\"", "s<|c3|a9|e2|82|ac|f0|9d|84|9e>"},
    {"\"\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\"",
     "s<|c2|80|df|bf|e0|a0|80|ed|9f|bf|ee|80|80|f4|8f|bf|bf>"},
    {"{\"a\\u0062\":1}", "{ k<ab> i1 }"},
};

static const struct row refused[] = {
    {"", "line 1, column 1: expected a value, found the end"},
    {"  ", "line 1, column 3: expected a value, found the end"},
    {"nul", "line 1, column 1: expected a value, found 'n'"},
    {"nulll", "line 1, column 5: expected nothing after the value, found 'l'"},
    {"True", "line 1, column 1: expected a value, found 'T'"},
    {"NaN", "line 1, column 1: expected a value, found 'N'"},
    {"Infinity", "line 1, column 1: expected a value, found 'I'"},
    {"-Infinity", "line 1, column 2: expected a digit, found 'I'"},
    {"1 2", "line 1, column 3: expected nothing after the value, found '2'"},
    {"[1]]", "line 1, column 4: expected nothing after the value, found ']'"},
    {"[", "line 1, column 2: expected a value, found the end"},
    {"[1", "line 1, column 3: expected ',' or ']', found the end"},
    {"[1,]", "line 1, column 4: expected a value, found ']'"},
    {"[,1]", "line 1, column 2: expected a value, found ','"},
    {"[1 2]", "line 1, column 4: expected ',' or ']', found '2'"},
    {"[1}", "line 1, column 3: expected ',' or ']', found '}'"},
    {"]", "line 1, column 1: expected a value, found ']'"},
    {"{", "line 1, column 2: expected a member name in quotes, found the end"},
    {"{\"a\"}", "line 1, column 5: expected ':', found '}'"},
    {"{\"a\":}", "line 1, column 6: expected a value, found '}'"},
    {"{\"a\":1,}", "line 1, column 8: expected a member name in quotes, found '}'"},
    {"{\"a\":1", "line 1, column 7: expected ',' or '}', found the end"},
    {"{a:1}", "line 1, column 2: expected a member name in quotes, found 'a'"},
    {"{'a':1}", "line 1, column 2: expected a member name in quotes, found '''"},
    {"{1:1}", "line 1, column 2: expected a member name in quotes, found '1'"},
    {"{\"a\" 1}", "line 1, column 6: expected ':', found '1'"},
    {"[1] // no", "line 1, column 5: expected nothing after the value, found '/'"},
    {"[\n  1,\n  x\n]", "line 3, column 3: expected a value, found 'x'"},
    {"[\"\xc3\xa9\xe2\x82\xac\", x]", "line 1, column 8: expected a value, found 'x'"},
    {"\v1", "line 1, column 1: expected a value, found byte 0x0b"},
    {"\xc2\xa0 1", "line 1, column 1: expected a value, found byte 0xc2"},
    {"\xef\xbb\xbf{}", "line 1, column 1: a byte order mark is not allowed"},
    {"01", "line 1, column 1: a number must not have leading zeros"},
    {"-01", "line 1, column 1: a number must not have leading zeros"},
    {"+1", "line 1, column 1: expected a value, found '+'"},
    {".5", "line 1, column 1: expected a value, found '.'"},
    {"-", "line 1, column 2: expected a digit, found the end"},
    {"--1", "line 1, column 2: expected a digit, found '-'"},
    {"1.", "line 1, column 3: expected a digit, found the end"},
    {"1.e1", "line 1, column 3: expected a digit, found 'e'"},
    {"1e", "line 1, column 3: expected a digit, found the end"},
    {"1e+", "line 1, column 4: expected a digit, found the end"},
    {"1e+-1", "line 1, column 4: expected a digit, found '-'"},
    {"0x10", "line 1, column 2: expected nothing after the value, found 'x'"},
    {"1_000", "line 1, column 2: expected nothing after the value, found '_'"},
    {"1.5f", "line 1, column 4: expected nothing after the value, found 'f'"},
    {"\"", "line 1, column 2: expected '\"', found the end"},
    {"\"abc", "line 1, column 5: expected '\"', found the end"},
    {"\"\\", "line 1, column 3: expected one of \" \\ / b f n r t u after the backslash, found the "
             "end"},
    {"\"\\x41\"",
     "line 1, column 3: expected one of \" \\ / b f n r t u after the backslash, found "
     "'x'"},
    {"\"\\u12\"", "line 1, column 6: expected four hexadecimal digits, found '\"'"},
    {"\"\\u12g4\"", "line 1, column 6: expected four hexadecimal digits, found 'g'"},
    {"\"\\uD834\"", "line 1, column 2: half of a surrogate pair stands alone"},
    {"\"\\uD834\\u0041\"", "line 1, column 2: half of a surrogate pair stands alone"},
    {"\"\\uD834\\n\"", "line 1, column 2: half of a surrogate pair stands alone"},
    {"\"\\uD834\\uD834\"", "line 1, column 2: half of a surrogate pair stands alone"},
    {"\"\\uDD1E\\uD834\"", "line 1, column 2: half of a surrogate pair stands alone"},
    {"\"\\uD834\\u", "line 1, column 10: expected four hexadecimal digits, found the end"},
    {"\"a\nb\"", "line 1, column 3: expected an escape for the control character 0x0a"},
    {"\"a\tb\"", "line 1, column 3: expected an escape for the control character 0x09"},
    {"\"\x1f\"", "line 1, column 2: expected an escape for the control character 0x1f"},
    {"'a'", "line 1, column 1: expected a value, found '''"},
    {"\"\x80\"", "line 1, column 2: expected UTF-8, found byte 0x80"},
    {"\"\xc3\"", "line 1, column 2: expected UTF-8, found byte 0xc3"},
    {"\"\xc3", "line 1, column 2: expected UTF-8, found byte 0xc3"},
    {"\"\xc0\x80\"", "line 1, column 2: expected UTF-8, found byte 0xc0"},
    {"\"\xc1\xbf\"", "line 1, column 2: expected UTF-8, found byte 0xc1"},
    {"\"\xe0\x9f\xbf\"", "line 1, column 2: expected UTF-8, found byte 0xe0"},
    {"\"\xed\xa0\x80\"", "line 1, column 2: expected UTF-8, found byte 0xed"},
    {"\"\xf0\x8f\xbf\xbf\"", "line 1, column 2: expected UTF-8, found byte 0xf0"},
    {"\"\xf4\x90\x80\x80\"", "line 1, column 2: expected UTF-8, found byte 0xf4"},
    {"\"\xf5\x80\x80\x80\"", "line 1, column 2: expected UTF-8, found byte 0xf5"},
    {"\"\xff\"", "line 1, column 2: expected UTF-8, found byte 0xff"},
    {"\"\xe2\x82", "line 1, column 2: expected UTF-8, found byte 0xe2"},
    {"\"\\n\xe2\x82\"", "line 1, column 4: expected UTF-8, found byte 0xe2"},
};

static const struct row invalid[] = {
    {"{\"stop\":1}", "invalid: line 1, column 2: the handler stops"},
    {"{\"a\":[\n{\"stop\":1}]}", "invalid: line 2, column 2: the handler stops"},
};

static void test_rows(const struct row *rows, size_t count, const char *prefix)
{
    struct buffer out;
    struct error err;
    buffer_init(&out);
    for (size_t i = 0; i < count; i++) {
        char wanted[600];
        parse(rows[i].text, strlen(rows[i].text), &out, &err);
        snprintf(wanted, sizeof wanted, "%s%s", prefix, rows[i].expected);
        check_text(out.data, wanted, "row %zu, which gives %.60s", i, rows[i].expected);
    }
    buffer_finish(&out);
}

#define test_table(rows, prefix) test_rows(rows, sizeof(rows) / sizeof *(rows), prefix)

static void test_nul(void)
{
    struct buffer out;
    struct error err;
    buffer_init(&out);
    parse(NUL_TEXT, sizeof NUL_TEXT - 1, &out, &err);
    check_text(out.data,
               "malformed: line 1, column 3: expected an escape for the control character 0x00",
               "a NUL in a string is refused");
    parse("1\0", 2, &out, &err);
    check_text(out.data,
               "malformed: line 1, column 2: expected nothing after the value, found byte 0x00",
               "a NUL behind the value is refused");
    parse("[\0]", 3, &out, &err);
    check_text(out.data, "malformed: line 1, column 2: expected a value, found byte 0x00",
               "a NUL between tokens is refused");
    buffer_finish(&out);
}

/* `depth` times the opening, then the closing bracket. */
static int parse_nested(const char *open, const char *close, int depth, struct buffer *out,
                        struct error *err)
{
    struct buffer text;
    buffer_init(&text);
    for (int i = 0; i < depth; i++) {
        buffer_append_text(&text, open);
    }
    buffer_append_text(&text, "1");
    for (int i = 0; i < depth; i++) {
        buffer_append_text(&text, close);
    }
    int result = parse(text.data, text.length, out, err);
    buffer_finish(&text);
    return result;
}

static void test_depth(void)
{
    struct buffer out;
    struct error err;
    buffer_init(&out);
    check_int(parse_nested("[", "]", JSON_DEPTH, &out, &err), 0, "arrays to the limit");
    check_int(parse_nested("{\"a\":", "}", JSON_DEPTH, &out, &err), 0, "objects to the limit");
    check_int(parse_nested("[", "]", JSON_DEPTH + 1, &out, &err), -1, "arrays beyond the limit");
    check_text(err.message, "line 1, column 129: nested deeper than 128 levels", "says so");
    check_int(parse_nested("{\"a\":", "}", JSON_DEPTH + 1, &out, &err), -1, "objects beyond it");
    check_int(parse_nested("[", "", 100000, &out, &err), -1, "100,000 brackets do no harm");
    check_int(parse_nested("[[],[", "]]", JSON_DEPTH / 2, &out, &err), 0, "siblings do not add up");
    buffer_finish(&out);
}

/* ---- every cut and every single wrong byte of a text: nothing crashes, nothing is read beyond
 * ---- */

static void test_damage(void)
{
    static const char text[] =
        "{\"name\":\"J\xc3\xb6hn \\uD834\\uDD1E\\n\",\"list\":[1,-2.5e3,true,null,{}],\"x\":0.125}";
    struct buffer out;
    struct error err;
    char damaged[sizeof text];
    int cuts_refused = 0;
    size_t length = sizeof text - 1;
    buffer_init(&out);
    for (size_t i = 0; i < length; i++) {
        cuts_refused += parse(text, i, &out, &err) != 0;
        for (int byte = 0; byte < 256; byte++) {
            memcpy(damaged, text, sizeof text);
            damaged[i] = (char)byte;
            parse(damaged, length, &out, &err);
        }
    }
    check_int(cuts_refused, (int)length, "every beginning of a text is refused");
    check_int(parse(text, length, &out, &err), 0, "the whole is not");
    buffer_finish(&out);
}

/* ---- writing ---- */

struct text_row {
    const char *text;
    const char *expected; /* NULL if refused */
};

static const struct text_row strings[] = {
    {"", "\"\""},
    {"plain/text that is longer than a word", "\"plain/text that is longer than a word\""},
    {"\"\\", "\"\\\"\\\\\""},
    {"\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\""},
    {"J\xc3\xb6hn \xf0\x9d\x84\x9e", "\"J\xc3\xb6hn \xf0\x9d\x84\x9e\""},
    {"bad \xff", NULL},
    {"cut \xe2\x82", NULL},
    {"\xed\xa0\x80", NULL},
    {"a\nb\xc0\x80", NULL},
};

static void test_strings(void)
{
    struct buffer out;
    buffer_init(&out);
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        const struct text_row *row = &strings[i];
        size_t length = strlen(row->text);
        out.length = 0;
        buffer_append_text(&out, "kept ");
        int result = json_write_string(&out, row->text, length);
        buffer_append_char(&out, '\0');
        check_int(result, row->expected ? 0 : -1, "string %zu is written or refused", i);
        check_text(out.data + 5, row->expected ? row->expected : "", "string %zu reads so", i);
        check_int(json_is_utf8(row->text, length), row->expected != NULL, "string %zu is UTF-8", i);
    }
    out.length = 0;
    json_write_string(&out, "a\0b", 3);
    buffer_append_char(&out, '\0');
    check_text(out.data, "\"a\\u0000b\"", "a NUL is escaped");
    buffer_finish(&out);
}

static const struct {
    double value;
    const char *expected;
} numbers[] = {
    {0.0, "0"},
    {-0.0, "-0"},
    {1.0, "1"},
    {-1.5, "-1.5"},
    {0.1, "0.1"},
    {0.5, "0.5"},
    {0.3, "0.3"},
    {0.1 + 0.2, "0.30000000000000004"},
    {1.0 / 3.0, "0.3333333333333333"},
    {100.0, "100"},
    {5432.0, "5432"},
    {5433.000001, "5433.000001"},
    {9007199254740991.0, "9007199254740991"},
    {9007199254740992.0, "9007199254740992"},
    {9007199254740994.0, "9007199254740994"},
    {4503599627370495.5, "4503599627370495.5"},
    {9999999999999998.0, "9999999999999998"},
    {1e16, "1e+16"},
    {4611686018427387904.0, "4.611686018427388e+18"},
    {9223372036854775808.0, "9.223372036854776e+18"},
    {1e300, "1e+300"},
    {1.7976931348623157e308, "1.7976931348623157e+308"},
    {1e-4, "0.0001"},
    {0.00012345, "0.00012345"},
    {0.000001, "0.000001"},
    {0.0000012345, "0.0000012345"},
    {1e-7, "1e-7"},
    {-1.25e-9, "-1.25e-9"},
    {2.2250738585072014e-308, "2.2250738585072014e-308"},
    {2.225073858507201e-308, "2.225073858507201e-308"},
    {5e-324, "5e-324"},
    {1e23, "1e+23"},
    {5.684341886080802e-14, "5.684341886080802e-14"},
    {0x1p-1019, "1.7800590868057611e-307"},
    {0x1p-1017, "7.120236347223045e-307"},
    {261388799877452.125, "261388799877452.12"},
};

static void test_numbers(void)
{
    char text[JSON_NUMBER_SIZE];
    struct buffer out;
    buffer_init(&out);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        size_t length = json_format_number(text, numbers[i].value);
        check_text(text, numbers[i].expected, "the double %s", numbers[i].expected);
        check_int(length, strlen(text), "its length");
    }
    check_int(json_write_number(&out, NAN), -1, "NaN is refused");
    check_int(json_write_number(&out, INFINITY), -1, "infinity is refused");
    check_int(json_write_number(&out, -INFINITY), -1, "minus infinity is refused");
    check_int(out.length, 0, "and nothing is written");
    buffer_finish(&out);
}

static void test_integers(void)
{
    static const struct {
        int64_t value;
        const char *expected;
    } rows[] = {{0, "0"},
                {7, "7"},
                {-10, "-10"},
                {INT64_MAX, "9223372036854775807"},
                {INT64_MIN, "-9223372036854775808"}};
    struct buffer out;
    buffer_init(&out);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        out.length = 0;
        json_write_integer(&out, rows[i].value);
        buffer_append_char(&out, '\0');
        check_text(out.data, rows[i].expected, "the integer %s", rows[i].expected);
    }
    buffer_finish(&out);
}

/* ---- there and back ---- */

static int keep_number(void *context, double value, struct error *err)
{
    *(double *)context = value;
    return 0;
}

static int refuse_number(void *context, double value, struct error *err)
{
    return error_set(err, ERROR_INVALID, "an integer was wanted");
}

static int keep_integer(void *context, int64_t value, struct error *err)
{
    *(double *)context = (double)value;
    return 0;
}

/* Writes and parses; and sees that no shorter text would have done. */
static bool survives(double value)
{
    static const struct json_handler keeper = {.on_number = keep_number,
                                               .on_integer = keep_integer};
    char text[JSON_NUMBER_SIZE], shorter[JSON_NUMBER_SIZE];
    struct buffer scratch;
    struct error err;
    double back = NAN;
    int digits = 0;
    buffer_init(&scratch);
    size_t length = json_format_number(text, value);
    int result = json_parse(text, length, &keeper, &back, &scratch, &err);
    buffer_finish(&scratch);
    size_t mantissa = strcspn(text, "e");
    for (size_t i = 0; i < mantissa; i++) {
        digits += (text[i] >= '0' && text[i] <= '9') && (digits || text[i] != '0');
    }
    if (digits > 1 && digits <= 17 && text[mantissa - 1] != '0') {
        snprintf(shorter, sizeof shorter, "%.*e", digits - 2, value);
    } else {
        shorter[0] = '\0';
    }
    return result == 0 && memcmp(&back, &value, sizeof value) == 0 &&
           (!shorter[0] || strtod(shorter, NULL) != value);
}

struct kept_integer {
    int64_t value;
    bool kept;
};

static int keep_exactly(void *context, int64_t value, struct error *err)
{
    *(struct kept_integer *)context = (struct kept_integer){value, true};
    return 0;
}

static bool integer_survives(int64_t value)
{
    static const struct json_handler keeper = {.on_integer = keep_exactly,
                                               .on_number = refuse_number};
    struct kept_integer back = {0, false};
    struct buffer text, scratch;
    struct error err;
    buffer_init(&text);
    buffer_init(&scratch);
    json_write_integer(&text, value);
    int result = json_parse(text.data, text.length, &keeper, &back, &scratch, &err);
    buffer_finish(&text);
    buffer_finish(&scratch);
    return result == 0 && back.kept && back.value == value;
}

/* A decimal is read as the nearest double, which strtod() gives. */
static bool is_read_right(const char *text)
{
    static const struct json_handler keeper = {.on_number = keep_number,
                                               .on_integer = keep_integer};
    struct buffer scratch;
    struct error err;
    double value = NAN, right = strtod(text, NULL);
    buffer_init(&scratch);
    int result = json_parse(text, strlen(text), &keeper, &value, &scratch, &err);
    buffer_finish(&scratch);
    return result == 0 && memcmp(&value, &right, sizeof value) == 0;
}

/* A small generator (xorshift), the same numbers each time. */
static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* A power of two, by its bits, and its neighbour below, made negative. */
static bool power_survives(uint64_t bits)
{
    return survives(double_of(bits)) && survives(-double_of(bits - 1));
}

static void test_round_trip(void)
{
    uint64_t state = 20240229;
    int any = 0, scores = 0, parts = 0, powers = 0;
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = next_random(&state);
        any += !isfinite(double_of(bits)) || survives(double_of(bits));
        scores += survives((double)(bits >> 11) * 0x1p-53 * 10000.0);
        parts += survives((double)(bits % 100000000) / 10000.0);
    }
    for (int i = 0; i < 52; i++) {
        powers += power_survives(UINT64_C(1) << i);
    }
    for (uint64_t exponent = 1; exponent < 2047; exponent++) {
        powers += power_survives(exponent << 52);
    }
    check_int(any, 100000, "doubles of any bits come back, in their shortest form");
    check_int(scores, 100000, "doubles up to 10,000 come back, in their shortest form");
    check_int(parts, 100000, "numbers of four decimals come back, in their shortest form");
    check_int(powers, 52 + 2046, "powers of two and those below them too");
}

static void test_integers_round_trip(void)
{
    static const int64_t extremes[] = {
        0, 1, -1, INT64_MAX, INT64_MAX - 1, INT64_MIN, INT64_MIN + 1};
    uint64_t state = 19991231;
    int any = 0, edges = 0;
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = next_random(&state);
        any += integer_survives((int64_t)(bits >> bits % 64));
        any += integer_survives(-(int64_t)(bits >> bits % 63 >> 1));
    }
    for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
        edges += integer_survives(extremes[i]);
    }
    check_int(any, 200000, "integers of any length come back as integers");
    check_int(edges, sizeof extremes / sizeof *extremes, "the first and the last of them too");
}

/* With a point anywhere among the digits, and an exponent or none. */
static void write_decimal(char *text, size_t size, uint64_t bits)
{
    char digits[24];
    int count = snprintf(digits, sizeof digits, "%llu", (unsigned long long)(bits >> bits % 60));
    int point = (int)(bits >> 8) % count + 1;
    const char *sign = bits & 1 ? "-" : "";
    if (point < 1 || point >= count) {
        snprintf(text, size, "%s0.%s", sign, digits);
    } else if (bits & 2) {
        snprintf(text, size, "%s%.*s.%s", sign, point, digits, digits + point);
    } else {
        snprintf(text, size, "%s%.*s.%se%d", sign, point, digits, digits + point,
                 (int)(bits >> 16 & 511) - 320);
    }
}

static void test_decimals(void)
{
    uint64_t state = 42;
    char text[64], first_wrong[64] = "";
    int right = 0;
    for (int i = 0; i < 100000; i++) {
        write_decimal(text, sizeof text, next_random(&state));
        if (is_read_right(text)) {
            right++;
        } else if (!first_wrong[0]) {
            memcpy(first_wrong, text, sizeof text);
        }
    }
    check_int(right, 100000, "decimals are read as the nearest double; wrong: %s", first_wrong);
}

/* Half-way between two doubles, or so near to it that 64 bits cannot tell. */
static void test_half_way(void)
{
    static const char *const texts[] = {
        "9007199254740993.0",   "9007199254740995.0",   "-9007199254740993.0",
        "18014398509481986.0",  "4503599627370496.5",   "4503599627370497.5",
        "1152921504606847104.", "922337203685477555.2", "0.50000000000000005",
        "9007199254740992.999", "9007199254740993.001", "1.00000000000000011102",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        double value, right = strtod(texts[i], NULL);
        bool quick = json_read_decimal(texts[i], strlen(texts[i]), &value);
        check(!quick || value == right, "%s is read as the nearest double, or left", texts[i]);
    }
}

int main(void)
{
    test_table(accepted, "");
    test_table(refused, "malformed: ");
    test_table(invalid, "");
    test_nul();
    test_depth();
    test_damage();
    test_strings();
    test_integers();
    test_numbers();
    test_round_trip();
    test_integers_round_trip();
    test_decimals();
    test_half_way();
    return test_end();
}
