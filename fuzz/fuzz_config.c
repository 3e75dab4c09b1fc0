/* Flags, addresses and what the log shows of a database. An input is lines: its first is a
 * database, its second an address, the others are flags. libpq itself is asked which part of the
 * database is the password that must not be shown. */
#include <string.h>

#include <libpq-fe.h>

#include "arena.h"
#include "config.h"
#include "error.h"
#include "fuzz.h"

enum { MOST_ARGUMENTS = 32, SHORTEST_SECRET = 3 };

static bool is_secret(const PQconninfoOption *option)
{
    return strcmp(option->keyword, "password") == 0 || strcmp(option->keyword, "sslpassword") == 0;
}

/* True for a text that cannot come about by chance, out of an escape or where two parts meet. */
static bool is_telling(const char *text)
{
    size_t length = strspn(text, "ghijklmnopqrstuvwxyz");
    return length >= SHORTEST_SECRET && !text[length];
}

/* True if the text stands in a part that may be shown, so that nothing can be said about it. */
static bool stands_elsewhere(const PQconninfoOption *options, const char *text)
{
    if (strstr("postgresql", text)) {
        return true;
    }
    for (const PQconninfoOption *option = options; option->keyword; option++) {
        if (strstr(option->keyword, text) ||
            (option->val && !is_secret(option) && strstr(option->val, text))) {
            return true;
        }
    }
    return false;
}

static void check_secrets(const PQconninfoOption *options, const char *shown)
{
    for (const PQconninfoOption *option = options; option->keyword; option++) {
        if (option->val && is_secret(option) && is_telling(option->val) &&
            !stands_elsewhere(options, option->val)) {
            claim(!strstr(shown, option->val));
        }
    }
}

static void check_redaction(const char *database)
{
    char shown[8192];
    char *message = NULL;
    config_redact(database, shown, sizeof shown);
    PQconninfoOption *options = PQconninfoParse(database, &message);
    if (options) {
        check_secrets(options, shown);
    }
    PQconninfoFree(options);
    PQfreemem(message);
}

static void check_address(const char *address)
{
    char host[256], port[8], again[300], host_again[256], port_again[8];
    struct error err;
    if (config_split_address(address, host, sizeof host, port, sizeof port, &err) != 0) {
        claim(err.message[0]);
        return;
    }
    claim(strtoul(port, NULL, 10) <= 65535);
    snprintf(again, sizeof again, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    claim(config_split_address(again, host_again, sizeof host_again, port_again, sizeof port_again,
                               &err) == 0);
    claim(strcmp(host, host_again) == 0 && strcmp(port, port_again) == 0);
}

static void check_values(const struct config *config)
{
    claim(config->workers >= 1 && config->workers <= 128);
    claim(config->pool_max >= 1 && config->pool_max <= 10000);
    claim(config->pool_min_idle >= 0 && config->pool_min_idle <= 10000);
    claim(config->lanes >= 0 && config->lanes <= 8);
    claim(config->deadline >= 1000);
    claim(config->connect_timeout >= 1000);
    claim(config->max_lifetime >= 1000000 && config->max_idle >= 1000000);
    claim(config->body_limit <= (size_t)1 << 30);
    claim(config->lua_memory >= (size_t)1 << 20);
    claim(config->scripts[0] && config->sql[0]);
    claim(strchr(config->listen, ':') && strchr(config->admin_listen, ':'));
}

static void check_flags(char *rest)
{
    char name[] = "moonpool", *arguments[MOST_ARGUMENTS + 2] = {name};
    struct config config;
    struct error err;
    int count = 1;
    char *line;
    while (count <= MOST_ARGUMENTS && (line = strsep(&rest, "\n"))) {
        arguments[count++] = line;
    }
    if (config_parse(&config, count, arguments, &err) != 0) {
        claim(err.code == ERROR_INVALID && err.message[0]);
    } else if (config.command == COMMAND_SERVE) {
        check_values(&config);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    if (size > 2048) {
        return 0;
    }
    arena_init(&arena);
    char *rest = arena_strndup(&arena, (const char *)data, size);
    check_redaction(strsep(&rest, "\n"));
    if (rest) {
        check_address(strsep(&rest, "\n"));
    }
    if (rest) {
        check_flags(rest);
    }
    arena_finish(&arena);
    return 0;
}
