/* Files of named SQL: each statement that is found is found again by its name, stands where it says
 * it does, and is read back as it is from a file of its own. */
#include <string.h>

#include "buffer.h"
#include "error.h"
#include "fuzz.h"
#include "sql.h"
#include "statement.h"

static size_t count_lines(const char *text, size_t length)
{
    size_t lines = 1;
    for (size_t i = 0; i < length; i++) {
        lines += text[i] == '\n';
    }
    return lines;
}

/* A refusal names the file and a line that is there. */
static void check_refusal(const struct error *err, size_t lines)
{
    claim(err->code == ERROR_SCRIPT && err->message[0]);
    claim(strncmp(err->where, "a.sql:", 6) == 0);
    long line = strtol(err->where + 6, NULL, 10);
    claim(line >= 1 && (size_t)line <= lines);
}

/* The SQL below a name of its own is the same SQL. */
static void check_alone(const struct statement *statement)
{
    static const char head[] = "-- name: alone :many\n";
    struct catalog catalog;
    struct buffer text;
    struct error err;
    buffer_init(&text);
    buffer_append_text(&text, head);
    buffer_append_text(&text, statement->sql);
    catalog_init(&catalog);
    claim(catalog_parse(&catalog, "b.sql", text.data, text.length, &err) == 0);
    claim(catalog.count == 1);
    claim(strcmp(catalog.statements[0]->sql, statement->sql) == 0);
    claim(catalog.statements[0]->key == statement->key);
    catalog_finish(&catalog);
    buffer_finish(&text);
}

/* What is told of a statement without reading all of it. */
static void check_guesses(const char *sql)
{
    const char *word = sql_first_word(sql);
    claim(word >= sql && word <= sql + strlen(sql));
    claim(!statement_looks_like_read(sql) || *word);
    claim(!*word || sql_traces(word) <= sql_traces(sql)); /* a comment may only seem guilty */
}

static void check_statement(const struct catalog *catalog, const struct statement *statement,
                            size_t lines)
{
    claim(statement_is_name(statement->name));
    claim(catalog_find(catalog, statement->name) == statement);
    claim(statement->line >= 1 && (size_t)statement->line < lines);
    claim(statement->sql[0]);
    check_guesses(statement->sql);
    check_alone(statement);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    size_t lines = count_lines(text, size);
    struct catalog catalog;
    struct error err;
    catalog_init(&catalog);
    if (catalog_parse(&catalog, "a.sql", text, size, &err) != 0) {
        check_refusal(&err, lines);
    } else {
        for (size_t i = 0; i < catalog.count; i++) {
            check_statement(&catalog, catalog.statements[i], lines);
        }
    }
    catalog_finish(&catalog);
    return 0;
}
