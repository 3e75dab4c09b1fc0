/* Reads files of named SQL. A scanner cuts the text into tokens just well enough to tell a
 * semicolon or a name comment from the same characters inside a string or a comment; the blocks
 * between the names become statements, and the catalog finds them by name. */
#include "statement.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "error.h"
#include "hash.h"

/* PostgreSQL cuts identifiers, and with them the names of prepared statements, at 63 bytes. */
enum { LONGEST_NAME = 63, FIRST_SLOTS = 64 };

struct scanner {
    const char *path;
    const char *start;
    const char *at;
    const char *end;
    int line; /* 1-based line of `at` */
    struct error *err;
};

enum token_kind {
    TOKEN_END,
    TOKEN_NAME, /* a `-- name:` comment that stands alone on its line, up to the line's end */
    TOKEN_SEMICOLON,
    TOKEN_TEXT,
};

struct token {
    enum token_kind kind;
    const char *start;
    const char *end;
    int line; /* of `start` */
};

static const struct {
    const char *word;
    enum statement_kind kind;
} kinds[] = {
    {":one", STATEMENT_ONE},
    {":many", STATEMENT_MANY},
    {":exec", STATEMENT_EXEC},
    {":bulk", STATEMENT_BULK},
};

uint64_t statement_hash(const char *text, size_t length)
{
    return hash_bytes(HASH_START, text, length);
}

void statement_set_sql(struct statement *statement, struct arena *arena, const char *sql,
                       size_t length)
{
    statement->sql = arena_strndup(arena, sql, length);
    statement->traces = sql_traces(statement->sql);
    statement->block = sql_block(statement->sql);
}

/* Locale-independent; bytes of UTF-8 sequences count as letters, as they do in PostgreSQL. */
static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static bool is_name(const char *text, size_t length)
{
    if (length == 0 || is_digit(text[0])) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] >= 0x80 || (!is_letter(text[i]) && !is_digit(text[i]))) {
            return false;
        }
    }
    return true;
}

bool statement_is_name(const char *text)
{
    return is_name(text, strlen(text));
}

/* ---- the scanner ---- */

__attribute__((format(printf, 3, 4))) static int fail(const struct scanner *scanner, int line,
                                                      const char *format, ...)
{
    char message[sizeof scanner->err->message];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    error_set(scanner->err, ERROR_SCRIPT, "%s", message);
    snprintf(scanner->err->where, sizeof scanner->err->where, "%s:%d", scanner->path, line);
    return -1;
}

static void move_to(struct scanner *scanner, const char *to)
{
    for (; scanner->at < to; scanner->at++) {
        scanner->line += *scanner->at == '\n';
    }
}

static const char *end_of_line(const struct scanner *scanner)
{
    const char *newline = memchr(scanner->at, '\n', (size_t)(scanner->end - scanner->at));
    return newline ? newline : scanner->end;
}

static bool looking_at(const struct scanner *scanner, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(scanner->end - scanner->at) >= length && memcmp(scanner->at, text, length) == 0;
}

static const char *skip_blanks(const char *at, const char *end)
{
    while (at < end && is_blank(*at)) {
        at++;
    }
    return at;
}

/* Behind "-- name:" if the line comment at `at` is one and nothing stands in front of it on its
 * line, else NULL. */
static const char *behind_name_mark(const struct scanner *scanner)
{
    static const char mark[] = "name:";
    const char *before = scanner->at;
    while (before > scanner->start && is_blank(before[-1])) {
        before--;
    }
    if (before > scanner->start && before[-1] != '\n') {
        return NULL;
    }
    const char *word = skip_blanks(scanner->at + 2, scanner->end);
    bool is_mark = (size_t)(scanner->end - word) >= sizeof mark - 1 &&
                   memcmp(word, mark, sizeof mark - 1) == 0;
    return is_mark ? word + sizeof mark - 1 : NULL;
}

static int skip_block_comment(struct scanner *scanner)
{
    const char *behind = sql_skip_block_comment(scanner->at, scanner->end);
    if (!behind) {
        return fail(scanner, scanner->line, "the comment that begins here is never closed with */");
    }
    move_to(scanner, behind);
    return 0;
}

/* Over white space and comments, up to a token or a name comment. */
static int skip_space(struct scanner *scanner)
{
    while (scanner->at < scanner->end) {
        if (is_blank(*scanner->at) || *scanner->at == '\n') {
            move_to(scanner, scanner->at + 1);
        } else if (looking_at(scanner, "--") && !behind_name_mark(scanner)) {
            move_to(scanner, sql_skip_line_comment(scanner->at, scanner->end));
        } else if (looking_at(scanner, "/*")) {
            if (skip_block_comment(scanner) != 0) {
                return -1;
            }
        } else {
            return 0;
        }
    }
    return 0;
}

/* Over a string or a quoted identifier; a doubled quote continues it by beginning another. */
static int skip_quoted(struct scanner *scanner, bool backslash_escapes)
{
    char quote = *scanner->at;
    const char *at = scanner->at + 1;
    while (at < scanner->end && *at != quote) {
        at += backslash_escapes && *at == '\\' && at + 1 < scanner->end ? 2 : 1;
    }
    if (at == scanner->end) {
        return fail(scanner, scanner->line, "the %c that opens here is never closed", quote);
    }
    move_to(scanner, at + 1);
    return 0;
}

/* The quote with which the string that ends here goes on: at once, or behind white space with the
 * end of a line in it, comments included. NULL if it does not. */
static const char *find_continuation(const struct scanner *scanner)
{
    struct scanner probe = *scanner;
    bool line_ended = false;
    while (probe.at < probe.end) {
        if (looking_at(&probe, "--") && !behind_name_mark(&probe)) {
            probe.at = sql_skip_line_comment(probe.at, probe.end);
        } else if (is_blank(*probe.at) || *probe.at == '\n') {
            line_ended |= *probe.at == '\n' || *probe.at == '\r';
            probe.at++;
        } else {
            break;
        }
    }
    bool goes_on = looking_at(&probe, "'") && (line_ended || probe.at == scanner->at);
    return goes_on ? probe.at : NULL;
}

/* Over E'...' and what continues it. */
static int skip_escape_string(struct scanner *scanner)
{
    const char *next;
    do {
        if (skip_quoted(scanner, true) != 0) {
            return -1;
        }
        next = find_continuation(scanner);
        if (next) {
            move_to(scanner, next);
        }
    } while (next);
    return 0;
}

/* Over $tag$...$tag$, or the dollar alone if none begins here. */
static int skip_dollar(struct scanner *scanner)
{
    const char *tag = scanner->at, *at = tag + 1;
    while (at < scanner->end && (is_letter(*at) || (at > tag + 1 && is_digit(*at)))) {
        at++;
    }
    if (at == scanner->end || *at != '$') {
        scanner->at++;
        return 0;
    }
    size_t length = (size_t)(at + 1 - tag);
    const char *closing = memmem(at + 1, (size_t)(scanner->end - at - 1), tag, length);
    if (!closing) {
        return fail(scanner, scanner->line, "the %.*s that opens here is never closed", (int)length,
                    tag);
    }
    move_to(scanner, closing + length);
    return 0;
}

/* Over an identifier or keyword; a dollar inside one does not begin a quote. */
static int skip_word(struct scanner *scanner)
{
    const char *at = scanner->at;
    bool is_e = *at == 'e' || *at == 'E';
    do {
        at++;
    } while (at < scanner->end && (is_letter(*at) || is_digit(*at) || *at == '$'));
    bool alone = at - scanner->at == 1;
    scanner->at = at;
    return is_e && alone && at < scanner->end && *at == '\'' ? skip_escape_string(scanner) : 0;
}

static int skip_text(struct scanner *scanner)
{
    char c = *scanner->at;
    if (c == '\'' || c == '"') {
        return skip_quoted(scanner, false);
    }
    if (c == '$') {
        return skip_dollar(scanner);
    }
    if (is_letter(c)) {
        return skip_word(scanner);
    }
    scanner->at++; /* a digit, too: 1e'\'' is a number and an escape string, 1$$ opens a quote */
    return 0;
}

static int next_token(struct scanner *scanner, struct token *ret_token)
{
    if (skip_space(scanner) != 0) {
        return -1;
    }
    struct token token = {.kind = TOKEN_TEXT, .start = scanner->at, .line = scanner->line};
    if (scanner->at == scanner->end) {
        token.kind = TOKEN_END;
    } else if (looking_at(scanner, "--")) {
        token.kind = TOKEN_NAME;
        token.start = behind_name_mark(scanner);
        scanner->at = end_of_line(scanner);
    } else if (*scanner->at == ';') {
        token.kind = TOKEN_SEMICOLON;
        scanner->at++;
    } else if (skip_text(scanner) != 0) {
        return -1;
    }
    token.end = scanner->at;
    *ret_token = token;
    return 0;
}

/* ---- the catalog ---- */

void catalog_init(struct catalog *catalog)
{
    memset(catalog, 0, sizeof *catalog);
    arena_init(&catalog->arena);
}

void catalog_finish(struct catalog *catalog)
{
    free(catalog->by_name);
    arena_finish(&catalog->arena);
    catalog_init(catalog);
}

/* The slot that holds `name`, or the empty one where it belongs. */
static struct statement **slot_of(const struct catalog *catalog, const char *name)
{
    size_t slot = statement_hash(name, strlen(name)) & (catalog->slots - 1);
    while (catalog->by_name[slot] && strcmp(catalog->by_name[slot]->name, name) != 0) {
        slot = (slot + 1) & (catalog->slots - 1);
    }
    return &catalog->by_name[slot];
}

struct statement *catalog_find(const struct catalog *catalog, const char *name)
{
    return catalog->slots ? *slot_of(catalog, name) : NULL;
}

static void index_by_name(struct catalog *catalog, struct statement *statement)
{
    /* At most half full, so that a search ends soon. */
    if (catalog->count * 2 > catalog->slots) {
        free(catalog->by_name);
        catalog->slots = catalog->slots ? catalog->slots * 2 : FIRST_SLOTS;
        catalog->by_name = memory_zalloc(catalog->slots * sizeof *catalog->by_name);
        for (size_t i = 0; i < catalog->count; i++) {
            *slot_of(catalog, catalog->statements[i]->name) = catalog->statements[i];
        }
    } else {
        *slot_of(catalog, statement->name) = statement;
    }
}

static void add_statement(struct catalog *catalog, struct statement *statement)
{
    if (catalog->count == catalog->capacity) {
        size_t capacity = catalog->capacity ? catalog->capacity * 2 : FIRST_SLOTS / 2;
        struct statement **grown = arena_alloc(&catalog->arena, capacity * sizeof *grown);
        if (catalog->count) {
            memcpy(grown, catalog->statements, catalog->count * sizeof *grown);
        }
        catalog->statements = grown;
        catalog->capacity = capacity;
    }
    catalog->statements[catalog->count++] = statement;
    index_by_name(catalog, statement);
}

/* ---- the parser ---- */

struct word {
    const char *text;
    size_t length;
};

/* The next word of a name comment; an empty one at its end. */
static struct word next_word(struct token *token)
{
    struct word word = {.text = skip_blanks(token->start, token->end)};
    const char *end = word.text;
    while (end < token->end && !is_blank(*end)) {
        end++;
    }
    word.length = (size_t)(end - word.text);
    token->start = end;
    return word;
}

static int parse_kind(const struct scanner *scanner, int line, const char *name, struct word word,
                      enum statement_kind *ret_kind)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (strlen(kinds[i].word) == word.length &&
            memcmp(kinds[i].word, word.text, word.length) == 0) {
            *ret_kind = kinds[i].kind;
            return 0;
        }
    }
    if (word.length == 0) {
        return fail(scanner, line, "the kind of %s is missing: write :one, :many, :exec or :bulk",
                    name);
    }
    return fail(
        scanner, line,
        "the kind of %s is not known: write :one, :many, :exec or :bulk instead of \"%.*s\"", name,
        (int)word.length, word.text);
}

static int check_name(const struct scanner *scanner, int line, struct word name)
{
    if (name.length == 0 || name.text[0] == ':') {
        return fail(scanner, line, "a name is missing: write -- name: get_user :one");
    }
    if (!is_name(name.text, name.length)) {
        return fail(scanner, line,
                    "\"%.*s\" is no name: use letters, digits and underscores, not a digit first",
                    (int)name.length, name.text);
    }
    if (name.length > LONGEST_NAME) {
        return fail(scanner, line, "the name %.*s is too long: use at most %d characters",
                    (int)name.length, name.text, LONGEST_NAME);
    }
    return 0;
}

/* Makes the statement that a name comment announces; its SQL is still to come. */
static struct statement *parse_name(struct catalog *catalog, const struct scanner *scanner,
                                    struct token comment)
{
    struct word word = next_word(&comment);
    if (check_name(scanner, comment.line, word) != 0) {
        return NULL;
    }
    char *name = arena_strndup(&catalog->arena, word.text, word.length);
    struct statement *other = catalog_find(catalog, name);
    if (other) {
        fail(scanner, comment.line, "there is a statement %s already, at %s:%d", name, other->file,
             other->line);
        return NULL;
    }
    struct statement *statement = arena_zalloc(&catalog->arena, sizeof *statement);
    statement->name = name;
    statement->line = comment.line;
    if (parse_kind(scanner, comment.line, name, next_word(&comment), &statement->kind) != 0) {
        return NULL;
    }
    word = next_word(&comment);
    if (word.length > 0) {
        fail(scanner, comment.line, "\"%.*s\" is too much: the line ends behind the kind of %s",
             (int)word.length, word.text, name);
        return NULL;
    }
    return statement;
}

/* The end of the SQL of `statement`, NULL on failure; the token behind its block, a name or the end
 * of the file, goes into `ret_following`. */
static const char *scan_body(struct scanner *scanner, const struct statement *statement,
                             struct token *ret_following)
{
    const char *end = NULL;
    bool closed = false;
    while (next_token(scanner, ret_following) == 0) {
        enum token_kind kind = ret_following->kind;
        if (kind == TOKEN_TEXT && closed) {
            fail(scanner, ret_following->line,
                 "a second statement below the name %s: give it a name of its own",
                 statement->name);
            return NULL;
        } else if (kind == TOKEN_TEXT) {
            end = ret_following->end;
        } else if (!end) {
            fail(scanner, statement->line, "the statement %s is empty", statement->name);
            return NULL;
        } else if (kind == TOKEN_SEMICOLON) {
            closed = true;
        } else {
            return end;
        }
    }
    return NULL;
}

/* Adds the block that `comment` opens; `comment` becomes the token that follows the block. */
static int parse_block(struct catalog *catalog, struct scanner *scanner, const char *file,
                       struct token *comment)
{
    struct statement *statement = parse_name(catalog, scanner, *comment);
    if (!statement) {
        return -1;
    }
    move_to(scanner, scanner->at + (scanner->at < scanner->end));
    const char *sql = scanner->at;
    const char *end = scan_body(scanner, statement, comment);
    if (!end) {
        return -1;
    }
    size_t length = (size_t)(end - sql);
    statement->file = file;
    statement->key = statement_hash(sql, length);
    statement_set_sql(statement, &catalog->arena, sql, length);
    if (statement->block == SQL_ENDS_BLOCK) {
        return fail(scanner, statement->line,
                    "the statement %s would end a transaction, which none may: use tx:commit() or "
                    "tx:rollback()",
                    statement->name);
    }
    add_statement(catalog, statement);
    return 0;
}

static int check_bytes(struct scanner *scanner)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    const char *nul = memchr(scanner->start, '\0', (size_t)(scanner->end - scanner->start));
    if (nul) {
        move_to(scanner, nul);
        return fail(scanner, scanner->line, "there is a NUL byte here: is this a text file?");
    }
    if (looking_at(scanner, byte_order_mark)) {
        scanner->at += sizeof byte_order_mark - 1;
        scanner->start = scanner->at;
    }
    return 0;
}

int catalog_parse(struct catalog *catalog, const char *path, const char *text, size_t length,
                  struct error *err)
{
    struct scanner scanner = {
        .path = path, .start = text, .at = text, .end = text + length, .line = 1, .err = err};
    struct token token;
    if (check_bytes(&scanner) != 0 || next_token(&scanner, &token) != 0) {
        return -1;
    }
    if (token.kind == TOKEN_TEXT || token.kind == TOKEN_SEMICOLON) {
        return fail(&scanner, token.line,
                    "a statement without a name: put a line such as -- name: get_user :one above");
    }
    const char *file = arena_strdup(&catalog->arena, path);
    while (token.kind == TOKEN_NAME) {
        if (parse_block(catalog, &scanner, file, &token) != 0) {
            return -1;
        }
    }
    assert(token.kind == TOKEN_END);
    return 0;
}

bool statement_looks_like_read(const char *sql)
{
    static const char *const words[] = {"select", "values", "table"};
    const char *word = sql_first_word(sql);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t length = strlen(words[i]);
        if (strncasecmp(word, words[i], length) == 0 && !isalnum((unsigned char)word[length])) {
            return true;
        }
    }
    return false;
}
