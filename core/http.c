/* The HTTP edge. A client is one connection, an exchange is one request on it with its answer.
 * libmicrohttpd (MHD) owns connections and tells when they begin and end; a client lives between
 * these two, an exchange from its request line until MHD has sent the answer or given up.
 *
 *   HEADERS  -> BODY      [begin]      the headers are there
 *   BODY     -> HANDLING  [hand_over]  the application has it
 *   BODY     -> ANSWERED  [read_on]    refused: the body was read and thrown away
 *   HANDLING -> ANSWERED  [on_done]    the answer is there; MHD sends it
 *   any      -> GONE      [expire, on_hangup, http_destroy]  MHD is to drop the connection
 *
 * Suspending a connection in MHD costs three system calls, so a request in the application's hands
 * is only polled at first (MHD calls for it in each run); one that takes longer is suspended, and
 * then watched for its client hanging up, which MHD does not notice.
 *
 * A client has one timer. It is moved only when it would fire too late: a timer that fires early
 * looks at `due` and waits on, which keeps the heap out of the way of fast requests. */
#include "http.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "deadline.h"
#include "error.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "request.h"

enum {
    CONNECTION_MEMORY = 32 * 1024, /* MHD's, for each connection */
    TARGET_LIMIT = 8 * 1024,
    ID_LIMIT = 128,
    ID_PREFIX = 9,     /* eight random digits and a dash */
    ID_COUNTER = 12,   /* digits */
    POLL_LIMIT = 256,  /* requests polled at the same time */
    SPARE_LIMIT = 256, /* exchanges kept for reuse */
    DRAIN_FACTOR = 4,  /* a refused body of up to so many times the limit is still read */
};

/* A connection without a request. */
#define IDLE_TIME SECONDS(75)
/* How long a request is polled before it is suspended: up to twice this. */
#define POLL_TIME MILLISECONDS(10)
/* An answer may be read until its request's deadline and a grace, or for this long after the
 * headers arrived if that is later: a client on a slow line still gets a large answer, and one that
 * does not read at all cannot hold the answer's memory for ever. */
#define SEND_TIME SECONDS(10)
#define SEND_GRACE MILLISECONDS(100)

struct http {
    struct loop *loop; /* borrowed */
    struct http_options options;
    struct http_handler handler;
    struct MHD_Daemon *daemon; /* owned */
    struct watch watch;        /* MHD's epoll descriptor */
    bool ready;                /* MHD has something to do */
    bool draining;
    struct list clients;
    unsigned client_count;
    unsigned handling; /* exchanges in the application's hands */
    unsigned polled;   /* those of them that are not suspended */
    bool body_moved;   /* in this run a piece of a body came; more may be there */
    struct timer poll_timer;
    struct list spare; /* exchanges for reuse */
    unsigned spare_count;
    char id_prefix[ID_PREFIX + 1];
    uint64_t id_counter;
};

struct client {
    struct http *http; /* borrowed */
    struct list link;  /* on http->clients */
    int fd;            /* borrowed from MHD */
    char address[INET6_ADDRSTRLEN];
    struct exchange *exchange; /* the current one, or NULL; owned */
    struct watch watch;        /* for a hang-up while its request waits */
    struct timer timer;
    uint64_t due; /* when its patience ends */
};

enum stage { STAGE_HEADERS, STAGE_BODY, STAGE_HANDLING, STAGE_ANSWERED, STAGE_GONE };

struct exchange {
    struct request *request; /* owned */
    struct client *client;   /* borrowed; outlives it */
    struct MHD_Connection *connection;
    struct list link; /* on http->spare while it waits for reuse */
    enum stage stage;
    bool known;           /* on_headers() was called, so on_end() must be */
    bool polled;          /* MHD calls for it in each run */
    bool suspended;       /* MHD leaves it alone until it is resumed */
    bool broken;          /* where the next request begins cannot be told: close after the answer */
    uint64_t handed_over; /* when the application got it */
    uint64_t body_seen;   /* bytes, those thrown away included */
    int status;           /* what the client was told; 0 if nothing */
};

/* -- Time -- */

static void on_timer(struct timer *timer);

static void set_due(struct client *client, uint64_t at)
{
    client->due = at;
    if (!client->timer.slot || at < client->timer.at) {
        loop_arm(client->http->loop, &client->timer, at, on_timer);
    }
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* -- Stages -- */

static void stop_polling(struct exchange *exchange)
{
    exchange->client->http->polled -= exchange->polled;
    exchange->polled = false;
}

static void resume(struct exchange *exchange)
{
    if (exchange->suspended) {
        loop_remove(exchange->client->http->loop, &exchange->client->watch);
        MHD_resume_connection(exchange->connection);
        exchange->suspended = false;
    }
}

/* Out of the application's hands. MHD calls the access callback again in the next run. */
static void leave_handling(struct exchange *exchange)
{
    struct http *http = exchange->client->http;
    http->handling--;
    http->ready |= exchange->polled || exchange->suspended;
    stop_polling(exchange);
    resume(exchange);
}

static void enter(struct exchange *exchange, enum stage stage)
{
    struct client *client = exchange->client;
    const struct request *request = exchange->request;
    if (exchange->stage == STAGE_HANDLING) {
        leave_handling(exchange);
    }
    exchange->stage = stage;
    if (stage == STAGE_BODY) {
        set_due(client, request->deadline);
    } else if (stage == STAGE_HANDLING) {
        client->http->handling++;
    } else if (stage == STAGE_ANSWERED) {
        set_due(client, later(request->deadline + SEND_GRACE, request->received + SEND_TIME));
    }
}

static void on_done(struct request *request)
{
    struct exchange *exchange = request->edge;
    /* Whose client is gone needs no answer any more. */
    if (exchange->stage == STAGE_HANDLING) {
        enter(exchange, STAGE_ANSWERED);
    }
}

/* -- Exchanges -- */

static struct exchange *create_exchange(struct http *http)
{
    if (!list_is_empty(&http->spare)) {
        struct exchange *exchange = list_entry(http->spare.next, struct exchange, link);
        list_remove(&exchange->link);
        http->spare_count--;
        return exchange;
    }
    struct exchange *exchange = memory_zalloc(sizeof *exchange);
    list_init(&exchange->link);
    exchange->request = request_create();
    return exchange;
}

static void destroy_exchange(struct exchange *exchange)
{
    list_remove(&exchange->link);
    request_destroy(exchange->request);
    free(exchange);
}

static void recycle_exchange(struct http *http, struct exchange *exchange)
{
    if (http->spare_count >= SPARE_LIMIT) {
        destroy_exchange(exchange);
        return;
    }
    request_reset(exchange->request);
    *exchange = (struct exchange){.request = exchange->request};
    list_prepend(&http->spare, &exchange->link);
    http->spare_count++;
}

/* -- Answers -- */

static void fail(struct exchange *exchange, enum error_code code, const char *message)
{
    struct error err;
    error_set(&err, code, "%s", message);
    request_fail(exchange->request, &err, NULL);
}

static bool is_token(const char *text)
{
    size_t length = strspn(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return length > 0 && text[length] == '\0';
}

/* Headers that only the edge can get right. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {"Connection",        "Content-Length", "Keep-Alive",
                                        "Transfer-Encoding", "Upgrade",        "X-Request-Id"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcasecmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* MHD refuses a value with a line break in it, which would forge a header. */
static void add_header(struct MHD_Response *response, const struct request *request,
                       const struct header *header)
{
    if (is_reserved(header->name)) {
        return;
    }
    if (!is_token(header->name) ||
        MHD_add_response_header(response, header->name, header->value) != MHD_YES) {
        log_event(LOG_WARN, "response header dropped", "request %s: not a valid header: %s",
                  request->id, header->name);
    }
}

static void add_headers(struct MHD_Response *response, const struct request *request)
{
    bool typed = false;
    for (size_t i = 0; i < request->response.header_count; i++) {
        const struct header *header = &request->response.headers[i];
        typed = typed || strcasecmp(header->name, "Content-Type") == 0;
        add_header(response, request, header);
    }
    if (!typed && request->response.content_type) {
        MHD_add_response_header(response, "Content-Type", request->response.content_type);
    }
    MHD_add_response_header(response, "X-Request-Id", request->id);
}

static bool has_no_body(int status)
{
    return status == MHD_HTTP_NO_CONTENT || status == MHD_HTTP_NOT_MODIFIED;
}

/* The body is not copied: the request outlives the response. */
static enum MHD_Result queue_answer(struct exchange *exchange)
{
    const struct request *request = exchange->request;
    size_t length = has_no_body(request->response.status) ? 0 : request->response.body.length;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        length, length ? request->response.body.data : "", MHD_RESPMEM_PERSISTENT);
    if (!response) {
        return MHD_NO;
    }
    add_headers(response, request);
    if (exchange->broken || exchange->client->http->draining) {
        MHD_add_response_header(response, "Connection", "close");
    }
    enum MHD_Result result =
        MHD_queue_response(exchange->connection, (unsigned)request->response.status, response);
    MHD_destroy_response(response);
    exchange->status = request->response.status;
    return result;
}

/* MHD cannot answer while a request is still arriving, so this goes straight to the socket; it is
 * small enough for an empty send buffer. Closing both directions makes MHD let go. */
static void answer_past_mhd(struct exchange *exchange)
{
    struct request *request = exchange->request;
    struct response *response = &request->response;
    const char *type = response->content_type ? response->content_type : "text/plain";
    struct buffer text;
    buffer_init(&text);
    buffer_printf(&text,
                  "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: %s\r\n"
                  "Content-Length: %zu\r\nX-Request-Id: %s\r\n\r\n",
                  response->status, MHD_get_reason_phrase_for((unsigned)response->status), type,
                  response->body.length, request->id);
    buffer_append(&text, response->body.data, response->body.length);
    send(exchange->client->fd, text.data, text.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    shutdown(exchange->client->fd, SHUT_RDWR);
    buffer_finish(&text);
    exchange->status = response->status;
}

/* -- Headers -- */

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

/* The request line is there: MHD's earliest call for a request. */
static void *on_target(void *context, const char *target, struct MHD_Connection *connection)
{
    struct http *http = context;
    struct client *client =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)->socket_context;
    struct exchange *exchange = create_exchange(http);
    struct request *request = exchange->request;
    exchange->client = client;
    exchange->connection = connection;
    client->exchange = exchange;
    request->edge = exchange;
    request->on_done = on_done;
    request->method = "-"; /* MHD tells it with the headers; until then only the log sees this */
    request->client = client->address;
    request->id = make_id(http, &request->arena);
    request->received = clock_now();
    split_target(request, target);
    set_due(client, request->received + http->options.deadline);
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

static enum MHD_Result collect_header(void *context, enum MHD_ValueKind kind, const char *name,
                                      size_t name_length, const char *value, size_t value_length)
{
    struct framing *framing = context;
    struct request *request = framing->request;
    if (!value) {
        value = "";
    }
    framing->malformed |= !is_token(name) || strlen(value) != value_length;
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
    fail(exchange, ERROR_BODY_TOO_LARGE, message);
}

/* The response is filled in if the request is refused. */
static void judge(struct exchange *exchange, const struct framing *framing, const char *version)
{
    struct http *http = exchange->client->http;
    struct request *request = exchange->request;
    const char *fault = find_fault(framing, strcmp(version, "HTTP/1.1") == 0);
    if (fault) {
        exchange->broken = true;
        fail(exchange, ERROR_MALFORMED, fault);
        return;
    }
    if (strlen(request->path) + strlen(request->query) > TARGET_LIMIT) {
        fail(exchange, ERROR_URI_TOO_LONG, "the URI has more than 8192 bytes");
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

static enum MHD_Result begin(struct exchange *exchange, const char *method, const char *version)
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
    enter(exchange, STAGE_BODY);
    if (request->response.status && request->has_body && !is_worth_reading(exchange, &framing)) {
        /* MHD closes the connection after an answer that is given in this call. */
        enter(exchange, STAGE_ANSWERED);
        return queue_answer(exchange);
    }
    return MHD_YES;
}

/* -- Body and handling -- */

static enum MHD_Result take_body(struct exchange *exchange, const char *data, size_t size)
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
        answer_past_mhd(exchange);
        enter(exchange, STAGE_GONE);
        return MHD_NO;
    }
    return MHD_YES;
}

static void on_hangup(struct watch *watch, uint32_t events)
{
    struct client *client = list_entry(watch, struct client, watch);
    struct exchange *exchange = client->exchange;
    struct http_handler *handler = &client->http->handler;
    handler->on_client_gone(handler->context, exchange->request);
    exchange->request->error = ERROR_CLIENT_GONE;
    exchange->status = error_kind(ERROR_CLIENT_GONE)->status;
    enter(exchange, STAGE_GONE);
}

/* A descriptor that cannot be watched only means that a hang-up is noticed with the answer. */
static void suspend(struct exchange *exchange)
{
    struct client *client = exchange->client;
    stop_polling(exchange);
    exchange->suspended = true;
    MHD_suspend_connection(exchange->connection);
    loop_add(client->http->loop, &client->watch, client->fd, EPOLLRDHUP, on_hangup);
}

static void on_poll_timer(struct timer *timer)
{
    struct http *http = list_entry(timer, struct http, poll_timer);
    if (http->polled) {
        http->ready = true;
        loop_arm(http->loop, timer, http->loop->now + POLL_TIME, on_poll_timer);
    }
}

static void start_polling(struct exchange *exchange)
{
    struct http *http = exchange->client->http;
    exchange->polled = true;
    http->polled++;
    if (http->polled > POLL_LIMIT) {
        suspend(exchange);
    } else if (!http->poll_timer.slot) {
        loop_arm(http->loop, &http->poll_timer, exchange->handed_over + POLL_TIME, on_poll_timer);
    }
}

static enum MHD_Result hand_over(struct exchange *exchange)
{
    struct http *http = exchange->client->http;
    exchange->handed_over = clock_now();
    enter(exchange, STAGE_HANDLING);
    http->handler.on_request(http->handler.context, exchange->request);
    if (exchange->stage == STAGE_ANSWERED) {
        return queue_answer(exchange);
    }
    start_polling(exchange);
    return MHD_YES;
}

static enum MHD_Result wait_on(struct exchange *exchange)
{
    if (exchange->polled &&
        exchange->handed_over + POLL_TIME <= exchange->client->http->loop->now) {
        suspend(exchange);
    }
    return MHD_YES;
}

static enum MHD_Result read_on(struct exchange *exchange, const char *data, size_t *size)
{
    if (*size) {
        size_t taken = *size;
        *size = 0;
        return take_body(exchange, data, taken);
    }
    if (exchange->request->response.status) {
        enter(exchange, STAGE_ANSWERED);
        return queue_answer(exchange);
    }
    return hand_over(exchange);
}

/* MHD calls this with the headers, with each piece of the body, at its end, and after each
 * resumption until there is an answer. */
static enum MHD_Result on_access(void *context, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **connection_context)
{
    struct exchange *exchange = *connection_context;
    switch (exchange->stage) {
    case STAGE_HEADERS:
        return begin(exchange, method, version);
    case STAGE_BODY:
        return read_on(exchange, data, size);
    case STAGE_HANDLING:
        return wait_on(exchange);
    case STAGE_ANSWERED:
        return queue_answer(exchange);
    case STAGE_GONE:
        break;
    }
    return MHD_NO;
}

/* -- What cuts a request short -- */

/* Drops what the kernel still holds for the client, too. */
static void cut(struct client *client)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    setsockopt(client->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    shutdown(client->fd, SHUT_RDWR);
}

static void time_out_reading(struct exchange *exchange)
{
    if (!exchange->request->response.status) {
        fail(exchange, ERROR_REQUEST_TIMEOUT, "the request was not complete in time");
    }
    answer_past_mhd(exchange);
    enter(exchange, STAGE_GONE);
}

static void time_out_handling(struct exchange *exchange)
{
    struct request *request = exchange->request;
    struct http_handler *handler = &exchange->client->http->handler;
    if (request->deadline <= exchange->client->due) {
        handler->on_deadline(handler->context, request);
    }
    if (exchange->stage == STAGE_HANDLING) {
        set_due(exchange->client, request->deadline);
    }
}

static void expire(struct client *client)
{
    struct exchange *exchange = client->exchange;
    if (!exchange) {
        shutdown(client->fd, SHUT_RDWR);
        return;
    }
    switch (exchange->stage) {
    case STAGE_HEADERS:
    case STAGE_BODY:
        time_out_reading(exchange);
        break;
    case STAGE_HANDLING:
        time_out_handling(exchange);
        break;
    case STAGE_ANSWERED:
        cut(client);
        break;
    case STAGE_GONE:
        break;
    }
}

static void on_timer(struct timer *timer)
{
    struct client *client = list_entry(timer, struct client, timer);
    if (client->due > client->http->loop->now) {
        loop_arm(client->http->loop, timer, client->due, on_timer);
    } else {
        expire(client);
    }
}

/* -- The end of a request -- */

static const char *whole_target(struct request *request)
{
    return request->query[0] ? arena_printf(&request->arena, "%s?%s", request->path, request->query)
                             : request->path;
}

static void log_request(const struct exchange *exchange)
{
    const struct request *request = exchange->request;
    struct log_line line = log_begin(LOG_INFO, "request");
    log_text(&line, "id", request->id);
    log_text(&line, "client", request->client);
    log_text(&line, "method", request->method);
    log_text(&line, "path", whole_target(exchange->request));
    log_int(&line, "status", exchange->status);
    log_int(&line, "bytes", (int64_t)request->response.body.length);
    log_ms(&line, "duration_ms", clock_now() - request->received);
    log_ms(&line, "queue_ms", request->times.queued);
    log_ms(&line, "pool_ms", request->times.pool);
    log_ms(&line, "db_ms", request->times.database);
    if (request->error != ERROR_NONE) {
        log_text(&line, "error", error_kind(request->error)->slug);
    }
    log_end(&line);
}

/* What to call the end of a request that nobody answered, unless MHD did with an error of its own.
 */
static void name_ending(struct exchange *exchange, enum MHD_RequestTerminationCode how)
{
    enum error_code code = ERROR_CLIENT_GONE;
    if (how == MHD_REQUEST_TERMINATED_DAEMON_SHUTDOWN) {
        code = ERROR_SHUTDOWN;
    } else if (how == MHD_REQUEST_TERMINATED_WITH_ERROR && exchange->stage < STAGE_HANDLING) {
        code = ERROR_MALFORMED;
    }
    exchange->request->error = code;
    exchange->status = error_kind(code)->status;
}

static void on_completed(void *context, struct MHD_Connection *connection,
                         void **connection_context, enum MHD_RequestTerminationCode how)
{
    struct http *http = context;
    struct exchange *exchange = *connection_context;
    if (!exchange) {
        return;
    }
    if (exchange->stage == STAGE_HANDLING) {
        /* A connection that is reset while its request is polled. */
        http->handler.on_client_gone(http->handler.context, exchange->request);
    }
    if (!exchange->status) {
        name_ending(exchange, how);
    }
    enter(exchange, STAGE_GONE);
    if (exchange->known) {
        http->handler.on_end(http->handler.context, exchange->request);
    }
    if (http->options.access_log && log_enabled(LOG_INFO)) {
        log_request(exchange);
    }
    *connection_context = NULL;
    exchange->client->exchange = NULL;
    set_due(exchange->client, http->loop->now + IDLE_TIME);
    recycle_exchange(http, exchange);
}

/* -- Connections -- */

static void write_address(struct client *client, const struct sockaddr *address)
{
    const void *raw = NULL;
    if (address && address->sa_family == AF_INET) {
        raw = &((const struct sockaddr_in *)address)->sin_addr;
    } else if (address && address->sa_family == AF_INET6) {
        raw = &((const struct sockaddr_in6 *)address)->sin6_addr;
    }
    if (!raw || !inet_ntop(address->sa_family, raw, client->address, sizeof client->address)) {
        snprintf(client->address, sizeof client->address, "local");
    }
}

static struct client *create_client(struct http *http, struct MHD_Connection *connection)
{
    struct client *client = memory_zalloc(sizeof *client);
    client->http = http;
    client->watch.fd = -1;
    client->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    write_address(
        client,
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
    list_append(&http->clients, &client->link);
    http->client_count++;
    set_due(client, http->loop->now + IDLE_TIME);
    return client;
}

static void destroy_client(struct client *client)
{
    loop_disarm(client->http->loop, &client->timer);
    client->http->client_count--;
    list_remove(&client->link);
    free(client);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = create_client(context, connection);
    } else if (*socket_context) {
        destroy_client(*socket_context);
        *socket_context = NULL;
    }
}

/* -- The whole -- */

static void on_mhd_ready(struct watch *watch, uint32_t events)
{
    list_entry(watch, struct http, watch)->ready = true;
}

static void on_mhd_log(void *context, const char *format, va_list args)
{
    char message[256];
    vsnprintf(message, sizeof message, format, args);
    message[strcspn(message, "\n")] = '\0';
    log_event(LOG_DEBUG, "libmicrohttpd", "%s", message);
}

/* Paths and queries stay percent-encoded: the router splits before it decodes. */
static size_t leave_escaped(void *context, struct MHD_Connection *connection, char *text)
{
    return strlen(text);
}

/* Leaves some descriptors to the rest of the process. */
static unsigned connection_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY ||
        files.rlim_cur > 1000 * 1000) {
        return 1000 * 1000;
    }
    return (unsigned)(files.rlim_cur > 128 ? files.rlim_cur - 64 : files.rlim_cur / 2 + 1);
}

static struct MHD_Daemon *start_daemon(struct http *http)
{
    /* Without the pipe (MHD_USE_ITC) that MHD_ALLOW_SUSPEND_RESUME brings along: it wakes threads
     * which are not there, at the price of two system calls for each resumption. */
    unsigned flags = MHD_USE_EPOLL | MHD_USE_TURBO | MHD_USE_ERROR_LOG |
                     (MHD_ALLOW_SUSPEND_RESUME & ~MHD_USE_ITC);
    /* clang-format off */
    return MHD_start_daemon(flags, 0, NULL, NULL, on_access, http,
        MHD_OPTION_EXTERNAL_LOGGER, on_mhd_log, http,
        MHD_OPTION_LISTEN_SOCKET, http->options.listen_fd,
        MHD_OPTION_CONNECTION_LIMIT, connection_limit(),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_URI_LOG_CALLBACK, on_target, http,
        MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, http,
        MHD_OPTION_NOTIFY_COMPLETED, on_completed, http,
        MHD_OPTION_END);
    /* clang-format on */
}

static int start(struct http *http, struct error *err)
{
    http->daemon = start_daemon(http);
    if (!http->daemon) {
        return error_set(err, ERROR_UNAVAILABLE, "libmicrohttpd does not start");
    }
    int fd = MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    if (loop_add(http->loop, &http->watch, fd, EPOLLIN, on_mhd_ready) != 0) {
        return error_set(err, ERROR_UNAVAILABLE, "libmicrohttpd cannot be watched");
    }
    return 0;
}

struct http *http_create(struct loop *loop, const struct http_options *options,
                         const struct http_handler *handler, struct error *err)
{
    struct http *http = memory_zalloc(sizeof *http);
    uint32_t seed = (uint32_t)clock_now();
    http->loop = loop;
    http->options = *options;
    http->handler = *handler;
    http->watch.fd = -1;
    list_init(&http->clients);
    list_init(&http->spare);
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) < 0) {
        log_event(LOG_DEBUG, "no randomness", "request ids begin with the time");
    }
    snprintf(http->id_prefix, sizeof http->id_prefix, "%08" PRIx32 "-", seed);
    if (start(http, err) != 0) {
        http_destroy(http);
        return NULL;
    }
    return http;
}

static void drop_requests(struct http *http)
{
    struct list *cursor, *following;
    list_for_each(cursor, following, &http->clients)
    {
        struct exchange *exchange = list_entry(cursor, struct client, link)->exchange;
        if (exchange && exchange->stage == STAGE_HANDLING) {
            exchange->request->error = ERROR_SHUTDOWN;
            exchange->status = error_kind(ERROR_SHUTDOWN)->status;
            enter(exchange, STAGE_GONE);
        }
    }
}

/* MHD aborts when it is stopped with a suspended connection, and closes the listening socket, which
 * is not ours, unless it is told to be quiet first. */
static void stop_daemon(struct http *http)
{
    loop_remove(http->loop, &http->watch);
    http_drain(http);
    drop_requests(http);
    MHD_run(http->daemon);
    MHD_stop_daemon(http->daemon);
}

void http_destroy(struct http *http)
{
    struct list *cursor, *following;
    if (!http) {
        return;
    }
    if (http->daemon) {
        stop_daemon(http);
    }
    loop_disarm(http->loop, &http->poll_timer);
    list_for_each(cursor, following, &http->spare)
    {
        destroy_exchange(list_entry(cursor, struct exchange, link));
    }
    free(http);
}

/* MHD would like to be run all the time while there are requests to poll; that is only worth it
 * when something else may have been left over. */
static bool has_more(const struct http *http)
{
    MHD_UNSIGNED_LONG_LONG wait;
    return (http->polled == 0 || http->body_moved) &&
           MHD_get_timeout(http->daemon, &wait) == MHD_YES && wait == 0;
}

void http_run(struct http *http)
{
    if (http->ready) {
        http->ready = false;
        http->body_moved = false;
        MHD_run(http->daemon);
        http->ready |= has_more(http);
    }
}

uint64_t http_next(const struct http *http)
{
    return http->ready ? 0 : DEADLINE_NEVER;
}

/* A connection without a request would stay open as long as its client likes. What has arrived on
 * it is still read and answered. */
void http_drain(struct http *http)
{
    struct list *cursor, *following;
    if (http->draining) {
        return;
    }
    http->draining = true;
    MHD_quiesce_daemon(http->daemon);
    list_for_each(cursor, following, &http->clients)
    {
        struct client *client = list_entry(cursor, struct client, link);
        if (!client->exchange) {
            shutdown(client->fd, SHUT_RD);
        }
    }
}

unsigned http_connections(const struct http *http)
{
    return http->client_count;
}

unsigned http_requests(const struct http *http)
{
    return http->handling;
}
