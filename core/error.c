/* The table of failures, and the mapping from SQLSTATE into it. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct error_kind kinds[] = {
#define ERROR_ROW(name, slug_, status_, retry_, title_)                                            \
    [ERROR_##name] = {.slug = slug_, .title = title_, .status = status_, .retry = retry_},
    ERROR_TABLE(ERROR_ROW)
#undef ERROR_ROW
};

/* The longest prefix wins, so a class (two characters) stands behind its exceptions. */
static const struct {
    const char *prefix;
    enum error_code code;
} sqlstates[] = {
    {"23505", ERROR_CONFLICT},      /* unique_violation */
    {"23P01", ERROR_CONFLICT},      /* exclusion_violation */
    {"23", ERROR_INVALID},          /* not-null, foreign key, check */
    {"22P02", ERROR_INVALID},       /* invalid_text_representation */
    {"22", ERROR_INVALID},          /* data exception: out of range, too long, bad encoding */
    {"40001", ERROR_SERIALIZATION}, /* serialization_failure */
    {"40P01", ERROR_SERIALIZATION}, /* deadlock_detected */
    {"55P03", ERROR_SERIALIZATION}, /* lock_not_available */
    {"57014", ERROR_DEADLINE},      /* query_canceled: statement_timeout is the only user */
    {"57P", ERROR_UNAVAILABLE},     /* admin_shutdown, crash_shutdown, cannot_connect_now */
    {"25006", ERROR_UNAVAILABLE},   /* read_only_sql_transaction: a standby */
    {"53", ERROR_UNAVAILABLE},      /* too_many_connections, disk_full, out_of_memory */
    {"08", ERROR_UNAVAILABLE},      /* connection exception */
};

const struct error_kind *error_kind(enum error_code code)
{
    return &kinds[code];
}

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    va_list args;
    memset(err, 0, sizeof *err);
    err->code = code;
    va_start(args, format);
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return -1;
}

void error_print(const struct error *err)
{
    fprintf(stderr, "moonpool: %s%s%s\n", err->where, *err->where ? ": " : "", err->message);
}

enum error_code error_from_sqlstate(const char *sqlstate)
{
    for (size_t i = 0; i < sizeof sqlstates / sizeof *sqlstates; i++) {
        if (strncmp(sqlstate, sqlstates[i].prefix, strlen(sqlstates[i].prefix)) == 0) {
            return sqlstates[i].code;
        }
    }
    return ERROR_DATABASE;
}

bool error_ends_session(const struct error *err)
{
    return err->code == ERROR_UNAVAILABLE && strncmp(err->sqlstate, "53", 2) != 0 &&
           strcmp(err->sqlstate, "25006") != 0;
}

enum error_code error_from_slug(const char *slug)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strcmp(kinds[i].slug, slug) == 0) {
            return (enum error_code)i;
        }
    }
    return ERROR_SCRIPT;
}

enum error_code error_from_status(int status)
{
    for (size_t i = ERROR_MALFORMED; i < sizeof kinds / sizeof *kinds; i++) {
        if (kinds[i].status == status && status < kinds[ERROR_CLIENT_GONE].status) {
            return (enum error_code)i;
        }
    }
    return ERROR_REFUSED;
}
