/* The reader of named SQL: what it finds in files, and what it says about files it refuses. */
#include "../statement.h"

#include <stdlib.h>

#include "../error.h"
#include "test.h"

static void parse_all(struct catalog *catalog, const char *text)
{
    struct error err;
    catalog_init(catalog);
    int result = catalog_parse(catalog, "sql/t.sql", text, strlen(text), &err);
    check_int(result, 0, "parses");
    if (result != 0) {
        printf("# %s: %s\n# in: %s\n", err.where, err.message, text);
    }
}

struct accepted {
    const char *title;
    const char *text;
    const char *sql; /* of the statement `a` */
    int line;
    enum statement_kind kind;
    size_t count;
};

static const struct accepted accepted[] = {
    {"one", "-- name: a :one\nselect 1;\n", "select 1", 1, STATEMENT_ONE, 1},
    {"many", "-- name: a :many\nselect 1;\n", "select 1", 1, STATEMENT_MANY, 1},
    {"exec", "-- name: a :exec\nselect 1;\n", "select 1", 1, STATEMENT_EXEC, 1},
    {"bulk", "-- name: a :bulk\nselect 1;\n", "select 1", 1, STATEMENT_BULK, 1},
    {"back to a savepoint", "-- name: a :exec\nrollback to s;\n", "rollback to s", 1,
     STATEMENT_EXEC, 1},
    {"no semicolon", "-- name: a :one\nselect 1\n", "select 1", 1, STATEMENT_ONE, 1},
    {"no newline at the end", "-- name: a :one\nselect 1", "select 1", 1, STATEMENT_ONE, 1},
    {"two semicolons", "-- name: a :one\nselect 1;;\n", "select 1", 1, STATEMENT_ONE, 1},
    {"narrow mark", "--name:a :one\nselect 1", "select 1", 1, STATEMENT_ONE, 1},
    {"wide mark", " \t--  name:  a \t :one \t\nselect 1", "select 1", 1, STATEMENT_ONE, 1},
    {"file header", "-- Users.\n\n/* more */\n-- name: a :one\nselect 1;", "select 1", 4,
     STATEMENT_ONE, 1},
    {"comment below the name stays", "-- name: a :one\n-- Why.\n\nselect 1;", "-- Why.\n\nselect 1",
     1, STATEMENT_ONE, 1},
    {"comments behind the end go", "-- name: a :one\nselect 1 -- one\n;\n-- end\n/* e */",
     "select 1", 1, STATEMENT_ONE, 1},
    {"comment behind the last token goes", "-- name: a :one\nselect 1 -- one\n", "select 1", 1,
     STATEMENT_ONE, 1},
    {"CRLF", "-- h\r\n-- name: a :one\r\nselect 1,\r\n  2;\r\n", "select 1,\r\n  2", 2,
     STATEMENT_ONE, 1},
    {"CRLF without end", "-- name: a :one\r\nselect 1\r\n", "select 1", 1, STATEMENT_ONE, 1},
    {"byte order mark", "\xef\xbb\xbf-- name: a :one\nselect 1;", "select 1", 1, STATEMENT_ONE, 1},
    {"two blocks", "-- name: a :one\nselect 1;\n\n-- name: b :one\nselect 2;\n", "select 1", 1,
     STATEMENT_ONE, 2},
    {"blocks without semicolons", "-- name: b :one\nselect 1\n-- name: a :many\nselect 2\n",
     "select 2", 3, STATEMENT_MANY, 2},
    {"lines counted through strings", "-- name: b :one\nselect '\n\n'\n-- name: a :one\nselect 2",
     "select 2", 5, STATEMENT_ONE, 2},
    {"lines counted through comments", "/*\n\n*/-- c\n-- name: a :one\nselect 2", "select 2", 4,
     STATEMENT_ONE, 1},
    {"semicolon in a string", "-- name: a :one\nselect ';''; ';", "select ';''; '", 1,
     STATEMENT_ONE, 1},
    {"backslash in a plain string", "-- name: a :one\nselect '\\';", "select '\\'", 1,
     STATEMENT_ONE, 1},
    {"escape string", "-- name: a :one\nselect E'\\';', e'\\\\';", "select E'\\';', e'\\\\'", 1,
     STATEMENT_ONE, 1},
    {"doubled quote in an escape string", "-- name: a :one\nselect E'a''\\';';",
     "select E'a''\\';'", 1, STATEMENT_ONE, 1},
    {"escape string continued behind a comment", "-- name: a :one\nselect E'a' -- b'\n--\n '\\';';",
     "select E'a' -- b'\n--\n '\\';'", 1, STATEMENT_ONE, 1},
    {"escape string and a name", "-- name: a :one\nselect E'a'\n-- name: b :one\nselect 'b';",
     "select E'a'", 1, STATEMENT_ONE, 2},
    {"number before an escape string", "-- name: a :one\nselect 1e'\\';';", "select 1e'\\';'", 1,
     STATEMENT_ONE, 1},
    {"number before a dollar quote", "-- name: a :one\nselect 1$$;$$;", "select 1$$;$$", 1,
     STATEMENT_ONE, 1},
    {"comment that ends in CR", "-- name: a :one\nselect 1 -- '\r, 2;", "select 1 -- '\r, 2", 1,
     STATEMENT_ONE, 1},
    {"continued escape string", "-- name: a :one\nselect E'a'\n '\\';';", "select E'a'\n '\\';'", 1,
     STATEMENT_ONE, 1},
    {"a word that ends in e", "-- name: a :one\nselect date'\\';", "select date'\\'", 1,
     STATEMENT_ONE, 1},
    {"quoted identifier", "-- name: a :one\nselect \"a;'\"\"--\";", "select \"a;'\"\"--\"", 1,
     STATEMENT_ONE, 1},
    {"dollar quotes", "-- name: a :one\nselect $$;'$$, $t$ $$;\n $t1$ $t$;",
     "select $$;'$$, $t$ $$;\n $t1$ $t$", 1, STATEMENT_ONE, 1},
    {"parameters", "-- name: a :one\nselect $1, $2::int[], $10;", "select $1, $2::int[], $10", 1,
     STATEMENT_ONE, 1},
    {"adjacent parameters", "-- name: a :one\nselect $1$2;", "select $1$2", 1, STATEMENT_ONE, 1},
    {"dollar in an identifier", "-- name: a :one\nselect a$b$;", "select a$b$", 1, STATEMENT_ONE,
     1},
    {"dollar at the end", "-- name: a :one\nselect $", "select $", 1, STATEMENT_ONE, 1},
    {"casts and slices", "-- name: a :one\nselect x::text, y[1:2], :z;",
     "select x::text, y[1:2], :z", 1, STATEMENT_ONE, 1},
    {"nested comment", "-- name: a :one\nselect /* ; /* ' */ ; */ 1;", "select /* ; /* ' */ ; */ 1",
     1, STATEMENT_ONE, 1},
    {"quote in a line comment", "-- name: a :one\nselect -- it's; $$\n 1;",
     "select -- it's; $$\n 1", 1, STATEMENT_ONE, 1},
    {"name in a string", "-- name: a :one\nselect '\n-- name: b :one\n';",
     "select '\n-- name: b :one\n'", 1, STATEMENT_ONE, 1},
    {"name in a block comment", "-- name: a :one\n/*\n-- name: b :one\n*/ select 1;",
     "/*\n-- name: b :one\n*/ select 1", 1, STATEMENT_ONE, 1},
    {"name behind code on a line", "-- name: a :one\nselect 1 -- name: b :one\n, 2;",
     "select 1 -- name: b :one\n, 2", 1, STATEMENT_ONE, 1},
    {"operators of dashes and slashes", "-- name: a :one\nselect 1 - -1 / 2 * 3;",
     "select 1 - -1 / 2 * 3", 1, STATEMENT_ONE, 1},
    {"UTF-8", "-- name: a :one\nselect 'é', ä$ß;", "select 'é', ä$ß", 1, STATEMENT_ONE, 1},
};

static void test_accepted(void)
{
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        const struct accepted *row = &accepted[i];
        struct catalog catalog;
        parse_all(&catalog, row->text);
        struct statement *statement = catalog_find(&catalog, "a");
        check_int(catalog.count, row->count, "%s: number of statements", row->title);
        if (check(statement != NULL, "%s: found", row->title)) {
            check_text(statement->sql, row->sql, "%s: text", row->title);
            check_text(statement->file, "sql/t.sql", "%s: file", row->title);
            check_int(statement->line, row->line, "%s: line", row->title);
            check_int(statement->kind, row->kind, "%s: kind", row->title);
            check(statement->key == statement_hash(row->sql, strlen(row->sql)), "%s: key",
                  row->title);
        }
        catalog_finish(&catalog);
    }
}

/* Every file cut at every place: in a buffer of just that size, so that a sanitizer sees a step
 * over its end. */
static void test_cut_short(void)
{
    for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
        size_t wrong = 0;
        for (size_t length = 0; length <= strlen(accepted[i].text); length++) {
            char *text = malloc(length + 1);
            memcpy(text + 1, accepted[i].text, length);
            struct catalog catalog;
            struct error err;
            catalog_init(&catalog);
            int result = catalog_parse(&catalog, "t", text + 1, length, &err);
            wrong += result != 0 && err.code != ERROR_SCRIPT;
            catalog_finish(&catalog);
            free(text);
        }
        check_int(wrong, 0, "%s: cut at every place", accepted[i].title);
    }
}

struct refused {
    const char *title;
    const char *text;
    int line;
    const char *message; /* part of it */
};

static const struct refused refused[] = {
    {"text before a name", "-- h\nselect 1;\n-- name: a :one\nselect 1;", 2, "without a name"},
    {"semicolon before a name", "\n;-- name: a :one", 2, "without a name"},
    {"text without any name", "select 1", 1, "without a name"},
    {"misspelt mark", "-- Name: a :one\nselect 1;", 2, "without a name"},
    {"no name", "-- name:\nselect 1;", 1, "a name is missing"},
    {"no name but a kind", "-- name: :one\nselect 1;", 1, "a name is missing"},
    {"name with a digit first", "-- name: 1a :one\nselect 1;", 1, "\"1a\" is no name"},
    {"name with a dash", "\n-- name: a-b :one\nselect 1;", 2, "\"a-b\" is no name"},
    {"name glued to its kind", "-- name: a:one\nselect 1;", 1, "\"a:one\" is no name"},
    {"name that is not ASCII", "-- name: \xc3\xa9 :one\nselect 1;", 1, "is no name"},
    {"long name",
     "-- name: a234567890123456789012345678901234567890123456789012345678901234 :one\nselect 1", 1,
     "too long"},
    {"no kind", "-- name: a\nselect 1;", 1, "kind of a is missing"},
    {"unknown kind", "-- name: a :execrows\nselect 1;", 1, "instead of \":execrows\""},
    {"kind in capitals", "-- name: a :ONE\nselect 1;", 1, "instead of \":ONE\""},
    {"kind without its colon", "-- name: a one\nselect 1;", 1, "instead of \"one\""},
    {"kind cut short", "-- name: a :on\nselect 1;", 1, "not known"},
    {"too many words", "-- name: a :one :many\nselect 1;", 1, "\":many\" is too much"},
    {"repeated name", "-- name: a :one\nselect 1;\n-- name: a :many\nselect 2;", 3,
     "already, at sql/t.sql:1"},
    {"empty at the end", "-- name: a :one", 1, "a is empty"},
    {"empty with comments", "-- name: a :one\n-- nothing\n/* here */\n", 1, "a is empty"},
    {"empty before another", "-- name: a :one\n\n-- name: b :one\nselect 1;", 1, "a is empty"},
    {"only a semicolon", "-- name: a :one\n;", 1, "a is empty"},
    {"semicolon first", "-- name: a :one\n; select 1", 1, "a is empty"},
    {"two statements", "-- name: a :one\nselect 1;\n\nselect 2;", 4, "a second statement below"},
    {"two on one line", "-- name: a :one\nselect 1; select 2;", 2, "a second statement below"},
    {"open string", "-- name: a :one\nselect 1,\n 'abc\n\n;", 3, "the ' that opens here"},
    {"open escape string", "-- name: a :one\nselect E'abc\\'", 2, "the ' that opens here"},
    {"backslash at the very end", "-- name: a :one\nselect E'\\", 2, "the ' that opens here"},
    {"open continued string", "-- name: a :one\nselect E'a'\n'\\'", 3, "the ' that opens here"},
    {"open identifier", "-- name: a :one\nselect \"abc", 2, "the \" that opens here"},
    {"open dollar quote", "-- name: a :one\nselect $x$ $$ $y$", 2, "the $x$ that opens here"},
    {"open empty dollar quote", "-- name: a :one\nselect $$$", 2, "the $$ that opens here"},
    {"open comment", "-- name: a :one\nselect 1\n/* /* */\n", 3, "never closed with */"},
    {"open comment in the header", "/*\n-- name: a :one\nselect 1", 1, "never closed with */"},
    {"commit", "\n-- name: a :exec\n-- b\ncommit;", 2, "a would end a transaction"},
    {"rollback before another", "-- name: a :exec\nrollback and chain\n-- name: b :one\nselect 1;",
     1, "a would end a transaction"},
    {"comment of one slash", "-- name: a :one\nselect 1 /*/", 2, "never closed with */"},
};

static void test_refused(void)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        const struct refused *row = &refused[i];
        struct catalog catalog;
        struct error err;
        char where[32];
        catalog_init(&catalog);
        snprintf(where, sizeof where, "sql/t.sql:%d", row->line);
        int result = catalog_parse(&catalog, "sql/t.sql", row->text, strlen(row->text), &err);
        if (check(result == -1, "%s: refused", row->title)) {
            check_int(err.code, ERROR_SCRIPT, "%s: code", row->title);
            check_text(err.where, where, "%s: place", row->title);
            if (!check(strstr(err.message, row->message), "%s: message", row->title)) {
                printf("# %s\n", err.message);
            }
        }
        catalog_finish(&catalog);
    }
}

static void test_nothing(void)
{
    static const char *const empty[] = {"", "\n\n", "-- only words\n", "/* c */", "\xef\xbb\xbf"};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        struct catalog catalog;
        parse_all(&catalog, empty[i]);
        check_int(catalog.count, 0, "a file without statements is empty (%zu)", i);
        check(!catalog_find(&catalog, "a"), "and finds none (%zu)", i);
        catalog_finish(&catalog);
    }
}

static void test_nul(void)
{
    static const char text[] = "-- name: a :one\nselect \0 1;";
    struct catalog catalog;
    struct error err;
    catalog_init(&catalog);
    check_int(catalog_parse(&catalog, "n.sql", text, sizeof text - 1, &err), -1,
              "a NUL is refused");
    check_text(err.where, "n.sql:2", "with its line");
    catalog_finish(&catalog);
}

static void test_many_files(void)
{
    struct catalog catalog;
    struct error err;
    char name[32], path[32], text[128];
    catalog_init(&catalog);
    for (int i = 0; i < 1000; i++) {
        snprintf(path, sizeof path, "sql/f%d.sql", i);
        snprintf(text, sizeof text, "-- name: s%d :one\nselect %d", i, i);
        if (catalog_parse(&catalog, path, text, strlen(text), &err) != 0) {
            check(false, "%s: %s", err.where, err.message);
        }
    }
    int found = 0;
    for (int i = 0; i < 1000; i++) {
        snprintf(name, sizeof name, "s%d", i);
        snprintf(text, sizeof text, "select %d", i);
        const struct statement *statement = catalog_find(&catalog, name);
        found +=
            statement && strcmp(statement->sql, text) == 0 && catalog.statements[i] == statement;
    }
    check_int(found, 1000, "a thousand statements from a thousand files are found, in order");
    check(!catalog_find(&catalog, "s1000"), "and no other");
    int result = catalog_parse(&catalog, "sql/again.sql", "-- name: s7 :one\nselect 1", 25, &err);
    check_int(result, -1, "a name is taken across files");
    check(strstr(err.message, "sql/f7.sql:1"), "and the other file is named");
    catalog_finish(&catalog);
}

static void test_names(void)
{
    static const char *const good[] = {"a", "_", "get_user", "A1", "commit"};
    static const char *const bad[] = {"", "1a", "select 1", "a-b", "a;", "\xc3\xa9", " a"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        check(statement_is_name(good[i]), "\"%s\" is a name", good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check(!statement_is_name(bad[i]), "\"%s\" is no name", bad[i]);
    }
    check(statement_hash("a", 1) == UINT64_C(0xaf63dc4c8601ec8c), "the hash is FNV-1a");
}

int main(void)
{
    test_accepted();
    test_cut_short();
    test_refused();
    test_nothing();
    test_nul();
    test_many_files();
    test_names();
    return test_end();
}
