/* The configuration: flags over environment over defaults. Read once at start,
 * then constant. */
#ifndef MOONPOOL_CONFIG_H
#define MOONPOOL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "log.h"

struct error;

enum command {
    COMMAND_SERVE,
    COMMAND_MIGRATE,
    COMMAND_CHECK,
    COMMAND_ROUTES,
    COMMAND_TEST,
    COMMAND_VERSION,
    COMMAND_HELP, /* `--help`, `help` or no command */
};

/* What becomes of a request whose client has closed its sending side. */
enum half_closed { HALF_CLOSED_CANCEL, HALF_CLOSED_ANSWER };

struct config {
    enum command command;
    char **arguments; /* borrowed from argv: what follows the options, for `test`; the command that
                         is asked about, for `help` */
    int argument_count;

    const char *database;     /* a libpq URL or conninfo; "" lets libpq read PG* variables */
    const char *listen;       /* host:port of the API; port 0 picks a free one */
    const char *admin_listen; /* host:port of health and metrics */
    const char *scripts;      /* folder of *.lua */
    const char *sql;          /* folder of *.sql, migrations below it in migrations/ */
    int workers;              /* processes; default: online processors */
    int pool_max;          /* sessions on the database, for the whole server; default 4 x workers,
                              at least 4 */
    int pool_min_idle;     /* sessions kept open when idle, for the whole server; default 0 */
    int lanes;             /* most shared connections per worker; 0 for none; default 1 */
    uint64_t max_lifetime; /* microseconds; a session older than this is replaced; default 1 h */
    uint64_t max_idle;     /* microseconds; an idle session is closed; default 30 min */
    uint64_t health_check; /* microseconds; an idle session is checked; default 30 s */
    uint64_t connect_timeout; /* microseconds; default 5 s */
    uint64_t deadline;        /* microseconds; of a request whose route names none; default 2 s */
    uint64_t send_timeout;    /* microseconds; 0: answers end at the deadline, the default */
    uint64_t shutdown;        /* microseconds that draining may take; default 10 s */
    size_t body_limit;        /* bytes of a request body; default 1 MiB */
    size_t header_limit;      /* bytes of memory for a request's head; default 8 KiB */
    size_t lua_memory;        /* bytes one lua_State may use; default 512 MiB */
    bool development;         /* error pages show script errors */
    bool check_only;          /* serve --check: validate, print, exit */
    bool watch;               /* reload when a script or statement file changes; default true */
    enum half_closed half_closed;
    enum log_level log_level;
    enum log_format log_format;
};

/* Reads argv and the environment. -1 with a message that names the flag or variable and what would
 * be right. Strings are borrowed from argv, the environment or the program. */
int config_parse(struct config *config, int argc, char **argv, struct error *err);

/* Prints what `moonpool --help` or `moonpool COMMAND --help` says, on stdout. */
void config_help(const struct config *config);

/* `database` without its password, for logs and messages; "***" in its place. */
void config_redact(const char *database, char *text, size_t size);

/* Splits "host:port", "[::1]:port" or ":port". -1 if it is none of these. */
int config_split_address(const char *address, char *host, size_t host_size, char *port,
                         size_t port_size, struct error *err);

#endif
