/* Reading results. */
#include "pg_result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "error.h"

void pg_result_free(struct pg_result *result)
{
    PQclear(result);
}

size_t pg_result_memory(const struct pg_result *result)
{
    return PQresultMemorySize(result);
}

int pg_result_rows(const struct pg_result *result)
{
    return PQntuples(result);
}

int pg_result_columns(const struct pg_result *result)
{
    return PQnfields(result);
}

const char *pg_result_name(const struct pg_result *result, int column)
{
    return PQfname(result, column);
}

static bool is_repeated(const PGresult *result, int column)
{
    for (int before = 0; before < column; before++) {
        if (strcmp(PQfname(result, before), PQfname(result, column)) == 0) {
            return true;
        }
    }
    return false;
}

const char *pg_result_twin(const struct pg_result *result)
{
    int columns = PQnfields(result);
    for (int column = 1; column < columns; column++) {
        if (is_repeated(result, column)) {
            return PQfname(result, column);
        }
    }
    return NULL;
}

uint32_t pg_result_type(const struct pg_result *result, int column)
{
    return PQftype(result, column);
}

const char *pg_result_value(const struct pg_result *result, int row, int column, size_t *ret_length)
{
    if (PQgetisnull(result, row, column)) {
        return NULL;
    }
    *ret_length = (size_t)PQgetlength(result, row, column);
    return PQgetvalue(result, row, column);
}

int64_t pg_result_count(const struct pg_result *result)
{
    return strtoll(PQcmdTuples((PGresult *)result), NULL, 10);
}

const char *pg_result_tag(const struct pg_result *result)
{
    return PQcmdStatus((PGresult *)result);
}

int pg_result_parameters(const struct pg_result *result)
{
    return PQnparams(result);
}

uint32_t pg_result_parameter_type(const struct pg_result *result, int parameter)
{
    return PQparamtype(result, parameter);
}

static const char *field(const struct pg_result *result, int code)
{
    const char *text = PQresultErrorField(result, code);
    return text ? text : "";
}

void pg_result_error(const struct pg_result *result, struct error *err, int *ret_position)
{
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    const char *detail = field(result, PG_DIAG_MESSAGE_DETAIL);
    const char *hint = field(result, PG_DIAG_MESSAGE_HINT);
    const char *primary = field(result, PG_DIAG_MESSAGE_PRIMARY);
    /* What libpq reports of its own has no SQLSTATE: the connection broke. */
    error_set(err, *sqlstate ? error_from_sqlstate(sqlstate) : ERROR_UNAVAILABLE, "%s%s%s%s%s",
              *primary ? primary : PQresultErrorMessage(result), *detail ? ": " : "", detail,
              *hint ? "; hint: " : "", hint);
    snprintf(err->sqlstate, sizeof err->sqlstate, "%s", sqlstate);
    snprintf(err->constraint, sizeof err->constraint, "%s", field(result, PG_DIAG_CONSTRAINT_NAME));
    if (ret_position) {
        *ret_position = atoi(field(result, PG_DIAG_STATEMENT_POSITION));
    }
}

/* What stands between the first `open` and the last `close`; NULL if nothing does. */
static const char *between(const char *text, const char *open, char close, size_t *ret_length)
{
    const char *start = strstr(text, open);
    const char *end = strrchr(text, close);
    start = start ? start + strlen(open) : NULL;
    if (!start || !end || end < start) {
        return NULL;
    }
    *ret_length = (size_t)(end - start);
    return start;
}

/* "Key (id)=(7) already exists.", "invalid input syntax for type uuid: "x"", in any language. */
const char *pg_result_blamed(const struct pg_result *result, size_t *ret_length)
{
    const char *sqlstate = field(result, PG_DIAG_SQLSTATE);
    const char *detail = field(result, PG_DIAG_MESSAGE_DETAIL);
    if (strcmp(sqlstate, "23505") == 0 || strcmp(sqlstate, "23503") == 0) {
        return between(detail, ")=(", ')', ret_length);
    }
    if (strncmp(sqlstate, "22", 2) == 0) {
        return between(field(result, PG_DIAG_MESSAGE_PRIMARY), "\"", '"', ret_length);
    }
    return NULL;
}
