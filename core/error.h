/* What can go wrong, and what a client is told about it (RFC 9457).
 * A function that can fail takes a `struct error *err` last, returns -1 and fills it. */
#ifndef MOONPOOL_ERROR_H
#define MOONPOOL_ERROR_H

#include <stdbool.h>
#include <stddef.h>

/* X(NAME, slug of the problem type, HTTP status, may be retried, title) */
#define ERROR_TABLE(X)                                                                             \
    X(NONE, "none", 200, false, "No error")                                                        \
    X(MALFORMED, "malformed", 400, false, "The request is malformed")                              \
    X(NOT_FOUND, "not-found", 404, false, "There is nothing at this path")                         \
    X(METHOD, "method-not-allowed", 405, false, "The method is not allowed here")                  \
    X(REQUEST_TIMEOUT, "request-timeout", 408, true, "The request did not arrive in time")         \
    X(CONFLICT, "conflict", 409, false, "The request conflicts with what is stored")               \
    X(BODY_TOO_LARGE, "body-too-large", 413, false, "The body is too large")                       \
    X(URI_TOO_LONG, "uri-too-long", 414, false, "The URI is too long")                             \
    X(MEDIA_TYPE, "unsupported-media-type", 415, false, "The media type is not supported")         \
    X(EXPECTATION, "expectation-failed", 417, false, "The expectation cannot be met")              \
    X(INVALID, "invalid", 422, false, "The request is well-formed but not valid")                  \
    X(HEADERS_TOO_LARGE, "headers-too-large", 431, false, "The headers are too large")             \
    X(CLIENT_GONE, "client-gone", 499, false, "The client went away")                              \
    X(SCRIPT, "script-error", 500, false, "The script failed")                                     \
    X(DATABASE, "database-error", 500, false, "The database refused the statement")                \
    X(OUTCOME_UNKNOWN, "outcome-unknown", 500, false, "It is not known whether this was done")     \
    X(MEMORY, "out-of-memory", 500, false, "The request needs more memory than it may have")       \
    X(UNAVAILABLE, "database-unavailable", 503, true, "The database is not available")             \
    X(POOL_TIMEOUT, "pool-timeout", 503, true, "No database connection became free in time")       \
    X(QUEUE_TIMEOUT, "queue-timeout", 503, true, "The turn of this request did not come in time")  \
    X(OVERLOADED, "overloaded", 503, true, "The server is overloaded")                             \
    X(SERIALIZATION, "serialization", 503, true, "Concurrent transactions got in the way")         \
    X(TIMEOUT, "transaction-timeout", 503, true, "The transaction took longer than it may")        \
    X(SHUTDOWN, "shutting-down", 503, true, "The server is shutting down")                         \
    X(REFUSED, "refused", 400, false, "The application refused the request")                       \
    X(DEADLINE, "deadline-exceeded", 504, false, "The deadline passed before the work was done")   \
    X(VERSION, "http-version-not-supported", 505, false, "The version of HTTP is not supported")

enum error_code {
#define ERROR_ENUM(name, slug, status, retry, title) ERROR_##name,
    ERROR_TABLE(ERROR_ENUM)
#undef ERROR_ENUM
};

struct error_kind {
    const char *slug;
    const char *title;
    int status;
    bool retry; /* 503-like: the answer carries Retry-After */
};

struct error {
    enum error_code code;
    int status;          /* 0, or what a script said instead of its kind's */
    char message[512];   /* a sentence for the log and, where it is safe to show, the client */
    char sqlstate[6];    /* five characters from PostgreSQL, or empty */
    char constraint[64]; /* name of the violated constraint, or empty */
    char where[128];     /* file:line that caused it, or empty */
    char statement[64];  /* name of the statement that failed, or empty */
    size_t item;         /* 1-based index of the failed statement in its batch, 0 if none */
    size_t row;          /* 1-based row of copy_from or of a :bulk statement, 0 if none is known */
};

/* The row of the table for `code`. */
const struct error_kind *error_kind(enum error_code code);

/* Fills `err` with a code and a formatted message, clears the rest; always returns -1, so that
 * `return error_set(err, ...)` is the way out. A message that does not fit is cut. */
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints it for whoever started the program, on standard error. */
void error_print(const struct error *err);

/* The code whose kind has this slug; ERROR_SCRIPT if there is none. */
enum error_code error_from_slug(const char *slug);

/* The code for a status that a script gave: the first kind with it, or ERROR_REFUSED where there is
 * none or the kind speaks of the server's own failures. */
enum error_code error_from_status(int status);

/* The code for a PostgreSQL SQLSTATE of five characters; ERROR_DATABASE for those not listed. */
enum error_code error_from_sqlstate(const char *sqlstate);

/* True if a session on which PostgreSQL said this is of no more use. A lack of space or memory
 * (class 53) the next session would meet too, and a refused write (25006) may be the doing of one
 * transaction. */
bool error_ends_session(const struct error *err);

#endif
