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

/* "http://host/path" is as good as "/path" (RFC 9112, section 3.2.2), and without a path it is "/".
 */
static const char *skip_authority(const char *target)
{
    size_t scheme = strncasecmp(target, "http://", 7) == 0    ? 7
                    : strncasecmp(target, "https://", 8) == 0 ? 8
                                                              : 0;
    return scheme ? target + scheme + strcspn(target + scheme, "/?") : target;
}

static void split_target(struct request *request, const char *target)
{
    const char *local = skip_authority(target);
    bool rootless = local != target && *local != '/';
    char *path = rootless ? arena_printf(&request->arena, "/%s", local)
                          : arena_strdup(&request->arena, local);
    char *mark = strchr(path, '?');
    if (mark) {
        *mark = '\0';
    }
    request->path = path;
    request->query = mark ? mark + 1 : "";
}

void exchange_start(struct exchange *exchange, struct client *client, const char *target)
{
    struct request *request = exchange->request;
    exchange->client = client;
    request->edge = exchange;
    request->on_done = exchange_on_done;
    request->method = "-"; /* until it is known; only the log sees this */
    request->client = client->address;
    request->id = make_id(client->http, &request->arena);
    request->received = clock_now();
    split_target(request, target);
}

void exchange_choose_id(struct exchange *exchange, const char *id)
{
    if (is_sane_id(id)) {
        exchange->request->id = id;
    }
}

/* The request line is there: MHD's earliest call for a request. MHD would take the query apart next
 * and keep a record of each field; in its place it finds an empty one. */
void *http_on_target(void *context, const char *target, struct MHD_Connection *connection)
{
    struct http *http = context;
    struct client *client =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    struct exchange *exchange = exchange_create(http);
    char *query = strchr(target, '?');
    exchange_start(exchange, client, target);
    exchange->connection = connection;
    client->exchange = exchange;
    if (query) {
        query[1] = '\0';
    }
    if (client->over) {
        exchange_enter(exchange, STAGE_GONE);
    } else {
        client_set_due(client, client->head_begun + http->options.deadline);
    }
    return exchange;
}

/* MHD leaves the blanks behind a value. */
static const char *trim(struct request *request, const char *value, size_t length)
{
    size_t kept = length;
    while (kept > 0 && (value[kept - 1] == ' ' || value[kept - 1] == '\t')) {
        kept--;
    }
    return kept == length ? value : arena_strndup(&request->arena, value, kept);
}

static enum MHD_Result collect_header(void *context, enum MHD_ValueKind kind, const char *name,
                                      size_t name_length, const char *value, size_t value_length)
{
    struct request *request = context;
    request->headers[request->header_count++] =
        (struct header){.name = name, .value = value ? trim(request, value, value_length) : ""};
    return MHD_YES;
}

static void collect_headers(struct exchange *exchange)
{
    struct request *request = exchange->request;
    int count = MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, NULL, NULL);
    request->headers = arena_alloc(&request->arena, ((size_t)count + 1) * sizeof(struct header));
    MHD_get_connection_values_n(exchange->connection, MHD_HEADER_KIND, collect_header, request);
    request->has_body =
        request_header(request, "Content-Length") || request_header(request, "Transfer-Encoding");
    const char *id = request_header(request, "X-Request-Id");
    exchange_choose_id(exchange, id ? id : "");
}

/* The guard has seen that it is a number. */
static uint64_t announced_length(const struct request *request)
{
    const char *length = request_header(request, "Content-Length");
    return length ? strtoull(length, NULL, 10) : 0;
}

static void fail_too_large(struct exchange *exchange)
{
    char message[64];
    snprintf(message, sizeof message, "the body has more than %zu bytes",
             exchange->request->body_limit);
    exchange_fail(exchange, ERROR_BODY_TOO_LARGE, message);
}

static bool is_path(const struct request *request)
{
    return request->path[0] == '/' ||
           (strcmp(request->path, "*") == 0 && strcmp(request->method, "OPTIONS") == 0);
}

/* HTTP/1.0 has no expectations. */
static bool expects_too_much(const struct request *request, const char *version)
{
    const char *expected = request_header(request, "Expect");
    return expected && strcasecmp(expected, "100-continue") != 0 &&
           strcmp(version, "HTTP/1.0") != 0;
}

/* The response is filled in if the request is refused. */
static void judge(struct exchange *exchange, const char *version)
{
    struct http *http = exchange->client->http;
    struct request *request = exchange->request;
    if (!is_path(request)) {
        exchange_fail(exchange, ERROR_MALFORMED, "the target is not a path");
        return;
    }
    if (expects_too_much(request, version)) {
        exchange_fail(exchange, ERROR_EXPECTATION, "only 100-continue can be expected");
        return;
    }
    exchange->known = true;
    if (http->handler.on_headers(http->handler.context, request) == 0 &&
        announced_length(request) > request->body_limit) {
        fail_too_large(exchange);
    }
}

/* A refused body that is not too large is read and thrown away, since a client that is still
 * sending might not see the answer, and the connection can go on. One that waits for "100 Continue"
 * is answered at once. */
static bool is_worth_reading(const struct request *request)
{
    return !request_header(request, "Expect") &&
           announced_length(request) / DRAIN_FACTOR <= request->body_limit;
}

bool exchange_begin(struct exchange *exchange, const char *method, const char *version)
{
    struct http *http = exchange->client->http;
    struct request *request = exchange->request;
    request->method = method;
    request->received = clock_now();
    request->deadline = request->received + http->options.deadline;
    request->body_limit = http->options.body_limit;
    collect_headers(exchange);
    judge(exchange, version);
    exchange_enter(exchange, STAGE_BODY);
    if (request->response.status && request->has_body && !is_worth_reading(request)) {
        /* MHD closes the connection after an answer that is given in this call. */
        exchange_enter(exchange, STAGE_ANSWERED);
        return exchange_answer(exchange);
    }
    return true;
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
    }
    return true;
}
