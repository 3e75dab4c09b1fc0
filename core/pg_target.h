/* Where the database is: the connection string, completed from libpq's environment and service
 * files, and the resolution of its host names apart from connecting, since libpq would block on
 * DNS. Of several hosts, which libpq tries one after the other, one that does not answer at all is
 * passed over for a while, since libpq would wait for it forever. */
#ifndef MOONPOOL_PG_TARGET_H
#define MOONPOOL_PG_TARGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct pg_conn;

enum { PG_TARGET_OPTIONS = 64, PG_TARGET_TEXT = 2048 };

struct pg_target {
    char *keywords[PG_TARGET_OPTIONS]; /* owned */
    char *values[PG_TARGET_OPTIONS];   /* owned */
    size_t count;
    const char *hosts; /* borrowed from `values`; comma-separated, or "" */
    const char *ports; /* the same */
    bool resolve;      /* at least one host is a name */
    bool writes;       /* only a server that takes writes will do */
    int host_count;

    char passed_host[256]; /* the one passed over */
    char passed_port[16];
    uint64_t passed_until; /* 0 if none is */
};

/* The hosts as libpq wants them once their names are resolved. Plain data, so that it can be filled
 * on a helper thread. */
struct pg_addresses {
    char hosts[PG_TARGET_TEXT];
    char hostaddrs[PG_TARGET_TEXT];
    char ports[PG_TARGET_TEXT];
    bool failed;
    char message[256];
};

/* Parses `conninfo` (URL or keyword=value; "" for the environment alone). -1 with ERROR_UNAVAILABLE
 * and libpq's message if it is malformed. */
int pg_target_init(struct pg_target *target, const char *conninfo, struct error *err);
void pg_target_finish(struct pg_target *target);

/* Resolves every host to all its addresses. Blocks; safe on any thread. */
void pg_target_resolve(const struct pg_target *target, struct pg_addresses *addresses);

/* Begins a connection (PQconnectStartParams); `addresses` may be NULL when there is nothing to
 * resolve. NULL only when out of memory. */
struct pg_conn *pg_target_connect(const struct pg_target *target,
                                  const struct pg_addresses *addresses, uint64_t now);

/* The host at which `conn` has come to does not answer: connections begun in the next minute begin
 * with the one behind it. */
void pg_target_pass_over(struct pg_target *target, const struct pg_conn *conn, uint64_t now);

#endif
