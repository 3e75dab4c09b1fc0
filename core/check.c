/* `moonpool check` and `moonpool routes`: a boot without a server. */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>

#include "config.h"
#include "error.h"
#include "generation.h"
#include "helper.h"
#include "load.h"
#include "loop.h"
#include "pg_target.h"
#include "pool.h"
#include "router.h"
#include "shared.h"
#include "source.h"
#include "tx.h"
#include "vm.h"

/* What a check of the statements needs of a worker. */
struct checker {
    struct loop loop;
    struct helper helper;
    struct pg_target target;
    struct database database;
    struct load_check check;
    bool done;
};

static void print_route(void *context, const char *method, const char *pattern, const char *where)
{
    printf("%-7s %-40s %s\n", method, pattern, where);
}

static void on_done(struct load_check *check)
{
    struct checker *checker = list_entry((void *)check, struct checker, check);
    checker->done = true;
}

static int run_check(struct checker *checker, const struct config *config, struct shared *shared,
                     struct generation *generation, struct error *err)
{
    struct pool_options options = {.max_lifetime = config->max_lifetime,
                                   .max_idle = config->max_idle,
                                   .health_check = config->health_check,
                                   .connect_timeout = config->connect_timeout};
    if (loop_init(&checker->loop, err) != 0 ||
        helper_init(&checker->helper, &checker->loop, err) != 0 ||
        pg_target_init(&checker->target, config->database, err) != 0) {
        return -1;
    }
    pool_init(&checker->database.pool, &checker->loop, &checker->helper, &checker->target, shared,
              &shared->workers[0], &options);
    lanes_init(&checker->database.lanes, &checker->database.pool, 0);
    turns_init(&checker->database.turns, &checker->loop);
    load_check_start(&checker->check, generation, &checker->database, on_done);
    while (!checker->done) {
        loop_wait(&checker->loop, DEADLINE_NEVER);
    }
    *err = checker->check.error;
    load_check_finish(&checker->check);
    lanes_finish(&checker->database.lanes);
    turns_finish(&checker->database.turns);
    pool_finish(&checker->database.pool);
    helper_finish(&checker->helper);
    pg_target_finish(&checker->target);
    loop_finish(&checker->loop);
    return err->code == ERROR_NONE ? 0 : -1;
}

static int check_statements(const struct config *config, struct shared *shared,
                            struct generation *generation, struct error *err)
{
    struct checker *checker = calloc(1, sizeof *checker);
    if (!checker) {
        return error_set(err, ERROR_MEMORY, "out of memory");
    }
    int code = run_check(checker, config, shared, generation, err);
    free(checker);
    return code;
}

static int run(const struct config *config, struct shared *shared, bool print_routes,
               struct error *err)
{
    struct source *source = &shared->sources[0];
    if (source_read(source, config->scripts, config->sql, err) != 0) {
        return -1;
    }
    struct generation *generation = load_generation(source, config, err);
    if (!generation) {
        return -1;
    }
    int code = 0;
    if (print_routes) {
        router_each(generation->router, print_route, NULL);
    } else {
        code = check_statements(config, shared, generation, err);
    }
    if (code == 0 && !print_routes) {
        printf("%u scripts and %zu statements are good\n", source->script_count,
               generation->catalog.count);
    }
    generation_release(generation);
    return code;
}

int check_run(const struct config *config, bool print_routes)
{
    struct error err;
    struct shared *shared = shared_create(1, 1, &err);
    if (!shared) {
        error_print(&err);
        return EXIT_FAILURE;
    }
    int code = vm_start_watch(&err) == 0 ? run(config, shared, print_routes, &err) : -1;
    if (code != 0) {
        error_print(&err);
    }
    shared_destroy(shared);
    return code == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
