/* PostgreSQL's types: how values become parameters, and how columns, which come as text, are to be
 * read. Knows nothing of Lua. */
#ifndef MOONPOOL_PGTYPE_H
#define MOONPOOL_PGTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arena;
struct buffer;
struct error;
struct parameter;

/* What a type is to a script. */
enum pgtype_class {
    PGTYPE_TEXT, /* and every type not named here: its text */
    PGTYPE_BOOLEAN,
    PGTYPE_INTEGER,
    PGTYPE_FLOAT,
    PGTYPE_NUMERIC,
    PGTYPE_JSON,
    PGTYPE_TIMESTAMP, /* with or without time zone */
    PGTYPE_BYTEA,
    PGTYPE_ARRAY,
};

/* Types made by CREATE TYPE have oids from here on. */
enum { PGTYPE_FIRST_USER_TYPE = 16384 };

/* `ret_element` receives the type of the elements for PGTYPE_ARRAY; may be NULL. */
enum pgtype_class pgtype_classify(uint32_t type, uint32_t *ret_element);

/* Fill `parameter` for a value going to a parameter of `type` (0 when unknown: the server infers
 * it). Memory from `arena`; `text` is borrowed by pgtype_from_text() and must live as long as the
 * batch. -1 with ERROR_INVALID if the value does not fit: an integer out of range, a fraction for
 * an integer, a NUL in text. */
int pgtype_from_boolean(struct parameter *parameter, uint32_t type, bool value, struct error *err);
int pgtype_from_integer(struct parameter *parameter, uint32_t type, int64_t value,
                        struct arena *arena, struct error *err);
int pgtype_from_number(struct parameter *parameter, uint32_t type, double value,
                       struct arena *arena, struct error *err);
int pgtype_from_text(struct parameter *parameter, uint32_t type, const char *text, size_t length,
                     struct error *err);

/* The text of a number on its way to a column of `type`. -1 with ERROR_INVALID as above. */
enum { PGTYPE_NUMBER_SIZE = 32 };
int pgtype_number_text(char text[PGTYPE_NUMBER_SIZE], uint32_t type, double value,
                       size_t *ret_length, struct error *err);

/* A timestamp's text in ISO 8601: "2026-11-23 10:00:00.5+00" becomes "2026-11-23T10:00:00.5Z".
 * Years beyond 9999 have more digits, and those before 1 end in " BC", which ISO 8601 has no form
 * for but PostgreSQL takes back; infinities stay as they are. Returns the length; `iso` has room
 * for `length` bytes. */
size_t pgtype_format_timestamp(const char *text, size_t length, char *iso);

/* Decodes "\x48656c6c6f" into `bytes`, which has room for length / 2. Returns the count. */
size_t pgtype_decode_bytea(const char *text, size_t length, char *bytes);

/* Walks an array's text, "{1,NULL,{2,3}}". The element's text is unescaped and lives for the call;
 * it is NULL for SQL NULL. A callback returns -1 to stop, which becomes the result; a malformed
 * text is -1 too. */
struct pgtype_array_handler {
    int (*on_open)(void *context);
    int (*on_element)(void *context, const char *text, size_t length);
    int (*on_close)(void *context);
};

int pgtype_walk_array(const char *text, size_t length, const struct pgtype_array_handler *handler,
                      void *context, struct buffer *scratch);

/* Writes a column's text as JSON: numbers, booleans and json as they are, arrays as arrays, the
 * rest as strings; `text` NULL is null. -1 if it is not valid UTF-8. */
int pgtype_write_json(struct buffer *out, uint32_t type, const char *text, size_t length);

/* Appends an element of an array literal, quoted and escaped as it must be. */
void pgtype_write_array_element(struct buffer *out, const char *text, size_t length);

#endif
