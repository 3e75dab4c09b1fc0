/* Looks at the first word, which decides for most statements, and for names of the functions by
 * which the others reach the session's state. A name in quotes or in a comment counts too: to take
 * an innocent statement for a guilty one costs a trip to the server, the opposite a secret. */
#include "sql.h"

#include <ctype.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>

/* Statements whose effects end with their transaction, or that have only lasting ones. */
static const char *const harmless_words[] = {
    "select",   "insert", "update", "delete",   "merge", "values",    "table",   "with",
    "begin",    "start",  "commit", "rollback", "end",   "abort",     "lock",    "copy",
    "truncate", "notify", "show",   "release",  "fetch", "savepoint", "analyze", NULL,
};

/* Forms of SET that end with the transaction. */
static const char *const harmless_settings[] = {"local", "transaction", "constraints", NULL};

/* With U&"..." any name can be written so that it is not seen. Writing to pg_settings is SET. */
static const char *const telling_texts[] = {
    "set_config", "pg_settings", "pg_advisory_lock", "pg_try_advisory_lock", "setseed", "pg_temp",
    "u&\"",       NULL,
};

static const char *const lasting_texts[] = {
    "pg_replication_origin_session",
    "_replication_slot",
    "dblink_connect",
    NULL,
};

/* Statements that end no transaction wherever they are run, nor do the functions in them. */
static const char *const inner_words[] = {
    "select", "insert", "update", "delete",    "merge",   "values", "table",
    "with",   "set",    "lock",   "savepoint", "release", "notify", NULL,
};

/* Statements that begin a transaction block, and that end one. So do START TRANSACTION and PREPARE
 * TRANSACTION, and a ROLLBACK that does not go back TO a savepoint. */
static const char *const beginning_words[] = {"begin", NULL};
static const char *const start_words[] = {"start", NULL};
static const char *const ending_words[] = {"commit", "end", "abort", NULL};
static const char *const prepare_words[] = {"prepare", NULL};
static const char *const rollback_words[] = {"rollback", NULL};
static const char *const block_words[] = {"work", "transaction", NULL};
static const char *const transaction_words[] = {"transaction", NULL};
static const char *const prepared_words[] = {"prepared", NULL};
static const char *const to_words[] = {"to", NULL};
static const char *const as_words[] = {"as", NULL};

static const char *const load_words[] = {"load", NULL};
static const char *const do_words[] = {"do", NULL};
static const char *const query_words[] = {"select", "with", NULL};

static bool is_part_of_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (unsigned char)c >= 0x80;
}

const char *sql_skip_line_comment(const char *at, const char *end)
{
    while (at < end && *at != '\r' && *at != '\n') {
        at++;
    }
    return at;
}

const char *sql_skip_block_comment(const char *at, const char *end)
{
    int depth = 0;
    while (end - at >= 2) {
        if (memcmp(at, "/*", 2) == 0) {
            depth++;
            at += 2;
        } else if (memcmp(at, "*/", 2) == 0) {
            depth--;
            at += 2;
        } else {
            at++;
        }
        if (depth == 0) {
            return at;
        }
    }
    return NULL;
}

/* Behind a comment; at the end of the text if it is not closed. */
static const char *skip_comment(const char *sql)
{
    const char *end = sql + strlen(sql);
    const char *behind =
        *sql == '-' ? sql_skip_line_comment(sql, end) : sql_skip_block_comment(sql, end);
    return behind ? behind : end;
}

const char *sql_first_word(const char *sql)
{
    for (;;) {
        if (isspace((unsigned char)*sql)) {
            sql++;
        } else if (strncmp(sql, "--", 2) == 0 || strncmp(sql, "/*", 2) == 0) {
            sql = skip_comment(sql);
        } else {
            return sql;
        }
    }
}

static size_t word_length(const char *text)
{
    size_t length = 0;
    while (is_part_of_word(text[length])) {
        length++;
    }
    return length;
}

static bool is_one_of(const char *word, const char *const *words)
{
    size_t length = word_length(word);
    for (; *words; words++) {
        if (strlen(*words) == length && strncasecmp(word, *words, length) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_one_of(const char *sql, const char *const *texts)
{
    for (; *texts; texts++) {
        if (strcasestr(sql, *texts)) {
            return true;
        }
    }
    return false;
}

static bool has_word(const char *sql, const char *word)
{
    const char *found = strcasestr(sql, word);
    for (; found; found = strcasestr(found + 1, word)) {
        bool begins = found == sql || !is_part_of_word(found[-1]);
        if (begins && !is_part_of_word(found[strlen(word)])) {
            return true;
        }
    }
    return false;
}

/* By itself, or in the code of a DO. */
static bool loads_library(const char *first, const char *sql)
{
    return is_one_of(first, load_words) || (is_one_of(first, do_words) && has_word(sql, "load"));
}

/* select ... into temp: an insert into a table with such a column is not meant. */
static bool makes_temporary_table(const char *first, const char *sql)
{
    return is_one_of(first, query_words) && has_word(sql, "into") &&
           (has_word(sql, "temp") || has_word(sql, "temporary"));
}

static bool is_harmless(const char *first)
{
    if (strncasecmp(first, "set", 3) == 0 && word_length(first) == 3) {
        return is_one_of(sql_first_word(first + 3), harmless_settings);
    }
    return *first == '\0' || is_one_of(first, harmless_words);
}

static const char *word_behind(const char *word)
{
    return sql_first_word(word + word_length(word));
}

/* The first word of what is executed: statements that are empty may stand in front of it. */
static const char *first_word_of_statement(const char *sql)
{
    const char *first = sql_first_word(sql);
    while (*first == ';') {
        first = sql_first_word(first + 1);
    }
    return first;
}

static const char *first_word_in_parentheses(const char *sql)
{
    const char *first = first_word_of_statement(sql);
    while (*first == '(') {
        first = sql_first_word(first + 1);
    }
    return first;
}

/* Rather than a statement that has this name, prepare transaction (int) as select $1. */
static bool prepares_transaction(const char *first, const char *second)
{
    const char *third = word_behind(second);
    return is_one_of(first, prepare_words) && is_one_of(second, transaction_words) &&
           *third != '(' && !is_one_of(third, as_words);
}

static bool ends_block(const char *first, const char *second, bool names_block)
{
    if (is_one_of(second, prepared_words)) {
        return false;
    }
    if (is_one_of(first, rollback_words)) {
        return !is_one_of(names_block ? word_behind(second) : second, to_words);
    }
    return is_one_of(first, ending_words) || prepares_transaction(first, second);
}

enum sql_block sql_block(const char *sql)
{
    const char *first = first_word_of_statement(sql);
    const char *second = word_behind(first);
    bool names_block = is_one_of(second, block_words);
    if (is_one_of(first, beginning_words) || (is_one_of(first, start_words) && names_block)) {
        return SQL_BEGINS_BLOCK;
    }
    return ends_block(first, second, names_block) ? SQL_ENDS_BLOCK : SQL_KEEPS_BLOCK;
}

bool sql_may_commit(const char *sql)
{
    return !is_one_of(first_word_in_parentheses(sql), inner_words);
}

enum sql_traces sql_traces(const char *sql)
{
    const char *first = first_word_in_parentheses(sql);
    if (loads_library(first, sql) || has_one_of(sql, lasting_texts)) {
        return SQL_LASTING_TRACES;
    }
    bool traces =
        !is_harmless(first) || has_one_of(sql, telling_texts) || makes_temporary_table(first, sql);
    return traces ? SQL_TRACES : SQL_NO_TRACES;
}
