/* The HTTP edge over real sockets: a child process serves a toy application, this one is its
 * client. */
#include "http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "list.h"
#include "loop.h"
#include "request.h"
#include "test.h"

enum { BODY_LIMIT = 1000, HEADER_LIMIT = 8192, CONNECTION_LIMIT = 500, BIG_BODY = 8 * 1024 * 1024 };
#define DEADLINE MILLISECONDS(400)
#define PATIENCE SECONDS(60) /* the deadline where none is to pass */

/* -- The server -- */

struct server {
    struct loop loop;
    struct http *http;
    struct watch control; /* 'd': drain, 'a': answer `kept`, 'q': quit */
    struct request *kept; /* the request for /keep; NULL if there is none */
    bool quit;
    bool halting; /* it is to stand still behind this turn */
    unsigned begun, ended, gone;
};

/* A request that is answered later. */
struct parked {
    struct timer timer;
    struct request *request;
    struct server *server;
    unsigned deadlines; /* how often its deadline has passed */
};

static void answer(struct request *request, int status, const char *text)
{
    request->response.status = status;
    request->response.content_type = "text/plain";
    buffer_append_text(&request->response.body, text);
    request_done(request);
}

/* With "&busy" the worker has been at something else until long after the deadline; with "&halt" it
 * stands still for that long when it has the answer. */
static void on_wait_over(struct timer *timer)
{
    struct parked *parked = list_entry(timer, struct parked, timer);
    struct request *request = parked->request;
    if (strstr(request->query, "&busy")) {
        poll(NULL, 0, 300);
    }
    parked->server->halting = strstr(request->query, "&halt");
    answer(request, 200, "waited");
}

static void park(struct server *server, struct request *request, uint64_t milliseconds)
{
    struct parked *parked = arena_zalloc(&request->arena, sizeof *parked);
    parked->request = request;
    parked->server = server;
    request->handling = (struct handling *)parked;
    if (milliseconds) {
        loop_arm(&server->loop, &parked->timer, request->received + MILLISECONDS(milliseconds),
                 on_wait_over);
    }
}

static void show(struct request *request)
{
    const char *word = request_header(request, "x-word");
    char text[512];
    snprintf(text, sizeof text, "%s %s ? %s from %s word %s id %s", request->method, request->path,
             request->query, request->client, word ? word : "", request->id);
    request_add_header(request, "X-Good", "yes");
    request_add_header(request, "X-Bad", "a\r\nX-Forged: 1");
    request_add_header(request, "Content-Length", "3");
    request_add_header(request, "Content-Type", "text/x-shown");
    answer(request, 200, text);
}

static void echo(struct request *request)
{
    buffer_append(&request->response.body, request->body.data, request->body.length);
    answer(request, 200, "");
}

static void big(struct request *request)
{
    memset(buffer_reserve(&request->response.body, BIG_BODY), 'x', BIG_BODY);
    request->response.body.length = BIG_BODY;
    answer(request, 200, "");
}

/* As many headers as the query says, of 100 bytes each. */
static void heads(struct request *request)
{
    char value[101];
    snprintf(value, sizeof value, "%0100d", 0);
    for (int i = atoi(request->query); i > 0; i--) {
        request_add_header(request, "X-Head", value);
    }
    answer(request, 200, "heads");
}

static void count(struct server *server, struct request *request)
{
    char text[64];
    snprintf(text, sizeof text, "begun %u ended %u gone %u open %u held %u", server->begun,
             server->ended, server->gone, http_connections(server->http),
             http_requests(server->http));
    answer(request, 200, text);
}

static int on_headers(void *context, struct request *request)
{
    struct server *server = context;
    server->begun++;
    if (strncmp(request->path, "/nothing", 8) == 0) {
        struct error err;
        error_set(&err, ERROR_NOT_FOUND, "no such path");
        request_fail(request, &err, NULL);
        return -1;
    }
    return 0;
}

static void on_request(void *context, struct request *request)
{
    struct server *server = context;
    const char *path = request->path;
    if (strcmp(path, "/echo") == 0) {
        echo(request);
    } else if (strcmp(path, "/big") == 0) {
        big(request);
    } else if (strcmp(path, "/heads") == 0) {
        heads(request);
    } else if (strcmp(path, "/count") == 0) {
        count(server, request);
    } else if (strcmp(path, "/empty") == 0) {
        answer(request, 204, "dropped");
    } else if (strcmp(path, "/wait") == 0) {
        park(server, request, (uint64_t)atoi(request->query));
    } else if (strcmp(path, "/keep") == 0) {
        server->kept = request;
        park(server, request, 0);
    } else {
        show(request);
    }
}

static void on_end(void *context, struct request *request)
{
    struct server *server = context;
    struct parked *parked = (struct parked *)request->handling;
    server->ended++;
    server->kept = server->kept == request ? NULL : server->kept;
    if (parked) {
        loop_disarm(&server->loop, &parked->timer);
    }
}

static void on_deadline(void *context, struct request *request)
{
    struct parked *parked = (struct parked *)request->handling;
    struct error err;
    parked->deadlines++;
    if (strcmp(request->query, "0&extend") == 0 && parked->deadlines == 1) {
        request->deadline += MILLISECONDS(100);
        return;
    }
    error_set(&err, ERROR_DEADLINE, "passed %u times", parked->deadlines);
    request_fail(request, &err, NULL);
    request_done(request);
}

static void on_client_gone(void *context, struct request *request)
{
    struct server *server = context;
    server->gone++;
}

static void on_control(struct watch *watch, uint32_t events)
{
    struct server *server = list_entry(watch, struct server, control);
    char order = 'q';
    if (read(watch->fd, &order, 1) == 1 && order == 'd') {
        http_drain(server->http);
    } else if (order == 'a' && server->kept) {
        answer(server->kept, 200, "kept");
    } else {
        server->quit = true;
    }
}

static void halt(struct server *server)
{
    if (server->halting) {
        server->halting = false;
        poll(NULL, 0, 700);
    }
}

static int serve(int listen_fd, int control_fd, uint64_t deadline)
{
    struct server server = {.control.fd = -1};
    struct error err;
    struct http_options options = {.listen_fd = listen_fd,
                                   .deadline = deadline,
                                   .body_limit = BODY_LIMIT,
                                   .header_limit = HEADER_LIMIT,
                                   .connection_limit = CONNECTION_LIMIT,
                                   .access_log = true};
    struct http_handler handler = {on_headers,  on_request,     on_end,
                                   on_deadline, on_client_gone, &server};
    if (loop_init(&server.loop, &err) != 0) {
        return 2;
    }
    server.http = http_create(&server.loop, &options, &handler, &err);
    if (!server.http) {
        return 3;
    }
    loop_add(&server.loop, &server.control, control_fd, EPOLLIN, on_control);
    while (!server.quit) {
        loop_wait(&server.loop, http_next(server.http));
        http_run(server.http);
        halt(&server);
    }
    http_destroy(server.http);
    loop_finish(&server.loop);
    bool listening = fcntl(listen_fd, F_GETFD) >= 0;
    return server.begun == server.ended && listening ? 0 : 4;
}

/* -- The client -- */

static int port;
static char reply[64 * 1024];

static int dial(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {.tv_sec = PATIENCE / SECONDS(1)};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void say(int fd, const char *text)
{
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* As recv(), which gives up early when it has a time limit and the process has been stopped. */
static ssize_t take(int fd, void *buffer, size_t size)
{
    ssize_t n;
    do {
        n = recv(fd, buffer, size, 0);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Reads one answer by its Content-Length into `reply`; false at the end of the connection. */
static bool hear(int fd, bool head)
{
    size_t used = 0;
    size_t wanted = 0;
    while (!wanted || used < wanted) {
        ssize_t n = take(fd, reply + used, sizeof reply - 1 - used);
        if (n <= 0) {
            break;
        }
        used += (size_t)n;
        reply[used] = '\0';
        const char *end = strstr(reply, "\r\n\r\n");
        const char *length = strcasestr(reply, "\r\nContent-Length: ");
        if (end) {
            size_t body = length && !head ? strtoull(length + 18, NULL, 10) : 0;
            wanted = (size_t)(end - reply) + 4 + body;
        }
    }
    reply[used] = '\0';
    return wanted && used >= wanted;
}

static bool is_closed(int fd)
{
    char c;
    return take(fd, &c, 1) <= 0;
}

static int status(void)
{
    return strncmp(reply, "HTTP/1.1 ", 9) == 0 ? atoi(reply + 9) : 0;
}

static void ask(int fd, const char *request)
{
    say(fd, request);
    hear(fd, strncmp(request, "HEAD", 4) == 0);
}

static const char *body(void)
{
    const char *end = strstr(reply, "\r\n\r\n");
    return end ? end + 4 : "";
}

#define GET(target) "GET " target " HTTP/1.1\r\nHost: a\r\n\r\n"
#define POST(target, headers) "POST " target " HTTP/1.1\r\nHost: a\r\n" headers "\r\n"

/* Each row on a connection of its own. */
static const struct {
    const char *name;
    const char *request;
    int status;
    const char *text; /* somewhere in the answer */
    bool closed;      /* afterwards */
} rows[] = {
    {"a plain request", GET("/a%2Fb?x=%31&y"), 200, "GET /a%2Fb ? x=%31&y from 127.0.0.1", false},
    {"an id is made", GET("/"), 200, "X-Request-Id: ", false},
    {"a sane id is taken over", "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: A-1._\r\n\r\n", 200,
     "id A-1._", false},
    {"the absolute form of a target", GET("http://a:1/p?q"), 200, "GET /p ? q ", false},
    {"headers of the handler", GET("/"), 200, "X-Good: yes", false},
    {"its content type", GET("/"), 200, "Content-Type: text/x-shown", false},
    {"a body", POST("/echo", "Content-Length: 5\r\n") "hello", 200, "\r\n\r\nhello", false},
    {"a chunked body",
     POST("/echo", "Transfer-Encoding: chunked\r\n") "2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200,
     "\r\n\r\nhello", false},
    {"an answer with many headers", GET("/heads?50"), 200, "X-Head: 0000", false},
    {"an answer with too many headers", GET("/heads?500"), 500, "/problems/script-error", true},
    {"an answer without body", GET("/empty"), 204, "X-Request-Id: ", false},
    {"a short wait", GET("/wait?2"), 200, "waited", false},
    {"a long wait", GET("/wait?60"), 200, "waited", false},
    {"a short wait of a busy worker", GET("/wait?2&busy"), 200, "waited", false},
    {"a long wait of a busy worker", GET("/wait?380&busy"), 200, "waited", false},
    {"a short wait of a worker that halts", GET("/wait?2&halt"), 200, "waited", false},
    {"a long wait of a worker that halts", GET("/wait?60&halt"), 200, "waited", false},
    {"a refusal by the handler", GET("/nothing"), 404, "/problems/not-found", false},
    {"a refused request with a body", POST("/nothing", "Content-Length: 5\r\n") "hello", 404,
     "/problems/not-found", false},
    {"a method that is no token", "G\xf6T / HTTP/1.1\r\nHost: a\r\n\r\n", 400,
     "the method is malformed", true},
    {"a blank in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400,
     "the version is malformed", true},
    {"a control character in the target", "GET /a\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400,
     "the target is malformed", true},
    {"a target in UTF-8", GET("/\xc3\xb6"), 200, "GET /\xc3\xb6 ?", false},
    {"a lone CR in a header", "GET / HTTP/1.1\r\nHost: a\rB \nX-Word: x\r\n\r\n", 400,
     "a line does not end in CR LF", true},
    {"a control character in a header", "GET / HTTP/1.1\r\nHost: a\r\nX-Word: a\x01\r\n\r\n", 400,
     "a header is malformed", true},
    {"an announced body that is much too large", POST("/echo", "Content-Length: 100000\r\n"), 413,
     "/problems/body-too-large", true},
    {"a client that asks before it sends",
     POST("/echo", "Content-Length: 1001\r\nExpect: 100-continue\r\n"), 413,
     "/problems/body-too-large", true},
    {"two lengths", POST("/echo", "Content-Length: 5\r\nContent-Length: 6\r\n") "hello", 400,
     "/problems/malformed", true},
    {"the same length twice", POST("/echo", "Content-Length: 5\r\nContent-Length: 5\r\n") "hello",
     400, "/problems/malformed", true},
    {"a length and chunks",
     POST("/echo", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") "0\r\n\r\n", 400,
     "/problems/malformed", true},
    {"another transfer encoding", POST("/echo", "Transfer-Encoding: gzip, chunked\r\n"), 400,
     "/problems/malformed", true},
    {"chunks in HTTP/1.0", "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400,
     "/problems/malformed", true},
    {"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "/problems/malformed", true},
    {"no host", "GET / HTTP/1.1\r\n\r\n", 400, "", true},
    {"a space before the colon", POST("/echo", "Content-Length : 5\r\n") "hello", 400, "", true},
    {"the deadline of a handler", GET("/wait?0"), 504, "passed 1 times", false},
    {"a deadline that is moved on", GET("/wait?0&extend"), 504, "passed 2 times", false},
    {"a body that never comes", POST("/echo", "Content-Length: 5\r\n") "he", 408,
     "/problems/request-timeout", true},
    {"a body that never comes, which may be tried again",
     POST("/echo", "Content-Length: 5\r\n") "he", 408, "\r\nRetry-After: 1\r\n", true},
    {"headers that never end", "GET /slow HTTP/1.1\r\nHost: a\r\n", 408, "\"instance\":\"/slow\"",
     true},
};

static void test_rows(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int fd = dial();
        ask(fd, rows[i].request);
        check_int(status(), rows[i].status, "%s: status", rows[i].name);
        if (!check(strstr(reply, rows[i].text), "%s: answer", rows[i].name)) {
            printf("# wanted: %s\n# %s\n", rows[i].text, reply);
        }
        if (rows[i].closed) {
            check(is_closed(fd), "%s: the connection is closed", rows[i].name);
        } else {
            ask(fd, GET("/next"));
            check(strstr(reply, "GET /next"), "%s: the connection goes on", rows[i].name);
        }
        close(fd);
    }
}

static void test_answers(void)
{
    int fd = dial();
    ask(fd, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    check(strstr(reply, "Content-Length: ") && !strstr(reply, "Content-Length: 0"),
          "HEAD tells the length");
    check_text(body(), "", "and sends no body");
    ask(fd, GET("/"));
    check(!strcasestr(reply, "X-Forged") && !strstr(reply, "Content-Length: 3\r"),
          "a header cannot be forged");
    say(fd, GET("/1") GET("/2"));
    hear(fd, false);
    const char *second = strstr(reply, "GET /2");
    check(strstr(reply, "GET /1") && (second || (hear(fd, false) && strstr(reply, "GET /2"))),
          "pipelined requests are answered in order");
    close(fd);
}

/* It is not served as what stands before the NUL. */
static void test_nul_in_target(void)
{
    static const char request[] = "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n";
    int fd = dial();
    send(fd, request, sizeof request - 1, MSG_NOSIGNAL);
    hear(fd, false);
    check_int(status(), 400, "a NUL in the target: status");
    check(strstr(reply, "the target is malformed"), "a NUL in the target: answer");
    check(is_closed(fd), "a NUL in the target: closed");
    close(fd);
}

static void test_long_target(void)
{
    static char request[9 * 1024 + 64];
    char *end = stpcpy(request, "GET /");
    memset(end, 'a', 9 * 1024);
    stpcpy(end + 9 * 1024, " HTTP/1.1\r\nHost: a\r\n\r\n");
    int fd = dial();
    ask(fd, request);
    check_int(status(), 414, "a long URI: status");
    check(strstr(reply, "/problems/uri-too-long"), "a long URI: answer");
    check(is_closed(fd), "a long URI: the connection is closed");
    close(fd);
}

/* Sends chunks of 500 bytes. */
static void say_chunks(int fd, unsigned chunks)
{
    char chunk[512];
    say(fd, POST("/echo", "Transfer-Encoding: chunked\r\n"));
    snprintf(chunk, sizeof chunk, "1f4\r\n%0500d\r\n", 0);
    for (unsigned i = 0; i < chunks; i++) {
        say(fd, chunk);
    }
}

static void test_large_bodies(void)
{
    static char request[4096];
    int fd = dial();
    snprintf(request, sizeof request, "%s%03000d", POST("/echo", "Content-Length: 3000\r\n"), 0);
    ask(fd, request);
    check_int(status(), 413, "a body over the limit is read and refused");
    snprintf(request, sizeof request, "%s%01000d", POST("/echo", "Content-Length: 1000\r\n"), 0);
    ask(fd, request);
    check_int(status(), 200, "a body of exactly the limit is taken, on the same connection");
    say_chunks(fd, 3);
    ask(fd, "0\r\n\r\n");
    check_int(status(), 413, "chunks over the limit are read and refused");
    say_chunks(fd, 100);
    hear(fd, false);
    check_int(status(), 413, "endless chunks are cut off with an answer");
    check(is_closed(fd), "and the connection is closed");
    close(fd);
}

static void wait_for(const char *what, const char *text)
{
    int fd = dial();
    for (int i = 0; i < 1000; i++) {
        ask(fd, GET("/count"));
        if (strstr(body(), text)) {
            break;
        }
        poll(NULL, 0, 10);
    }
    check(strstr(body(), text), "%s: %s", what, body());
    close(fd);
}

/* Reads all that comes until the connection ends into `reply`. */
static void hear_all(int fd)
{
    size_t used = 0;
    ssize_t n;
    do {
        n = take(fd, reply + used, sizeof reply - 1 - used);
        used += n > 0 ? (size_t)n : 0;
    } while (n > 0);
    reply[used] = '\0';
    check_int((int)n, 0, "the connection is closed");
}

/* True if `reply` is one problem document and nothing else. */
static bool is_one_problem(void)
{
    const char *length = strcasestr(reply, "\r\nContent-Length: ");
    return length && strtoull(length + 18, NULL, 10) == strlen(body()) && body()[0] == '{' &&
           strcasestr(reply, "\r\nContent-Type: application/problem+json\r\n") &&
           !strstr(reply + 1, "HTTP/1.");
}

static void check_refused(int fd, int wanted, const char *text, const char *name)
{
    hear_all(fd);
    check_int(status(), wanted, "%s: status", name);
    check(is_one_problem(), "%s: one response and no more", name);
    if (!check(strstr(reply, text), "%s: answer", name)) {
        printf("# wanted: %s\n# %s\n", text, reply);
    }
    close(fd);
}

/* libmicrohttpd refuses these before it hands them over, and wrote the head of its answer twice. */
static void test_bad_lengths(void)
{
    static const struct {
        const char *name;
        const char *value;
        int status;
        const char *text;
    } values[] = {
        {"a negative length", "-2", 400, "/problems/malformed"},
        {"a length with a sign", "+2", 400, "Content-Length is not a number"},
        {"a list of lengths", "2, 2", 400, "/problems/malformed"},
        {"an empty length", "", 400, "/problems/malformed"},
        {"a hexadecimal length", "0x2", 400, "/problems/malformed"},
        {"a length and a letter", "2a", 400, "/problems/malformed"},
        {"a length of many digits", "99999999999999999999999", 413, "/problems/body-too-large"},
        {"a length of 2^64", "18446744073709551616", 413, "/problems/body-too-large"},
        {"the length before it", "18446744073709551615", 413, "/problems/body-too-large"},
        {"a bad length and a good one", "x\r\nContent-Length: 2", 400, "given more than once"},
        {"a bad length with an id", "x\r\nX-Request-Id: mine", 400, "X-Request-Id: mine\r\n"},
    };
    int fd = dial();
    say(fd, "POST /echo HTTP/1.0\r\nContent-Length: -2\r\n\r\n{}");
    check_refused(fd, 400, "Content-Length is not a number", "a bad length in HTTP/1.0");
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char request[256];
        snprintf(request, sizeof request,
                 "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: %s\r\n\r\n{}", values[i].value);
        fd = dial();
        say(fd, request);
        check_refused(fd, values[i].status, values[i].text, values[i].name);
    }
}

/* The others are still sending their headers: nobody gets a neighbour's answer. */
static void test_bad_length_among_others(void)
{
    int fd = dial();
    int before = dial();
    int after = dial();
    say(before, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n");
    say(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n");
    wait_for("both have begun", "open 4 held 1");
    say(after, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n");
    say(fd, "\r\n");
    check_refused(fd, 400, "/problems/malformed", "a bad length among others");
    ask(before, "\r\nhi");
    check_text(body(), "hi", "an older request goes on");
    ask(after, "\r\nho");
    check_text(body(), "ho", "and so does a younger one");
    close(before);
    close(after);
    fd = dial();
    ask(fd, GET("/first"));
    check_int(status(), 200, "a good request");
    say(fd, POST("/echo", "Content-Length: -2\r\n") GET("/smuggled"));
    check_refused(fd, 400, "/problems/malformed", "a bad length after it");
}

static void test_large_cookies(void)
{
    static char request[5 * 1024 + 256];
    char *end = stpcpy(request, "GET / HTTP/1.1\r\nHost: a\r\nCookie: ");
    for (int i = 0; i < 1200; i++) {
        end = stpcpy(end, "a=b;");
    }
    stpcpy(end, "\r\n\r\n");
    int fd = dial();
    say(fd, request);
    check_refused(fd, 431, "/problems/headers-too-large", "cookies without room");
}

static void hang_up(int fd, bool reset)
{
    struct linger at_once = {.l_onoff = 1};
    if (reset) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    }
    close(fd);
}

/* Hangs up while the application has the request. */
static void test_client_gone(void)
{
    int fd = dial();
    say(fd, GET("/keep"));
    wait_for("a request has arrived", "open 2 held 2");
    poll(NULL, 0, 60);
    hang_up(fd, false);
    wait_for("a client that hangs up while it waits is noticed", "gone 1 open 1 held 1");
    fd = dial();
    say(fd, GET("/keep"));
    /* A reset takes along what has not been read yet. */
    wait_for("its request has arrived", "open 2 held 2");
    hang_up(fd, true);
    wait_for("and one that resets its connection", "gone 2 open 1 held 1");
}

/* At its deadline at the latest. */
static void test_body_left_unfinished(void)
{
    int fd = dial();
    say(fd, POST("/echo", "Content-Length: 5\r\n") "he");
    hang_up(fd, false);
    wait_for("one that leaves its body unfinished needs no handler", "gone 0 open 1 held 1");
}

static void test_many(void)
{
    enum { MANY = 400 };
    int fds[MANY];
    int good = 0;
    for (int i = 0; i < MANY; i++) {
        fds[i] = dial();
        say(fds[i], i % 2 ? GET("/wait?100") : GET("/wait?5"));
    }
    for (int i = 0; i < MANY; i++) {
        good += hear(fds[i], false) && status() == 200;
        close(fds[i]);
    }
    check_int(good, MANY, "many requests wait at the same time");
}

static void test_slow_reader(void)
{
    int fd = dial();
    int small = 4096;
    struct pollfd end = {.fd = fd, .events = 0};
    uint64_t begun = clock_now();
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    say(fd, GET("/big"));
    check_int(poll(&end, 1, 20000), 1, "a client that does not read is cut off");
    check(clock_now() - begun >= DEADLINE, "not before its deadline");
    check(end.revents & POLLERR, "by a reset");
    close(fd);
}

static void test_big_answer(void)
{
    int fd = dial();
    size_t total = 0;
    say(fd, "GET /big HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    for (ssize_t n = 1; n > 0; total += (size_t)n) {
        n = take(fd, reply, sizeof reply);
        n = n > 0 ? n : 0;
    }
    check(total > BIG_BODY && total < BIG_BODY + 1000, "a large answer arrives whole");
    close(fd);
}

static void test_drain(int control)
{
    int idle = dial();
    int busy = dial();
    ask(idle, GET("/"));
    say(busy, GET("/keep"));
    wait_for("one idle and one busy connection", "held 2");
    check(write(control, "d", 1) == 1, "drain");
    check(is_closed(idle), "an idle connection is closed");
    check(write(control, "a", 1) == 1, "the application answers");
    check(hear(busy, false) && strcasestr(reply, "Connection: close"), "a busy one is answered");
    check(is_closed(busy), "and then closed");
    close(idle);
    close(busy);
}

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, 1024) != 0) {
        return -1;
    }
    getsockname(fd, (struct sockaddr *)&address, &size);
    port = ntohs(address.sin_port);
    return fd;
}

/* Starts a server in a child; the control pipe is its only tie. */
static pid_t start(int listen_fd, uint64_t deadline, int *ret_control)
{
    int ends[2];
    if (pipe(ends) != 0) {
        exit(2);
    }
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        exit(serve(listen_fd, ends[0], deadline));
    }
    close(ends[0]);
    *ret_control = ends[1];
    return pid;
}

static void check_exit(pid_t pid, const char *name)
{
    int how = -1;
    waitpid(pid, &how, 0);
    check(WIFEXITED(how) && WEXITSTATUS(how) == 0, "%s", name);
}

static void test_deadlines(void)
{
    int control;
    int listen_fd = listen_somewhere();
    pid_t pid = start(listen_fd, DEADLINE, &control);
    test_rows();
    test_body_left_unfinished();
    test_slow_reader();
    close(control);
    check_exit(pid, "a server whose deadlines passed ends");
    close(listen_fd);
}

static void test_whole(void)
{
    int control;
    int listen_fd = listen_somewhere();
    pid_t pid = start(listen_fd, PATIENCE, &control);
    test_answers();
    test_nul_in_target();
    test_long_target();
    test_large_bodies();
    test_bad_lengths();
    test_bad_length_among_others();
    test_large_cookies();
    wait_for("all connections are given back", "open 1 held 1");
    test_client_gone();
    test_many();
    test_big_answer();
    test_drain(control);
    close(control);
    check_exit(pid, "the server ends, every request has ended once, the socket is still open");
    close(listen_fd);
}

static void test_end_in_the_middle(void)
{
    int control;
    int listen_fd = listen_somewhere();
    pid_t pid = start(listen_fd, PATIENCE, &control);
    int polled = dial();
    int suspended = dial();
    int reading = dial();
    say(suspended, GET("/wait?350"));
    say(reading, POST("/echo", "Content-Length: 5\r\n") "he");
    poll(NULL, 0, 50);
    say(polled, GET("/wait?350"));
    poll(NULL, 0, 5);
    close(control);
    check_exit(pid, "a server ends with requests in all states");
    close(polled);
    close(suspended);
    close(reading);
    close(listen_fd);
}

int main(void)
{
    test_deadlines();
    test_whole();
    test_end_in_the_middle();
    return test_end();
}
