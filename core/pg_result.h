/* What is read of a result of PostgreSQL: libpq's PGresult, whose home is pg*.c. Every column comes
 * in text format. Freed by pg_result_free(). */
#ifndef MOONPOOL_PG_RESULT_H
#define MOONPOOL_PG_RESULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct pg_result;

/* NULL is nothing to free. */
void pg_result_free(struct pg_result *result);

/* Takes over a result of few values and gives one in its place that takes as much memory as they
 * do: libpq spends kilobytes on each. Only rows and columns are left of it, no tag. `like` is a
 * packed result that may have the same columns, or NULL. Others are given back as they are. */
struct pg_result *pg_result_pack(struct pg_result *result, const struct pg_result *like);

bool pg_result_is_packed(const struct pg_result *result);

/* Bytes it takes. */
size_t pg_result_memory(const struct pg_result *result);

int pg_result_rows(const struct pg_result *result);
int pg_result_columns(const struct pg_result *result);
const char *pg_result_name(const struct pg_result *result, int column);
/* A result with the same columns and no rows; NULL has none. */
struct pg_result *pg_result_copy_columns(const struct pg_result *result);
/* Whether names and types are those of `other`. */
bool pg_result_has_columns(const struct pg_result *result, const struct pg_result *other);
/* The first name that two columns share; NULL if there is none. */
const char *pg_result_twin(const struct pg_result *result);
uint32_t pg_result_type(const struct pg_result *result, int column);

/* NULL for SQL NULL. The text is NUL-terminated too. */
const char *pg_result_value(const struct pg_result *result, int row, int column,
                            size_t *ret_length);

/* Rows affected, from the command tag; 0 if it has none. */
int64_t pg_result_count(const struct pg_result *result);
const char *pg_result_tag(const struct pg_result *result);

/* Of a described statement. */
int pg_result_parameters(const struct pg_result *result);
uint32_t pg_result_parameter_type(const struct pg_result *result, int parameter);

/* Fills `err` from a failed result: code by SQLSTATE, message with detail and hint, constraint.
 * `ret_position`, if not NULL, receives the 1-based character in the statement, or 0. */
void pg_result_error(const struct pg_result *result, struct error *err, int *ret_position);

/* True if it failed because what was prepared is: the server lost it (26000), will not run its plan
 * any more (0A000), or misses what it refers to (XX000). */
bool pg_result_is_stale(const struct pg_result *result);

/* True if it failed within something, like a function, rather than before it was run. A parameter
 * counts as something, too. */
bool pg_result_has_context(const struct pg_result *result);

/* True if it failed because DDL has changed what the prepared statement returns. */
bool pg_result_is_outdated(const struct pg_result *result);

/* The value that a failed result blames, as PostgreSQL writes it: of a violated key of one column,
 * or what is no value of its type. NULL if it names none. */
const char *pg_result_blamed(const struct pg_result *result, size_t *ret_length);

#endif
