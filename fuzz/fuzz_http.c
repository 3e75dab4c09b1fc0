/* Requests as they come over a connection: bytes are sent to the HTTP edge, in pieces of a size
 * that the first byte says, while an application looks at what arrives. Whatever it gets is in
 * order, each request ends as often as it began, all answers are HTTP, and the edge is as before.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arena.h"
#include "error.h"
#include "fuzz.h"
#include "http.h"
#include "loop.h"
#include "request.h"

enum {
    BODY_LIMIT = 200,
    HEADER_LIMIT = 2048,
    QUIET_TICKS = 3, /* after so many without an answer nothing more is expected */
    MOST_PIECES = 64,
    MOST_BYTES = 20000,
};

static struct loop loop;
static struct http *http;
static struct sockaddr_in address;
static unsigned begun, ended;

/* ---- the application ---- */

static bool is_token(const char *text)
{
    return *text && !text[strspn(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                       "ABCDEFGHIJKLMNOPQRSTUVWXYZ")];
}

static int on_headers(void *context, struct request *request)
{
    begun++;
    claim(is_token(request->method));
    claim(request->path[0] && !strchr(request->path, '?'));
    claim(strlen(request->path) + strlen(request->query) <= 8192);
    for (size_t i = 0; i < request->header_count; i++) {
        claim(is_token(request->headers[i].name));
        claim(!strpbrk(request->headers[i].value, "\r\n"));
    }
    if (strcmp(request->path, "/refused") != 0) {
        return 0;
    }
    struct error err;
    error_set(&err, ERROR_NOT_FOUND, "no such path");
    request_fail(request, &err, NULL);
    return -1;
}

static void on_request(void *context, struct request *request)
{
    claim(request->body.length <= BODY_LIMIT);
    claim(request->has_body || request->body.length == 0);
    request->response.status = 200;
    request->response.content_type = "text/plain";
    buffer_append_text(&request->response.body, request->path);
    request_done(request);
}

static void on_end(void *context, struct request *request)
{
    ended++;
}

static void on_late(void *context, struct request *request)
{
    claim(!"a request that is answered at once is never late");
}

/* ---- the edge ---- */

static int listen_on_loopback(void)
{
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    claim(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    claim(listen(fd, 16) == 0);
    claim(getsockname(fd, (struct sockaddr *)&address, &size) == 0);
    return fd;
}

static void open_edge(void)
{
    static const struct http_handler handler = {on_headers, on_request, on_end,
                                                on_late,    on_late,    NULL};
    struct http_options options = {.listen_fd = listen_on_loopback(),
                                   .deadline = SECONDS(60),
                                   .body_limit = BODY_LIMIT,
                                   .header_limit = HEADER_LIMIT,
                                   .connection_limit = 16};
    struct error err;
    claim(loop_init(&loop, &err) == 0);
    http = http_create(&loop, &options, &handler, &err);
    claim(http);
}

static void tick(void)
{
    loop_wait(&loop, clock_now());
    http_run(http);
}

/* ---- the client ---- */

static int dial(void)
{
    static const struct linger at_once = {.l_onoff = 1};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    claim(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    /* Closed by a reset, so that no port stays taken. */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    return fd;
}

struct answers {
    char text[512 * 1024];
    size_t length;
    bool closed;
};

/* Takes what is there; false if that is nothing. */
static bool hear(int fd, struct answers *answers)
{
    size_t room = sizeof answers->text - 1 - answers->length;
    ssize_t count = recv(fd, answers->text + answers->length, room, MSG_DONTWAIT);
    answers->closed |= count == 0 || (count < 0 && errno != EAGAIN);
    answers->length += count > 0 ? (size_t)count : 0;
    answers->text[answers->length] = '\0';
    return count > 0;
}

static void run_until_quiet(int fd, struct answers *answers)
{
    for (int quiet = 0; quiet < QUIET_TICKS && !answers->closed;) {
        tick();
        quiet = hear(fd, answers) ? 0 : quiet + 1;
    }
}

static void send_pieces(int fd, const char *bytes, size_t size, size_t piece,
                        struct answers *answers)
{
    if (piece == 0 || size / piece > MOST_PIECES) {
        piece = size;
    }
    for (size_t at = 0; at < size && !answers->closed; at += piece) {
        send(fd, bytes + at, size - at < piece ? size - at : piece, MSG_NOSIGNAL);
        run_until_quiet(fd, answers);
    }
}

/* After any of this the next client is served. */
static void check_service(void)
{
    static const char request[] = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n";
    static struct answers answers;
    int fd = dial();
    answers = (struct answers){.length = 0};
    send_pieces(fd, request, sizeof request - 1, 0, &answers);
    claim(strncmp(answers.text, "HTTP/1.1 200 ", 13) == 0);
    claim(strstr(answers.text, "\r\n\r\n/next"));
    close(fd);
}

/* The answers begin like one; behind its head, each is as long as it says. A connection that was
 * closed may have cut the last. */
static void check_answers(const struct answers *answers)
{
    const char *at = answers->text;
    while (*at) {
        const char *end = strstr(at, "\r\n\r\n");
        const char *length = strcasestr(at, "\r\nContent-Length: ");
        claim(strncmp(at, "HTTP/1.", 7) == 0);
        int status = atoi(at + 9);
        claim(status == 100 || (status >= 200 && status < 600));
        if (!end || (status != 100 && (!length || length > end))) {
            return;
        }
        size_t body = status == 100 ? 0 : strtoull(length + 18, NULL, 10);
        const char *next = end + 4 + body;
        if (next > answers->text + answers->length || strncmp(next, "HTTP/1.", 7) != 0) {
            /* The answer to HEAD has the length but not the body. */
            next = strncmp(end + 4, "HTTP/1.", 7) == 0 ? end + 4 : next;
        }
        if (next >= answers->text + answers->length) {
            return;
        }
        at = next;
    }
}

static void converse(const char *bytes, size_t size, size_t piece)
{
    static struct answers answers;
    int fd = dial();
    answers = (struct answers){.length = 0};
    send_pieces(fd, bytes, size, piece, &answers);
    check_answers(&answers);
    close(fd);
    check_service();
    for (int i = 0; i < 1000 && http_connections(http) > 0; i++) {
        tick();
    }
    claim(http_connections(http) == 0 && http_requests(http) == 0);
    claim(begun == ended);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > MOST_BYTES) {
        return 0;
    }
    if (!http) {
        open_edge();
    }
    converse((const char *)data + 1, size - 1, data[0]);
    return 0;
}
