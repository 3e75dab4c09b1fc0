/* Percent-encoding and queries: what is decoded is UTF-8 without NUL, and encoded anew it is
 * decoded to the same. */
#include <string.h>

#include "arena.h"
#include "buffer.h"
#include "fuzz.h"
#include "json.h"
#include "uri.h"

enum { MOST_FIELDS = 64 };

/* Escapes every byte. */
static void escape(struct buffer *out, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        buffer_printf(out, "%%%02x", (unsigned char)text[i]);
    }
}

static void check_text(const char *text, size_t length)
{
    claim(json_is_utf8(text, length));
    claim(!memchr(text, '\0', length));
}

static void check_decode(const char *raw, size_t size, bool plus)
{
    char *text = malloc(size + 1), *again = malloc(size + 1);
    struct buffer escaped;
    ptrdiff_t length = uri_decode(raw, raw + size, plus, text);
    if (length >= 0) {
        check_text(text, (size_t)length);
        buffer_init(&escaped);
        buffer_reserve(&escaped, 1);
        escape(&escaped, text, (size_t)length);
        ptrdiff_t same = uri_decode(escaped.data, escaped.data + escaped.length, plus, again);
        claim(same == length && memcmp(text, again, (size_t)length) == 0);
        buffer_finish(&escaped);
    }
    free(text);
    free(again);
}

struct field {
    const char *name, *value; /* arena */
    size_t name_length, value_length;
};

/* Returns how many fields there are; the first MOST_FIELDS go into `fields`. */
static size_t read_fields(const char *query, struct arena *arena, struct field *fields,
                          bool *ret_bad)
{
    struct uri_query walk;
    size_t count = 0;
    uri_query_begin(&walk, query, arena);
    while (uri_query_next(&walk)) {
        check_text(walk.name, walk.name_length);
        check_text(walk.value, walk.value_length);
        if (count < MOST_FIELDS) {
            fields[count] =
                (struct field){walk.name, walk.value, walk.name_length, walk.value_length};
        }
        count++;
    }
    *ret_bad = walk.bad;
    return count;
}

static void write_fields(struct buffer *out, const struct field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        buffer_append_text(out, i ? "&&" : "");
        escape(out, fields[i].name, fields[i].name_length);
        buffer_append_char(out, '=');
        escape(out, fields[i].value, fields[i].value_length);
    }
    buffer_append_char(out, '\0');
}

static void check_query(const char *query, struct arena *arena)
{
    struct field fields[MOST_FIELDS], again[MOST_FIELDS];
    struct buffer text;
    bool bad;
    size_t count = read_fields(query, arena, fields, &bad);
    if (count > MOST_FIELDS) {
        return;
    }
    buffer_init(&text);
    write_fields(&text, fields, count);
    claim(read_fields(text.data, arena, again, &bad) == count && !bad);
    for (size_t i = 0; i < count; i++) {
        claim(again[i].name_length == fields[i].name_length);
        claim(memcmp(again[i].name, fields[i].name, fields[i].name_length) == 0);
        claim(again[i].value_length == fields[i].value_length);
        claim(memcmp(again[i].value, fields[i].value, fields[i].value_length) == 0);
    }
    buffer_finish(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    arena_init(&arena);
    const char *text = arena_strndup(&arena, (const char *)data, size);
    size_t length = strlen(text); /* no NUL gets as far as a path or a query */
    check_decode(text, length, false);
    check_decode(text, length, true);
    check_query(text, &arena);
    arena_finish(&arena);
    return 0;
}
