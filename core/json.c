/* The JSON parser, a descent bounded by JSON_DEPTH, and the writer of strings. Both run over plain
 * text eight bytes at a time and look at single bytes only where something has to be decided. */
#include "json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"
#include "error.h"

struct parser {
    const char *start;
    const char *at; /* the next byte to read */
    const char *end;
    const struct json_handler *handler;
    void *context;
    struct buffer *scratch; /* borrowed from the caller */
    struct error *err;
    int depth;
};

typedef int text_handler(void *context, const char *text, size_t length, struct error *err);

/* ---- text ---- */

/* Tells whether a byte of `word` is a quote, a backslash, a control character or not ASCII. A
 * borrow may also flag the byte above such a one, which does no harm: single bytes are looked at
 * next. */
static bool has_special(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t control = word - ones * 0x20;
    uint64_t quote = (word ^ (ones * '"')) - ones;
    uint64_t backslash = (word ^ (ones * '\\')) - ones;
    return ((control | quote | backslash | word) & (ones * 0x80)) != 0;
}

static bool is_special(unsigned char c)
{
    return c < 0x20 || c >= 0x80 || c == '"' || c == '\\';
}

/* The first byte from `at` on that is not plain text. */
static const char *skip_plain(const char *at, const char *end)
{
    uint64_t word;
    while ((size_t)(end - at) >= sizeof word) {
        memcpy(&word, at, sizeof word);
        if (has_special(word)) {
            break;
        }
        at += sizeof word;
    }
    while (at < end && !is_special((unsigned char)*at)) {
        at++;
    }
    return at;
}

/* How many bytes follow the first of a UTF-8 sequence, and the range of the second, which is what
 * rules out overlong forms, surrogates and code points beyond U+10FFFF. False if `c` starts none.
 */
static bool utf8_shape(unsigned char c, int *ret_more, unsigned char *ret_low,
                       unsigned char *ret_high)
{
    if (c < 0xc2 || c > 0xf4) {
        return false;
    }
    *ret_more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    *ret_low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
    *ret_high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    return true;
}

/* The length of the valid sequence of several bytes at `at`, or 0. */
static size_t utf8_sequence(const char *at, const char *end)
{
    const unsigned char *bytes = (const unsigned char *)at;
    unsigned char low, high;
    int more;
    if (!utf8_shape(bytes[0], &more, &low, &high) || end - at <= more) {
        return 0;
    }
    if (bytes[1] < low || bytes[1] > high) {
        return 0;
    }
    for (int i = 2; i <= more; i++) {
        if ((bytes[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return (size_t)more + 1;
}

/* Like skip_plain, but goes on over valid UTF-8. */
static const char *skip_valid(const char *at, const char *end)
{
    while ((at = skip_plain(at, end)) < end && (unsigned char)*at >= 0x80) {
        size_t size = utf8_sequence(at, end);
        if (!size) {
            break;
        }
        at += size;
    }
    return at;
}

bool json_is_utf8(const char *text, size_t length)
{
    const char *end = text + length;
    while ((text = skip_valid(text, end)) < end) {
        if ((unsigned char)*text >= 0x80) {
            return false;
        }
        text++;
    }
    return true;
}

/* ---- complaints ---- */

/* Fails with the line and column (in characters) of `at`. */
__attribute__((format(printf, 4, 5))) static int fail(struct parser *parser, enum error_code code,
                                                      const char *at, const char *format, ...)
{
    char what[sizeof parser->err->message - 64]; /* leaves room for the place */
    size_t line = 1, column = 1;
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    for (const char *c = parser->start; c < at; c++) {
        if (*c == '\n') {
            line++;
            column = 1;
        } else if ((*c & 0xc0) != 0x80) {
            column++;
        }
    }
    return error_set(parser->err, code, "line %zu, column %zu: %s", line, column, what);
}

/* Fails with what a callback complains of, which was told of what begins at `at`. */
static int refused(struct parser *parser, const char *at)
{
    struct error err = *parser->err;
    return fail(parser, err.code, at, "%s", err.message);
}

/* Fails because `what` should stand at the current byte. */
static int expected(struct parser *parser, const char *what)
{
    char found[16] = "the end";
    if (parser->at < parser->end) {
        unsigned char c = (unsigned char)*parser->at;
        snprintf(found, sizeof found, c > 0x20 && c < 0x7f ? "'%c'" : "byte 0x%02x", c);
    }
    return fail(parser, ERROR_MALFORMED, parser->at, "expected %s, found %s", what, found);
}

/* ---- the parser ---- */

/* The next byte, or -1 at the end. */
static int peek(const struct parser *parser)
{
    return parser->at < parser->end ? (unsigned char)*parser->at : -1;
}

static void skip_space(struct parser *parser)
{
    int c;
    while ((c = peek(parser)) == ' ' || c == '\n' || c == '\r' || c == '\t') {
        parser->at++;
    }
}

static bool is_digit(int c)
{
    return c >= '0' && c <= '9';
}

static bool accept(struct parser *parser, char c)
{
    if (peek(parser) != c) {
        return false;
    }
    parser->at++;
    return true;
}

/* The value of four hexadecimal digits, or -1. */
static int parse_hex(struct parser *parser)
{
    int code = 0;
    for (int i = 0; i < 4; i++, parser->at++) {
        int c = peek(parser);
        int lower = c | 0x20;
        if (is_digit(c)) {
            code = code * 16 + (c - '0');
        } else if (c >= 0 && lower >= 'a' && lower <= 'f') {
            code = code * 16 + (lower - 'a' + 10);
        } else {
            return expected(parser, "four hexadecimal digits");
        }
    }
    return code;
}

static void append_utf8(struct buffer *out, uint32_t code)
{
    char *to = buffer_reserve(out, 4);
    char *start = to;
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
    } else if (code < 0x10000) {
        *to++ = (char)(0xe0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    } else {
        *to++ = (char)(0xf0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    }
    if (code >= 0x80) {
        *to++ = (char)(0x80 | (code & 0x3f));
    }
    out->length += (size_t)(to - start);
}

/* What follows "\u" at `escape`: one code unit, or two that make a surrogate pair. */
static int parse_unicode(struct parser *parser, const char *escape)
{
    int code = parse_hex(parser);
    if (code < 0) {
        return -1;
    }
    if (code >= 0xd800 && code <= 0xdbff && parser->end - parser->at >= 2 &&
        memcmp(parser->at, "\\u", 2) == 0) {
        parser->at += 2;
        int low = parse_hex(parser);
        if (low < 0) {
            return -1;
        }
        if (low >= 0xdc00 && low <= 0xdfff) {
            append_utf8(parser->scratch,
                        (uint32_t)(0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00)));
            return 0;
        }
    }
    if (code >= 0xd800 && code <= 0xdfff) {
        return fail(parser, ERROR_MALFORMED, escape, "half of a surrogate pair stands alone");
    }
    append_utf8(parser->scratch, (uint32_t)code);
    return 0;
}

static int parse_escape(struct parser *parser)
{
    static const char names[] = "\"\\/bfnrt";
    static const char values[] = "\"\\/\b\f\n\r\t";
    const char *escape = parser->at++;
    int c = peek(parser);
    const char *name = c > 0 ? strchr(names, c) : NULL;
    if (name) {
        parser->at++;
        buffer_append_char(parser->scratch, values[name - names]);
        return 0;
    }
    if (!accept(parser, 'u')) {
        return expected(parser, "one of \" \\ / b f n r t u after the backslash");
    }
    return parse_unicode(parser, escape);
}

/* Says why the text of a string ends here without a quote. */
static int bad_text(struct parser *parser)
{
    int c = peek(parser);
    if (c >= 0x80) {
        return fail(parser, ERROR_MALFORMED, parser->at, "expected UTF-8, found byte 0x%02x", c);
    }
    if (c >= 0) {
        return fail(parser, ERROR_MALFORMED, parser->at,
                    "expected an escape for the control character 0x%02x", c);
    }
    return expected(parser, "'\"'");
}

/* The rest of a string from its first escape on; the text before it is in the scratch buffer. */
static int unescape(struct parser *parser)
{
    while (peek(parser) == '\\') {
        if (parse_escape(parser)) {
            return -1;
        }
        const char *text = parser->at;
        parser->at = skip_valid(text, parser->end);
        buffer_append(parser->scratch, text, (size_t)(parser->at - text));
    }
    return 0;
}

static int parse_string(struct parser *parser, text_handler *tell)
{
    const char *start = parser->at;
    const char *text = ++parser->at;
    parser->at = skip_valid(text, parser->end);
    size_t length = (size_t)(parser->at - text);
    if (peek(parser) == '\\') {
        parser->scratch->length = 0;
        buffer_append(parser->scratch, text, length);
        if (unescape(parser)) {
            return -1;
        }
        text = parser->scratch->data;
        length = parser->scratch->length;
    }
    if (!accept(parser, '"')) {
        return bad_text(parser);
    }
    return tell(parser->context, text, length, parser->err) ? refused(parser, start) : 0;
}

static int tell_number(struct parser *parser, const char *text, size_t length)
{
    double value;
    if (!json_read_decimal(text, length, &value)) {
        parser->scratch->length = 0;
        buffer_append(parser->scratch, text, length);
        buffer_append_char(parser->scratch, '\0');
        value = strtod(parser->scratch->data, NULL);
    }
    return parser->handler->on_number(parser->context, value, parser->err) ? refused(parser, text)
                                                                           : 0;
}

/* The value of an optional minus and digits; false if it does not fit, or is "-0". */
static bool whole_number(const char *text, const char *end, int64_t *ret_value)
{
    bool negative = *text == '-';
    int64_t value = 0;
    for (const char *c = text + negative; c < end; c++) {
        int digit = negative ? '0' - *c : *c - '0';
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, digit, &value)) {
            return false;
        }
    }
    *ret_value = value;
    return !(negative && value == 0);
}

static int skip_digits(struct parser *parser)
{
    if (!is_digit(peek(parser))) {
        return expected(parser, "a digit");
    }
    while (is_digit(peek(parser))) {
        parser->at++;
    }
    return 0;
}

/* Passes a fraction and an exponent, if they are there. */
static int skip_fraction(struct parser *parser)
{
    if (accept(parser, '.') && skip_digits(parser)) {
        return -1;
    }
    if (accept(parser, 'e') || accept(parser, 'E')) {
        if (!accept(parser, '+')) {
            accept(parser, '-');
        }
        return skip_digits(parser);
    }
    return 0;
}

static int parse_number(struct parser *parser)
{
    const char *text = parser->at;
    int64_t value;
    accept(parser, '-');
    if (accept(parser, '0')) {
        if (is_digit(peek(parser))) {
            return fail(parser, ERROR_MALFORMED, text, "a number must not have leading zeros");
        }
    } else if (skip_digits(parser)) {
        return -1;
    }
    const char *whole = parser->at;
    if (skip_fraction(parser)) {
        return -1;
    }
    if (parser->at == whole && whole_number(text, whole, &value)) {
        return parser->handler->on_integer(parser->context, value, parser->err);
    }
    return tell_number(parser, text, (size_t)(parser->at - text));
}

static int parse_word(struct parser *parser, const char *word)
{
    size_t length = strlen(word);
    if ((size_t)(parser->end - parser->at) < length || memcmp(parser->at, word, length) != 0) {
        return expected(parser, "a value");
    }
    parser->at += length;
    return 0;
}

static int parse_value(struct parser *parser);

static int parse_member(struct parser *parser)
{
    skip_space(parser);
    if (peek(parser) != '"') {
        return expected(parser, "a member name in quotes");
    }
    if (parse_string(parser, parser->handler->on_key)) {
        return -1;
    }
    skip_space(parser);
    return accept(parser, ':') ? parse_value(parser) : expected(parser, "':'");
}

/* Goes over an opening bracket and one level down. */
static int enter(struct parser *parser)
{
    if (parser->depth == JSON_DEPTH) {
        return fail(parser, ERROR_MALFORMED, parser->at, "nested deeper than %d levels",
                    JSON_DEPTH);
    }
    parser->depth++;
    parser->at++;
    return 0;
}

/* What stands behind an opening bracket: items, which `parse_item` reads, with commas between them,
 * and the closing bracket. */
static int parse_items(struct parser *parser, char close, int (*parse_item)(struct parser *))
{
    skip_space(parser);
    if (peek(parser) != close) {
        do {
            if (parse_item(parser)) {
                return -1;
            }
            skip_space(parser);
        } while (accept(parser, ','));
    }
    parser->depth--;
    return accept(parser, close) ? 0 : expected(parser, close == ']' ? "',' or ']'" : "',' or '}'");
}

static int parse_object(struct parser *parser)
{
    const struct json_handler *handler = parser->handler;
    if (enter(parser) || handler->on_object(parser->context, parser->err) ||
        parse_items(parser, '}', parse_member)) {
        return -1;
    }
    return handler->on_object_end(parser->context, parser->err);
}

static int parse_array(struct parser *parser)
{
    const struct json_handler *handler = parser->handler;
    if (enter(parser) || handler->on_array(parser->context, parser->err) ||
        parse_items(parser, ']', parse_value)) {
        return -1;
    }
    return handler->on_array_end(parser->context, parser->err);
}

static int parse_boolean(struct parser *parser, const char *word, bool value)
{
    return parse_word(parser, word)
               ? -1
               : parser->handler->on_boolean(parser->context, value, parser->err);
}

static int parse_null(struct parser *parser)
{
    return parse_word(parser, "null") ? -1 : parser->handler->on_null(parser->context, parser->err);
}

static int parse_value(struct parser *parser)
{
    skip_space(parser);
    int c = peek(parser);
    switch (c) {
    case '{':
        return parse_object(parser);
    case '[':
        return parse_array(parser);
    case '"':
        return parse_string(parser, parser->handler->on_string);
    case 't':
        return parse_boolean(parser, "true", true);
    case 'f':
        return parse_boolean(parser, "false", false);
    case 'n':
        return parse_null(parser);
    default:
        return c == '-' || is_digit(c) ? parse_number(parser) : expected(parser, "a value");
    }
}

int json_parse(const char *text, size_t length, const struct json_handler *handler, void *context,
               struct buffer *scratch, struct error *err)
{
    struct parser parser = {.start = text,
                            .at = text,
                            .end = text + length,
                            .handler = handler,
                            .context = context,
                            .scratch = scratch,
                            .err = err};
    if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        return fail(&parser, ERROR_MALFORMED, text, "a byte order mark is not allowed");
    }
    if (parse_value(&parser)) {
        return -1;
    }
    skip_space(&parser);
    return parser.at == parser.end ? 0 : expected(&parser, "nothing after the value");
}

/* ---- strings ---- */

static void write_escape(struct buffer *out, unsigned char c)
{
    static const char letters[0x20] = {
        ['\b'] = 'b', ['\f'] = 'f', ['\n'] = 'n', ['\r'] = 'r', ['\t'] = 't'};
    char letter = c < 0x20 ? letters[c] : (char)c;
    if (letter) {
        buffer_append_char(out, '\\');
        buffer_append_char(out, letter);
    } else {
        buffer_printf(out, "\\u%04x", c);
    }
}

int json_write_string(struct buffer *out, const char *text, size_t length)
{
    const char *end = text + length;
    size_t before = out->length;
    buffer_reserve(out, length + 2);
    buffer_append_char(out, '"');
    for (;;) {
        const char *stop = skip_valid(text, end);
        buffer_append(out, text, (size_t)(stop - text));
        if (stop == end) {
            break;
        }
        if ((unsigned char)*stop >= 0x80) {
            out->length = before;
            return -1;
        }
        write_escape(out, (unsigned char)*stop);
        text = stop + 1;
    }
    buffer_append_char(out, '"');
    return 0;
}
