/* The connection string taken apart and put together again. */
#include "pg_target.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libpq-fe.h>

#include "arena.h"
#include "deadline.h"
#include "error.h"

enum { PASSED_OVER_S = 60 };

/* What we ask for where the user does not: a dead peer is noticed, and no time goes into Kerberos.
 */
static const struct {
    const char *keyword;
    const char *value;
} preferences[] = {
    {"fallback_application_name", "moonpool"},
    {"client_encoding", "UTF8"},
    {"gssencmode", "disable"},
    {"keepalives_idle", "30"},
    {"keepalives_interval", "10"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "30000"},
};

static void set_option(struct pg_target *target, const char *keyword, const char *value)
{
    for (size_t i = 0; i < target->count; i++) {
        if (strcmp(target->keywords[i], keyword) == 0) {
            free(target->values[i]);
            target->values[i] = strdup(value);
            return;
        }
    }
    if (target->count < PG_TARGET_OPTIONS - 4) {
        target->keywords[target->count] = strdup(keyword);
        target->values[target->count] = strdup(value);
        target->count++;
    }
}

static void set_options(struct pg_target *target, const PQconninfoOption *options)
{
    for (; options->keyword; options++) {
        if (options->val && *options->val) {
            set_option(target, options->keyword, options->val);
        }
    }
}

static const char *option(const struct pg_target *target, const char *keyword)
{
    for (size_t i = 0; i < target->count; i++) {
        if (strcmp(target->keywords[i], keyword) == 0) {
            return target->values[i];
        }
    }
    return "";
}

static bool is_name(const char *host)
{
    unsigned char address[sizeof(struct in6_addr)];
    return *host && *host != '/' && *host != '@' && inet_pton(AF_INET, host, address) != 1 &&
           inet_pton(AF_INET6, host, address) != 1;
}

/* Copies the n-th element of a comma-separated list; the last one stands for those behind it. */
static void list_element(const char *list, int n, char *element, size_t size)
{
    const char *end = strchr(list, ',');
    while (n-- > 0 && end) {
        list = end + 1;
        end = strchr(list, ',');
    }
    int length = end ? (int)(end - list) : (int)strlen(list);
    snprintf(element, size, "%.*s", length, list);
}

static int list_count(const char *list)
{
    int count = 1;
    for (; *list; list++) {
        count += *list == ',';
    }
    return count;
}

static int most_elements(const char *one, const char *other)
{
    int count = list_count(one);
    return count > list_count(other) ? count : list_count(other);
}

int pg_target_init(struct pg_target *target, const char *conninfo, struct error *err)
{
    memset(target, 0, sizeof *target);
    char *message = NULL;
    PQconninfoOption *given = PQconninfoParse(conninfo, &message);
    if (!given) {
        error_set(err, ERROR_UNAVAILABLE, "the database URL is malformed: %s",
                  message ? message : "out of memory");
        PQfreemem(message);
        return -1;
    }
    for (size_t i = 0; i < sizeof preferences / sizeof *preferences; i++) {
        set_option(target, preferences[i].keyword, preferences[i].value);
    }
    PQconninfoOption *defaults = PQconndefaults();
    for (PQconninfoOption *d = defaults; d && d->keyword; d++) {
        /* What the compiled-in defaults say of our preferences is no user's wish. */
        if (d->val && *d->val &&
            (!*option(target, d->keyword) || getenv(d->envvar ? d->envvar : ""))) {
            set_option(target, d->keyword, d->val);
        }
    }
    set_options(target, given);
    PQconninfoFree(defaults);
    PQconninfoFree(given);

    target->hosts = option(target, "host");
    target->ports = option(target, "port");
    const char *wanted = option(target, "target_session_attrs");
    target->writes = strcmp(wanted, "read-write") == 0 || strcmp(wanted, "primary") == 0;
    target->host_count = most_elements(target->hosts, option(target, "hostaddr"));
    for (int i = 0; !*option(target, "hostaddr") && i < list_count(target->hosts); i++) {
        char host[256];
        list_element(target->hosts, i, host, sizeof host);
        target->resolve = target->resolve || is_name(host);
    }
    return 0;
}

void pg_target_finish(struct pg_target *target)
{
    for (size_t i = 0; i < target->count; i++) {
        free(target->keywords[i]);
        free(target->values[i]);
    }
    memset(target, 0, sizeof *target);
}

static void append(char *list, const char *element, bool first)
{
    size_t length = strlen(list);
    snprintf(list + length, PG_TARGET_TEXT - length, "%s%s", first ? "" : ",", element);
}

static void add_address(struct pg_addresses *addresses, const char *host, const char *address,
                        const char *port)
{
    bool first = !*addresses->ports;
    append(addresses->hosts, host, first);
    append(addresses->hostaddrs, address, first);
    append(addresses->ports, port, first);
}

static void resolve_host(struct pg_addresses *addresses, const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int code = getaddrinfo(host, NULL, &hints, &found);
    if (code != 0) {
        snprintf(addresses->message, sizeof addresses->message, "could not resolve host %.100s: %s",
                 host, gai_strerror(code));
        return;
    }
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        char text[NI_MAXHOST];
        if (getnameinfo(a->ai_addr, a->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) ==
            0) {
            add_address(addresses, host, text, port);
        }
    }
    freeaddrinfo(found);
}

void pg_target_resolve(const struct pg_target *target, struct pg_addresses *addresses)
{
    memset(addresses, 0, sizeof *addresses);
    for (int i = 0; i < list_count(target->hosts); i++) {
        char host[256], port[16];
        list_element(target->hosts, i, host, sizeof host);
        list_element(target->ports, i, port, sizeof port);
        if (!*port) {
            snprintf(port, sizeof port, "5432");
        }
        if (is_name(host)) {
            resolve_host(addresses, host, port);
        } else {
            add_address(addresses, host, *host == '/' || *host == '@' ? "" : host, port);
        }
    }
    addresses->failed = !*addresses->ports;
}

/* Passing over. */

static bool is_passed_over(const struct pg_target *target, const struct pg_addresses *list, int i)
{
    char host[256], address[NI_MAXHOST], port[16];
    list_element(list->hosts, i, host, sizeof host);
    list_element(list->hostaddrs, i, address, sizeof address);
    list_element(list->ports, i, port, sizeof port);
    return strcmp(*host ? host : address, target->passed_host) == 0 &&
           (!*port || strcmp(port, target->passed_port) == 0);
}

/* Where to begin in a list of `count` hosts; a name may stand there with several addresses. */
static int first_host(const struct pg_target *target, const struct pg_addresses *list, int count)
{
    int first = 0;
    for (int i = 0; i < count; i++) {
        if (is_passed_over(target, list, i)) {
            first = (i + 1) % count;
        }
    }
    return first;
}

/* Copies `list`, beginning with its element `first`. An empty one stays empty. */
static void rotate(const char *list, int first, int count, char *rotated)
{
    char element[256];
    *rotated = '\0';
    for (int i = 0; *list && i < count; i++) {
        list_element(list, (first + i) % count, element, sizeof element);
        append(rotated, element, i == 0);
    }
}

/* The hosts in the order in which they are to be tried. */
static void order_hosts(const struct pg_target *target, const struct pg_addresses *addresses,
                        struct pg_addresses *ordered)
{
    struct pg_addresses list = {.failed = false};
    if (addresses) {
        list = *addresses;
    } else {
        snprintf(list.hosts, sizeof list.hosts, "%s", target->hosts);
        snprintf(list.hostaddrs, sizeof list.hostaddrs, "%s", option(target, "hostaddr"));
        snprintf(list.ports, sizeof list.ports, "%s", target->ports);
    }
    int count = most_elements(list.hosts, list.hostaddrs);
    int first = first_host(target, &list, count);
    rotate(list.hosts, first, count, ordered->hosts);
    rotate(list.hostaddrs, first, count, ordered->hostaddrs);
    rotate(list.ports, first, count, ordered->ports);
}

void pg_target_pass_over(struct pg_target *target, const struct pg_conn *conn, uint64_t now)
{
    snprintf(target->passed_host, sizeof target->passed_host, "%s", PQhost(conn));
    snprintf(target->passed_port, sizeof target->passed_port, "%s", PQport(conn));
    target->passed_until = now + SECONDS(PASSED_OVER_S);
}

static bool is_host_option(const char *keyword)
{
    return strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 ||
           strcmp(keyword, "port") == 0;
}

struct pg_conn *pg_target_connect(const struct pg_target *target,
                                  const struct pg_addresses *addresses, uint64_t now)
{
    struct pg_addresses ordered;
    if (now < target->passed_until) {
        order_hosts(target, addresses, &ordered);
        addresses = &ordered;
    }
    const char *keywords[PG_TARGET_OPTIONS + 1];
    const char *values[PG_TARGET_OPTIONS + 1];
    size_t n = 0;
    for (size_t i = 0; i < target->count; i++) {
        if (!addresses || !is_host_option(target->keywords[i])) {
            keywords[n] = target->keywords[i];
            values[n++] = target->values[i];
        }
    }
    if (addresses) {
        keywords[n] = "host";
        values[n++] = addresses->hosts;
        keywords[n] = "hostaddr";
        values[n++] = addresses->hostaddrs;
        keywords[n] = "port";
        values[n++] = addresses->ports;
    }
    keywords[n] = NULL;
    values[n] = NULL;
    return PQconnectStartParams(keywords, values, 0);
}
