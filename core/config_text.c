/* Texts that configuration is made of: databases, which hold passwords, and addresses. */
#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "buffer.h"
#include "error.h"

/* The name of a connection parameter whose value must not be shown: every password, and every name
 * that is percent-encoded, because it could become one. */
static bool is_secret(const char *name, size_t length)
{
    static const char word[] = "password";
    if (memchr(name, '%', length)) {
        return true;
    }
    for (size_t i = 0; i + strlen(word) <= length; i++) {
        if (strncasecmp(name + i, word, strlen(word)) == 0) {
            return true;
        }
    }
    return false;
}

/* The part of a URL between "://" and the query. A password may hold characters that it should not:
 * everything from the first colon to the last @ is taken for it. */
static const char *redact_authority(const char *text, struct buffer *out)
{
    const char *stop = text + strcspn(text, "@/");
    const char *end = *stop == '@' ? stop : text;
    end += strcspn(end, "?");
    const char *at = memrchr(text, '@', (size_t)(end - text));
    size_t shown = at ? strcspn(text, ":?@") : 0;
    if (at && text + shown < at) {
        buffer_append(out, text, shown + 1);
        buffer_append_text(out, "***");
        text = at;
    }
    buffer_append(out, text, (size_t)(end - text));
    return end;
}

/* "?name=value&name=value"; a part that is no such pair is hidden. */
static void redact_query(const char *text, struct buffer *out)
{
    while (*text) {
        size_t name = strcspn(text + 1, "=&") + 1;
        size_t length = strcspn(text + 1, "&") + 1;
        bool pair = name < length;
        if (pair && !is_secret(text + 1, name - 1)) {
            buffer_append(out, text, length);
        } else {
            buffer_append(out, text, pair ? name + 1 : 1);
            buffer_append_text(out, "***");
        }
        text += length;
    }
}

static size_t quoted_length(const char *text)
{
    size_t i = 1;
    while (text[i] && text[i] != '\'') {
        i += text[i] == '\\' && text[i + 1] ? 2 : 1;
    }
    return text[i] ? i + 1 : i;
}

static size_t plain_length(const char *text)
{
    size_t i = 0;
    while (text[i] && !isspace((unsigned char)text[i])) {
        i += text[i] == '\\' && text[i + 1] ? 2 : 1;
    }
    return i;
}

static size_t spaces(const char *text)
{
    return strspn(text, " \t\n\r\f\v");
}

/* "name = value name='value'"; behind something that is no such pair, all is hidden. */
static void redact_conninfo(const char *text, struct buffer *out)
{
    while (*(text += spaces(text))) {
        size_t name = strcspn(text, "= \t\n\r\f\v");
        const char *equals = text + name + spaces(text + name);
        if (*equals != '=') {
            buffer_append_text(out, "***");
            return;
        }
        const char *value = equals + 1 + spaces(equals + 1);
        size_t length = *value == '\'' ? quoted_length(value) : plain_length(value);
        buffer_append(out, text, name);
        buffer_append_char(out, '=');
        if (is_secret(text, name)) {
            buffer_append_text(out, "***");
        } else {
            buffer_append(out, value, length);
        }
        text = value + length;
        buffer_append_text(out, text[spaces(text)] ? " " : "");
    }
}

void config_redact(const char *database, char *text, size_t size)
{
    struct buffer out;
    buffer_init(&out);
    const char *scheme = strstr(database, "://");
    if (strncmp(database, "postgres", 8) == 0 && scheme) {
        buffer_append(&out, database, (size_t)(scheme + 3 - database));
        redact_query(redact_authority(scheme + 3, &out), &out);
    } else if (strchr(database, '=')) {
        redact_conninfo(database, &out);
    } else {
        buffer_append_text(&out, database); /* the name of a database, or nothing */
    }
    snprintf(text, size, "%.*s", (int)out.length, out.data ? out.data : "");
    buffer_finish(&out);
}

static bool is_port(const char *text)
{
    size_t digits = strspn(text, "0123456789");
    return digits > 0 && digits <= 5 && text[digits] == '\0' && atoi(text) <= 65535;
}

/* The colon in front of the port; NULL if there is none or more than one without brackets. */
static const char *find_port_colon(const char *address)
{
    const char *from = address[0] == '[' ? strchr(address, ']') : address;
    const char *colon = from ? strchr(from, ':') : NULL;
    if (!colon || strchr(colon + 1, ':') || (address[0] == '[' && colon != from + 1)) {
        return NULL;
    }
    return colon;
}

int config_split_address(const char *address, char *host, size_t host_size, char *port,
                         size_t port_size, struct error *err)
{
    const char *colon = find_port_colon(address);
    bool brackets = address[0] == '[';
    const char *name = address + brackets;
    size_t length = colon ? (size_t)(colon - brackets - name) : 0;
    if (!colon || strcspn(name, "[]") < length || !is_port(colon + 1) || length >= host_size ||
        strlen(colon + 1) >= port_size) {
        return error_set(err, ERROR_INVALID, "\"%s\" is not host:port, [host]:port or :port",
                         address);
    }
    memcpy(host, name, length);
    host[length] = '\0';
    memcpy(port, colon + 1, strlen(colon + 1) + 1);
    return 0;
}
