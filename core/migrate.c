/* Reads the folder of migrations, compares it with what the database has recorded, and applies the
 * rest. Everything found on the way lies in the migrator's arena. */
#include "migrate.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libpq-fe.h>

#include "arena.h"
#include "buffer.h"
#include "config.h"
#include "deadline.h"
#include "error.h"
#include "log.h"

/* The key of the advisory lock: the bytes of "moonpool" as a number. */
#define LOCK_KEY "7885643992672464748"

enum { FEWEST_DIGITS = 4, MOST_DIGITS = 9, READ_BYTES = 64 * 1024 };

struct migration {
    int version;
    const char *name; /* "0001_users.sql" */
    const char *path; /* "sql/migrations/0001_users.sql" */
    const char *text; /* NUL-terminated */
    size_t length;
    const char *checksum; /* hex */
};

struct migrator {
    const struct config *config; /* borrowed */
    struct error *err;           /* borrowed */
    PGconn *pg;                  /* owned */
    const char *folder;
    const char *subject; /* what an error is about: the file being applied, or the database */
    struct arena arena;
    struct migration *files; /* sorted by version */
    size_t count;
    struct migration *applied; /* sorted by version; without text */
    size_t applied_count;
    const char *table; /* qualified, since a file may change the search_path */
};

/* ---- the folder ---- */

static int cannot_read(struct migrator *migrator, const char *path)
{
    return error_set(migrator->err, ERROR_SCRIPT, "%s: cannot be read: %s", path, strerror(errno));
}

/* The number in front of a well-formed "NNNN_name.sql", else -1. */
static int parse_version(const char *name)
{
    static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t digits = strspn(name, "0123456789");
    if (digits < FEWEST_DIGITS || digits > MOST_DIGITS || name[digits] != '_') {
        return -1;
    }
    size_t letters = strspn(name + digits + 1, word);
    bool good = letters > 0 && strcmp(name + digits + 1 + letters, ".sql") == 0;
    return good ? (int)strtol(name, NULL, 10) : -1;
}

static struct migration *append(struct arena *arena, struct migration **array, size_t *count)
{
    /* Doubled whenever the count is a power of two. */
    if ((*count & (*count - 1)) == 0) {
        struct migration *grown = arena_alloc(arena, (*count ? *count * 2 : 1) * sizeof *grown);
        if (*count) {
            memcpy(grown, *array, *count * sizeof *grown);
        }
        *array = grown;
    }
    struct migration *added = &(*array)[(*count)++];
    memset(added, 0, sizeof *added);
    return added;
}

static int add_file(struct migrator *migrator, const char *name)
{
    size_t length = strlen(name);
    if (name[0] == '.' || name[length - 1] == '~') {
        return 0; /* Editors and file managers leave these behind. */
    }
    const char *path = arena_printf(&migrator->arena, "%s/%s", migrator->folder, name);
    int version = parse_version(name);
    if (version < 0) {
        return error_set(migrator->err, ERROR_SCRIPT,
                         "%s: not the name of a migration: write NNNN_name.sql, such as "
                         "0003_add_index.sql",
                         path);
    }
    struct migration *file = append(&migrator->arena, &migrator->files, &migrator->count);
    file->version = version;
    file->name = arena_strdup(&migrator->arena, name);
    file->path = path;
    return 0;
}

static int add_files(struct migrator *migrator, DIR *stream)
{
    struct dirent *item;
    while (errno = 0, (item = readdir(stream))) {
        if (add_file(migrator, item->d_name) != 0) {
            return -1;
        }
    }
    return errno ? cannot_read(migrator, migrator->folder) : 0;
}

static int read_bytes(int fd, struct buffer *bytes)
{
    ssize_t got;
    do {
        got = read(fd, buffer_reserve(bytes, READ_BYTES), READ_BYTES);
        if (got < 0 && errno != EINTR) {
            return -1;
        }
        bytes->length += got > 0 ? (size_t)got : 0;
    } while (got != 0);
    return 0;
}

static int read_file(struct migrator *migrator, struct migration *file)
{
    struct buffer bytes;
    buffer_init(&bytes);
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 || read_bytes(fd, &bytes) != 0 ? cannot_read(migrator, file->path) : 0;
    if (fd >= 0) {
        close(fd);
    }
    if (result == 0 && bytes.length && memchr(bytes.data, '\0', bytes.length)) {
        result =
            error_set(migrator->err, ERROR_SCRIPT, "%s: there is a NUL byte in it", file->path);
    }
    if (result == 0) {
        buffer_append_char(&bytes, '\0');
        file->length = bytes.length - 1;
        file->text = arena_strndup(&migrator->arena, bytes.data, file->length);
    }
    buffer_finish(&bytes);
    return result;
}

static int compare_versions(const void *a, const void *b)
{
    const struct migration *left = a, *right = b;
    if (left->version != right->version) {
        return left->version < right->version ? -1 : 1;
    }
    return strcmp(left->name, right->name);
}

static int read_files(struct migrator *migrator)
{
    struct migration *files = migrator->files;
    if (migrator->count) {
        qsort(files, migrator->count, sizeof *files, compare_versions);
    }
    for (size_t i = 0; i < migrator->count; i++) {
        if (i > 0 && files[i].version == files[i - 1].version) {
            return error_set(migrator->err, ERROR_SCRIPT,
                             "%s: has the same number as %s: give one of them another",
                             files[i].path, files[i - 1].name);
        }
        if (read_file(migrator, &files[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

/* "sql/migrations", however many slashes `sql` ends with. */
static const char *folder_of(struct arena *arena, const char *sql)
{
    size_t length = strlen(sql);
    while (length > 0 && sql[length - 1] == '/') {
        length--;
    }
    return arena_printf(arena, "%.*s/migrations", (int)length, sql);
}

static int read_folder(struct migrator *migrator)
{
    DIR *stream = opendir(migrator->folder);
    if (!stream) {
        return cannot_read(migrator, migrator->folder);
    }
    int result = add_files(migrator, stream);
    closedir(stream);
    return result == 0 ? read_files(migrator) : -1;
}

/* ---- the database ---- */

/* Into `text`: what libpq says about the connection, without the newline at its end. */
static const char *connection_message(const PGconn *pg, char *text, size_t size)
{
    snprintf(text, size, "%s", PQerrorMessage(pg));
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* Fills the error from a failed result: "subject: message", then DETAIL, HINT and CONTEXT. */
static int sql_failed(struct migrator *migrator, const char *subject, const PGresult *result)
{
    static const struct {
        int field;
        const char *title;
    } extras[] = {
        {PG_DIAG_MESSAGE_DETAIL, "DETAIL"},
        {PG_DIAG_MESSAGE_HINT, "HINT"},
        {PG_DIAG_CONTEXT, "CONTEXT"},
    };
    struct error *err = migrator->err;
    char text[256];
    const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    if (!sqlstate || !message) {
        return error_set(err, ERROR_UNAVAILABLE, "%s: %s", subject,
                         connection_message(migrator->pg, text, sizeof text));
    }
    error_set(err, error_from_sqlstate(sqlstate), "%s: %s", subject, message);
    snprintf(err->sqlstate, sizeof err->sqlstate, "%s", sqlstate);
    for (size_t i = 0; i < sizeof extras / sizeof *extras; i++) {
        const char *value = PQresultErrorField(result, extras[i].field);
        size_t used = strlen(err->message);
        if (value) {
            snprintf(err->message + used, sizeof err->message - used, "\n%s: %s", extras[i].title,
                     value);
        }
    }
    return -1;
}

/* Hands `result` through if it is good; else clears it and fills the error. */
static PGresult *checked(struct migrator *migrator, PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK) {
        return result;
    }
    sql_failed(migrator, migrator->subject, result);
    PQclear(result);
    return NULL;
}

static PGresult *query(struct migrator *migrator, const char *sql)
{
    return checked(migrator, PQexec(migrator->pg, sql));
}

static int run(struct migrator *migrator, const char *sql)
{
    PGresult *result = query(migrator, sql);
    PQclear(result);
    return result ? 0 : -1;
}

/* The one value that `sql` selects, in the arena; NULL on failure. */
static const char *query_value(struct migrator *migrator, const char *sql)
{
    PGresult *result = query(migrator, sql);
    const char *value = result ? arena_strdup(&migrator->arena, PQgetvalue(result, 0, 0)) : NULL;
    PQclear(result);
    return value;
}

static void log_notice(void *context, const PGresult *result)
{
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    log_event(LOG_WARN, "the database warns", "%s", message ? message : "");
}

/* libpq's message about a malformed connection string quotes it, password and all: it is not shown.
 * A string that is neither a URL nor has an '=' names a database. */
static bool is_malformed(const char *database)
{
    if (!strchr(database, '=') && !strstr(database, "://")) {
        return false;
    }
    PQconninfoOption *options = PQconninfoParse(database, NULL);
    bool malformed = options == NULL;
    PQconninfoFree(options);
    return malformed;
}

static int connect_to_database(struct migrator *migrator)
{
    const struct config *config = migrator->config;
    char timeout[32], redacted[256], text[320];
    uint64_t seconds = (config->connect_timeout + SECONDS(1) - 1) / SECONDS(1);
    snprintf(timeout, sizeof timeout, "%" PRIu64, seconds);
    /* What stands in front of "dbname" may be overridden by the string. */
    const char *keywords[] = {"connect_timeout", "fallback_application_name", "dbname",
                              "client_encoding", NULL};
    const char *values[] = {timeout, "moonpool migrate", config->database, "UTF8", NULL};
    if (is_malformed(config->database)) {
        return error_set(migrator->err, ERROR_UNAVAILABLE,
                         "the database is not given as a valid URL or connection string");
    }
    migrator->pg = PQconnectdbParams(keywords, values, 1);
    if (PQstatus(migrator->pg) != CONNECTION_OK) {
        config_redact(config->database, redacted, sizeof redacted);
        return error_set(migrator->err, ERROR_UNAVAILABLE, "cannot connect to the database %s: %s",
                         redacted, connection_message(migrator->pg, text, sizeof text));
    }
    PQsetNoticeReceiver(migrator->pg, log_notice, NULL);
    return 0;
}

/* Undoes what a file may have set, so that its record can be written and the next begins alike. */
static int reset_session(struct migrator *migrator)
{
    return run(migrator, "reset session authorization; reset all; set statement_timeout = 0;"
                         "set lock_timeout = 0; set client_min_messages = warning");
}

/* The lock lives as long as the session. */
static int lock_schema(struct migrator *migrator)
{
    const char *locked = query_value(migrator, "select pg_try_advisory_lock(" LOCK_KEY ")");
    if (!locked) {
        return -1;
    }
    if (locked[0] == 't') {
        return 0;
    }
    log_event(LOG_INFO, "waiting for another migration to end", "%s", "");
    log_flush();
    return run(migrator, "select pg_advisory_lock(" LOCK_KEY ")");
}

static int open_table(struct migrator *migrator)
{
    if (run(migrator, "create table if not exists moonpool_migrations ("
                      "version integer primary key, name text not null, checksum text not null,"
                      "applied_at timestamptz not null default current_timestamp)") != 0) {
        return -1;
    }
    migrator->table =
        query_value(migrator, "select format('%I.%I', current_schema(), 'moonpool_migrations')");
    return migrator->table ? 0 : -1;
}

static int load_applied(struct migrator *migrator)
{
    struct arena *arena = &migrator->arena;
    PGresult *rows =
        query(migrator, arena_printf(arena, "select version, name, checksum from %s order by 1",
                                     migrator->table));
    if (!rows) {
        return -1;
    }
    for (int i = 0; i < PQntuples(rows); i++) {
        struct migration *applied = append(arena, &migrator->applied, &migrator->applied_count);
        applied->version = (int)strtol(PQgetvalue(rows, i, 0), NULL, 10);
        applied->name = arena_strdup(arena, PQgetvalue(rows, i, 1));
        applied->checksum = arena_strdup(arena, PQgetvalue(rows, i, 2));
    }
    PQclear(rows);
    return 0;
}

static int load_checksum(struct migrator *migrator, struct migration *file)
{
    const char *values[] = {file->text};
    const int lengths[] = {(int)file->length}, formats[] = {1};
    PGresult *result =
        checked(migrator, PQexecParams(migrator->pg, "select encode(sha256($1::bytea), 'hex')", 1,
                                       NULL, values, lengths, formats, 0));
    if (!result) {
        return -1;
    }
    file->checksum = arena_strdup(&migrator->arena, PQgetvalue(result, 0, 0));
    PQclear(result);
    return 0;
}

/* ---- what has been done against what there is ---- */

static struct migration *find_version(struct migration *array, size_t count, int version)
{
    for (size_t i = 0; i < count; i++) {
        if (array[i].version == version) {
            return &array[i];
        }
    }
    return NULL;
}

static bool is_applied(const struct migrator *migrator, const struct migration *file)
{
    return find_version(migrator->applied, migrator->applied_count, file->version) != NULL;
}

/* What was applied must still be there, byte for byte. */
static int check_applied(struct migrator *migrator, const struct migration *applied)
{
    const struct migration *file = find_version(migrator->files, migrator->count, applied->version);
    if (!file) {
        return error_set(migrator->err, ERROR_SCRIPT,
                         "%s/%s: was applied to this database but is gone: put it back",
                         migrator->folder, applied->name);
    }
    if (strcmp(file->checksum, applied->checksum) != 0) {
        return error_set(migrator->err, ERROR_SCRIPT,
                         "%s: has changed since it was applied: put it back and write the change "
                         "as a new migration\nchecksum then: %s\nchecksum now:  %s",
                         file->path, applied->checksum, file->checksum);
    }
    return 0;
}

/* What is new must come after all that was applied. */
static int check_order(struct migrator *migrator, const struct migration *file)
{
    if (migrator->applied_count == 0 || is_applied(migrator, file)) {
        return 0;
    }
    const struct migration *last = &migrator->applied[migrator->applied_count - 1];
    if (file->version > last->version) {
        return 0;
    }
    return error_set(migrator->err, ERROR_SCRIPT,
                     "%s: is out of order: %s has been applied already; give it a number above %d",
                     file->path, last->name, last->version);
}

static int compare(struct migrator *migrator)
{
    for (size_t i = 0; i < migrator->count; i++) {
        if (load_checksum(migrator, &migrator->files[i]) != 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < migrator->applied_count; i++) {
        if (check_applied(migrator, &migrator->applied[i]) != 0) {
            return -1;
        }
    }
    for (size_t i = 0; i < migrator->count; i++) {
        if (check_order(migrator, &migrator->files[i]) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ---- applying ---- */

/* The 1-based line of the `position`-th character, counted from 1, of UTF-8 text. */
static int line_of(const char *text, long position)
{
    int line = 1;
    for (; *text && position > 0; text++) {
        bool continues = ((unsigned char)*text & 0xc0) == 0x80;
        position -= !continues;
        line += *text == '\n' && position > 0;
    }
    return line;
}

static int file_failed(struct migrator *migrator, const struct migration *file, const char *text,
                       const PGresult *result)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT) {
        return error_set(migrator->err, ERROR_SCRIPT,
                         "%s: copy from stdin or to stdout cannot work in a migration", file->path);
    }
    const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
    if (!position) {
        return sql_failed(migrator, file->path, result);
    }
    int line = line_of(text, strtol(position, NULL, 10));
    const char *subject = arena_printf(&migrator->arena, "%s:%d", file->path, line);
    return sql_failed(migrator, subject, result);
}

static int run_file(struct migrator *migrator, const struct migration *file)
{
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    bool marked = strncmp(file->text, byte_order_mark, sizeof byte_order_mark - 1) == 0;
    const char *text = file->text + (marked ? sizeof byte_order_mark - 1 : 0);
    PGresult *result = PQexec(migrator->pg, text);
    ExecStatusType status = PQresultStatus(result);
    bool good =
        status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK || status == PGRES_EMPTY_QUERY;
    int outcome = good ? 0 : file_failed(migrator, file, text, result);
    PQclear(result);
    if (outcome == 0 && PQtransactionStatus(migrator->pg) != PQTRANS_INTRANS) {
        return error_set(migrator->err, ERROR_SCRIPT,
                         "%s: ends the transaction that it runs in: take out its commit or "
                         "rollback, and look at what it has done",
                         file->path);
    }
    return outcome;
}

static int record(struct migrator *migrator, const struct migration *file)
{
    char version[16];
    snprintf(version, sizeof version, "%d", file->version);
    const char *values[] = {version, file->name, file->checksum};
    const char *sql = arena_printf(
        &migrator->arena, "insert into %s (version, name, checksum) values ($1::integer, $2, $3)",
        migrator->table);
    PGresult *result =
        checked(migrator, PQexecParams(migrator->pg, sql, 3, NULL, values, NULL, NULL, 0));
    PQclear(result);
    return result ? 0 : -1;
}

/* A commit of a failed transaction succeeds too, with another tag. */
static int commit(struct migrator *migrator, const struct migration *file)
{
    PGresult *result = query(migrator, "commit");
    if (!result) {
        return -1;
    }
    bool committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
    PQclear(result);
    return committed ? 0
                     : error_set(migrator->err, ERROR_DATABASE, "%s: was rolled back", file->path);
}

static int apply(struct migrator *migrator, const struct migration *file)
{
    uint64_t start = clock_now();
    migrator->subject = file->path;
    if (run(migrator, "begin") != 0 || run_file(migrator, file) != 0 ||
        reset_session(migrator) != 0 || record(migrator, file) != 0 ||
        commit(migrator, file) != 0) {
        return -1;
    }
    printf("applied %s (%" PRIu64 " ms)\n", file->name, (clock_now() - start) / MILLISECONDS(1));
    fflush(stdout);
    return 0;
}

static int apply_missing(struct migrator *migrator)
{
    size_t applied = 0;
    for (size_t i = 0; i < migrator->count; i++) {
        if (is_applied(migrator, &migrator->files[i])) {
            continue;
        }
        if (apply(migrator, &migrator->files[i]) != 0) {
            return -1;
        }
        applied++;
    }
    if (applied == 0) {
        printf("the schema is up to date: %zu migration%s\n", migrator->count,
               migrator->count == 1 ? "" : "s");
    }
    return 0;
}

int migrate_run(const struct config *config, struct error *err)
{
    struct migrator migrator = {.config = config, .err = err, .subject = "the database"};
    arena_init(&migrator.arena);
    migrator.folder = folder_of(&migrator.arena, config->sql);
    bool good = read_folder(&migrator) == 0 && connect_to_database(&migrator) == 0 &&
                reset_session(&migrator) == 0 && lock_schema(&migrator) == 0 &&
                open_table(&migrator) == 0 && load_applied(&migrator) == 0 &&
                compare(&migrator) == 0 && apply_missing(&migrator) == 0;
    PQfinish(migrator.pg);
    arena_finish(&migrator.arena);
    log_flush();
    return good ? 0 : -1;
}
