/* Clients: their one timer, which ends whatever they are at, and their beginning and end.
 *
 * The timer is moved only when it would fire too late: one that fires early looks at `due` and
 * waits on, which keeps the heap out of the way of fast requests. */
#include "http.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
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

/* How often the log says that there is no room for connections. */
#define COMPLAINT_TIME SECONDS(60)

/* The C library keeps what connections had; it gives it back when so many have gone. */
enum { WORTH_TRIMMING = 256 };
#define TRIM_DELAY SECONDS(1)

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
        exchange_fail(exchange, ERROR_REQUEST_TIMEOUT, "the request was not complete in time");
    }
    exchange_answer_past_mhd(exchange);
    exchange_enter(exchange, STAGE_GONE);
}

/* Nothing is being answered; the head of a request may be arriving. */
static void time_out_idle(struct client *client)
{
    if (input_has_begun(client) && !client->over) {
        input_refuse(client, ERROR_REQUEST_TIMEOUT, "the request was not complete in time");
    } else {
        shutdown(client->fd, SHUT_RDWR);
    }
}

static void time_out_handling(struct exchange *exchange)
{
    struct request *request = exchange->request;
    struct http_handler *handler = &exchange->client->http->handler;
    if (request->deadline <= exchange->client->due) {
        handler->on_deadline(handler->context, request);
    }
    if (exchange->stage == STAGE_HANDLING) {
        client_set_due(exchange->client, request->deadline);
    }
}

/* True if the client has taken some of the answer since it was asked last. */
static bool takes_answer(struct client *client)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(client->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        info.tcpi_bytes_acked == client->bytes_acked) {
        return false;
    }
    client->bytes_acked = info.tcpi_bytes_acked;
    return true;
}

/* The worker may have stood still since MHD got the answer: it is given some turns to send it
 * before its client is held to be slow. */
static void time_out_sending(struct exchange *exchange)
{
    struct client *client = exchange->client;
    struct http *http = client->http;
    uint64_t patience = http->options.send_timeout;
    if (patience && takes_answer(client)) {
        client_set_due(client, http->loop->now + patience);
    } else if (!exchange->overdue) {
        exchange->overdue = true;
        http->ready = true;
        client_set_due(client, http->loop->now + SEND_GRACE);
    } else {
        exchange->request->error = ERROR_DEADLINE;
        cut(client);
    }
}

static void expire(struct client *client)
{
    struct exchange *exchange = client->exchange;
    if (!exchange || client->over) {
        time_out_idle(client);
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
        time_out_sending(exchange);
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

void client_set_due(struct client *client, uint64_t at)
{
    client->due = at;
    if (!client->timer.slot || at < client->timer.at) {
        loop_arm(client->http->loop, &client->timer, at, on_timer);
    }
}

void client_begin_head(struct client *client)
{
    client->head_begun = client->http->loop->now;
    client_set_due(client, client->head_begun + client->http->options.deadline);
}

/* The next request may have begun to arrive already, behind the one that is over. */
void client_wait_for_next(struct client *client)
{
    client->ended++;
    input_refuse_if_due(client);
    if (client->over) {
        return;
    }
    if (input_has_begun(client)) {
        client_begin_head(client);
    } else {
        client_set_due(client, client->http->loop->now + IDLE_TIME);
    }
}

/* -- Beginning and end -- */

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

/* The log says it once per while. */
void http_fill_up(struct http *http, const char *how)
{
    http->full = true;
    if (http->loop->now >= http->next_complaint) {
        http->next_complaint = http->loop->now + COMPLAINT_TIME;
        log_event(LOG_WARN, "connections full", "%u open: %s", http->client_count, how);
    }
}

struct client *client_create(struct http *http, struct MHD_Connection *connection)
{
    struct client *client = memory_zalloc(sizeof *client);
    client->http = http;
    client->watch.fd = -1;
    client->fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    write_address(
        client,
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr);
    input_open(client);
    list_append(&http->clients, &client->link);
    http->client_count++;
    if (http->client_count > http->client_peak) {
        http->client_peak = http->client_count;
    }
    if (http->client_count >= http->options.connection_limit) {
        http_fill_up(http, "as many connections as may be: the others wait");
    }
    client_set_due(client, http->loop->now + IDLE_TIME);
    return client;
}

static bool is_worth_trimming(const struct http *http)
{
    return http->client_peak - http->client_count >= WORTH_TRIMMING &&
           http->client_count < http->client_peak / 2;
}

static void on_trim_timer(struct timer *timer)
{
    struct http *http = list_entry(timer, struct http, trim_timer);
    if (is_worth_trimming(http)) {
        malloc_trim(0);
        http->client_peak = http->client_count;
    }
}

/* Not at once: where many have gone, others may be coming. */
static void trim_soon(struct http *http)
{
    if (!http->trim_timer.slot && is_worth_trimming(http)) {
        loop_arm(http->loop, &http->trim_timer, http->loop->now + TRIM_DELAY, on_trim_timer);
    }
}

/* MHD accepts no more connections when it has as many as it may, or is out of descriptors, and
 * looks again only when it is run after one has ended. */
void client_destroy(struct client *client)
{
    client->http->ready |= client->http->full;
    client->http->full = false;
    trim_soon(client->http);
    input_close(client);
    loop_disarm(client->http->loop, &client->timer);
    client->http->client_count--;
    list_remove(&client->link);
    free(client);
}
