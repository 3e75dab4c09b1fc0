/* Named SQL: files of `-- name: get_user :one` blocks (sqlc's convention) as a catalog. */
#ifndef MOONPOOL_STATEMENT_H
#define MOONPOOL_STATEMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "sql.h"

struct error;

enum statement_kind {
    STATEMENT_ONE,  /* a row or none */
    STATEMENT_MANY, /* rows */
    STATEMENT_EXEC, /* a count */
    STATEMENT_BULK, /* arrays: queued rows are gathered into one execution */
    STATEMENT_TEXT, /* SQL text written in a script */
};

/* Keys of statements of our own; a hash is none of them but by a miracle. */
enum {
    STATEMENT_KEY_COMMIT = 1,
    STATEMENT_KEY_PROBE,
    STATEMENT_KEY_COPY_TYPES,
    STATEMENT_KEY_LOCK,
    STATEMENT_KEY_READ_ONLY,
};

struct statement {
    const char *name; /* NULL for STATEMENT_TEXT */
    const char *sql;  /* from the line below the name, comments included, so that its n-th line is
                         line + n of the file; without the closing semicolon */
    const char *file; /* "sql/users.sql"; NULL for STATEMENT_TEXT */
    int line;         /* 1-based line of the name comment */
    enum statement_kind kind;
    uint64_t key;           /* hash of `sql`: the same text is prepared once per connection */
    enum sql_traces traces; /* what it may leave behind in its session */
    enum sql_block block;

    /* Known once the database has described it, see generation.c. */
    bool described;
    uint16_t parameter_count;
    uint16_t column_count;
    uint32_t *parameter_types; /* arena of the catalog; type oids */
};

struct catalog {
    struct arena arena;            /* owns every statement and its strings */
    struct statement **statements; /* arena; in the order of their files */
    size_t count;
    size_t capacity;
    struct statement **by_name; /* owned hash table of `slots` entries, a power of two */
    size_t slots;
};

void catalog_init(struct catalog *catalog);
void catalog_finish(struct catalog *catalog);

/* Adds the statements of one file. `path` is copied. -1 with ERROR_SCRIPT, `where` "file:line" and
 * what to do: text before the first name, a bad or repeated name, an unknown or missing kind, an
 * empty statement, one that ends a transaction, two statements in one block, an open quote or
 * comment. Understands '...', E'...', "...", $tag$...$tag$, -- and nested block comments; a
 * semicolon inside those is text. */
int catalog_parse(struct catalog *catalog, const char *path, const char *text, size_t length,
                  struct error *err);

/* NULL if no statement has this name. */
struct statement *catalog_find(const struct catalog *catalog, const char *name);

/* True if `text` has the form of a statement's name (letters, digits, underscores, not beginning
 * with a digit) rather than of SQL. */
bool statement_is_name(const char *text);

/* True if the SQL begins like a statement that only reads (select, values, table); it may still
 * call a function that writes. */
bool statement_looks_like_read(const char *sql);

/* Copies the SQL into the arena, and finds `traces` and `block`. */
void statement_set_sql(struct statement *statement, struct arena *arena, const char *sql,
                       size_t length);

/* The 64-bit hash used for `key` (FNV-1a). */
uint64_t statement_hash(const char *text, size_t length);

#endif
