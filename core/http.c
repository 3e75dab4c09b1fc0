/* The HTTP edge. A client is one connection, an exchange is one request on it with its answer.
 * libmicrohttpd (MHD) owns connections and tells when they begin and end; a client lives between
 * these two, an exchange from its request line until MHD has sent the answer or given up. Here are
 * the daemon and what MHD calls; what MHD reads passes http_input.c before, clients and the parts
 * of an exchange are in http_*.c. */
#include "http.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "arena.h"
#include "deadline.h"
#include "error.h"
#include "http_parts.h"
#include "list.h"
#include "log.h"
#include "loop.h"
#include "request.h"

/* Of MHD's memory for a connection, what is left for the head of the answer and for reading a body
 * when a request has taken the header limit. MHD clears all of that memory after each request. */
enum { ANSWER_ROOM = 2 * 1024 };

/* MHD takes one run to resume a connection, one to send its answer and one to see that it was sent.
 * Between two turns of the loop lie the slices of those that compute. */
enum { RESUMED_RUNS = 3 };

/* How long the listen queue is emptied before draining. */
#define LAST_RUNS_TIME SECONDS(1)

/* How long nobody is accepted when there is no descriptor for the first. */
#define REST_TIME MILLISECONDS(100)

/* -- What MHD calls for a request -- */

static bool read_on(struct exchange *exchange, const char *data, size_t *size)
{
    if (*size) {
        size_t taken = *size;
        *size = 0;
        return exchange_take_body(exchange, data, taken);
    }
    if (exchange->request->response.status) {
        exchange_enter(exchange, STAGE_ANSWERED);
        return exchange_answer(exchange);
    }
    return exchange_hand_over(exchange);
}

/* What MHD has read before the last answer. The end of a body must not be waited for: MHD would ask
 * for an answer again and again. */
static bool swallow(struct exchange *exchange, size_t *size)
{
    bool more = *size > 0 && exchange->client->over;
    *size = 0;
    return more;
}

/* False if MHD is to drop the connection. */
static bool advance(struct exchange *exchange, const char *method, const char *version,
                    const char *data, size_t *size)
{
    switch (exchange->stage) {
    case STAGE_HEADERS:
        return exchange_begin(exchange, method, version);
    case STAGE_BODY:
        return read_on(exchange, data, size);
    case STAGE_HANDLING:
        exchange_wait_on(exchange);
        return true;
    case STAGE_ANSWERED:
        return exchange_answer(exchange);
    case STAGE_GONE:
        return swallow(exchange, size);
    }
    return false;
}

/* MHD calls this with the headers, with each piece of the body, at its end, and after each
 * resumption until there is an answer. */
static enum MHD_Result on_access(void *context, struct MHD_Connection *connection, const char *url,
                                 const char *method, const char *version, const char *data,
                                 size_t *size, void **connection_context)
{
    return advance(*connection_context, method, version, data, size) ? MHD_YES : MHD_NO;
}

/* -- The end of a request -- */

static const char *whole_target(struct request *request)
{
    return request->query[0] ? arena_printf(&request->arena, "%s?%s", request->path, request->query)
                             : request->path;
}

void http_log_request(const struct exchange *exchange)
{
    const struct request *request = exchange->request;
    if (!exchange->client->http->options.access_log || !log_enabled(LOG_INFO)) {
        return;
    }
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
    log_ms(&line, "group_ms", request->times.group);
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
    exchange_enter(exchange, STAGE_GONE);
    if (exchange->known) {
        http->handler.on_end(http->handler.context, exchange->request);
    }
    http_log_request(exchange);
    if (http->answering == exchange) {
        http->answering = NULL;
    }
    *connection_context = NULL;
    exchange->client->exchange = NULL;
    client_wait_for_next(exchange->client);
    exchange_recycle(http, exchange);
}

/* -- Connections -- */

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        *socket_context = client_create(context, connection);
    } else if (*socket_context) {
        client_destroy(*socket_context);
        *socket_context = NULL;
    }
}

/* -- The whole -- */

static void on_mhd_ready(struct watch *watch, uint32_t events)
{
    list_entry(watch, struct http, watch)->ready = true;
}

static void on_rest_over(struct timer *timer)
{
    struct http *http = list_entry(timer, struct http, rest_timer);
    loop_change(http->loop, &http->watch, EPOLLIN);
    http->ready = true;
}

/* Without a descriptor for the first connection MHD would try again and again. */
static void rest(struct http *http)
{
    loop_change(http->loop, &http->watch, 0);
    loop_arm(http->loop, &http->rest_timer, http->loop->now + REST_TIME, on_rest_over);
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* What MHD tells in its log alone. */
static void learn(struct http *http, const char *message)
{
    if (begins(message, "Hit process or system resource limit")) {
        http_fill_up(http, "out of file descriptors: the others wait");
        if (http->client_count == 0) {
            rest(http);
        }
    } else if (http->answering && begins(message, "Closing connection (failed to create resp")) {
        exchange_fail_answer(http->answering); /* no room for its head; the connection is closed */
    }
}

static void on_mhd_log(void *context, const char *format, va_list args)
{
    char message[256];
    vsnprintf(message, sizeof message, format, args);
    message[strcspn(message, "\n")] = '\0';
    log_event(LOG_DEBUG, "libmicrohttpd", "%s", message);
    learn(context, message);
}

/* Paths and queries stay percent-encoded: the router splits before it decodes. */
static size_t leave_escaped(void *context, struct MHD_Connection *connection, char *text)
{
    return strlen(text);
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
        MHD_OPTION_CONNECTION_LIMIT, http->options.connection_limit,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, http->options.header_limit + ANSWER_ROOM,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_URI_LOG_CALLBACK, http_on_target, http,
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
    list_for_each (cursor, following, &http->clients) {
        struct exchange *exchange = list_entry(cursor, struct client, link)->exchange;
        if (exchange && exchange->stage == STAGE_HANDLING) {
            exchange->request->error = ERROR_SHUTDOWN;
            exchange->status = error_kind(ERROR_SHUTDOWN)->status;
            exchange_enter(exchange, STAGE_GONE);
        }
    }
}

/* Has any of the client's next request arrived, be it read or not? */
static bool is_asking(const struct client *client)
{
    struct pollfd input = {.fd = client->fd, .events = POLLIN};
    return client->exchange || input_has_begun(client) || poll(&input, 1, 0) == 1;
}

/* A connection without a request would stay open as long as its client likes. A request that has
 * arrived must not find itself cut off: its client would seem to have hung up. */
static void be_quiet(struct http *http)
{
    struct list *cursor, *following;
    http->quiet = true;
    MHD_quiesce_daemon(http->daemon);
    list_for_each (cursor, following, &http->clients) {
        struct client *client = list_entry(cursor, struct client, link);
        if (!is_asking(client)) {
            shutdown(client->fd, SHUT_RD);
        }
    }
}

/* Who waits in the listen queue has been connected by the kernel, and has perhaps sent a request.
 * MHD accepts a few in each run; none when there are no descriptors left. Meanwhile nothing else
 * turns, so that a queue which never empties gets a second. */
static void accept_rest(struct http *http)
{
    struct pollfd queue = {.fd = http->options.listen_fd, .events = POLLIN};
    uint64_t until = clock_now() + LAST_RUNS_TIME;
    while (!http->full && clock_now() < until && poll(&queue, 1, 0) == 1) {
        MHD_run(http->daemon);
    }
}

/* MHD aborts when it is stopped with a suspended connection, and closes the listening socket, which
 * is not ours, unless it is told to be quiet first. */
static void stop_daemon(struct http *http)
{
    loop_remove(http->loop, &http->watch);
    http->draining = true;
    if (!http->quiet) {
        be_quiet(http);
    }
    drop_requests(http);
    MHD_run(http->daemon);
    MHD_stop_daemon(http->daemon);
}

void http_tidy(struct http *http)
{
    struct list *cursor, *following;
    list_for_each (cursor, following, &http->spare) {
        exchange_destroy(list_entry(cursor, struct exchange, link));
    }
    http->spare_count = 0;
}

void http_destroy(struct http *http)
{
    if (!http) {
        return;
    }
    if (http->daemon) {
        stop_daemon(http);
    }
    loop_disarm(http->loop, &http->poll_timer);
    loop_disarm(http->loop, &http->rest_timer);
    loop_disarm(http->loop, &http->trim_timer);
    http_tidy(http);
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
    if (http->draining && !http->quiet) {
        accept_rest(http);
        be_quiet(http);
    }
    if (http->ready) {
        unsigned runs = http->resumed ? RESUMED_RUNS : 1;
        http->ready = false;
        http->resumed = false;
        for (unsigned i = 0; i < runs; i++) {
            http->body_moved = false;
            MHD_run(http->daemon);
        }
        http->ready |= has_more(http);
    }
}

uint64_t http_next(const struct http *http)
{
    return http->ready ? 0 : DEADLINE_NEVER;
}

void http_drain(struct http *http)
{
    http->draining = true;
    http->ready = true;
}

unsigned http_connections(const struct http *http)
{
    return http->client_count;
}

unsigned http_requests(const struct http *http)
{
    return http->handling;
}
