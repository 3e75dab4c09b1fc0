/* The request of an exchange: its target, headers and body as they arrive, and whether they may go
 * to the application. */
#include "http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <microhttpd.h>

#include "arena.h"
#include "buffer.h"
#include "deadline.h"
#include "error.h"
#include "http_parts.h"
#include "list.h"
#include "request.h"

enum {
    TARGET_LIMIT = 8 * 1024,
    ID_LIMIT = 128,
    ID_COUNTER = 12,  /* digits */
    DRAIN_FACTOR = 4, /* a refused body of up to so many times the limit is still read */
};

static void write_hex(char *text, uint64_t value, int digits)
{
    for (int i = digits - 1; i >= 0; i--) {
        text[i] = "0123456789abcdef"[value & 15];
        value >>= 4;
    }
}

static bool is_sane_id(const char *id)
{
    size_t length = strspn(id, "0123456789abcdefghijklmnopqrstuvwxyz._-"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return length > 0 && length <= ID_LIMIT && id[length] == '\0';
}

static const char *make_id(struct http *http, struct arena *arena)
{
    char *id = arena_bytes(arena, ID_PREFIX + ID_COUNTER + 1);
    memcpy(id, http->id_prefix, ID_PREFIX);
    write_hex(id + ID_PREFIX, http->id_counter++, ID_COUNTER);
    id[ID_PREFIX + ID_COUNTER] = '\0';
    return id;
}

/* "http://host/path" is as good as "/path" (RFC 9112, section 3.2.2). */
static const char *skip_authority(const char *target)
{
    if (strncasecmp(target, "http://", 7) != 0) {
        return target;
    }
    const char *path = strchr(target + 7, '/');
    return path ? path : "/";
}

static void split_target(struct request *request, const char *target)
{
    char *path = arena_strdup(&request->arena, skip_authority(target));
    char *mark = strchr(path, '?');
    if (mark) {
        *mark = '\0';
    }
    request->path = path;
    request->query = mark ? mark + 1 : "";
}

/* The end of a target without blanks and control characters, else NULL. MHD takes all between the
 * method and the last blank of the line; others may take less for the target. */
static const char *end_of_target(const char *target)
{
    while ((unsigned char)*target > 0x20 && *target != 0x7f) {
        target++;
    }
    return *target ? NULL : target;
}

/* The request line is there: MHD's earliest call for a request. */
void *http_on_target(void *context, const char *target, struct MHD_Connection *connection)
{
    struct http *http = context;
    struct client *client =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    struct exchange *exchange = exchange_create(http);
    struct request *request = exchange->request;
    exchange->client = client;
    exchange->connection = connection;
    exchange->target_end = end_of_target(target);
    client->exchange = exchange;
    list_prepend(&http->arriving, &exchange->link);
    request->edge = exchange;
    request->on_done = exchange_on_done;
    request->method = "-"; /* MHD tells it with the headers; until then only the log sees this */
    request->client = client->address;
    request->id = make_id(http, &request->arena);
    request->received = clock_now();
    split_target(request, target);
    client_set_due(client, request->received + http->options.deadline);
    return exchange;
}

/* What frames the request, gathered while the headers are collected. */
struct framing {
    struct request *request;
    size_t room;
    unsigned lengths;
    unsigned encodings;
    unsigned hosts;
    bool chunked;
    bool malformed;
    const char *length; /* the value of Content-Length */
};

/* MHD takes a lone CR and other control characters for text; somebody else may take them for the
 * end of the line (RFC 9110, section 5.5). */
static bool is_field_value(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

static enum MHD_Result collect_header(void *context, enum MHD_ValueKind kind, const char *name,
                                      size_t name_length, const char *value, size_t value_length)
{
    struct framing *framing = context;
    struct request *request = framing->request;
    if (!value) {
        value = "";
        value_length = 0;
    }
    framing->malformed |= !http_is_token(name) || !is_field_value(value, value_length);
    if (strcasecmp(name, "Content-Length") == 0) {
        framing->lengths++;
        framing->length = value;
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        framing->encodings++;
        framing->chunked = strcasecmp(value, "chunked") == 0;
    } else if (strcasecmp(name, "Host") == 0) {
        framing->hosts++;
    }
    if (request->header_count < framing->room) {
        request->headers[request->header_count++] = (struct header){name, value};
    }
    return MHD_YES;
}

static void collect_headers(struct exchange *exchange, struct framing *framing)
{
    struct request *request = exchange->request;
    int count = MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, NULL, NULL);
    framing->request = request;
    framing->room = count > 0 ? (size_t)count : 0;
    request->headers = arena_alloc(&request->arena, (framing->room + 1) * sizeof(struct header));
    MHD_get_connection_values_n(exchange->connection, MHD_HEADER_KIND, collect_header, framing);
    request->has_body = framing->lengths || framing->encodings;
    const char *id = request_header(request, "X-Request-Id");
    if (id && is_sane_id(id)) {
        request->id = id;
    }
}

/* What is wrong with the request line, or NULL. MHD splits it where it lies, so that the version
 * begins one byte behind the target, unless that has a NUL in it. */
static const char *find_line_fault(const struct exchange *exchange, const char *version)
{
    if (!http_is_token(exchange->request->method)) {
        return "the method is malformed";
    }
    if (!exchange->target_end || exchange->target_end + 1 != version) {
        return "the target is malformed";
    }
    return NULL;
}

/* Why the request cannot be told apart from what follows it, or NULL. A proxy in front might see
 * other borders than MHD does, and let a second request slip through inside the first. */
static const char *find_fault(const struct framing *framing, bool http_1_1)
{
    if (framing->malformed) {
        return "a header is malformed";
    }
    if (framing->lengths > 1 || framing->encodings > 1) {
        return "the length of the body is given more than once";
    }
    if (framing->lengths && framing->encodings) {
        return "Content-Length and Transfer-Encoding exclude each other";
    }
    if (framing->encodings && !(framing->chunked && http_1_1)) {
        return "the only transfer encoding is \"chunked\", in HTTP/1.1";
    }
    if (framing->hosts > 1 || (http_1_1 && framing->hosts == 0)) {
        return "exactly one Host header is needed";
    }
    return NULL;
}

/* MHD has refused a length that is not a number. */
static uint64_t announced_length(const struct framing *framing)
{
    return framing->length ? strtoull(framing->length, NULL, 10) : 0;
}

static void fail_too_large(struct exchange *exchange)
{
    char message[64];
    snprintf(message, sizeof message, "the body has more than %zu bytes",
             exchange->request->body_limit);
    exchange_fail(exchange, ERROR_BODY_TOO_LARGE, message);
}

/* The response is filled in if the request is refused. */
static void judge(struct exchange *exchange, const struct framing *framing, const char *version)
{
    struct http *http = exchange->client->http;
    struct request *request = exchange->request;
    const char *fault = find_line_fault(exchange, version);
    if (!fault) {
        fault = find_fault(framing, strcmp(version, "HTTP/1.1") == 0);
    }
    if (fault) {
        exchange->broken = true;
        exchange_fail(exchange, ERROR_MALFORMED, fault);
        return;
    }
    if (strlen(request->path) + strlen(request->query) > TARGET_LIMIT) {
        exchange_fail(exchange, ERROR_URI_TOO_LONG, "the URI has more than 8192 bytes");
        return;
    }
    exchange->known = true;
    if (http->handler.on_headers(http->handler.context, request) == 0 &&
        announced_length(framing) > request->body_limit) {
        fail_too_large(exchange);
    }
}

/* A refused body that is not too large is read and thrown away, since a client that is still
 * sending might not see the answer, and the connection can go on. One that waits for "100 Continue"
 * is answered at once. */
static bool is_worth_reading(const struct exchange *exchange, const struct framing *framing)
{
    const struct request *request = exchange->request;
    return !exchange->broken && !request_header(request, "Expect") &&
           announced_length(framing) / DRAIN_FACTOR <= request->body_limit;
}

bool exchange_begin(struct exchange *exchange, const char *method, const char *version)
{
    struct http *http = exchange->client->http;
    struct request *request = exchange->request;
    struct framing framing = {.length = NULL};
    request->method = method;
    request->received = clock_now();
    request->deadline = request->received + http->options.deadline;
    request->body_limit = http->options.body_limit;
    collect_headers(exchange, &framing);
    judge(exchange, &framing, version);
    exchange_enter(exchange, STAGE_BODY);
    if (request->response.status && request->has_body && !is_worth_reading(exchange, &framing)) {
        /* MHD closes the connection after an answer that is given in this call. */
        exchange_enter(exchange, STAGE_ANSWERED);
        return exchange_answer(exchange);
    }
    return true;
}

/* Why MHD refuses headers that it could read. It has not told the version yet; a request without a
 * length can only be refused for what HTTP/1.1 asks for. */
static const char *name_refusal(const struct framing *framing)
{
    const char *fault = find_fault(framing, framing->lengths == 0);
    return fault ? fault : "Content-Length is not a number";
}

void exchange_refuse(struct exchange *exchange, unsigned status)
{
    struct request *request = exchange->request;
    struct framing framing = {.length = NULL};
    request->body_limit = exchange->client->http->options.body_limit;
    collect_headers(exchange, &framing);
    /* MHD may need the memory of the headers for the answer it believes to give. */
    request->id = arena_strdup(&request->arena, request->id);
    request->header_count = 0;
    if (status == MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE) {
        exchange_fail(exchange, ERROR_HEADERS_TOO_LARGE, "the headers take too much memory");
    } else if (status == MHD_HTTP_CONTENT_TOO_LARGE) {
        fail_too_large(exchange);
    } else {
        exchange_fail(exchange, ERROR_MALFORMED, name_refusal(&framing));
    }
    exchange_answer_past_mhd(exchange);
    exchange_enter(exchange, STAGE_GONE);
}

bool exchange_take_body(struct exchange *exchange, const char *data, size_t size)
{
    struct request *request = exchange->request;
    exchange->client->http->body_moved = true;
    exchange->body_seen += size;
    if (!request->response.status && exchange->body_seen > request->body_limit) {
        fail_too_large(exchange);
    }
    if (!request->response.status) {
        buffer_append(&request->body, data, size);
    } else if (exchange->body_seen / DRAIN_FACTOR > request->body_limit) {
        exchange_answer_past_mhd(exchange);
        exchange_enter(exchange, STAGE_GONE);
        return false;
    }
    return true;
}
