/* Requests, good and bad, that arrive in pieces of every size: what is wrong with them, and how
 * many have begun, must not depend on the pieces. */
#include "http_guard.h"

#include <stdlib.h>
#include <string.h>

#include "test.h"

enum { LIMIT = 1024 };

#define HEAD(fields) "POST /p?q HTTP/1.1\r\nHost: a\r\n" fields "\r\n"
#define CHUNKED(body) HEAD("Transfer-Encoding: chunked\r\n") body
#define NEXT "GET / HTTP/1.0\r\n\r\n"

static const struct row {
    const char *name;
    const char *input;
    enum error_code fault;
    unsigned begun;
} rows[] = {
    {"a request", HEAD(""), ERROR_NONE, 1},
    {"two requests", HEAD("") NEXT, ERROR_NONE, 2},
    {"an empty line before it", "\r\n\r\n" HEAD(""), ERROR_NONE, 1},
    {"only an empty line", "\r\n", ERROR_NONE, 0},
    {"a body", HEAD("Content-Length: 5\r\n") "GET /" NEXT, ERROR_NONE, 2},
    {"a body of nothing", HEAD("Content-Length: 0\r\n") NEXT, ERROR_NONE, 2},
    {"a body that is not whole", HEAD("Content-Length: 5\r\n") "GET ", ERROR_NONE, 1},
    {"zeros before a length", HEAD("Content-Length: 005\r\n") "GET /" NEXT, ERROR_NONE, 2},
    {"blanks behind a length", HEAD("Content-Length: 5 \t \r\n") "GET /" NEXT, ERROR_NONE, 2},
    {"many blanks behind a length",
     HEAD("Content-Length: 5                                         \r\n") "GET /" NEXT,
     ERROR_NONE, 2},
    {"blanks behind an encoding", HEAD("Transfer-Encoding: chunked  \r\n") "0\r\n\r\n" NEXT,
     ERROR_NONE, 2},
    {"names in any case", HEAD("cONTENT-lENGTH:5\r\n") "GET /" NEXT, ERROR_NONE, 2},
    {"chunks", CHUNKED("5\r\nGET /\r\n0A\r\n0123456789\r\n0\r\n\r\n") NEXT, ERROR_NONE, 2},
    {"extensions", CHUNKED("1;a=\"b;c\"\r\nx\r\n0;z\r\n\r\n") NEXT, ERROR_NONE, 2},
    {"trailers", CHUNKED("0\r\nA: b\r\nContent-Length: 9\r\n\r\n") NEXT, ERROR_NONE, 2},
    {"a version to come", "GET / HTTP/1.9\r\nHost: a\r\n\r\n", ERROR_NONE, 1},
    {"text that is not ASCII", HEAD("A: \xc5\xbc\t\xff\r\n") NEXT, ERROR_NONE, 2},
    {"an empty value", HEAD("A:\r\nB: \r\n") NEXT, ERROR_NONE, 2},
    {"a port, and an address", "GET / HTTP/1.1\r\nHost: [::1]:80 \r\n\r\n" NEXT, ERROR_NONE, 2},
    {"no host", "GET / HTTP/1.1\r\n\r\n", ERROR_MALFORMED, 1},
    {"two hosts", HEAD("Host: a\r\n"), ERROR_MALFORMED, 1},
    {"two hosts in HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", ERROR_MALFORMED, 1},
    {"a host that is none", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", ERROR_MALFORMED, 1},
    {"a host and a word", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", ERROR_MALFORMED, 1},
    {"a fault behind a good one", NEXT "nonsense\r\n", ERROR_MALFORMED, 2},
    {"no method", " / HTTP/1.1\r\n", ERROR_MALFORMED, 1},
    {"a method that is no token", "G@T / HTTP/1.1\r\n", ERROR_MALFORMED, 1},
    {"no target", "GET  HTTP/1.1\r\n", ERROR_MALFORMED, 1},
    {"no version", "GET /\r\n", ERROR_MALFORMED, 1},
    {"a fragment", "GET /#a HTTP/1.1\r\n", ERROR_MALFORMED, 1},
    {"two blanks", "GET /  HTTP/1.1\r\n", ERROR_MALFORMED, 1},
    {"a blank behind the line", "GET / HTTP/1.1 \r\n", ERROR_MALFORMED, 1},
    {"a version in lower case", "GET / http/1.1\r\n", ERROR_MALFORMED, 1},
    {"a long version", "GET / HTTP/1.10\r\n", ERROR_MALFORMED, 1},
    {"a short version", "GET / HTTP/1\r\n", ERROR_MALFORMED, 1},
    {"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ERROR_VERSION, 1},
    {"HTTP/0.9", "GET / HTTP/0.9\r\n", ERROR_VERSION, 1},
    {"a lone LF", "GET / HTTP/1.1\n", ERROR_MALFORMED, 1},
    {"a lone LF in the headers", "GET / HTTP/1.1\r\nHost: a\n\r\n", ERROR_MALFORMED, 1},
    {"a lone LF before all", "\n" HEAD(""), ERROR_MALFORMED, 1},
    {"a lone CR", HEAD("A: b\rC: d\r\n"), ERROR_MALFORMED, 1},
    {"a lone CR at the end", "GET / HTTP/1.1\r\nHost: a\r\n\rX", ERROR_MALFORMED, 1},
    {"a control character", HEAD("A: \x01\r\n"), ERROR_MALFORMED, 1},
    {"DEL", HEAD("A: \x7f\r\n"), ERROR_MALFORMED, 1},
    {"a folded line", HEAD("A: b\r\n c\r\n"), ERROR_MALFORMED, 1},
    {"a blank before the first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", ERROR_MALFORMED, 1},
    {"a blank before the colon", HEAD("A : b\r\n"), ERROR_MALFORMED, 1},
    {"no colon", HEAD("nonsense\r\n"), ERROR_MALFORMED, 1},
    {"no name", HEAD(": b\r\n"), ERROR_MALFORMED, 1},
    {"two lengths", HEAD("Content-Length: 5\r\nContent-Length: 5\r\n"), ERROR_MALFORMED, 1},
    {"a length and chunks", HEAD("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
     ERROR_MALFORMED, 1},
    {"two encodings", HEAD("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
     ERROR_MALFORMED, 1},
    {"another encoding", HEAD("Transfer-Encoding: gzip, chunked\r\n"), ERROR_MALFORMED, 1},
    {"an encoding with a parameter", HEAD("Transfer-Encoding: chunked;a\r\n"), ERROR_MALFORMED, 1},
    {"chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", ERROR_MALFORMED,
     1},
    {"a signed length", HEAD("Content-Length: +5\r\n"), ERROR_MALFORMED, 1},
    {"a negative length", HEAD("Content-Length: -5\r\n"), ERROR_MALFORMED, 1},
    {"a length with a blank within", HEAD("Content-Length: 5 5\r\n"), ERROR_MALFORMED, 1},
    {"a length of blanks", HEAD("Content-Length:   \r\n"), ERROR_MALFORMED, 1},
    {"an encoding with a blank within", HEAD("Transfer-Encoding: chun ked\r\n"), ERROR_MALFORMED,
     1},
    {"a list of lengths", HEAD("Content-Length: 5, 5\r\n"), ERROR_MALFORMED, 1},
    {"a length in hexadecimal", HEAD("Content-Length: 0x5\r\n"), ERROR_MALFORMED, 1},
    {"no length", HEAD("Content-Length:\r\n"), ERROR_MALFORMED, 1},
    {"a length of 2^64", HEAD("Content-Length: 18446744073709551616\r\n"), ERROR_BODY_TOO_LARGE, 1},
    {"a length of many digits",
     HEAD("Content-Length: 1111111111111111111111111111111111111111111\r\n"), ERROR_BODY_TOO_LARGE,
     1},
    {"a chunk without a size", CHUNKED("\r\n"), ERROR_MALFORMED, 1},
    {"a chunk with a sign", CHUNKED("-1\r\n"), ERROR_MALFORMED, 1},
    {"a chunk with 0x", CHUNKED("0x1\r\n"), ERROR_MALFORMED, 1},
    {"a chunk with a blank", CHUNKED("1 \r\n"), ERROR_MALFORMED, 1},
    {"a chunk that is too large", CHUNKED("1111111111111111\r\n"), ERROR_BODY_TOO_LARGE, 1},
    {"a chunk with a lone LF", CHUNKED("1\nx\r\n"), ERROR_MALFORMED, 1},
    {"a chunk longer than it says", CHUNKED("1\r\nxy\r\n"), ERROR_MALFORMED, 1},
    {"a chunk that ends in CR", CHUNKED("1\r\nx\rX"), ERROR_MALFORMED, 1},
    {"an extension with a CR", CHUNKED("1;a\rb\r\n"), ERROR_MALFORMED, 1},
    {"an extension with a LF", CHUNKED("1;a\n"), ERROR_MALFORMED, 1},
    {"a bad trailer", CHUNKED("0\r\nnonsense\r\n"), ERROR_MALFORMED, 1},
};

/* Passes the text in pieces; returns how much went on. */
static size_t pass(struct guard *guard, const char *text, size_t piece)
{
    char *copy = strdup(text);
    size_t length = strlen(text);
    size_t passed = 0;
    guard_init(guard, LIMIT);
    for (size_t at = 0; at < length && guard->fault == ERROR_NONE; at += piece) {
        passed += guard_pass(guard, copy + at, length - at < piece ? length - at : piece);
    }
    free(copy);
    return passed;
}

static bool is_as_wanted(const struct row *row, size_t piece)
{
    struct guard guard;
    size_t whole = pass(&guard, row->input, strlen(row->input));
    size_t passed = pass(&guard, row->input, piece);
    return guard.fault == row->fault && guard.begun == row->begun &&
           (guard.fault != ERROR_NONE) == (guard.message != NULL) &&
           (guard.fault != ERROR_NONE || passed == whole);
}

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        size_t length = strlen(rows[i].input);
        size_t piece = 1;
        while (piece <= length && is_as_wanted(&rows[i], piece)) {
            piece++;
        }
        check(piece > length, "%s, in pieces of %zu", rows[i].name, piece > length ? 1 : piece);
    }
}

static void test_good_before_bad(void)
{
    struct guard guard;
    check_int(pass(&guard, NEXT NEXT "bad\r\n", 1000), 2 * strlen(NEXT),
              "what comes before the bad request goes on");
    check_int(guard.begun, 3, "the bad one has begun");
    check_int(pass(&guard, HEAD("Content-Length: 4\r\n") "body" HEAD("bad\r\n"), 1000),
              strlen(HEAD("Content-Length: 4\r\n") "body"), "a body goes on too");
}

static void test_nul(void)
{
    static const char *const texts[] = {
        "G\\T / HTTP/1.1\r\nHost: a\r\n\r\n",  "GET /\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\\\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\\\r\n\r\n",
        "GET / HTTP/1.1\r\nHo\\st: a\r\n\r\n", "GET / HTTP/1.1\r\nA: \\b\r\n\r\n"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct guard guard;
        char *text = strdup(texts[i]);
        *strchr(text, '\\') = '\0';
        guard_init(&guard, LIMIT);
        guard_pass(&guard, text, strlen(texts[i]));
        check_int(guard.fault, ERROR_MALFORMED, "a NUL in a head, place %zu", i);
        free(text);
    }
}

/* MHD takes only leading blanks for what they are. */
static void test_blanks_behind_framing(void)
{
    struct guard guard;
    char length[] = HEAD("Content-Length: 3 \t\r\n") "abc";
    char chunked[] = HEAD("Transfer-Encoding:chunked  \r\n") "0\r\n\r\n";
    guard_init(&guard, LIMIT);
    check_int(guard_pass(&guard, length, strlen(length)), strlen(length) - 2,
              "blanks behind a length");
    check(strstr(length, "Content-Length: 3\r\n\r\nabc"), "are taken out");
    guard_init(&guard, LIMIT);
    check_int(guard_pass(&guard, chunked, strlen(chunked)), strlen(chunked) - 2,
              "blanks behind an encoding");
    check(strstr(chunked, "Transfer-Encoding:chunked\r\n\r\n0\r\n"), "too");
}

/* A head with `count` headers of `length` bytes. */
static enum error_code fault_of(const char *line, int count, int length)
{
    static char head[16 * 1024];
    struct guard guard;
    char *end = stpcpy(head, line);
    for (int i = 0; i < count; i++) {
        end += sprintf(end, "Cookie: %0*d\r\n", length, 0);
    }
    stpcpy(end, "\r\n");
    pass(&guard, head, 100);
    return guard.fault;
}

static void test_limit(void)
{
    static char line[LIMIT + 100];
    sprintf(line, "GET /%0*d HTTP/1.0\r\n", LIMIT, 0);
    check_int(fault_of(line, 0, 0), ERROR_URI_TOO_LONG, "a long target");
    sprintf(line, "GET /%0*d HTTP/1.0\r\n", LIMIT / 2, 0);
    check_int(fault_of(line, 0, 0), ERROR_NONE, "a target that fits");
    check_int(fault_of(line, 1, LIMIT / 2), ERROR_HEADERS_TOO_LARGE, "and a header that does not");
    check_int(fault_of("GET / HTTP/1.0\r\n", 1, LIMIT / 3), ERROR_NONE, "a cookie");
    check_int(fault_of("GET / HTTP/1.0\r\n", 1, LIMIT * 2 / 3), ERROR_HEADERS_TOO_LARGE,
              "a cookie that fits only once");
    check_int(fault_of("GET / HTTP/1.0\r\n", 5, 1), ERROR_NONE, "some headers");
    check_int(fault_of("GET / HTTP/1.0\r\n", 8, 1), ERROR_HEADERS_TOO_LARGE, "many headers");
}

static void test_texts(void)
{
    struct guard guard;
    char head[] = "PUT /p?q HTTP/1.1\r\nX-Request-Id: mine\r\nHost: a\r\nbad\r\n";
    guard_init(&guard, LIMIT);
    guard_pass(&guard, head, strlen(head));
    check(guard.method.length == 3 && memcmp(guard.method.data, "PUT", 3) == 0, "the method");
    check(guard.target.length == 4 && memcmp(guard.target.data, "/p?q", 4) == 0, "the target");
    check(guard.id.length == 4 && memcmp(guard.id.data, "mine", 4) == 0, "the id");
    pass(&guard, "PUT /p?q HTTP/1.1\r\nX-Request-Id: mine\r\nbad\r\n", 3);
    check(!guard.method.data && !guard.target.data && !guard.id.data,
          "none of a head that came in pieces");
}

int main(void)
{
    test_rows();
    test_good_before_bad();
    test_nul();
    test_blanks_behind_framing();
    test_limit();
    test_texts();
    return test_end();
}
