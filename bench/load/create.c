/* The load of W1 and W5: creates users over HTTP, each client on a kept-alive connection of its
 * own. usage: create HOST PORT CLIENTS, then rounds on standard input as rounds.h says. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rounds.h"

enum { ANSWER_SIZE = 16384, REQUEST_SIZE = 1024, ANSWER_TIMEOUT_S = 15 };

struct http_client {
    const struct sockaddr_in *address; /* borrowed; outlives the client */
    int socket;                        /* owned; -1 when there is no connection */
    char answer[ANSWER_SIZE + 1];
    size_t length; /* of the answer so far */
};

static void hang_up(struct http_client *client)
{
    if (client->socket >= 0) {
        close(client->socket);
        client->socket = -1;
    }
}

static bool connect_again(struct http_client *client)
{
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    int on = 1;
    client->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client->socket < 0 || connect(client->socket, (const struct sockaddr *)client->address,
                                      sizeof *client->address) != 0) {
        hang_up(client);
        return false;
    }
    setsockopt(client->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(client->socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    return true;
}

static void *http_open(const void *settings)
{
    struct http_client *client = calloc(1, sizeof *client);
    if (client) {
        client->address = settings;
    }
    if (!client || !connect_again(client)) {
        fprintf(stderr, "create: %s\n", strerror(errno));
        free(client);
        return NULL;
    }
    return client;
}

static void http_close(void *data)
{
    struct http_client *client = data;
    hang_up(client);
    free(client);
}

static bool send_request(struct http_client *client, const char *username)
{
    char body[REQUEST_SIZE / 2], request[REQUEST_SIZE];
    int length = snprintf(body, sizeof body,
                          "{\"username\":\"%s\",\"score\":100,"
                          "\"profile\":{\"firstname\":\"Bench\",\"lastname\":\"Mark\"}}",
                          username);
    length = snprintf(request, sizeof request,
                      "POST /users HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                      "Content-Length: %d\r\n\r\n%s",
                      length, body);
    return send(client->socket, request, (size_t)length, MSG_NOSIGNAL) == length;
}

static bool receive_more(struct http_client *client)
{
    ssize_t got =
        recv(client->socket, client->answer + client->length, ANSWER_SIZE - client->length, 0);
    if (got <= 0) {
        return false;
    }
    client->length += (size_t)got;
    client->answer[client->length] = '\0';
    return true;
}

/* The value of a header of the answer, whose head is complete and ends at `end`; or NULL. */
static const char *header(const struct http_client *client, const char *end, const char *name)
{
    const char *line = strstr(client->answer, "\r\n");
    size_t length = strlen(name);
    for (; line && line < end; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) == 0 && line[2 + length] == ':') {
            line += 3 + length;
            return line + strspn(line, " \t");
        }
    }
    return NULL;
}

/* Reads one whole answer. The servers give short answers a Content-Length; without it, where the
 * answer ends is not known, so it counts as none; so does one that says that it knows no outcome.
 */
static int receive_answer(struct http_client *client)
{
    const char *end, *value;
    size_t total;
    int status;
    client->length = 0;
    client->answer[0] = '\0';
    do {
        if (!receive_more(client)) {
            return 0;
        }
        end = strstr(client->answer, "\r\n\r\n");
    } while (!end);
    value = header(client, end, "content-length");
    if (!value || sscanf(client->answer, "HTTP/1.1 %d", &status) != 1) {
        return 0;
    }
    total = (size_t)(end + 4 - client->answer) + strtoul(value, NULL, 10);
    while (client->length < total) {
        if (!receive_more(client)) {
            return 0;
        }
    }
    value = header(client, end, "connection");
    if (value && strncasecmp(value, "close", 5) == 0) {
        hang_up(client);
    }
    return strstr(client->answer, "outcome-unknown") ? 0 : status;
}

/* A create is never sent twice: whether the first one was done is not known. */
static int http_create(void *data, const char *username)
{
    struct http_client *client = data;
    int status = 0;
    if (client->socket < 0 && !connect_again(client)) {
        return 0;
    }
    if (send_request(client, username)) {
        status = receive_answer(client);
    }
    if (status == 0) {
        hang_up(client);
    }
    return status;
}

static const struct rounds_backend HTTP = {http_open, http_create, http_close};

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    if (argc != 4 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1 || atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: create HOST PORT CLIENTS\n");
        return 2;
    }
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    return rounds_run(&HTTP, &address, atoi(argv[3]));
}
