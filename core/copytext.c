/* Writing COPY's text format. A backslash begins an escape, so that tab, line feed, carriage return
 * and the backslash itself are written as one; every other byte stands for itself. */
#include "copytext.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "error.h"
#include "json.h"
#include "pgtype.h"

void copytext_finish(struct copytext *text)
{
    buffer_finish(&text->table);
    buffer_finish(&text->list);
    buffer_finish(&text->names);
    buffer_finish(&text->command);
    buffer_finish(&text->rows);
    free(text->types);
    memset(text, 0, sizeof *text);
}

/* The command. */

static void append_quoted(struct buffer *out, const char *name, size_t length)
{
    buffer_append_char(out, '"');
    for (size_t i = 0; i < length; i++) {
        if (name[i] == '"') {
            buffer_append_char(out, '"');
        }
        buffer_append_char(out, name[i]);
    }
    buffer_append_char(out, '"');
}

void copytext_set_table(struct copytext *text, const char *name)
{
    const char *dot = strchr(name, '.');
    const char *bare = dot ? dot + 1 : name;
    if (dot) {
        append_quoted(&text->table, name, (size_t)(dot - name));
        buffer_append_char(&text->table, '.');
    }
    append_quoted(&text->table, bare, strlen(bare));
    buffer_append_char(&text->table, '\0');
    snprintf(text->bare, sizeof text->bare, "%s", bare);
}

void copytext_add_column(struct copytext *text, const char *name)
{
    size_t columns = text->columns + 1u;
    text->types = memory_realloc(text->types, columns * sizeof *text->types);
    text->types[text->columns] = 0;
    buffer_append_char(&text->list, text->columns ? ',' : '(');
    append_quoted(&text->list, name, strlen(name));
    buffer_append_char(&text->names, text->columns ? ',' : '{');
    pgtype_write_array_element(&text->names, name, strlen(name));
    text->columns++;
}

const char *copytext_command(struct copytext *text)
{
    buffer_printf(&text->command, "copy %s %.*s) from stdin", text->table.data,
                  (int)text->list.length, text->list.data);
    buffer_append_char(&text->command, '\0');
    return text->command.data;
}

const char *copytext_table(struct copytext *text)
{
    return text->table.data;
}

const char *copytext_names(struct copytext *text)
{
    buffer_append(&text->names, "}", 2);
    return text->names.data;
}

/* Values. */

static void begin_value(struct copytext *text)
{
    if (!text->first) {
        buffer_append_char(&text->rows, '\t');
    }
    text->first = false;
}

void copytext_null(struct copytext *text)
{
    begin_value(text);
    buffer_append(&text->rows, "\\N", 2);
}

void copytext_boolean(struct copytext *text, bool value)
{
    begin_value(text);
    buffer_append_text(&text->rows, value ? "true" : "false");
}

void copytext_integer(struct copytext *text, int64_t value)
{
    begin_value(text);
    json_write_integer(&text->rows, value);
}

int copytext_number(struct copytext *text, uint32_t type, double value, struct error *err)
{
    char digits[PGTYPE_NUMBER_SIZE];
    size_t length;
    if (pgtype_number_text(digits, type, value, &length, err) != 0) {
        return -1;
    }
    begin_value(text);
    buffer_append(&text->rows, digits, length);
    return 0;
}

/* The letter behind the backslash, or 0. */
static char escape_of(char c)
{
    switch (c) {
    case '\\':
        return '\\';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return '\0';
    }
}

static void append_escaped(struct buffer *out, const char *value, size_t length)
{
    size_t start = 0;
    for (size_t i = 0; i < length; i++) {
        char letter = escape_of(value[i]);
        if (letter) {
            char pair[2] = {'\\', letter};
            buffer_append(out, value + start, i - start);
            buffer_append(out, pair, sizeof pair);
            start = i + 1;
        }
    }
    buffer_append(out, value + start, length - start);
}

/* bytea in hex, "\x48656c6c6f", whose backslash is one of the text's. */
static void append_bytes(struct buffer *out, const char *value, size_t length)
{
    static const char digits[] = "0123456789abcdef";
    char *hex = buffer_reserve(out, 3 + 2 * length);
    memcpy(hex, "\\\\x", 3);
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)value[i];
        hex[3 + 2 * i] = digits[byte >> 4];
        hex[4 + 2 * i] = digits[byte & 15];
    }
    out->length += 3 + 2 * length;
}

int copytext_text(struct copytext *text, uint32_t type, const char *value, size_t length,
                  struct error *err)
{
    if (pgtype_classify(type, NULL) == PGTYPE_BYTEA) {
        begin_value(text);
        append_bytes(&text->rows, value, length);
        return 0;
    }
    if (memchr(value, '\0', length)) {
        return error_set(err, ERROR_INVALID,
                         "a text contains a NUL character, which PostgreSQL cannot store");
    }
    begin_value(text);
    append_escaped(&text->rows, value, length);
    return 0;
}

void copytext_begin_row(struct copytext *text)
{
    text->rows.length = text->whole;
    text->first = true;
}

void copytext_end_row(struct copytext *text)
{
    buffer_append_char(&text->rows, '\n');
    text->whole = text->rows.length;
    text->count++;
}

void copytext_empty(struct copytext *text)
{
    text->rows.length = 0;
    text->whole = 0;
}
