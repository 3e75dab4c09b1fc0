/* JSON by RFC 8259, strict and exact: a push parser that calls a handler, and the writers of
 * scalars. Knows nothing of Lua. */
#ifndef MOONPOOL_JSON_H
#define MOONPOOL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer;
struct error;

enum { JSON_DEPTH = 128 }; /* the deepest nesting accepted and written */

/* What the parser tells as it goes. A callback returns -1, with `err` filled, to stop; the place in
 * the text is then put in front of its message. Strings are valid UTF-8, unescaped, not
 * NUL-terminated, may contain NUL, and live only for the call. */
struct json_handler {
    int (*on_null)(void *context, struct error *err);
    int (*on_boolean)(void *context, bool value, struct error *err);
    int (*on_integer)(void *context, int64_t value, struct error *err);
    int (*on_number)(void *context, double value, struct error *err);
    int (*on_string)(void *context, const char *text, size_t length, struct error *err);
    int (*on_key)(void *context, const char *text, size_t length, struct error *err);
    int (*on_object)(void *context, struct error *err);
    int (*on_object_end)(void *context, struct error *err);
    int (*on_array)(void *context, struct error *err);
    int (*on_array_end)(void *context, struct error *err);
};

/* Parses one JSON text. A number without fraction and exponent that fits is an int64; "-0" and all
 * others are doubles, correctly rounded. -1 with ERROR_MALFORMED and a message with line, column
 * and what was expected ("line 1, column 14: ..."). Refused: a byte order mark, bad UTF-8, lone
 * surrogates, control characters in strings, leading zeros, anything behind the value, nesting
 * beyond JSON_DEPTH. For the handler to judge, since their syntax is right: duplicate keys, and
 * numbers beyond the range of a double, which are infinities. Strings with escapes are put together
 * in `scratch`, which is the caller's so that a callback may jump out (a Lua error) without
 * leaking. */
int json_parse(const char *text, size_t length, const struct json_handler *handler, void *context,
               struct buffer *scratch, struct error *err);

/* Writes a quoted string. Escapes only what must be (quote, backslash, below 0x20).
 * -1 if the text is not valid UTF-8; nothing is written then. */
int json_write_string(struct buffer *out, const char *text, size_t length);

void json_write_integer(struct buffer *out, int64_t value);

/* The shortest text that reads back as the same double, without ".0" for whole numbers ("1", "-0",
 * "0.1", "1e+300"); with an exponent below 1e-6 and from 1e16 on, so that no double beyond the
 * exact integers reads back as one. -1, nothing written, for NaN and infinities. */
int json_write_number(struct buffer *out, double value);

/* The text json_write_number() writes, NUL-terminated, for a finite value; returns its length. */
enum { JSON_NUMBER_SIZE = 32 };
size_t json_format_number(char text[JSON_NUMBER_SIZE], double value);

/* The double nearest to a decimal without exponent, such as "-10865.25", where that is quickly
 * found. False if it is not, or if the text is something else: strtod() knows. */
bool json_read_decimal(const char *text, size_t length, double *ret_value);

/* True if the bytes are valid UTF-8 (no overlong forms, no surrogates, at most U+10FFFF). */
bool json_is_utf8(const char *text, size_t length);

#endif
