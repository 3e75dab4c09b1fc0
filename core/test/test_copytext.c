/* COPY's command and its text format. */
#include "copytext.h"

#include <math.h>

#include "error.h"
#include "test.h"

enum { INT4 = 23, TEXT = 25, BYTEA = 17, FLOAT8 = 701 };

static const struct {
    const char *table;
    const char *columns[3];
    const char *command;
    const char *names;
    const char *bare;
} commands[] = {
    {"users", {"id"}, "copy \"users\" (\"id\") from stdin", "{\"id\"}", "users"},
    {"app.users",
     {"id", "name"},
     "copy \"app\".\"users\" (\"id\",\"name\") from stdin",
     "{\"id\",\"name\"}",
     "users"},
    {"a\"b",
     {"c\"d", "e f"},
     "copy \"a\"\"b\" (\"c\"\"d\",\"e f\") from stdin",
     "{\"c\\\"d\",\"e f\"}",
     "a\"b"},
};

static void test_commands(void)
{
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        struct copytext text = {0};
        copytext_set_table(&text, commands[i].table);
        for (int c = 0; commands[i].columns[c]; c++) {
            copytext_add_column(&text, commands[i].columns[c]);
        }
        check_text(copytext_command(&text), commands[i].command, "the command for %s",
                   commands[i].table);
        check_text(copytext_names(&text), commands[i].names, "the columns of %s",
                   commands[i].table);
        check_text(text.bare, commands[i].bare, "the bare name of %s", commands[i].table);
        copytext_finish(&text);
    }
}

static const struct {
    const char *value;
    size_t length;
    uint32_t type;
    const char *expected; /* NULL: refused */
} texts[] = {
    {"", 0, TEXT, ""},
    {"plain", 5, TEXT, "plain"},
    {"\\", 1, TEXT, "\\\\"},
    {"\\N", 2, TEXT, "\\\\N"},
    {"\\.", 2, TEXT, "\\\\."},
    {"a\tb\nc\rd", 7, TEXT, "a\\tb\\nc\\rd"},
    {"\xc3\xa4", 2, 0, "\xc3\xa4"},
    {"a\0b", 3, TEXT, NULL},
    {"a\0\xff", 3, BYTEA, "\\\\x6100ff"},
    {"", 0, BYTEA, "\\\\x"},
};

static void test_texts(void)
{
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct copytext text = {0};
        struct error err;
        copytext_begin_row(&text);
        int code = copytext_text(&text, texts[i].type, texts[i].value, texts[i].length, &err);
        if (!texts[i].expected) {
            check_int(code, -1, "text %zu is refused", i);
        } else {
            copytext_end_row(&text);
            buffer_append_char(&text.rows, '\0');
            char line[64];
            snprintf(line, sizeof line, "%s\n", texts[i].expected);
            check_text(text.rows.data, line, "text %zu", i);
        }
        copytext_finish(&text);
    }
}

static void test_row(void)
{
    struct copytext text = {0};
    struct error err;
    copytext_begin_row(&text);
    copytext_null(&text);
    copytext_boolean(&text, true);
    copytext_integer(&text, INT64_MIN);
    check_int(copytext_number(&text, INT4, 7.0, &err), 0, "a whole number is an integer");
    check_int(copytext_number(&text, FLOAT8, -INFINITY, &err), 0, "an infinity is a float");
    copytext_end_row(&text);
    copytext_begin_row(&text);
    copytext_null(&text);
    check_int(copytext_number(&text, INT4, 7.5, &err), -1, "a fraction is none");
    copytext_begin_row(&text);
    copytext_integer(&text, 1);
    copytext_end_row(&text);
    buffer_append_char(&text.rows, '\0');
    check_text(text.rows.data, "\\N\ttrue\t-9223372036854775808\t7\t-Infinity\n1\n",
               "a row that was not ended is forgotten");
    check_int((long long)text.count, 2, "rows are counted");
    copytext_empty(&text);
    check_int((long long)text.whole, 0, "and handed over");
    copytext_finish(&text);
}

int main(void)
{
    test_commands();
    test_texts();
    test_row();
    return test_end();
}
