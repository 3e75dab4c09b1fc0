/* Taking generations over, and routing requests into the one that serves.
 *
 *   nothing -> checking   [app_boot, app_attend]   scripts have loaded
 *   checking -> serving   [take_over]                statements are right, or the database is away
 *   checking -> nothing   [refuse]                   the one before goes on serving */
#include "app.h"

#include <string.h>

#include "config.h"
#include "error.h"
#include "generation.h"
#include "log.h"
#include "request.h"
#include "router.h"
#include "shared.h"
#include "vm.h"

enum { RECHECK_MS = 1000 };

void app_init(struct app *app, const struct config *config, struct shared *shared,
              struct shared_worker *slot, struct loop *loop, struct database *database, bool speaks)
{
    memset(app, 0, sizeof *app);
    app->config = config;
    app->shared = shared;
    app->slot = slot;
    app->loop = loop;
    app->database = database;
    app->speaks = speaks;
    runner_init(&app->runner, loop, database, config->development);
    app->runner.groups = &app->groups;
    groups_init(&app->groups, &app->runner, shared, (uint32_t)(slot - shared->workers));
}

void app_finish(struct app *app)
{
    groups_finish(&app->groups);
    loop_disarm(app->loop, &app->recheck);
    if (app->checking) {
        load_check_finish(&app->check);
    }
    generation_release(app->candidate);
    generation_release(app->current);
}

/* Every worker finds the same fault; one of them says so. */
static void log_fault(const struct app *app, const struct error *err)
{
    struct log_line line =
        log_begin(app->speaks ? LOG_ERROR : LOG_DEBUG, "scripts or statements are wrong");
    log_text(&line, "where", err->where);
    log_text(&line, "message", err->message);
    if (*err->statement) {
        log_text(&line, "statement", err->statement);
    }
    log_end(&line);
}

static void decide(struct app *app, enum shared_load load)
{
    atomic_store(&app->slot->load, load);
    atomic_store(&app->slot->generation, app->candidate_number);
    shared_wake_master(app->shared);
}

static void refuse(struct app *app, const struct error *err)
{
    generation_release(app->candidate);
    app->candidate = NULL;
    log_fault(app, err);
    if (app->booted && !app->current) {
        app->booted(app, err);
    } else {
        decide(app, SHARED_REFUSED);
    }
}

static void take_over(struct app *app)
{
    struct error none = {.code = ERROR_NONE};
    bool first = !app->current;
    generation_release(app->current);
    app->current = app->candidate;
    app->candidate = NULL;
    app->groups.current = app->current;
    counter_add(app->slot, reloads_total, !first);
    decide(app, SHARED_LOADED);
    if (first) {
        app->booted(app, &none);
    }
}

static void on_recheck(struct timer *timer);

static void check_later(struct app *app)
{
    loop_arm(app->loop, &app->recheck, app->loop->now + MILLISECONDS(RECHECK_MS), on_recheck);
}

static void end_check(struct app *app)
{
    load_check_finish(&app->check);
    app->checking = false;
}

static void on_checked(struct load_check *check)
{
    struct app *app = list_entry((void *)check, struct app, check);
    struct error err = check->error;
    end_check(app);
    if (err.code == ERROR_NONE || err.code == ERROR_UNAVAILABLE) {
        take_over(app);
    } else if (!app->current && app->replaces) {
        log_fault(app, &err);
        take_over(app);
    } else {
        refuse(app, &err);
    }
    if (err.code == ERROR_UNAVAILABLE) {
        check_later(app);
    }
}

/* The generation that is checked late serves already: what is wrong with it can only be said. */
static void on_rechecked(struct load_check *check)
{
    struct app *app = list_entry((void *)check, struct app, check);
    struct error err = check->error;
    end_check(app);
    if (err.code == ERROR_UNAVAILABLE) {
        check_later(app);
    } else if (err.code != ERROR_NONE) {
        log_fault(app, &err);
    }
    app_attend(app);
}

static void on_recheck(struct timer *timer)
{
    struct app *app = list_entry((void *)timer, struct app, recheck);
    if (!app->checking) {
        app->checking = true;
        load_check_start(&app->check, app->current, app->database, on_rechecked);
    }
}

static void load(struct app *app, const struct source *source)
{
    struct error err;
    app->candidate_number = atomic_load(&app->shared->generation);
    app->candidate = load_generation(source, app->config, &err);
    if (!app->candidate) {
        refuse(app, &err);
    } else {
        app->checking = true;
        load_check_start(&app->check, app->candidate, app->database, on_checked);
    }
}

void app_boot(struct app *app, void (*booted)(struct app *app, const struct error *err))
{
    app->booted = booted;
    app->replaces = atomic_load(&app->slot->served);
    load(app, &app->shared->sources[atomic_load(&app->shared->good)]);
}

void app_attend(struct app *app)
{
    bool decided = atomic_load(&app->slot->generation) == atomic_load(&app->shared->generation);
    if (!app->current || app->checking || decided) {
        return;
    }
    loop_disarm(app->loop, &app->recheck);
    load(app, &app->shared->sources[atomic_load(&app->shared->candidate)]);
}

/* The edge. */

static int answer_options(struct request *request)
{
    request->response.status = 204;
    request_add_header(request, "Allow", request->match.allow);
    return -1;
}

/* Of the server as a whole (RFC 9110, section 9.3.7); methods go by path. */
static int answer_for_server(struct request *request)
{
    request->response.status = 204;
    return -1;
}

static int refuse_method(struct request *request)
{
    struct error err;
    if (strcmp(request->method, "OPTIONS") == 0) {
        return answer_options(request);
    }
    error_set(&err, ERROR_METHOD, "%s is not allowed here, only %s", request->method,
              request->match.allow);
    request_fail(request, &err, NULL);
    request_add_header(request, "Allow", request->match.allow);
    return -1;
}

static int refuse_path(struct request *request, enum error_code code, const char *message)
{
    struct error err;
    error_set(&err, code, "%s", message);
    request_fail(request, &err, NULL);
    return -1;
}

static int on_headers(void *context, struct request *request)
{
    struct app *app = context;
    generation_hold(app->current);
    request->generation = app->current;
    if (strcmp(request->path, "*") == 0) {
        return answer_for_server(request);
    }
    switch (router_find(app->current->router, request->method, request->path, &request->arena,
                        &request->match)) {
    case ROUTER_NO_PATH:
        return refuse_path(request, ERROR_NOT_FOUND, "no route has this path");
    case ROUTER_BAD_PATH:
        return refuse_path(request, ERROR_MALFORMED,
                           "the path has a bad percent-encoding or is not UTF-8");
    case ROUTER_NO_METHOD:
        return refuse_method(request);
    case ROUTER_FOUND:
        break;
    }
    const struct route *route = request->match.target;
    request->deadline =
        request->received + (route->deadline ? route->deadline : app->config->deadline);
    request->body_limit = route->body_limit ? route->body_limit : app->config->body_limit;
    return 0;
}

static void on_request(void *context, struct request *request)
{
    struct app *app = context;
    handling_start(&app->runner, request);
}

static void stop(struct request *request)
{
    if (request->handling) {
        handling_stop(request->handling);
    }
}

static void count(struct app *app, const struct request *request)
{
    counter_add(app->slot, requests_total, 1);
    counter_add(app->slot, requests_failed_total, request->response.status >= 500);
    counter_add(app->slot, deadlines_total,
                request->error == ERROR_DEADLINE || request->error == ERROR_POOL_TIMEOUT ||
                    request->error == ERROR_QUEUE_TIMEOUT);
    counter_add(app->slot, request_seconds_total, clock_now() - request->received);
}

static void on_end(void *context, struct request *request)
{
    count(context, request);
    stop(request);
    generation_release(request->generation);
}

static void on_deadline(void *context, struct request *request)
{
    handling_expire(request->handling);
}

static void on_client_gone(void *context, struct request *request)
{
    stop(request);
}

struct http_handler app_handler(struct app *app)
{
    return (struct http_handler){
        .on_headers = on_headers,
        .on_request = on_request,
        .on_end = on_end,
        .on_deadline = on_deadline,
        .on_client_gone = on_client_gone,
        .context = app,
    };
}
