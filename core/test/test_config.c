/* Configuration: flags over environment over defaults, and what must not be shown. */
#include "config.h"

#include <stdlib.h>

#include "deadline.h"
#include "error.h"
#include "test.h"

enum { MOST_ARGUMENTS = 8 };

/* Parses `words`, a NULL-terminated list behind "moonpool". */
static int parse(struct config *config, const char *const *words, struct error *err)
{
    /* The configuration points into it. */
    static char *argv[MOST_ARGUMENTS + 2] = {(char *)"moonpool"};
    int argc = 1;
    while (words[argc - 1]) {
        argv[argc] = (char *)words[argc - 1];
        argc++;
    }
    argv[argc] = NULL;
    return config_parse(config, argc, argv, err);
}

static void parse_well(struct config *config, const char *const *words)
{
    struct error err = {0};
    check_int(parse(config, words, &err), 0, "\"%s ...\" is accepted", words[0] ? words[0] : "");
    if (err.message[0]) {
        printf("# %s\n", err.message);
    }
}

static void test_defaults(void)
{
    struct config config;
    parse_well(&config, (const char *[]){"serve", NULL});
    check_int(config.command, COMMAND_SERVE, "the command is serve");
    check_text(config.database, "", "libpq finds the database");
    check_text(config.listen, "127.0.0.1:8608", "the API's address");
    check_text(config.admin_listen, "127.0.0.1:8609", "the admin address");
    check_text(config.scripts, "scripts", "the scripts");
    check_text(config.sql, "sql", "the SQL");
    check(config.workers >= 1, "a worker per processor");
    check_int(config.pool_max, config.workers * 4, "4 sessions per worker");
    check_int(config.pool_min_idle, 0, "no idle sessions are kept");
    check_int(config.max_lifetime, SECONDS(3600), "an hour of life");
    check_int(config.max_idle, SECONDS(1800), "half an hour of idleness");
    check_int(config.connect_timeout, SECONDS(5), "5 s to connect");
    check_int(config.deadline, SECONDS(2), "2 s for a request");
    check_int(config.shutdown, SECONDS(10), "10 s to drain");
    check_int(config.body_limit, 1024 * 1024, "1 MiB of body");
    check_int(config.lua_memory, 512 * 1024 * 1024, "512 MiB of Lua");
    check(!config.development && !config.check_only && config.watch, "the switches");
    check(config.log_level == LOG_INFO && config.log_format == LOG_TEXT, "the log");
}

static void test_flags(void)
{
    struct config config;
    parse_well(&config, (const char *[]){"--workers", "3", "serve", "--pool-max=7", "--deadline",
                                         "1.5s", "--no-watch", NULL});
    check_int(config.command, COMMAND_SERVE, "flags stand before and after the command");
    check_int(config.workers, 3, "--workers");
    check_int(config.pool_max, 7, "--pool-max");
    check_int(config.deadline, MILLISECONDS(1500), "--deadline");
    check(!config.watch, "--no-watch");
    parse_well(&config, (const char *[]){"serve", "--log", "json", "--log-level=debug",
                                         "--development", "--check", NULL});
    check(config.log_format == LOG_JSON && config.log_level == LOG_DEBUG, "the log as flags say");
    check(config.development && config.check_only, "the switches as flags say");
}

static void test_values(void)
{
    static const struct {
        const char *flag;
        uint64_t deadline, body_limit;
    } rows[] = {
        {"--deadline=2s", SECONDS(2), 0},
        {"--deadline=500ms", MILLISECONDS(500), 0},
        {"--deadline=30m", SECONDS(1800), 0},
        {"--deadline=1h", SECONDS(3600), 0},
        {"--deadline=0.25s", MILLISECONDS(250), 0},
        {"--deadline=1500us", 1500, 0},
        {"--body-limit=1MiB", 0, 1048576},
        {"--body-limit=512kB", 0, 512000},
        {"--body-limit=1048576", 0, 1048576},
        {"--body-limit=1.5KiB", 0, 1536},
        {"--body-limit=0", 0, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config config;
        parse_well(&config, (const char *[]){"serve", rows[i].flag, NULL});
        if (strstr(rows[i].flag, "deadline")) {
            check_int(config.deadline, rows[i].deadline, "%s", rows[i].flag);
        } else {
            check_int(config.body_limit, rows[i].body_limit, "%s", rows[i].flag);
        }
    }
}

static void test_refusals(void)
{
    static const struct {
        const char *words[4];
        const char *message; /* a part of it */
    } rows[] = {
        {{"serve", "--workers", "0"},
         "--workers: \"0\" is not right: expected a whole number from 1"},
        {{"serve", "--workers", "129"}, "from 1 to 128"},
        {{"serve", "--workers", "1.0"}, "--workers: \"1.0\""},
        {{"serve", "--workers", "-1"}, "--workers: \"-1\""},
        {{"serve", "--workers", "0x2"}, "--workers: \"0x2\""},
        {{"serve", "--workers", "99999999999999999999999999"}, "--workers"},
        {{"serve", "--workers="}, "--workers: \"\""},
        {{"serve", "--workers"}, "--workers needs a value"},
        {{"serve", "--deadline", "2"}, "expected a duration such as 500ms, 1.5s or 30m, from 1ms"},
        {{"serve", "--deadline", "2 s"}, "--deadline"},
        {{"serve", "--deadline", ".5s"}, "--deadline"},
        {{"serve", "--deadline", "1e3s"}, "--deadline"},
        {{"serve", "--deadline", "infs"}, "--deadline"},
        {{"serve", "--deadline", "-1s"}, "--deadline"},
        {{"serve", "--deadline", "0s"}, "--deadline"},
        {{"serve", "--deadline", "366d"}, "to 365d"},
        {{"serve", "--body-limit", "1XB"}, "expected a size such as 512kB"},
        {{"serve", "--body-limit", "2GiB"}, "from 0 to 1GiB"},
        {{"serve", "--lua-memory", "1kB"}, "from 1MiB"},
        {{"serve", "--listen", "8608"}, "--listen: \"8608\" is not right: expected host:port"},
        {{"serve", "--listen", "::1:8608"}, "--listen"},
        {{"serve", "--admin-listen", "host:http"}, "--admin-listen"},
        {{"serve", "--scripts", ""}, "--scripts: \"\" is not right: expected the path"},
        {{"serve", "--log", "xml"}, "--log: \"xml\" is not right: expected text or json"},
        {{"serve", "--log-level", "all"}, "expected debug, info, warn or error"},
        {{"serve", "--no-watch=1"}, "--no-watch takes no value"},
        {{"serve", "--porta", "1"}, "unknown flag --porta"},
        {{"serve", "-p"}, "unknown flag -p"},
        {{"serve", "now"}, "serve takes no argument, but there is \"now\""},
        {{"sreve"}, "unknown command \"sreve\": expected serve, migrate"},
        {{"serve", "--pool-max=2", "--pool-min-idle=3"}, "--pool-min-idle: 3 is more than the 2"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config config;
        struct error err = {0};
        const char *words[5] = {rows[i].words[0], rows[i].words[1], rows[i].words[2],
                                rows[i].words[3], NULL};
        check_int(parse(&config, words, &err), -1, "%s %s is refused", words[0],
                  words[1] ? words[1] : "");
        if (!check(strstr(err.message, rows[i].message), "with \"%s\"", rows[i].message)) {
            printf("# actual: %s\n", err.message);
        }
    }
}

static void test_environment(void)
{
    struct config config;
    struct error err = {0};
    setenv("DATABASE_URL", "postgres://here/db", 1);
    setenv("MOONPOOL_WORKERS", "5", 1);
    setenv("MOONPOOL_DEADLINE", "300ms", 1);
    setenv("MOONPOOL_NO_WATCH", "true", 1);
    setenv("MOONPOOL_DEVELOPMENT", "", 1);
    parse_well(&config, (const char *[]){"serve", "--workers=2", NULL});
    check_text(config.database, "postgres://here/db", "DATABASE_URL");
    check_int(config.workers, 2, "a flag wins over its variable");
    check_int(config.deadline, MILLISECONDS(300), "a variable wins over the default");
    check(!config.watch, "a variable may turn a switch");
    check(!config.development, "an empty variable counts as none");
    setenv("MOONPOOL_WORKERS", "many", 1);
    check_int(parse(&config, (const char *[]){"serve", NULL}, &err), -1, "a bad one is refused");
    check_text(err.message,
               "MOONPOOL_WORKERS: \"many\" is not right: expected a whole number from 1 to 128",
               "by its name");
    parse_well(&config, (const char *[]){"serve", "--workers=2", NULL});
    parse_well(&config, (const char *[]){"help", NULL});
    unsetenv("DATABASE_URL");
    unsetenv("MOONPOOL_WORKERS");
    unsetenv("MOONPOOL_DEADLINE");
    unsetenv("MOONPOOL_NO_WATCH");
    unsetenv("MOONPOOL_DEVELOPMENT");
}

static void test_commands(void)
{
    struct config config;
    parse_well(&config, (const char *[]){"test", "--log=json", "spec/unit", "--pattern=x", NULL});
    check_int(config.command, COMMAND_TEST, "test");
    check_int(config.argument_count, 2, "keeps what follows the flags");
    check_text(config.arguments[0], "spec/unit", "the first");
    check_text(config.arguments[1], "--pattern=x", "the second, though it looks like a flag");
    parse_well(&config, (const char *[]){"test", "--", "--verbose", NULL});
    check_text(config.arguments[0], "--verbose", "what follows -- is busted's");
    parse_well(&config, (const char *[]){"serve", "--help", NULL});
    check_int(config.command, COMMAND_HELP, "serve --help is help");
    check_text(config.arguments[0], "serve", "about serve");
    parse_well(&config, (const char *[]){NULL});
    check_int(config.command, COMMAND_HELP, "no command is help");
    parse_well(&config, (const char *[]){"-h", NULL});
    check_int(config.command, COMMAND_HELP, "-h is help");
    parse_well(&config, (const char *[]){"version", NULL});
    check_int(config.command, COMMAND_VERSION, "version");
}

static void test_redact(void)
{
    static const char *const rows[][2] = {
        {"", ""},
        {"mydb", "mydb"},
        {"postgres://host/db", "postgres://host/db"},
        {"postgres://user@host:5432/db", "postgres://user@host:5432/db"},
        {"postgres://user:secret@host:5432/db", "postgres://user:***@host:5432/db"},
        {"postgresql://user:secret@a:1,b:2/db?target_session_attrs=read-write",
         "postgresql://user:***@a:1,b:2/db?target_session_attrs=read-write"},
        {"postgres://user:se@cret@host/db", "postgres://user:***@host/db"},
        {"postgres://user:se/cret@host/db", "postgres://user:***@host/db"},
        {"postgres://user:se?cret@host/db", "postgres://user:***@host/db"},
        {"postgres://host?password=secret", "postgres://host?password=***"},
        {"postgres://host?password=a/secret", "postgres://host?password=***"},
        {"postgres://host/db?user=me&password=secret&sslpassword=secret&x=y",
         "postgres://host/db?user=me&password=***&sslpassword=***&x=y"},
        {"postgres://host/db?pass%77ord=secret", "postgres://host/db?pass%77ord=***"},
        {"postgres://host/db?PASSWORD=secret", "postgres://host/db?PASSWORD=***"},
        {"postgres://host/db?application_name=a@b", "postgres://host/db?application_name=a@b"},
        {"postgres:///db?host=/tmp/x", "postgres:///db?host=/tmp/x"},
        {"host=h password=secret dbname=d", "host=h password=*** dbname=d"},
        {"host=h password='se cret' dbname=d", "host=h password=*** dbname=d"},
        {"password = 'se\\'cret' dbname='my db'", "password=*** dbname='my db'"},
        {"password=se\\ cret user=u", "password=*** user=u"},
        {"password='secret", "password=***"},
        {"password=se cret user=u", "password=*** ***"},
        {"password=", "password=***"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[256];
        config_redact(rows[i][0], text, sizeof text);
        check_text(text, rows[i][1], "redacts %s", rows[i][0]);
    }
    char small[8];
    config_redact("postgres://user:secret@host", small, sizeof small);
    check_text(small, "postgre", "and cuts what does not fit");
}

static void test_addresses(void)
{
    static const struct {
        const char *address, *host, *port; /* host NULL: it is none */
    } rows[] = {
        {"127.0.0.1:8608", "127.0.0.1", "8608"},
        {"localhost:0", "localhost", "0"},
        {":8608", "", "8608"},
        {"[::1]:65535", "::1", "65535"},
        {"[::]:1", "::", "1"},
        {"", NULL, NULL},
        {"8608", NULL, NULL},
        {"host:", NULL, NULL},
        {"host:65536", NULL, NULL},
        {"host:80x", NULL, NULL},
        {"::1:80", NULL, NULL},
        {"[::1]", NULL, NULL},
        {"[::1:80", NULL, NULL},
        {"[::1]x:80", NULL, NULL},
        {"[[]:80", NULL, NULL},
        {"a]:80", NULL, NULL},
        {"a-host-whose-name-is-too-long-for-it:80", NULL, NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char host[32], port[8];
        struct error err;
        int status =
            config_split_address(rows[i].address, host, sizeof host, port, sizeof port, &err);
        check_int(status, rows[i].host ? 0 : -1, "\"%s\"", rows[i].address);
        if (status == 0 && rows[i].host) {
            check_text(host, rows[i].host, "its host");
            check_text(port, rows[i].port, "its port");
        }
    }
}

int main(void)
{
    clearenv(); /* What this process was started with must not matter. */
    test_defaults();
    test_flags();
    test_values();
    test_refusals();
    test_environment();
    test_commands();
    test_redact();
    test_addresses();
    return test_end();
}
