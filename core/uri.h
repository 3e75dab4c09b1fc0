/* Percent-encoding (RFC 3986) and the fields of a query. */
#ifndef MOONPOOL_URI_H
#define MOONPOOL_URI_H

#include <stdbool.h>
#include <stddef.h>

struct arena;

/* 0 to 15; -1 for what is no hexadecimal digit. */
int uri_hex_digit(char c);

/* Decodes `raw` up to `end` into `out`, which has room for as many bytes; '+' becomes a blank if
 * `plus`. Returns the length, or -1 for a bad encoding, a NUL, or what is not UTF-8. */
ptrdiff_t uri_decode(const char *raw, const char *end, bool plus, char *out);

/* Walks "a=1&b=x%20y". */
struct uri_query {
    const char *at;
    struct arena *arena;
    bool bad; /* it ended because of a bad encoding */
    const char *name;
    size_t name_length;
    const char *value;
    size_t value_length;
};

void uri_query_begin(struct uri_query *query, const char *text, struct arena *arena);

/* The next field into name and value, decoded, in the arena; false at the end. A field without '='
 * has an empty value; empty fields are passed over. */
bool uri_query_next(struct uri_query *query);

#endif
