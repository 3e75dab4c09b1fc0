/* Percent-decoding, and the fields of a query. */
#include "uri.h"

#include <stdlib.h>

#include "arena.h"
#include "buffer.h"
#include "test.h"

static const struct {
    const char *raw;
    bool plus;
    const char *decoded; /* NULL: refused */
} texts[] = {
    {"", false, ""},
    {"plain", false, "plain"},
    {"a%20b", false, "a b"},
    {"%41%7a%2F", false, "Az/"},
    {"%c3%a9%C3%A9", false, "\xc3\xa9\xc3\xa9"},
    {"\xc3\xa9", false, "\xc3\xa9"},
    {"a+b", false, "a+b"},
    {"a+b%2B", true, "a b+"},
    {"%2541", false, "%41"},
    {"%", false, NULL},
    {"%4", false, NULL},
    {"a%4", false, NULL},
    {"%4g", false, NULL},
    {"%g4", false, NULL},
    {"%%41", false, NULL},
    {"%-1", false, NULL},
    {"% 1", false, NULL},
    {"%00", false, NULL},
    {"a%00b", false, NULL},
    {"%ff", false, NULL},
    {"\xff", false, NULL},
    {"%c3", false, NULL},
    {"%c3a", false, NULL},
    {"%c0%af", false, NULL},
    {"%ed%a0%80", false, NULL},
};

/* From and to memory of the exact size, so that a byte too far is found. */
static void test_decode(const char *raw, bool plus, const char *expected)
{
    size_t size = strlen(raw);
    char *copy = malloc(size), *out = malloc(size);
    memcpy(copy, raw, size);
    ptrdiff_t length = uri_decode(copy, copy + size, plus, out);
    if (expected) {
        check(length == (ptrdiff_t)strlen(expected) && memcmp(out, expected, (size_t)length) == 0,
              "\"%s\" is decoded%s", raw, plus ? ", with blanks" : "");
    } else {
        check(length == -1, "\"%s\" is refused", raw);
    }
    free(copy);
    free(out);
}

static const struct {
    const char *query;
    const char *fields; /* "[name|value]" for each; "!" at the end if it is refused */
} queries[] = {
    {"", ""},
    {"a=1", "[a|1]"},
    {"a=1&b=x%20y", "[a|1][b|x y]"},
    {"a=1&a=2", "[a|1][a|2]"},
    {"a", "[a|]"},
    {"a=", "[a|]"},
    {"=1", "[|1]"},
    {"=", "[|]"},
    {"a=b=c", "[a|b=c]"},
    {"&&a=1&&&b=2&", "[a|1][b|2]"},
    {"&", ""},
    {"a+b=c+d", "[a b|c d]"},
    {"a%3Db=%26", "[a=b|&]"},
    {"a=1;b=2", "[a|1;b=2]"},
    {"a=%zz", "!"},
    {"%zz=a", "!"},
    {"a=1&b=%f&c=3", "[a|1]!"},
    {"a=%00", "!"},
    {"a=%ff", "!"},
};

static void test_query(const char *text, const char *expected)
{
    struct arena arena;
    struct buffer fields;
    struct uri_query query;
    arena_init(&arena);
    buffer_init(&fields);
    uri_query_begin(&query, text, &arena);
    while (uri_query_next(&query)) {
        buffer_printf(&fields, "[%.*s|%.*s]", (int)query.name_length, query.name,
                      (int)query.value_length, query.value);
    }
    buffer_append(&fields, "!", query.bad);
    buffer_append_char(&fields, '\0');
    check_text(fields.data, expected, "the query \"%s\"", text);
    check(!uri_query_next(&query), "and after its end nothing comes");
    buffer_finish(&fields);
    arena_finish(&arena);
}

int main(void)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        test_decode(texts[i].raw, texts[i].plus, texts[i].decoded);
    }
    for (size_t i = 0; i < sizeof queries / sizeof *queries; i++) {
        test_query(queries[i].query, queries[i].fields);
    }
    return test_end();
}
