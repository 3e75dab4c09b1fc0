/* Reads flags and environment. One table says what can be set, how it is read and what the help
 * says; the defaults are texts that go through the same readers. */
#include "config.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "error.h"

/* As many as there are slots in shared memory (SHARED_WORKERS). */
enum { MOST_LANES = 8, MOST_WORKERS = 128, MOST_SESSIONS = 10000 };

#define SECOND ((uint64_t)1000000)
#define YEAR (365 * 24 * 3600 * SECOND)
#define MEBIBYTE ((uint64_t)1024 * 1024)

enum kind {
    KIND_TEXT,     /* const char *, may be empty */
    KIND_PATH,     /* const char *, not empty */
    KIND_ADDRESS,  /* const char *, host:port */
    KIND_COUNT,    /* int */
    KIND_DURATION, /* uint64_t, microseconds */
    KIND_SIZE,     /* size_t, bytes */
    KIND_CHOICE,   /* an enum whose values count from 0 */
    KIND_ON,       /* bool that the setting makes true */
    KIND_OFF,      /* bool that the setting makes false */
};

struct setting {
    const char *flag;
    const char *variable; /* NULL if there is none */
    enum kind kind;
    size_t offset;        /* of its field in struct config */
    const char *standard; /* the default as a text; NULL if it is computed */
    const char *argument; /* what the help calls the value */
    const char *help;
    uint64_t least, most;       /* of counts, durations and sizes */
    const char *const *choices; /* NULL-terminated */
};

static const char *const half_closed[] = {"cancel", "answer", NULL};
static const char *const log_formats[] = {"text", "json", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error", NULL};

#define FIELD(name) offsetof(struct config, name)

static const struct setting settings[] = {
    {"database", "DATABASE_URL", KIND_TEXT, FIELD(database), "", "URL",
     "PostgreSQL, as a URL or a conninfo string; libpq's PG* variables apply", 0, 0, NULL},
    {"listen", "MOONPOOL_LISTEN", KIND_ADDRESS, FIELD(listen), "127.0.0.1:8608", "HOST:PORT",
     "address of the API; port 0 picks a free one", 0, 0, NULL},
    {"admin-listen", "MOONPOOL_ADMIN_LISTEN", KIND_ADDRESS, FIELD(admin_listen), "127.0.0.1:8609",
     "HOST:PORT", "address of health and metrics", 0, 0, NULL},
    {"workers", "MOONPOOL_WORKERS", KIND_COUNT, FIELD(workers), NULL, "N",
     "worker processes (default: one per processor)", 1, MOST_WORKERS, NULL},
    {"pool-max", "MOONPOOL_POOL_MAX", KIND_COUNT, FIELD(pool_max), NULL, "N",
     "most database sessions, for the whole server (default: 4 per worker)", 1, MOST_SESSIONS,
     NULL},
    {"pool-min-idle", "MOONPOOL_POOL_MIN_IDLE", KIND_COUNT, FIELD(pool_min_idle), "0", "N",
     "sessions kept open when idle, for the whole server", 0, MOST_SESSIONS, NULL},
    {"lanes", "MOONPOOL_LANES", KIND_COUNT, FIELD(lanes), "1", "N",
     "connections per worker that short reads of many requests share; with 0 each read has one of "
     "its own",
     0, MOST_LANES, NULL},
    {"pool-max-lifetime", "MOONPOOL_POOL_MAX_LIFETIME", KIND_DURATION, FIELD(max_lifetime), "1h",
     "TIME", "replace a session that is older than this", SECOND, YEAR, NULL},
    {"pool-max-idle-time", "MOONPOOL_POOL_MAX_IDLE_TIME", KIND_DURATION, FIELD(max_idle), "30m",
     "TIME", "close a session that has been idle for this long", SECOND, YEAR, NULL},
    {"pool-health-check", "MOONPOOL_POOL_HEALTH_CHECK", KIND_DURATION, FIELD(health_check), "30s",
     "TIME", "how often an idle session is asked whether the server is there", SECOND, YEAR, NULL},
    {"connect-timeout", "MOONPOOL_CONNECT_TIMEOUT", KIND_DURATION, FIELD(connect_timeout), "5s",
     "TIME", "longest wait for a new session", SECOND / 1000, YEAR, NULL},
    {"deadline", "MOONPOOL_DEADLINE", KIND_DURATION, FIELD(deadline), "2s", "TIME",
     "of a request whose route names none", SECOND / 1000, YEAR, NULL},
    {"send-timeout", "MOONPOOL_SEND_TIMEOUT", KIND_DURATION, FIELD(send_timeout), "0s", "TIME",
     "let clients read an answer after its deadline, as long as they take some of it in this time",
     0, YEAR, NULL},
    {"half-closed", "MOONPOOL_HALF_CLOSED", KIND_CHOICE, FIELD(half_closed), "cancel", "HOW",
     "cancel or answer a request whose client has closed its sending side", 0, 0, half_closed},
    {"shutdown-timeout", "MOONPOOL_SHUTDOWN_TIMEOUT", KIND_DURATION, FIELD(shutdown), "10s", "TIME",
     "longest time that draining may take", 0, YEAR, NULL},
    {"body-limit", "MOONPOOL_BODY_LIMIT", KIND_SIZE, FIELD(body_limit), "1MiB", "SIZE",
     "largest request body", 0, 1024 * MEBIBYTE, NULL},
    {"header-limit", "MOONPOOL_HEADER_LIMIT", KIND_SIZE, FIELD(header_limit), "8KiB", "SIZE",
     "most memory for the line and the headers of a request; each connection takes that much", 1024,
     MEBIBYTE, NULL},
    {"lua-memory", "MOONPOOL_LUA_MEMORY", KIND_SIZE, FIELD(lua_memory), "512MiB", "SIZE",
     "most memory that the scripts of one worker may use", MEBIBYTE, 1024 * 1024 * MEBIBYTE, NULL},
    {"scripts", "MOONPOOL_SCRIPTS", KIND_PATH, FIELD(scripts), "scripts", "FOLDER",
     "folder of *.lua", 0, 0, NULL},
    {"sql", "MOONPOOL_SQL", KIND_PATH, FIELD(sql), "sql", "FOLDER",
     "folder of *.sql, the migrations in migrations/ below it", 0, 0, NULL},
    {"log", "MOONPOOL_LOG", KIND_CHOICE, FIELD(log_format), "text", "FORMAT",
     "form of the log: text or json", 0, 0, log_formats},
    {"log-level", "MOONPOOL_LOG_LEVEL", KIND_CHOICE, FIELD(log_level), "info", "LEVEL",
     "least that is logged: debug, info, warn or error", 0, 0, log_levels},
    {"development", "MOONPOOL_DEVELOPMENT", KIND_ON, FIELD(development), "false", NULL,
     "show errors of scripts in the answers", 0, 0, NULL},
    {"no-watch", "MOONPOOL_NO_WATCH", KIND_OFF, FIELD(watch), "false", NULL,
     "do not reload when a file changes; SIGHUP still does", 0, 0, NULL},
    {"check", NULL, KIND_ON, FIELD(check_only), "false", NULL,
     "serve: check scripts and statements, then exit", 0, 0, NULL},
};

enum { SETTINGS = sizeof settings / sizeof *settings };

static const struct {
    const char *name;
    const char *help;
} commands[] = {
    [COMMAND_SERVE] = {"serve", "serve HTTP until TERM or INT; HUP reloads the scripts"},
    [COMMAND_MIGRATE] = {"migrate", "apply the migrations that the database is missing"},
    [COMMAND_CHECK] = {"check", "check scripts and statements without serving"},
    [COMMAND_ROUTES] = {"routes", "check, and print the routes"},
    [COMMAND_TEST] = {"test", "run the specs: moonpool test [FLAGS] [--] [busted's arguments]"},
    [COMMAND_VERSION] = {"version", "print the version"},
    [COMMAND_HELP] = {"help", "print this"},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

struct unit {
    const char *name;
    double factor;
};

static const struct unit time_units[] = {
    {"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}, {"h", 3600e6}, {"d", 86400e6}, {NULL, 0},
};

static const struct unit size_units[] = {
    {"", 1},          {"B", 1},    {"kB", 1e3},           {"KiB", 1024}, {"MB", 1e6},
    {"MiB", 1048576}, {"GB", 1e9}, {"GiB", 1073741824.0}, {NULL, 0},
};

/* Digits with at most one point among them; `ret_rest` is what follows. */
static bool read_number(const char *text, double *ret_number, const char **ret_rest)
{
    size_t whole = strspn(text, "0123456789");
    size_t length = whole;
    if (text[length] == '.') {
        size_t fraction = strspn(text + length + 1, "0123456789");
        length = fraction > 0 ? length + 1 + fraction : length;
    }
    if (whole == 0 || length > 24) {
        return false;
    }
    *ret_number = strtod(text, NULL);
    *ret_rest = text + length;
    return true;
}

static bool read_quantity(const char *text, const struct unit *units, double *ret_value)
{
    double number;
    const char *rest;
    if (!read_number(text, &number, &rest)) {
        return false;
    }
    for (const struct unit *unit = units; unit->name; unit++) {
        if (strcmp(rest, unit->name) == 0) {
            *ret_value = number * unit->factor;
            return true;
        }
    }
    return false;
}

static bool read_in_range(const struct setting *setting, const char *text, uint64_t *ret_value)
{
    static const struct unit no_units[] = {{"", 1}, {NULL, 0}};
    const struct unit *units = setting->kind == KIND_DURATION ? time_units
                               : setting->kind == KIND_SIZE   ? size_units
                                                              : no_units;
    double value;
    if (!read_quantity(text, units, &value)) {
        return false;
    }
    if (setting->kind == KIND_COUNT && strchr(text, '.')) {
        return false;
    }
    if (value < (double)setting->least || value > (double)setting->most) {
        return false;
    }
    *ret_value = (uint64_t)(value + 0.5);
    return true;
}

static bool read_switch(const char *text, bool *ret_value)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *ret_value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

static bool read_choice(const struct setting *setting, const char *text, unsigned *ret_value)
{
    for (unsigned i = 0; setting->choices[i]; i++) {
        if (strcmp(text, setting->choices[i]) == 0) {
            *ret_value = i;
            return true;
        }
    }
    return false;
}

static bool is_address(const char *text)
{
    char host[256], port[8];
    struct error err;
    return config_split_address(text, host, sizeof host, port, sizeof port, &err) == 0;
}

/* Stores what `text` says into its field; false if it says nothing that fits. */
static bool store(struct config *config, const struct setting *setting, const char *text)
{
    void *field = (char *)config + setting->offset;
    uint64_t number = 0;
    bool on;
    switch (setting->kind) {
    case KIND_TEXT:
    case KIND_PATH:
    case KIND_ADDRESS:
        *(const char **)field = text;
        return setting->kind == KIND_TEXT || (setting->kind == KIND_PATH && text[0]) ||
               (setting->kind == KIND_ADDRESS && is_address(text));
    case KIND_COUNT:
        if (!read_in_range(setting, text, &number)) {
            return false;
        }
        *(int *)field = (int)number;
        return true;
    case KIND_DURATION:
        return read_in_range(setting, text, field);
    case KIND_SIZE:
        if (!read_in_range(setting, text, &number)) {
            return false;
        }
        *(size_t *)field = (size_t)number;
        return true;
    case KIND_CHOICE:
        return read_choice(setting, text, field);
    case KIND_ON:
    case KIND_OFF:
        if (!read_switch(text, &on)) {
            return false;
        }
        *(bool *)field = setting->kind == KIND_ON ? on : !on;
        return true;
    }
    return false;
}

/* A duration or size as a person would write it: in the largest unit that leaves it whole. */
static void write_quantity(char *text, size_t size, uint64_t value, const struct unit *units)
{
    const struct unit *best = &units[0];
    for (const struct unit *unit = units; unit->name; unit++) {
        bool binary = units == time_units || strchr(unit->name, 'i') || unit->factor == 1;
        if (binary && value % (uint64_t)unit->factor == 0 && value >= (uint64_t)unit->factor) {
            best = unit;
        }
    }
    snprintf(text, size, "%" PRIu64 "%s", value / (uint64_t)best->factor, best->name);
}

static void write_choices(char *text, size_t size, const char *const *choices)
{
    size_t used = 0;
    for (size_t i = 0; choices[i] && used < size; i++) {
        const char *joint = i == 0 ? "" : choices[i + 1] ? ", " : " or ";
        used += (size_t)snprintf(text + used, size - used, "%s%s", joint, choices[i]);
    }
}

/* What the value should have been. */
static void write_expected(char *text, size_t size, const struct setting *setting)
{
    char least[32], most[32];
    switch (setting->kind) {
    case KIND_TEXT:
    case KIND_PATH:
        snprintf(text, size, "the path of a folder");
        break;
    case KIND_ADDRESS:
        snprintf(text, size, "host:port, such as 127.0.0.1:8608, [::1]:8608 or :8608");
        break;
    case KIND_COUNT:
        snprintf(text, size, "a whole number from %" PRIu64 " to %" PRIu64, setting->least,
                 setting->most);
        break;
    case KIND_DURATION:
        write_quantity(least, sizeof least, setting->least, time_units);
        write_quantity(most, sizeof most, setting->most, time_units);
        snprintf(text, size, "a duration such as 500ms, 1.5s or 30m, from %s to %s", least, most);
        break;
    case KIND_SIZE:
        write_quantity(least, sizeof least, setting->least, size_units);
        write_quantity(most, sizeof most, setting->most, size_units);
        snprintf(text, size, "a size such as 512kB, 1MiB or 1048576, from %s to %s", least, most);
        break;
    case KIND_CHOICE:
        write_choices(text, size, setting->choices);
        break;
    case KIND_ON:
    case KIND_OFF:
        snprintf(text, size, "true or false");
        break;
    }
}

/* `prefix` and `name` say where the value came from: "--" and a flag, or "" and a variable. */
static int apply(struct config *config, const struct setting *setting, const char *prefix,
                 const char *name, const char *value, struct error *err)
{
    char expected[160];
    if (store(config, setting, value)) {
        return 0;
    }
    write_expected(expected, sizeof expected, setting);
    return error_set(err, ERROR_INVALID, "%s%s: \"%s\" is not right: expected %s", prefix, name,
                     value, expected);
}

/* What getopt_long knows; `val` is 1 + the index of the setting, HELP_VALUE for --help. */
enum { HELP_VALUE = 1000 };

static void make_options(struct option options[SETTINGS + 2])
{
    memset(options, 0, (SETTINGS + 2) * sizeof *options);
    for (int i = 0; i < SETTINGS; i++) {
        options[i].name = settings[i].flag;
        options[i].has_arg = settings[i].argument ? required_argument : no_argument;
        options[i].val = i + 1;
    }
    options[SETTINGS].name = "help";
    options[SETTINGS].val = HELP_VALUE;
}

/* One walk over argv. */
struct parser {
    struct config *config;
    struct option options[SETTINGS + 2];
    bool given[SETTINGS]; /* set by a flag: the environment has no say */
    bool help;
};

static int refuse_flag(int result, char **argv, struct error *err)
{
    if (result == ':') {
        return error_set(err, ERROR_INVALID, "--%s needs a value", settings[optopt - 1].flag);
    }
    if (optopt > SETTINGS) {
        return error_set(err, ERROR_INVALID, "unknown flag -%c", optopt);
    }
    if (optopt > 0) {
        return error_set(err, ERROR_INVALID, "--%s takes no value", settings[optopt - 1].flag);
    }
    return error_set(err, ERROR_INVALID, "unknown flag %s", argv[optind - 1]);
}

/* Reads flags up to the first argument that is none, which argv[optind] is then. */
static int parse_flags(struct parser *parser, int argc, char **argv, struct error *err)
{
    for (;;) {
        int result = getopt_long(argc, argv, "+:h", parser->options, NULL);
        if (result == -1) {
            return 0;
        }
        if (result == 'h' || result == HELP_VALUE) {
            parser->help = true;
            continue;
        }
        if (result == '?' || result == ':') {
            return refuse_flag(result, argv, err);
        }
        const struct setting *setting = &settings[result - 1];
        const char *value = setting->argument ? optarg : "true";
        parser->given[result - 1] = true;
        if (apply(parser->config, setting, "--", setting->flag, value, err) != 0) {
            return -1;
        }
    }
}

static int parse_command(struct config *config, const char *name, struct error *err)
{
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0) {
            config->command = (enum command)i;
            return 0;
        }
    }
    return error_set(err, ERROR_INVALID,
                     "unknown command \"%s\": expected serve, migrate, check, routes, test, "
                     "version or help",
                     name);
}

static void ask_for_help(struct config *config, char **arguments, int count)
{
    config->command = COMMAND_HELP;
    config->arguments = arguments;
    config->argument_count = count;
}

/* Flags, the command, flags again, and what is left. */
static int parse_arguments(struct parser *parser, int argc, char **argv, struct error *err)
{
    struct config *config = parser->config;
    optind = 0; /* makes the GNU getopt start afresh */
    opterr = 0;
    if (parse_flags(parser, argc, argv, err) != 0) {
        return -1;
    }
    if (optind == argc) {
        ask_for_help(config, NULL, 0);
        return 0;
    }
    char **command = argv + optind++;
    if (parse_command(config, *command, err) != 0 || parse_flags(parser, argc, argv, err) != 0) {
        return -1;
    }
    config->arguments = argv + optind;
    config->argument_count = argc - optind;
    if (parser->help) {
        ask_for_help(config, command, 1);
    }
    return 0;
}

static int refuse_arguments(const struct config *config, struct error *err)
{
    if (config->argument_count == 0 || config->command == COMMAND_TEST ||
        config->command == COMMAND_HELP) {
        return 0;
    }
    return error_set(err, ERROR_INVALID, "%s takes no argument, but there is \"%s\"",
                     commands[config->command].name, config->arguments[0]);
}

static void apply_defaults(struct config *config)
{
    for (int i = 0; i < SETTINGS; i++) {
        if (settings[i].standard) {
            store(config, &settings[i], settings[i].standard);
        }
    }
}

/* An empty variable counts as none, which is what Compose files make of those that are not set. */
static int apply_environment(struct parser *parser, struct error *err)
{
    for (int i = 0; i < SETTINGS; i++) {
        const char *variable = settings[i].variable;
        const char *value = variable && !parser->given[i] ? getenv(variable) : NULL;
        if (value && value[0] &&
            apply(parser->config, &settings[i], "", variable, value, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static int online_processors(void)
{
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count > MOST_WORKERS ? MOST_WORKERS : (int)count;
}

static int complete(struct config *config, struct error *err)
{
    if (config->workers == 0) {
        config->workers = online_processors();
    }
    if (config->pool_max == 0) {
        config->pool_max = 4 * config->workers;
    }
    if (config->pool_min_idle > config->pool_max) {
        return error_set(err, ERROR_INVALID,
                         "--pool-min-idle: %d is more than the %d sessions of --pool-max",
                         config->pool_min_idle, config->pool_max);
    }
    return 0;
}

int config_parse(struct config *config, int argc, char **argv, struct error *err)
{
    struct parser parser = {.config = config};
    memset(config, 0, sizeof *config);
    apply_defaults(config);
    make_options(parser.options);
    if (parse_arguments(&parser, argc, argv, err) != 0) {
        return -1;
    }
    if (config->command == COMMAND_HELP || config->command == COMMAND_VERSION) {
        return 0; /* These must work whatever the environment says. */
    }
    if (refuse_arguments(config, err) != 0 || apply_environment(&parser, err) != 0) {
        return -1;
    }
    return complete(config, err);
}

static void print_setting(const struct setting *setting)
{
    char flag[64];
    snprintf(flag, sizeof flag, "--%s %s", setting->flag,
             setting->argument ? setting->argument : "");
    printf("  %-26s %-28s %s", flag, setting->variable ? setting->variable : "", setting->help);
    if (setting->argument && setting->standard && setting->standard[0]) {
        printf(" (default: %s)", setting->standard);
    }
    printf("\n");
}

static void print_commands(void)
{
    printf("usage: moonpool COMMAND [FLAGS]\n\nCommands:\n");
    for (int i = 0; i < COMMANDS; i++) {
        printf("  %-10s %s\n", commands[i].name, commands[i].help);
    }
}

/* The command whose help is asked for; COMMAND_HELP if none is. */
static enum command command_asked_about(const struct config *config)
{
    struct config asked = {.command = COMMAND_HELP};
    struct error err;
    if (config->argument_count > 0) {
        parse_command(&asked, config->arguments[0], &err);
    }
    return asked.command;
}

void config_help(const struct config *config)
{
    enum command command = command_asked_about(config);
    if (command == COMMAND_HELP) {
        print_commands();
    } else {
        printf("usage: moonpool %s [FLAGS]\n\n%s\n", commands[command].name,
               commands[command].help);
    }
    printf("\nFlags, and the environment variables that stand for them; a flag wins:\n");
    for (int i = 0; i < SETTINGS; i++) {
        print_setting(&settings[i]);
    }
    printf("  %-26s %-28s print this\n\n", "--help", "");
    printf(
        "A TIME is a number with us, ms, s, m, h or d; a SIZE one with kB, KiB, MB, MiB, GB, GiB "
        "or nothing.\n");
}
