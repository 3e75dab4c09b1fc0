/* An exchange in its stages:
 *
 *   HEADERS  -> BODY      [exchange_begin]      the headers are there
 *   BODY     -> HANDLING  [exchange_hand_over]  the application has it
 *   BODY     -> ANSWERED  [read_on]             refused: the body was read and thrown away
 *   HANDLING -> ANSWERED  [exchange_on_done]    the answer is there; MHD sends it
 *   HEADERS, BODY -> GONE [input_refuse]        what arrives is not as it must be
 *   any      -> GONE      [expire, on_hangup, http_destroy]  MHD is to drop the connection
 *
 * Suspending a connection in MHD costs three system calls, so a request in the application's hands
 * is only polled at first (MHD calls for it in each run); one that takes longer is suspended, and
 * then watched for its client hanging up, which MHD does not notice. */
#include "http.h"

#include <stdlib.h>

#include <microhttpd.h>

#include "arena.h"
#include "deadline.h"
#include "error.h"
#include "http_parts.h"
#include "list.h"
#include "loop.h"
#include "request.h"

enum {
    POLL_LIMIT = 256,  /* requests polled at the same time */
    SPARE_LIMIT = 256, /* exchanges kept for reuse */
};

/* How long a request is polled before it is suspended: up to twice this. */
#define POLL_TIME MILLISECONDS(10)

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
        exchange->client->http->resumed = true;
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

void exchange_enter(struct exchange *exchange, enum stage stage)
{
    struct client *client = exchange->client;
    const struct request *request = exchange->request;
    if (exchange->stage == STAGE_HANDLING) {
        leave_handling(exchange);
    }
    exchange->stage = stage;
    if (stage == STAGE_BODY) {
        client_set_due(client, request->deadline);
    } else if (stage == STAGE_HANDLING) {
        client->http->handling++;
    } else if (stage == STAGE_ANSWERED) {
        /* Until MHD has the answer: see exchange_on_sending(). */
        client_set_due(client, DEADLINE_NEVER);
    }
}

/* Whatever held the worker up until now, be it in this turn, the answer gets its time. */
void exchange_on_sending(struct exchange *exchange)
{
    uint64_t now = clock_now(), deadline = exchange->request->deadline;
    client_set_due(exchange->client, (now > deadline ? now : deadline) + SEND_GRACE);
}

void exchange_on_done(struct request *request)
{
    struct exchange *exchange = request->edge;
    /* Whose client is gone needs no answer any more. */
    if (exchange->stage == STAGE_HANDLING) {
        exchange_enter(exchange, STAGE_ANSWERED);
    }
}

/* -- Making and reusing them -- */

struct exchange *exchange_create(struct http *http)
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

void exchange_destroy(struct exchange *exchange)
{
    list_remove(&exchange->link);
    request_destroy(exchange->request);
    free(exchange);
}

void exchange_recycle(struct http *http, struct exchange *exchange)
{
    if (http->spare_count >= SPARE_LIMIT) {
        exchange_destroy(exchange);
        return;
    }
    request_reset(exchange->request);
    *exchange = (struct exchange){.request = exchange->request};
    list_prepend(&http->spare, &exchange->link);
    http->spare_count++;
}

/* -- In the application's hands -- */

static void on_hangup(struct watch *watch, uint32_t events)
{
    struct client *client = list_entry(watch, struct client, watch);
    struct exchange *exchange = client->exchange;
    struct http_handler *handler = &client->http->handler;
    handler->on_client_gone(handler->context, exchange->request);
    exchange->request->error = ERROR_CLIENT_GONE;
    exchange->status = error_kind(ERROR_CLIENT_GONE)->status;
    exchange_enter(exchange, STAGE_GONE);
}

/* A connection that is closed both ways, or reset, is told of in any case. A descriptor that cannot
 * be watched only means that a hang-up is noticed with the answer. */
static void suspend(struct exchange *exchange)
{
    struct client *client = exchange->client;
    stop_polling(exchange);
    exchange->suspended = true;
    MHD_suspend_connection(exchange->connection);
    loop_add(client->http->loop, &client->watch, client->fd,
             client->http->options.answer_half_closed ? 0 : EPOLLRDHUP, on_hangup);
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

bool exchange_hand_over(struct exchange *exchange)
{
    struct http *http = exchange->client->http;
    exchange->handed_over = clock_now();
    exchange_enter(exchange, STAGE_HANDLING);
    http->handler.on_request(http->handler.context, exchange->request);
    if (exchange->stage == STAGE_ANSWERED) {
        return exchange_answer(exchange);
    }
    start_polling(exchange);
    return true;
}

void exchange_wait_on(struct exchange *exchange)
{
    if (exchange->polled &&
        exchange->handed_over + POLL_TIME <= exchange->client->http->loop->now) {
        suspend(exchange);
    }
}
