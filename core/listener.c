/* Resolves an address and binds to it, once for all workers or once for each. */
#include "listener.h"

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config.h"
#include "error.h"

enum { BACKLOG = 4096 };

/* A bound socket, or -1 with errno set. */
static int bind_socket(const struct addrinfo *where, bool share_port)
{
    int on = 1;
    int fd = socket(where->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
    if (fd < 0) {
        return -1;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (!share_port || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) &&
        bind(fd, where->ai_addr, where->ai_addrlen) == 0) {
        return fd;
    }
    int problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

/* A port that is shared is shared with every process of this user that asks for it: another server
 * shows only when one binds without sharing. */
static int probe(const struct addrinfo *where)
{
    int fd = bind_socket(where, false);
    if (fd < 0) {
        return -1;
    }
    close(fd);
    return 0;
}

int listener_begin(int fd)
{
    return listen(fd, BACKLOG);
}

/* The sockets behind the first take its port, which the kernel may have picked. */
static int open_all(struct addrinfo *where, int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        fds[i] = bind_socket(where, count > 1);
        socklen_t length = where->ai_addrlen;
        if (fds[i] < 0 || (i == 0 && listener_begin(fds[i]) != 0) ||
            getsockname(fds[i], where->ai_addr, &length) != 0) {
            int problem = errno;
            for (uint32_t opened = 0; opened <= i && fds[opened] >= 0; opened++) {
                close(fds[opened]);
            }
            errno = problem;
            return -1;
        }
    }
    return 0;
}

/* The first address of the list that this machine has; 0 or an errno. One that is taken is not
 * passed over: clients that try it first would end up at somebody else's. */
static int open_first(struct addrinfo *list, int *fds, uint32_t count)
{
    int reason = EADDRNOTAVAIL;
    for (struct addrinfo *where = list; where; where = where->ai_next) {
        if (probe(where) == 0 && open_all(where, fds, count) == 0) {
            return 0;
        }
        reason = errno;
        if (reason != EADDRNOTAVAIL && reason != EAFNOSUPPORT) {
            break;
        }
    }
    return reason;
}

static int resolve(const char *address, struct addrinfo **ret_list, struct error *err)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                          .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char host[256], port[8];
    if (config_split_address(address, host, sizeof host, port, sizeof port, err) != 0) {
        return -1;
    }
    int status = getaddrinfo(host[0] ? host : NULL, port, &hints, ret_list);
    if (status != 0) {
        return error_set(err, ERROR_UNAVAILABLE, "%s", gai_strerror(status));
    }
    return 0;
}

int listener_open(const char *flag, const char *address, int *ret_fds, uint32_t count,
                  struct error *err)
{
    struct addrinfo *list;
    struct error problem;
    if (resolve(address, &list, &problem) != 0) {
        return error_set(err, problem.code, "%s %s: %s", flag, address, problem.message);
    }
    int reason = open_first(list, ret_fds, count);
    freeaddrinfo(list);
    if (reason == 0) {
        return 0;
    }
    return error_set(err, ERROR_UNAVAILABLE, "%s %s: %s%s", flag, address, strerror(reason),
                     reason == EADDRINUSE ? " (is another server running there?)" : "");
}

void listener_url(int fd, char *text, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[64] = "?", port[8] = "?";
    if (getsockname(fd, (struct sockaddr *)&address, &length) == 0) {
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV);
    }
    bool brackets = strchr(host, ':') != NULL;
    snprintf(text, size, "http://%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "", port);
}
