/* What arrives, on its way to MHD, which reads its sockets by recv(): this file has a recv() of its
 * own, and the linker prefers it to the C library's. So every byte passes the guard of its client
 * before MHD sees it; what the guard does not let pass is refused with a problem document, where
 * MHD would guess, or answer in HTML. Descriptors that are no client's are read as ever.
 *
 * A refusal waits until what came before it on the connection has been answered. After it the
 * connection lingers: what still arrives is thrown away, since closing at once would have the
 * kernel reset the connection and the client might lose the answer. */
#include "http.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "arena.h"
#include "deadline.h"
#include "http_guard.h"
#include "http_parts.h"
#include "loop.h"
#include "request.h"

/* How long a client may go on sending after its last answer. */
#define LINGER_TIME SECONDS(1)

/* By descriptor, since recv() is told nothing else. The thread of the loop has clients, those in
 * which libpq cancels have none. */
static _Thread_local struct {
    struct client **of; /* owned; NULL where there is no client */
    size_t count;
} clients;

static struct client *find_client(int fd)
{
    return (size_t)fd < clients.count ? clients.of[fd] : NULL;
}

void input_open(struct client *client)
{
    size_t place = (size_t)client->fd;
    if (place >= clients.count) {
        size_t count = place * 2 + 64;
        clients.of = memory_realloc(clients.of, count * sizeof *clients.of);
        while (clients.count < count) {
            clients.of[clients.count++] = NULL;
        }
    }
    guard_init(&client->guard, client->http->options.header_limit);
    clients.of[place] = client;
}

void input_close(struct client *client)
{
    clients.of[client->fd] = NULL;
    if (client->refusal) {
        exchange_recycle(client->http, client->refusal);
    }
}

/* -- Refusing -- */

bool input_has_begun(const struct client *client)
{
    return client->guard.begun > client->ended;
}

/* The present message is the one that is at fault. */
static bool is_due(const struct client *client)
{
    return client->ended + 1 >= client->guard.begun;
}

static char *copy(struct arena *arena, const struct guard_text *text, const char *otherwise)
{
    return text->data ? arena_strndup(arena, text->data, text->length)
                      : arena_strdup(arena, otherwise);
}

/* An exchange for a request that MHD has not heard of. */
static struct exchange *make_refusal(struct client *client)
{
    struct exchange *exchange = exchange_create(client->http);
    struct arena *arena = &exchange->request->arena;
    exchange_start(exchange, client, copy(arena, &client->guard.target, ""));
    exchange->request->method = copy(arena, &client->guard.method, "-");
    exchange_choose_id(exchange, copy(arena, &client->guard.id, ""));
    return exchange;
}

static void linger(struct client *client)
{
    client->over = true;
    client_set_due(client, client->http->loop->now + LINGER_TIME);
}

void input_end(struct client *client)
{
    shutdown(client->fd, SHUT_WR);
    linger(client);
}

void input_refuse_if_due(struct client *client)
{
    struct exchange *refusal = client->refusal;
    if (refusal && is_due(client)) {
        client->refusal = NULL;
        exchange_answer_past_mhd(refusal);
        http_log_request(refusal);
        exchange_recycle(client->http, refusal);
    }
}

void input_refuse(struct client *client, enum error_code code, const char *message)
{
    struct exchange *exchange = client->exchange;
    if (exchange && is_due(client)) {
        exchange_fail(exchange, code, message);
        exchange_answer_past_mhd(exchange);
        exchange_enter(exchange, STAGE_GONE);
    } else {
        client->refusal = make_refusal(client);
        exchange_fail(client->refusal, code, message);
        input_refuse_if_due(client);
    }
}

/* -- Reading -- */

/* Empties the socket, so that closing it does not reset the connection. */
static ssize_t throw_away(int fd, void *data, size_t size)
{
    enum { MOST = 16 }; /* pieces, so that a fast client cannot keep the worker */
    ssize_t count = 1;
    for (int i = 0; i < MOST && count > 0; i++) {
        count = recvfrom(fd, data, size, MSG_DONTWAIT, NULL, NULL);
    }
    if (count > 0) {
        errno = EAGAIN;
    }
    return count > 0 ? -1 : count;
}

static ssize_t take_in(struct client *client, char *data, size_t size)
{
    struct guard *guard = &client->guard;
    bool idle = !input_has_begun(client);
    size_t passed = guard_pass(guard, data, size);
    if (guard->fault != ERROR_NONE) {
        input_refuse(client, guard->fault, guard->message);
    } else if (idle && input_has_begun(client)) {
        client_begin_head(client);
    }
    guard_forget(guard);
    if (passed == 0) {
        errno = EAGAIN;
    }
    return passed ? (ssize_t)passed : -1;
}

/* MHD's, libpq's and everybody else's. */
ssize_t recv(int fd, void *data, size_t size, int flags)
{
    struct client *client = find_client(fd);
    if (client && (client->over || client->guard.fault != ERROR_NONE)) {
        return throw_away(fd, data, size);
    }
    ssize_t count = recvfrom(fd, data, size, flags, NULL, NULL);
    return client && count > 0 ? take_in(client, data, (size_t)count) : count;
}
