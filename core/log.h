/* The log: one line per event on stderr, an event in lower case and then key=value pairs, or JSON
 * objects with the same keys. Lines are gathered in memory and written by log_flush(), which the
 * worker calls once per tick; errors are written at once. Not for use from other threads. */
#ifndef MOONPOOL_LOG_H
#define MOONPOOL_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_TEXT, LOG_JSON };

/* Process-wide: what is written, how, and which process writes ("master", "worker-1"). */
void log_configure(enum log_level level, enum log_format format);
void log_set_process(const char *name);
bool log_enabled(enum log_level level);

/* A line being built. Between log_begin() and log_end() any number of fields; a value is quoted
 * and escaped as the format needs it, and cut where it is very long. A line below the level costs
 * nothing: all calls ignore it. */
struct log_line {
    bool on;
    bool urgent;
};

struct log_line log_begin(enum log_level level, const char *event);
void log_text(struct log_line *line, const char *key, const char *value);
void log_bytes(struct log_line *line, const char *key, const char *value, size_t length);
void log_int(struct log_line *line, const char *key, int64_t value);
/* A duration in microseconds, printed in milliseconds; `key` says so ("duration_ms"). */
void log_ms(struct log_line *line, const char *key, uint64_t microseconds);
void log_end(struct log_line *line);

/* One whole event; the formatted rest becomes the field "message". */
void log_event(enum log_level level, const char *event, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

void log_flush(void);

#endif
