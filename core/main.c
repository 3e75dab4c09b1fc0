/* The program: reads the configuration and hands over to what the command names. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check.h"
#include "config.h"
#include "error.h"
#include "log.h"
#include "master.h"
#include "migrate.h"

enum { EXIT_USAGE = 2 };

/* Each connection takes a file descriptor; the soft limit is low for the sake of programs that use
 * select(), which this one does not. */
static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

static int serve(const struct config *config)
{
    if (config->check_only) {
        return check_run(config, false);
    }
    raise_file_limit();
    return master_run(config);
}

static int migrate(const struct config *config)
{
    struct error err;
    if (migrate_run(config, &err) != 0) {
        fprintf(stderr, "moonpool: %s\n", err.message);
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}

/* The specs find the server that they are to test by this variable. */
static int set_own_path(void)
{
    char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0) {
        return -1;
    }
    path[length] = '\0';
    return setenv("MOONPOOL_BIN", path, 1);
}

/* Becomes busted; returns only if it cannot. */
static int test(const struct config *config)
{
    static char program[] = "busted", lua[] = "--lua=/usr/bin/lua5.4", folder[] = "spec";
    char **argv = calloc((size_t)config->argument_count + 4, sizeof *argv);
    if (!argv || set_own_path() != 0) {
        fprintf(stderr, "moonpool: test: %s\n", strerror(errno));
        free(argv);
        return EXIT_FAILURE;
    }
    argv[0] = program;
    argv[1] = lua;
    argv[2] = folder;
    for (int i = 0; i < config->argument_count; i++) {
        argv[2 + i] = config->arguments[i];
    }
    execvp(program, argv);
    fprintf(stderr, "moonpool: busted: %s (Debian's package is lua-busted)\n", strerror(errno));
    free(argv);
    return EXIT_FAILURE;
}

static int version(void)
{
    printf("moonpool " MOONPOOL_VERSION " (" MOONPOOL_BUILT_WITH ")\n");
    return EXIT_SUCCESS;
}

static int help(const struct config *config)
{
    config_help(config);
    return EXIT_SUCCESS;
}

static int run(const struct config *config)
{
    switch (config->command) {
    case COMMAND_SERVE:
        return serve(config);
    case COMMAND_MIGRATE:
        return migrate(config);
    case COMMAND_CHECK:
        return check_run(config, false);
    case COMMAND_ROUTES:
        return check_run(config, true);
    case COMMAND_TEST:
        return test(config);
    case COMMAND_VERSION:
        return version();
    case COMMAND_HELP:
        break;
    }
    return help(config);
}

int main(int argc, char **argv)
{
    struct config config;
    struct error err;
    if (config_parse(&config, argc, argv, &err) != 0) {
        fprintf(stderr, "moonpool: %s\nsee moonpool --help\n", err.message);
        return EXIT_USAGE;
    }
    log_configure(config.log_level, config.log_format);
    int code = run(&config);
    log_flush();
    return code;
}
