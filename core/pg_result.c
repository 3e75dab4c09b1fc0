/* Reading results. */
#include "pg_result.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "arena.h"
#include "error.h"

/* Names and types of the columns of packed results: the first of them as libpq made it. */
struct model {
    PGresult *result; /* owned */
    size_t users;
};

struct packed {
    struct model *model; /* held */
    int rows;
    uint32_t ends[]; /* of each value's text with its NUL, from the start of the texts, which follow
                        the ends; with IS_NULL if it is none */
};

/* Values, and bytes of libpq's: where it takes more, it is for the values. */
enum { MOST_PACKED = 64, LARGEST_PACKED = 16 * 1024 };

static const uint32_t IS_NULL = 1u << 31;

/* Packed ones are told by the lowest bit of their address, which others do not have. */
bool pg_result_is_packed(const struct pg_result *result)
{
    return ((uintptr_t)result & 1) != 0;
}

static struct packed *packed_of(const struct pg_result *result)
{
    return (struct packed *)((uintptr_t)result & ~(uintptr_t)1);
}

/* Who knows the columns. */
static const PGresult *model_of(const struct pg_result *result)
{
    return pg_result_is_packed(result) ? packed_of(result)->model->result : result;
}

static size_t packed_values(const struct packed *packed)
{
    return (size_t)packed->rows * (size_t)PQnfields(packed->model->result);
}

static size_t texts_length(const struct packed *packed)
{
    size_t values = packed_values(packed);
    return values ? packed->ends[values - 1] & ~IS_NULL : 0;
}

static void drop_model(struct model *model)
{
    model->users--;
    if (model->users == 0) {
        PQclear(model->result);
        free(model);
    }
}

void pg_result_free(struct pg_result *result)
{
    if (pg_result_is_packed(result)) {
        drop_model(packed_of(result)->model);
        free(packed_of(result));
    } else {
        PQclear(result);
    }
}

static bool has_same_columns(const PGresult *result, const PGresult *other)
{
    int columns = PQnfields(result);
    bool same = columns == PQnfields(other);
    for (int i = 0; same && i < columns; i++) {
        same = PQftype(result, i) == PQftype(other, i) &&
               strcmp(PQfname(result, i), PQfname(other, i)) == 0;
    }
    return same;
}

static struct packed *make_packed(const PGresult *result)
{
    int rows = PQntuples(result), columns = PQnfields(result);
    size_t values = (size_t)rows * (size_t)columns, length = 0, i = 0;
    for (int row = 0; row < rows; row++) {
        for (int column = 0; column < columns; column++) {
            length += (size_t)PQgetlength(result, row, column) + 1;
        }
    }
    struct packed *packed = memory_alloc(sizeof *packed + values * sizeof *packed->ends + length);
    char *texts = (char *)(packed->ends + values);
    uint32_t end = 0;
    packed->rows = rows;
    for (; i < values; i++) {
        int row = (int)(i / (size_t)columns), column = (int)(i % (size_t)columns);
        uint32_t size = (uint32_t)PQgetlength(result, row, column) + 1;
        memcpy(texts + end, PQgetvalue(result, row, column), size);
        end += size;
        packed->ends[i] = end | (PQgetisnull(result, row, column) ? IS_NULL : 0);
    }
    return packed;
}

static bool is_worth_packing(const PGresult *result)
{
    size_t values = (size_t)PQntuples(result) * (size_t)PQnfields(result);
    return values > 0 && values <= MOST_PACKED && PQresultMemorySize(result) < LARGEST_PACKED;
}

struct pg_result *pg_result_pack(struct pg_result *result, const struct pg_result *like)
{
    if (!is_worth_packing(result)) {
        return result;
    }
    struct packed *packed = make_packed(result);
    if (like && has_same_columns(model_of(like), result)) {
        packed->model = packed_of(like)->model;
        PQclear(result);
    } else {
        packed->model = memory_zalloc(sizeof *packed->model);
        packed->model->result = result;
    }
    packed->model->users++;
    return (struct pg_result *)((uintptr_t)packed | 1);
}

size_t pg_result_memory(const struct pg_result *result)
{
    if (pg_result_is_packed(result)) {
        const struct packed *packed = packed_of(result);
        return sizeof *packed + packed_values(packed) * sizeof *packed->ends + texts_length(packed);
    }
    return PQresultMemorySize(result);
}

int pg_result_rows(const struct pg_result *result)
{
    return pg_result_is_packed(result) ? packed_of(result)->rows : PQntuples(result);
}

int pg_result_columns(const struct pg_result *result)
{
    return PQnfields(model_of(result));
}

struct pg_result *pg_result_copy_columns(const struct pg_result *result)
{
    const PGresult *model = model_of(result);
    return memory_check(model ? PQcopyResult(model, PG_COPYRES_ATTRS)
                              : PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK));
}

bool pg_result_has_columns(const struct pg_result *result, const struct pg_result *other)
{
    return has_same_columns(model_of(result), model_of(other));
}

const char *pg_result_name(const struct pg_result *result, int column)
{
    return PQfname(model_of(result), column);
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
    const PGresult *model = model_of(result);
    int columns = PQnfields(model);
    for (int column = 1; column < columns; column++) {
        if (is_repeated(model, column)) {
            return PQfname(model, column);
        }
    }
    return NULL;
}

uint32_t pg_result_type(const struct pg_result *result, int column)
{
    return PQftype(model_of(result), column);
}

static const char *packed_value(const struct packed *packed, size_t i, size_t *ret_length)
{
    uint32_t start = i ? packed->ends[i - 1] & ~IS_NULL : 0;
    if (packed->ends[i] & IS_NULL) {
        return NULL;
    }
    *ret_length = packed->ends[i] - start - 1;
    return (const char *)(packed->ends + packed_values(packed)) + start;
}

const char *pg_result_value(const struct pg_result *result, int row, int column, size_t *ret_length)
{
    if (pg_result_is_packed(result)) {
        size_t columns = (size_t)pg_result_columns(result);
        return packed_value(packed_of(result), (size_t)row * columns + (size_t)column, ret_length);
    }
    /* Each question costs a check of row and column; nearly all values have a length. */
    *ret_length = (size_t)PQgetlength(result, row, column);
    return *ret_length == 0 && PQgetisnull(result, row, column) ? NULL
                                                                : PQgetvalue(result, row, column);
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

/* The codes are said of much else; the function that says them is the same in all languages. */
static bool is_said_by(const struct pg_result *result, const char *sqlstate, const char *function)
{
    return strcmp(field(result, PG_DIAG_SQLSTATE), sqlstate) == 0 &&
           strcmp(field(result, PG_DIAG_SOURCE_FUNCTION), function) == 0;
}

bool pg_result_is_outdated(const struct pg_result *result)
{
    return is_said_by(result, "0A000", "RevalidateCachedQuery");
}

/* Internal errors come from many functions, and in English only. */
static bool misses_object(const struct pg_result *result)
{
    static const char start[] = "cache lookup failed for ";
    return strcmp(field(result, PG_DIAG_SQLSTATE), "XX000") == 0 &&
           strncmp(field(result, PG_DIAG_MESSAGE_PRIMARY), start, strlen(start)) == 0;
}

bool pg_result_is_stale(const struct pg_result *result)
{
    return is_said_by(result, "26000", "FetchPreparedStatement") || pg_result_is_outdated(result) ||
           misses_object(result);
}

bool pg_result_has_context(const struct pg_result *result)
{
    return *field(result, PG_DIAG_CONTEXT) != '\0';
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
