/* Builds log lines in one buffer of the process. */
#include "log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "buffer.h"

/* Lines are written at the latest when this much waits; a value longer than that is cut. */
enum { FLUSH_BYTES = 32 * 1024, MOST_VALUE = 32 * 1024 };

static const char *const level_names[] = {"debug", "info", "warn", "error"};

static enum log_level lowest = LOG_INFO;
static enum log_format style = LOG_TEXT;
static char process[32] = "main";
static struct buffer pending;

void log_configure(enum log_level level, enum log_format format)
{
    lowest = level;
    style = format;
}

void log_set_process(const char *name)
{
    snprintf(process, sizeof process, "%s", name);
}

bool log_enabled(enum log_level level)
{
    return level >= lowest;
}

static void append_escaped(const char *value, size_t length)
{
    buffer_append_char(&pending, '"');
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c == '"' || c == '\\') {
            buffer_append_char(&pending, '\\');
            buffer_append_char(&pending, (char)c);
        } else if (c == '\n') {
            buffer_append_text(&pending, "\\n");
        } else if (c < 0x20 || c == 0x7f) {
            buffer_printf(&pending, "\\u%04x", c);
        } else {
            buffer_append_char(&pending, (char)c);
        }
    }
    buffer_append_char(&pending, '"');
}

static bool is_plain(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c <= ' ' || c == '"' || c == '=' || c == '\\' || c >= 0x7f) {
            return false;
        }
    }
    return length > 0;
}

static void append_key(const char *key)
{
    if (style == LOG_JSON) {
        buffer_printf(&pending, ",\"%s\":", key);
    } else {
        buffer_printf(&pending, " %s=", key);
    }
}

static void append_time(void)
{
    struct timespec now;
    struct tm utc;
    char text[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    buffer_printf(&pending, "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

struct log_line log_begin(enum log_level level, const char *event)
{
    struct log_line line = {.on = level >= lowest, .urgent = level >= LOG_WARN};
    if (!line.on) {
        return line;
    }
    if (style == LOG_JSON) {
        buffer_append_text(&pending, "{\"time\":\"");
        append_time();
        buffer_printf(&pending, "\",\"level\":\"%s\",\"process\":\"%s\",\"event\":\"%s\"",
                      level_names[level], process, event);
    } else {
        append_time();
        buffer_printf(&pending, " %s %s: %s", level_names[level], process, event);
    }
    return line;
}

/* `length`, or less, so that whole UTF-8 characters are left. */
static size_t cut(const char *value, size_t length)
{
    if (length <= MOST_VALUE) {
        return length;
    }
    size_t shown = MOST_VALUE;
    while (shown > 0 && (value[shown] & 0xc0) == 0x80) {
        shown--;
    }
    return shown;
}

void log_bytes(struct log_line *line, const char *key, const char *value, size_t length)
{
    if (!line->on) {
        return;
    }
    size_t shown = cut(value, length);
    append_key(key);
    if (style == LOG_TEXT && is_plain(value, shown)) {
        buffer_append(&pending, value, shown);
    } else {
        append_escaped(value, shown);
    }
    if (shown < length) {
        log_int(line, "cut_from", (int64_t)length);
    }
}

void log_text(struct log_line *line, const char *key, const char *value)
{
    log_bytes(line, key, value, strlen(value));
}

void log_int(struct log_line *line, const char *key, int64_t value)
{
    if (line->on) {
        append_key(key);
        buffer_printf(&pending, "%" PRId64, value);
    }
}

void log_ms(struct log_line *line, const char *key, uint64_t microseconds)
{
    if (line->on) {
        append_key(key);
        buffer_printf(&pending, "%" PRIu64 ".%03" PRIu64, microseconds / 1000, microseconds % 1000);
    }
}

void log_end(struct log_line *line)
{
    if (!line->on) {
        return;
    }
    buffer_append_text(&pending, style == LOG_JSON ? "}\n" : "\n");
    if (line->urgent || pending.length >= FLUSH_BYTES) {
        log_flush();
    }
}

void log_event(enum log_level level, const char *event, const char *format, ...)
{
    char message[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    struct log_line line = log_begin(level, event);
    if (message[0]) {
        log_text(&line, "message", message);
    }
    log_end(&line);
}

void log_flush(void)
{
    size_t written = 0;
    while (written < pending.length) {
        ssize_t n = write(STDERR_FILENO, pending.data + written, pending.length - written);
        if (n < 0 && errno != EINTR) {
            break; /* Nobody reads the log any more; serving goes on without. */
        }
        written += n > 0 ? (size_t)n : 0;
    }
    pending.length = 0;
}
