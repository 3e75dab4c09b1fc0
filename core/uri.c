/* Percent-decoding. */
#include "uri.h"

#include <string.h>

#include "arena.h"
#include "json.h"

int uri_hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of the "%XX" at `raw`; -1 if it is malformed or a NUL. */
static int escaped_byte(const char *raw, const char *end)
{
    int high = end - raw > 2 ? uri_hex_digit(raw[1]) : -1;
    int low = end - raw > 2 ? uri_hex_digit(raw[2]) : -1;
    return high < 0 || low < 0 || high + low == 0 ? -1 : high << 4 | low;
}

ptrdiff_t uri_decode(const char *raw, const char *end, bool plus, char *out)
{
    char *to = out;
    while (raw < end) {
        if (*raw == '%') {
            int byte = escaped_byte(raw, end);
            if (byte < 0) {
                return -1;
            }
            *to++ = (char)byte;
            raw += 3;
        } else {
            *to++ = plus && *raw == '+' ? ' ' : *raw;
            raw++;
        }
    }
    return json_is_utf8(out, (size_t)(to - out)) ? to - out : -1;
}

void uri_query_begin(struct uri_query *query, const char *text, struct arena *arena)
{
    memset(query, 0, sizeof *query);
    query->at = text;
    query->arena = arena;
}

/* Decodes one side of a field into the arena. */
static bool decode_side(struct uri_query *query, const char *raw, const char *end,
                        const char **ret_text, size_t *ret_length)
{
    char *out = arena_bytes(query->arena, (size_t)(end - raw) + 1);
    ptrdiff_t length = uri_decode(raw, end, true, out);
    query->bad = length < 0;
    *ret_text = out;
    *ret_length = query->bad ? 0 : (size_t)length;
    return !query->bad;
}

bool uri_query_next(struct uri_query *query)
{
    query->at += strspn(query->at, "&");
    if (!*query->at || query->bad) {
        return false;
    }
    const char *name = query->at;
    const char *end = name + strcspn(name, "&");
    const char *equals = memchr(name, '=', (size_t)(end - name));
    const char *name_end = equals ? equals : end;
    query->at = end;
    return decode_side(query, name, name_end, &query->name, &query->name_length) &&
           decode_side(query, equals ? equals + 1 : end, end, &query->value, &query->value_length);
}
