/* Running handlers: from the request to Lua, through waits, to the response.
 *
 *   READY   -> RUNNING  [resume]
 *   RUNNING -> WAITING  [handling_wait, handling_sleep]
 *   WAITING -> READY    [make_ready]
 *   RUNNING -> READY    [resume]  it used up its slice
 *   any     -> DONE     [finish, handling_stop] */
#include "handling.h"

#include <assert.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "error.h"
#include "log.h"
#include "request.h"
#include "vm.h"

/* A COMMIT under way at the deadline has this long to report. */
enum { COMMIT_GRACE_MS = 80 };

/* For so long scripts may keep a worker from looking at its timers and sockets, and for so long
 * again what has just come may run at once. The last of each may go on to the end of its slice, and
 * one of those that compute has a slice in any case. */
enum { TURN_MS = 10, STARTING_MS = 10 };

enum { TRACEBACK_SIZE = 2048 };

void runner_init(struct runner *runner, struct loop *loop, struct database *database,
                 bool development)
{
    memset(runner, 0, sizeof *runner);
    runner->loop = loop;
    runner->database = database;
    runner->development = development;
    list_init(&runner->ready);
    list_init(&runner->starting);
    list_init(&runner->preempted);
}

bool runner_has_ready(const struct runner *runner)
{
    return !list_is_empty(&runner->ready) || !list_is_empty(&runner->starting) ||
           !list_is_empty(&runner->preempted);
}

static void put_on(struct list *list, struct handling *handling)
{
    handling->state = HANDLING_READY;
    list_append(list, &handling->ready);
}

static void make_ready(struct handling *handling)
{
    handling->waiting_for = NULL;
    put_on(&handling->runner->ready, handling);
}

/* Transactions. */

/* Its batch goes, and with it what was queued. */
static void finish_tx(struct script_tx *script_tx)
{
    tx_finish(&script_tx->tx);
    vm_discharge(script_tx->handling->generation->vm, script_tx->charged);
    script_tx->charged = 0;
}

void script_tx_end(struct script_tx *script_tx, const char *how)
{
    script_tx->handling->changes++;
    finish_tx(script_tx);
    copytext_finish(&script_tx->copy);
    list_remove(&script_tx->link);
    if (script_tx->handle) {
        script_tx->handle->script_tx = NULL;
        script_tx->handle->end = how;
        script_tx->handle = NULL;
    }
}

static void end_transactions(struct handling *handling, bool forgotten)
{
    while (!list_is_empty(&handling->transactions)) {
        struct script_tx *open = list_entry(handling->transactions.next, struct script_tx, link);
        if (forgotten) {
            struct log_line line = log_begin(LOG_WARN, "transaction left open");
            log_text(&line, "begun_at", open->where);
            log_text(&line, "id", handling->request->id);
            log_text(&line, "message",
                     "it was rolled back: end it by tx:commit() or tx:rollback()");
            log_end(&line);
        }
        script_tx_end(open, "ended with its request");
    }
    if (handling->statements.handling) {
        finish_tx(&handling->statements);
        handling->statements.handling = NULL;
    }
}

void handling_stop_waiting(struct handling *handling)
{
    struct waiting *waiting = handling->waiting;
    handling->waiting = NULL;
    if (waiting) {
        waiting->leave(waiting);
    }
}

static void release_all(struct list *holdings)
{
    while (!list_is_empty(holdings)) {
        struct holding *holding = list_entry(holdings->next, struct holding, link);
        list_remove(&holding->link);
        holding->release(holding);
    }
}

/* Gives back everything borrowed. */
static void end(struct handling *handling, bool forgotten)
{
    handling->state = HANDLING_DONE;
    handling->waiting_for = NULL;
    list_remove(&handling->ready);
    loop_disarm(handling->runner->loop, &handling->sleep);
    handling_stop_waiting(handling);
    end_transactions(handling, forgotten);
    if (handling->handle) {
        *handling->handle = NULL;
        handling->handle = NULL;
    }
    if (handling->thread.lua) {
        generation_return_thread(handling->generation, &handling->thread);
    }
    release_all(&handling->holdings);
    release_all(&handling->unread);
    buffer_finish(&handling->scratch);
}

void handling_stop(struct handling *handling)
{
    if (handling->state != HANDLING_DONE) {
        end(handling, false);
    }
}

/* Failures. */

static void log_failure(const struct handling *handling, const struct error *err,
                        const char *traceback)
{
    const struct error_kind *kind = error_kind(err->code);
    bool client = err->status ? err->status < 500 : kind->status < 500;
    struct log_line line = log_begin(client ? LOG_DEBUG : LOG_ERROR, "request failed");
    log_text(&line, "id", handling->request->id);
    log_text(&line, "route", handling->request->match.pattern);
    log_text(&line, "error", kind->slug);
    log_text(&line, "message", err->message);
    if (*err->where) {
        log_text(&line, "where", err->where);
    }
    if (*err->statement) {
        log_text(&line, "statement", err->statement);
    }
    if (*err->sqlstate) {
        log_text(&line, "sqlstate", err->sqlstate);
    }
    if (err->item > 0) {
        log_int(&line, "item", (int64_t)err->item);
    }
    if (err->row > 0) {
        log_int(&line, "row", (int64_t)err->row);
    }
    if (*traceback) {
        log_text(&line, "traceback", traceback);
    }
    log_end(&line);
}

/* What went wrong in the script or the statements it wrote is for the log; clients see it only
 * while the scripts are being developed. */
static void hide_internals(const struct handling *handling, struct error *err)
{
    bool internal = err->code == ERROR_SCRIPT || err->code == ERROR_DATABASE;
    char *cause = strstr(err->message, "the script failed: ");
    if (handling->runner->development) {
        return;
    }
    if (err->code == ERROR_UNAVAILABLE) {
        /* libpq's message names the database's host. */
        snprintf(err->message, sizeof err->message, "the database is not available");
    } else if (err->code == ERROR_OUTCOME_UNKNOWN && cause) {
        strcpy(cause, "the script failed");
    } else if (internal) {
        snprintf(err->message, sizeof err->message, "the log has the details, under this id");
        err->sqlstate[0] = '\0';
    }
}

/* The headers that are there by now are the failure's own. */
static void answer_failure(struct request *request, const struct error *err, const char *extra)
{
    struct response *response = &request->response;
    const struct header *headers = response->headers;
    size_t count = response->header_count;
    response->headers = NULL;
    response->header_capacity = 0;
    request_fail(request, err, extra);
    for (size_t i = 0; i < count; i++) {
        request_set_header(request, headers[i].name, headers[i].value);
    }
}

static void fail(struct handling *handling, struct error *err, const char *traceback,
                 struct buffer *extra)
{
    log_failure(handling, err, traceback);
    hide_internals(handling, err);
    if (err->item > 0) {
        buffer_printf(extra, ",\"item\":%zu", err->item);
    }
    if (err->row > 0) {
        buffer_printf(extra, ",\"row\":%zu", err->row);
    }
    buffer_append_char(extra, '\0');
    end(handling, false);
    answer_failure(handling->request, err, extra->data);
    request_done(handling->request);
}

static void fail_plainly(struct handling *handling, struct error *err)
{
    struct buffer extra;
    buffer_init(&extra);
    handling->request->response.header_count = 0;
    fail(handling, err, "", &extra);
    buffer_finish(&extra);
}

struct reading {
    struct error *err;
    struct buffer *extra;
    struct request *request;
    bool ours;
};

static int read_error(lua_State *L)
{
    struct reading *reading = lua_touserdata(L, 2);
    reading->ours = bind_error_read(L, 1, reading->err, reading->extra);
    if (reading->ours) {
        bind_error_read_headers(L, 1, reading->request);
    }
    return 0;
}

/* To call a failure plain after a COMMIT would invite the client to do it twice. */
static void tell_committed(struct error *err)
{
    char cause[300];
    snprintf(cause, sizeof cause, "%.299s", err->message);
    err->code = ERROR_OUTCOME_UNKNOWN;
    snprintf(err->message, sizeof err->message,
             "the transaction was committed, but then the script failed: %s", cause);
}

/* The handler raised: the value is on top of the thread's stack. */
static void fail_by_error(struct handling *handling)
{
    lua_State *L = handling->thread.lua;
    char traceback[TRACEBACK_SIZE] = "";
    struct error err;
    struct buffer extra;
    struct reading reading = {.err = &err, .extra = &extra, .request = handling->request};
    buffer_init(&extra);
    handling->request->response.header_count = 0;
    lua_State *main = handling->generation->vm->lua;
    lua_settop(main, 0);
    lua_pushcfunction(main, read_error);
    lua_pushvalue(L, -1);
    lua_xmove(L, main, 1);
    lua_pushlightuserdata(main, &reading);
    handling->generation->current = handling; /* what it tells may hold unread rows */
    bool read = vm_call(handling->generation->vm, 2) == LUA_OK && reading.ours;
    handling->generation->current = NULL;
    lua_settop(main, 0);
    bool refused = read && (err.status != 0 || error_kind(err.code)->status < 500);
    if (!read) {
        extra.length = 0;
        handling->request->response.header_count = 0;
        vm_error(L, &err, traceback, sizeof traceback);
    }
    if (handling->committed && !refused && err.code != ERROR_OUTCOME_UNKNOWN) {
        tell_committed(&err);
    }
    fail(handling, &err, traceback, &extra);
    buffer_finish(&extra);
}

/* Running. */

static void finish(struct handling *handling)
{
    end(handling, true);
    request_done(handling->request);
}

static void deadline_error(const struct handling *handling, struct error *err)
{
    if (handling->committed) {
        error_set(err, ERROR_OUTCOME_UNKNOWN,
                  "COMMIT was sent, but the answer to this request was not ready by its deadline");
    } else if (handling->waiting_for) {
        tx_deadline_error(handling->waiting_for, err);
    } else if (handling->resumed_with) {
        error_set(err, ERROR_QUEUE_TIMEOUT,
                  "the deadline passed before the script could start: others kept its worker busy");
    } else {
        error_set(err, ERROR_DEADLINE, "the deadline passed while the script was running");
    }
}

static void fail_expired(struct handling *handling)
{
    struct error err;
    deadline_error(handling, &err);
    fail_plainly(handling, &err);
}

/* The thread has the values for its resumption on its stack. */
static void resume(struct handling *handling)
{
    int returned, count = handling->resumed_with;
    handling->resumed_with = 0;
    handling->state = HANDLING_RUNNING;
    handling->generation->current = handling;
    enum vm_outcome outcome = vm_resume(handling->generation->vm, handling->thread.lua, count,
                                        handling->request->deadline, &returned);
    handling->generation->current = NULL;
    switch (outcome) {
    case VM_FINISHED:
        finish(handling);
        break;
    case VM_WAITING:
        break; /* handling_wait() and handling_sleep() have seen to it. */
    case VM_PREEMPTED:
        put_on(&handling->runner->preempted, handling);
        break;
    case VM_FAILED:
        fail_by_error(handling);
        break;
    case VM_EXPIRED:
        fail_expired(handling);
        break;
    }
}

/* Each that is on the list now at most once, and one in any case. Those that `until` leaves no time
 * for stay in front. Gives the time. */
static uint64_t run_list(struct list *list, uint64_t until, uint64_t now)
{
    struct list batch;
    list_init(&batch);
    list_take(&batch, list);
    for (bool first = true; !list_is_empty(&batch) && (first || now < until); first = false) {
        struct handling *handling = list_entry(batch.next, struct handling, ready);
        list_remove(&handling->ready);
        resume(handling);
        now = clock_now();
    }
    list_take(&batch, list);
    list_take(list, &batch);
    return now;
}

void runner_run(struct runner *runner)
{
    uint64_t now = runner->loop->now, until = now + MILLISECONDS(TURN_MS);
    now = run_list(&runner->ready, until, now);
    now = run_list(&runner->starting, until, now);
    now = run_list(&runner->preempted, until, now);
    runner->starts_until = now + MILLISECONDS(STARTING_MS);
}

void handling_start(struct runner *runner, struct request *request)
{
    struct handling *handling = arena_zalloc(&request->arena, sizeof *handling);
    const struct route *route = request->match.target;
    handling->runner = runner;
    handling->request = request;
    handling->generation = request->generation;
    request->handling = handling;
    list_init(&handling->ready);
    list_init(&handling->transactions);
    list_init(&handling->holdings);
    list_init(&handling->unread);
    if (generation_take_thread(handling->generation, &handling->thread) != 0) {
        struct error err;
        error_set(&err, ERROR_MEMORY, "no memory for another Lua thread");
        fail_plainly(handling, &err);
        return;
    }
    lua_State *L = handling->thread.lua;
    lua_pushcfunction(L, handling->generation->entry);
    lua_rawgeti(L, LUA_REGISTRYINDEX, route->function);
    handling->resumed_with = 1;
    bool others = !list_is_empty(&runner->ready) || !list_is_empty(&runner->starting);
    if (!others && clock_now() < runner->starts_until) {
        resume(handling);
    } else {
        put_on(&runner->starting, handling);
    }
}

/* True if what the handling is at may have been committed, or may yet be. */
static bool may_be_committed(struct handling *handling, struct error *err)
{
    struct waiting *waiting = handling->waiting;
    if (waiting && !waiting->withdraw(waiting, err)) {
        return true;
    } else if (waiting) {
        handling->waiting = NULL;
        return false;
    }
    deadline_error(handling, err);
    return handling->committed ||
           (handling->waiting_for && tx_may_take_effect(handling->waiting_for));
}

/* It may be noticed late. What has come meanwhile gets its turn, if it is a COMMIT's answer. */
static void grant_grace(struct handling *handling)
{
    uint64_t grace = handling->request->deadline + MILLISECONDS(COMMIT_GRACE_MS);
    uint64_t least = handling->runner->loop->now + MILLISECONDS(2 * TURN_MS);
    handling->granted_grace = true;
    handling->request->deadline = grace > least ? grace : least;
}

void handling_expire(struct handling *handling)
{
    struct error err;
    if (handling->state == HANDLING_DONE) {
        return;
    }
    if (may_be_committed(handling, &err) && !handling->granted_grace) {
        grant_grace(handling);
        return;
    }
    fail_plainly(handling, &err);
}

/* Waiting. */

struct handling *handling_of(struct lua_State *L)
{
    struct handling *handling = generation_of(L)->current;
    if (!handling) {
        luaL_error(L, "this can be called only while a request is being handled");
    }
    return handling;
}

void handling_on_tx(struct tx *tx)
{
    struct script_tx *script_tx = list_entry((void *)tx, struct script_tx, tx);
    /* Noted before the script hears of it: the deadline may come first. */
    script_tx->handling->committed |= tx_took_effect(tx);
    make_ready(script_tx->handling);
}

int handling_wait(struct lua_State *L, struct handling *handling, struct tx *tx,
                  int (*k)(struct lua_State *L, int status, intptr_t context), intptr_t context)
{
    handling->state = HANDLING_WAITING;
    handling->waiting_for = tx;
    return vm_wait(L, k, context);
}

int handling_wait_else(struct lua_State *L, struct handling *handling,
                       int (*k)(struct lua_State *L, int status, intptr_t context),
                       intptr_t context)
{
    handling->state = HANDLING_WAITING;
    return vm_wait(L, k, context);
}

void handling_wake(struct handling *handling)
{
    make_ready(handling);
}

static void on_slept(struct timer *timer)
{
    make_ready(list_entry((void *)timer, struct handling, sleep));
}

void handling_end_sleep(struct handling *handling)
{
    if (handling->sleep.slot) {
        loop_disarm(handling->runner->loop, &handling->sleep);
        make_ready(handling);
    }
}

int handling_sleep(struct lua_State *L, struct handling *handling, uint64_t duration,
                   int (*k)(struct lua_State *L, int status, intptr_t context))
{
    vm_check_wait(L);
    handling->state = HANDLING_WAITING;
    loop_arm(handling->runner->loop, &handling->sleep, clock_now() + duration, on_slept);
    return vm_wait(L, k, 0);
}
