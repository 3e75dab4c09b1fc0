/* The guard before libmicrohttpd: it says the same of bytes however they are cut into pieces, and
 * where it finds no fault a plain reader finds as many messages. The first byte of an input is the
 * size of the pieces. */
#include <string.h>
#include <strings.h>

#include "buffer.h"
#include "fuzz.h"
#include "http_guard.h"

enum { LIMIT = 1000 };

/* ---- the plain reader ---- */

/* The end of the first line from `at` on, CR LF included; NULL if it does not end. */
static const char *line_end(const char *at, const char *end)
{
    const char *found = memmem(at, (size_t)(end - at), "\r\n", 2);
    return found ? found + 2 : NULL;
}

static bool is_field(const char *line, const char *name)
{
    return strncasecmp(line, name, strlen(name)) == 0;
}

/* How a message is framed. */
struct framing {
    uint64_t length;
    bool chunked;
};

/* Behind the lines up to an empty one; NULL if it has not come. */
static const char *read_fields(const char *at, const char *end, struct framing *framing)
{
    const char *next;
    while ((next = line_end(at, end)) && next - at > 2) {
        if (is_field(at, "content-length:")) {
            framing->length = strtoull(at + strlen("content-length:"), NULL, 10);
        } else if (is_field(at, "transfer-encoding:")) {
            framing->chunked = true;
        }
        at = next;
    }
    return next;
}

/* Behind `length` bytes, or NULL. */
static const char *read_bytes(const char *at, const char *end, uint64_t length)
{
    return (uint64_t)(end - at) >= length ? at + length : NULL;
}

static const char *read_chunks(const char *at, const char *end)
{
    struct framing ignored = {0};
    while (at) {
        const char *data = line_end(at, end);
        uint64_t size = data ? strtoull(at, NULL, 16) : 0;
        if (!data) {
            return NULL;
        }
        if (size == 0) {
            return read_fields(data, end, &ignored);
        }
        at = read_bytes(data, end, size + 2);
    }
    return NULL;
}

static const char *read_message(const char *at, const char *end)
{
    struct framing framing = {0};
    at = read_fields(at, end, &framing);
    if (!at) {
        return NULL;
    }
    return framing.chunked ? read_chunks(at, end) : read_bytes(at, end, framing.length);
}

/* Messages whose first byte is there. */
static uint32_t count_messages(const char *text, size_t size)
{
    const char *at = text, *end = text + size;
    uint32_t count = 0;
    while (at) {
        while (end - at >= 2 && memcmp(at, "\r\n", 2) == 0) {
            at += 2;
        }
        if (at == end || (end - at == 1 && *at == '\r')) {
            break;
        }
        count++;
        at = read_message(at, end);
    }
    return count;
}

/* ---- the guard ---- */

/* Passes the text in pieces; what goes on is appended to `out`, but for blanks, of which some are
 * taken out. */
static void pass(struct guard *guard, const char *text, size_t size, size_t piece,
                 struct buffer *out)
{
    char *copy = malloc(size + 1);
    memcpy(copy, text, size);
    guard_init(guard, LIMIT);
    buffer_init(out);
    for (size_t at = 0; at < size && guard->fault == ERROR_NONE; at += piece) {
        size_t length = size - at < piece ? size - at : piece;
        size_t passed = guard_pass(guard, copy + at, length);
        claim(passed <= length);
        guard_forget(guard);
        for (size_t i = 0; i < passed; i++) {
            if (copy[at + i] != ' ' && copy[at + i] != '\t') {
                buffer_append_char(out, copy[at + i]);
            }
        }
    }
    free(copy);
}

static bool is_limit(const struct guard *guard)
{
    return guard->fault == ERROR_HEADERS_TOO_LARGE || guard->fault == ERROR_URI_TOO_LONG;
}

/* What is too large is noticed at the end of a piece, so that a fault within it may come first. */
static void check_same(const struct guard *a, const struct guard *b)
{
    claim((a->fault == ERROR_NONE) == (b->fault == ERROR_NONE));
    if (!is_limit(a) && !is_limit(b)) {
        claim(a->fault == b->fault && a->begun == b->begun);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct guard whole, pieces;
    struct buffer out, out_in_pieces;
    if (size < 2 || data[0] == 0) {
        return 0;
    }
    const char *text = (const char *)data + 1;
    pass(&whole, text, size - 1, size, &out);
    pass(&pieces, text, size - 1, data[0], &out_in_pieces);
    check_same(&whole, &pieces);
    size_t both = out.length < out_in_pieces.length ? out.length : out_in_pieces.length;
    claim(both == 0 || memcmp(out.data, out_in_pieces.data, both) == 0);
    if (whole.fault == ERROR_NONE) {
        /* A NUL, which would end the numbers early, is refused. */
        char *terminated = malloc(size);
        memcpy(terminated, text, size - 1);
        terminated[size - 1] = '\0';
        claim(count_messages(terminated, size - 1) == whole.begun);
        free(terminated);
    }
    buffer_finish(&out);
    buffer_finish(&out_in_pieces);
    return 0;
}
