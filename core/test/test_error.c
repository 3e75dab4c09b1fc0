/* The table of failures, and the ways into it. */
#include "error.h"

#include "test.h"

static const struct {
    const char *sqlstate;
    enum error_code code;
} states[] = {
    {"23505", ERROR_CONFLICT},      {"23P01", ERROR_CONFLICT},      {"23502", ERROR_INVALID},
    {"23503", ERROR_INVALID},       {"23514", ERROR_INVALID},       {"23000", ERROR_INVALID},
    {"22P02", ERROR_INVALID},       {"22003", ERROR_INVALID},       {"22001", ERROR_INVALID},
    {"40001", ERROR_SERIALIZATION}, {"40P01", ERROR_SERIALIZATION}, {"40003", ERROR_DATABASE},
    {"55P03", ERROR_SERIALIZATION}, {"55006", ERROR_DATABASE},      {"57014", ERROR_DEADLINE},
    {"57P01", ERROR_UNAVAILABLE},   {"57P03", ERROR_UNAVAILABLE},   {"57000", ERROR_DATABASE},
    {"25006", ERROR_UNAVAILABLE},   {"25P02", ERROR_DATABASE},      {"53300", ERROR_UNAVAILABLE},
    {"53200", ERROR_UNAVAILABLE},   {"08006", ERROR_UNAVAILABLE},   {"08000", ERROR_UNAVAILABLE},
    {"42601", ERROR_DATABASE},      {"XX000", ERROR_DATABASE},      {"P0001", ERROR_DATABASE},
    {"", ERROR_DATABASE},
};

static const struct {
    int status;
    enum error_code code;
} statuses[] = {
    {400, ERROR_MALFORMED},         {404, ERROR_NOT_FOUND},  {405, ERROR_METHOD},
    {408, ERROR_REQUEST_TIMEOUT},   {409, ERROR_CONFLICT},   {413, ERROR_BODY_TOO_LARGE},
    {414, ERROR_URI_TOO_LONG},      {415, ERROR_MEDIA_TYPE}, {422, ERROR_INVALID},
    {431, ERROR_HEADERS_TOO_LARGE}, {200, ERROR_REFUSED},    {401, ERROR_REFUSED},
    {418, ERROR_REFUSED},           {499, ERROR_REFUSED},    {500, ERROR_REFUSED},
    {503, ERROR_REFUSED},
};

/* Each row, from its slug back to itself. */
static void test_row(enum error_code code)
{
    const struct error_kind *kind = error_kind(code);
    check(kind->slug && kind->title && *kind->title, "row %d is filled: %s", (int)code, kind->slug);
    check(kind->status >= 200 && kind->status < 600, "%s has a status", kind->slug);
    check(kind->status != 503 || kind->retry, "%s may be retried if it is 503", kind->slug);
    check_int(error_from_slug(kind->slug), code, "%s is found by its slug", kind->slug);
}

static void test_table(void)
{
#define ERROR_CODE(name, slug, status, retry, title) ERROR_##name,
    static const enum error_code codes[] = {ERROR_TABLE(ERROR_CODE)};
#undef ERROR_CODE
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        test_row(codes[i]);
    }
    check_int(error_from_slug("no-such-thing"), ERROR_SCRIPT, "an unknown slug is a script's");
}

static void test_set(void)
{
    struct error err;
    memset(&err, 'x', sizeof err);
    check_int(error_set(&err, ERROR_CONFLICT, "%s is taken", "joe"), -1, "the way out is -1");
    check_int(err.code, ERROR_CONFLICT, "the code is set");
    check_text(err.message, "joe is taken", "and the message");
    check(!err.sqlstate[0] && !err.constraint[0] && !err.where[0] && !err.statement[0] &&
              !err.item && !err.status,
          "the rest is cleared");
    error_set(&err, ERROR_SCRIPT, "%01000d", 7);
    check_int(strlen(err.message), sizeof err.message - 1, "a message that does not fit is cut");
}

int main(void)
{
    test_table();
    test_set();
    for (size_t i = 0; i < sizeof states / sizeof *states; i++) {
        check_int(error_from_sqlstate(states[i].sqlstate), states[i].code, "SQLSTATE \"%s\"",
                  states[i].sqlstate);
    }
    for (size_t i = 0; i < sizeof statuses / sizeof *statuses; i++) {
        check_int(error_from_status(statuses[i].status), statuses[i].code, "status %d",
                  statuses[i].status);
    }
    return test_end();
}
