/* Health and metrics. */
#include "admin.h"

#include <inttypes.h>
#include <string.h>

#include "buffer.h"
#include "error.h"
#include "request.h"
#include "shared.h"

/* Counters of this many units are a second; those whose name says seconds are kept in microseconds.
 */
static const double microseconds = 1e-6;

static void answer(struct request *request, int status, const char *text)
{
    request->response.status = status;
    request->response.content_type = "text/plain; charset=utf-8";
    buffer_append_text(&request->response.body, text);
}

static void livez(struct shared *shared, struct request *request)
{
    answer(request, 200, "ok\n");
}

static bool any_worker_is_ready(const struct shared *shared)
{
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        if (atomic_load(&shared->workers[i].ready)) {
            return true;
        }
    }
    return false;
}

static void readyz(struct shared *shared, struct request *request)
{
    if (atomic_load(&shared->draining)) {
        answer(request, 503, "draining\n");
    } else if (!any_worker_is_ready(shared)) {
        answer(request, 503, "starting\n");
    } else if (!atomic_load(&shared->database_up)) {
        answer(request, 503, "the database is not available\n");
    } else {
        answer(request, 200, "ready\n");
    }
}

static void write_metric(struct buffer *out, const char *name, const char *help, const char *type)
{
    buffer_printf(out, "# HELP moonpool_%s %s\n# TYPE moonpool_%s %s\n", name, help, name, type);
}

static void write_counter(struct buffer *out, const char *name, const char *help, uint64_t value)
{
    write_metric(out, name, help, "counter");
    if (strstr(name, "_seconds_")) {
        buffer_printf(out, "moonpool_%s %.6f\n", name, (double)value * microseconds);
    } else {
        buffer_printf(out, "moonpool_%s %" PRIu64 "\n", name, value);
    }
}

static void write_counters(struct buffer *out, const struct shared *shared)
{
    struct shared_counters sum = {0};
    for (uint32_t i = 0; i < shared->worker_count; i++) {
#define ADD_COUNTER(name, help) sum.name += shared->workers[i].counters.name;
        SHARED_COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
    }
#define WRITE_COUNTER(name, help) write_counter(out, #name, help, sum.name);
    SHARED_COUNTERS(WRITE_COUNTER)
#undef WRITE_COUNTER
}

static void write_gauge(struct buffer *out, const char *name, const char *help, uint64_t value)
{
    write_metric(out, name, help, "gauge");
    buffer_printf(out, "moonpool_%s %" PRIu64 "\n", name, value);
}

static void write_gauges(struct buffer *out, struct shared *shared)
{
    uint64_t opening = 0, idle = 0, lent = 0, waiting = 0, in_flight = 0, connections = 0, lua = 0,
             ready = 0;
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        const struct shared_worker *worker = &shared->workers[i];
        opening += worker->opening;
        idle += worker->idle;
        lent += worker->lent;
        waiting += worker->waiting;
        in_flight += worker->in_flight;
        connections += worker->connections;
        lua += worker->lua_bytes;
        ready += worker->ready;
    }
    write_gauge(out, "workers_ready", "Workers that serve", ready);
    write_gauge(out, "database_up", "1 if the database answered last", shared->database_up);
    write_gauge(out, "pool_max_sessions", "The most sessions there may be", shared->pool_max);
    write_gauge(out, "pool_sessions", "Sessions open, opening or closing",
                shared_count_sessions(shared));
    write_gauge(out, "pool_constructing_sessions", "Sessions being opened", opening);
    write_gauge(out, "pool_idle_sessions", "Sessions idle", idle);
    write_gauge(out, "pool_acquired_sessions", "Sessions in use", lent);
    write_gauge(out, "pool_waiting", "Requests waiting for a session", waiting);
    write_gauge(out, "requests_in_flight", "Requests being handled", in_flight);
    write_gauge(out, "client_connections", "Client connections open", connections);
    write_gauge(out, "lua_memory_bytes", "Memory of all Lua states", lua);
    write_gauge(out, "generation", "Number of the newest scripts", shared->generation);
}

static void metrics(struct shared *shared, struct request *request)
{
    struct buffer *out = &request->response.body;
    request->response.status = 200;
    request->response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    write_gauges(out, shared);
    write_counters(out, shared);
}

static const struct {
    const char *path;
    void (*answer)(struct shared *shared, struct request *request);
} pages[] = {{"/livez", livez}, {"/readyz", readyz}, {"/metrics", metrics}};

static int on_headers(void *context, struct request *request)
{
    struct error err;
    if (strcmp(request->method, "GET") != 0 && strcmp(request->method, "HEAD") != 0) {
        error_set(&err, ERROR_METHOD, "only GET and HEAD are allowed here");
        request_fail(request, &err, NULL);
        request_add_header(request, "Allow", "GET, HEAD");
        return -1;
    }
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        if (strcmp(pages[i].path, request->path) == 0) {
            pages[i].answer(context, request);
            return -1;
        }
    }
    error_set(&err, ERROR_NOT_FOUND, "this listener has /livez, /readyz and /metrics");
    request_fail(request, &err, NULL);
    return -1;
}

/* Everything is answered when the headers are there: the application never has a request. */
static void on_request(void *context, struct request *request)
{
    request_done(request);
}

static void ignore(void *context, struct request *request)
{
}

struct http_handler admin_handler(struct shared *shared)
{
    return (struct http_handler){
        .on_headers = on_headers,
        .on_request = on_request,
        .on_end = ignore,
        .on_deadline = ignore,
        .on_client_gone = ignore,
        .context = shared,
    };
}
