/* Members and leads.
 *
 *   a member's input is posted -> whoever finds the group without a leader leads it  [lead_if_free]
 *   the lead's code takes the inputs when it holds the lock, and answers them
 *   its internal request ends -> what it left unanswered is answered or put back     [on_lead_done]
 *   answers are found by the members' workers, which are woken                       [collect] */
#include "group.h"

#include <stdlib.h>
#include <string.h>

#include "config.h"
#include "generation.h"
#include "handling.h"
#include "log.h"
#include "request.h"
#include "shared.h"

/* A lead whose members all have later deadlines than this still ends. */
enum { LEAD_LIMIT_S = 60 };

struct group_lead {
    struct list link; /* in groups.leads */
    struct groups *groups;
    struct request *request; /* owned; internal: the edge knows nothing of it */
    struct timer timer;      /* the request's deadline */
    int group;
    int parcels[DESK_TAKE];
    bool answered[DESK_TAKE];
    int count;
    int lingers_for; /* most members; 0 when it does not linger */
    uint64_t taken_at;
};

static struct desk *desk_of(const struct groups *groups)
{
    return &groups->shared->desk;
}

/* Members. */

static void collect(struct groups *groups)
{
    struct list *item, *following;
    list_for_each (item, following, &groups->members) {
        struct group_member *member = list_entry(item, struct group_member, link);
        if (desk_state(desk_of(groups), member->parcel) == PARCEL_ANSWERED) {
            member->answered = true;
            list_remove(&member->link);
            handling_wake(member->handling);
        }
    }
}

static void end_wait(struct group_member *member)
{
    struct groups *groups = member->groups;
    uint64_t spent = clock_now() - member->since;
    list_remove(&member->link);
    member->handling->request->times.group += spent;
    counter_add(&groups->shared->workers[groups->worker], group_wait_seconds_total, spent);
}

static void leave(struct waiting *waiting)
{
    struct group_member *member = list_entry((void *)waiting, struct group_member, waiting);
    end_wait(member);
    if (member->answered) {
        desk_free(desk_of(member->groups), member->parcel);
    } else {
        desk_leave(desk_of(member->groups), member->parcel);
    }
}

/* A parcel that was withdrawn is the desk's again. */
static bool withdraw(struct waiting *waiting, struct error *err)
{
    struct group_member *member = list_entry((void *)waiting, struct group_member, waiting);
    switch (desk_withdraw(desk_of(member->groups), member->parcel)) {
    case PARCEL_POSTED:
        error_set(err, ERROR_QUEUE_TIMEOUT, "the deadline passed while waiting for the group");
        break;
    case PARCEL_TAKEN:
        error_set(err, ERROR_DEADLINE, "the deadline passed while the group was at work");
        break;
    default:
        error_set(err, ERROR_OUTCOME_UNKNOWN,
                  "the deadline passed while the group was being committed");
        return false;
    }
    end_wait(member);
    return true;
}

static void lead_if_free(struct groups *groups, int group);
static void attend_leads(struct groups *groups);

/* A leader that waits for company, here or in another worker, does not look at the desk itself. */
static void tell_leader(struct groups *groups, int group)
{
    int worker = desk_gathered(desk_of(groups), group);
    if (worker == (int)groups->worker) {
        attend_leads(groups);
    } else if (worker >= 0) {
        shared_wake(&groups->shared->workers[worker]);
    }
}

int group_join(struct groups *groups, struct group_member *member, struct handling *handling,
               const char *name, const char *input, size_t length, struct error *err)
{
    struct desk *desk = desk_of(groups);
    memset(member, 0, sizeof *member);
    list_init(&member->link);
    member->groups = groups;
    member->handling = handling;
    member->since = clock_now();
    member->waiting.leave = leave;
    member->waiting.withdraw = withdraw;
    member->group = desk_group(desk, name);
    if (member->group < 0) {
        return error_set(err, ERROR_SCRIPT, "there are more groups than %d", DESK_GROUPS);
    } else if (length > DESK_BYTES) {
        return error_set(err, ERROR_INVALID, "the input of a group is longer than %d bytes",
                         DESK_BYTES);
    }
    member->parcel =
        desk_post(desk, member->group, groups->worker, handling->request->deadline, input, length);
    if (member->parcel < 0) {
        return error_set(err, ERROR_OVERLOADED, "too many requests wait for the group %s", name);
    }
    list_append(&groups->members, &member->link);
    handling->waiting = &member->waiting;
    lead_if_free(groups, member->group);
    tell_leader(groups, member->group);
    return 0;
}

const struct error *group_error(const struct group_member *member)
{
    return &desk_of(member->groups)->bodies[member->parcel].error;
}

const char *group_output(const struct group_member *member, size_t *ret_length)
{
    const struct parcel_body *body = &desk_of(member->groups)->bodies[member->parcel];
    *ret_length = body->length;
    return body->data;
}

/* Leads. */

struct group_lead *group_lead_of(struct groups *groups, const struct handling *handling)
{
    struct list *item, *following;
    list_for_each (item, following, &groups->leads) {
        struct group_lead *lead = list_entry(item, struct group_lead, link);
        if (lead->request == handling->request) {
            return lead;
        }
    }
    return NULL;
}

static void wake_member(struct group_lead *lead, int index)
{
    struct shared *shared = lead->groups->shared;
    shared_wake(&shared->workers[shared->desk.parcels[lead->parcels[index]].member]);
}

static void on_lead_deadline(struct timer *timer);

/* When all members are late there is no sense in going on. */
static void set_deadline(struct group_lead *lead)
{
    const struct desk *desk = desk_of(lead->groups);
    uint64_t latest = 0;
    for (int i = 0; i < lead->count; i++) {
        uint64_t deadline = desk->parcels[lead->parcels[i]].deadline;
        latest = deadline > latest ? deadline : latest;
    }
    if (lead->count > 0) {
        lead->request->deadline = latest;
        loop_arm(lead->groups->runner->loop, &lead->timer, latest, on_lead_deadline);
    }
}

uint64_t group_linger(struct group_lead *lead, int most)
{
    uint64_t left = desk_linger(desk_of(lead->groups), lead->group, most, clock_now());
    lead->lingers_for = left > 0 ? most : 0;
    return left;
}

static void attend_leads(struct groups *groups)
{
    struct list *item, *following;
    list_for_each (item, following, &groups->leads) {
        struct group_lead *lead = list_entry(item, struct group_lead, link);
        struct handling *handling = lead->request->handling;
        if (handling && lead->lingers_for > 0 && group_linger(lead, lead->lingers_for) == 0) {
            handling_end_sleep(handling);
        }
    }
}

int group_take(struct group_lead *lead, int most)
{
    struct groups *groups = lead->groups;
    bool shed;
    most = most < DESK_TAKE ? most : DESK_TAKE;
    lead->taken_at = clock_now();
    lead->count = desk_take(desk_of(groups), lead->group, groups->worker, most, lead->taken_at,
                            lead->parcels, &shed);
    memset(lead->answered, 0, sizeof lead->answered);
    set_deadline(lead);
    if (shed) {
        shared_wake_all(groups->shared);
    }
    return lead->count;
}

const char *group_input(const struct group_lead *lead, int index, size_t *ret_length)
{
    const struct parcel_body *body = &desk_of(lead->groups)->bodies[lead->parcels[index]];
    *ret_length = body->length;
    return body->data;
}

bool group_seal(struct group_lead *lead, int index)
{
    const int *parcels = index < 0 ? lead->parcels : &lead->parcels[index];
    return desk_seal(desk_of(lead->groups), parcels, index < 0 ? lead->count : 1);
}

void group_answer(struct group_lead *lead, int index, const char *data, size_t length,
                  const struct error *err)
{
    lead->answered[index] = true;
    desk_answer(desk_of(lead->groups), lead->parcels[index], data, length, err);
    wake_member(lead, index);
}

/* What its code did not come to: the parcel of an aborted run waits again while it has time; of one
 * that was being committed nobody knows. */
static void settle_one(struct group_lead *lead, int index)
{
    struct desk *desk = desk_of(lead->groups);
    int *parcel = &lead->parcels[index];
    struct error err;
    if (desk_state(desk, *parcel) == PARCEL_SEALED) {
        error_set(&err, ERROR_OUTCOME_UNKNOWN, "the group was being committed when it was ended");
        group_answer(lead, index, NULL, 0, &err);
    } else if (desk->parcels[*parcel].deadline <= clock_now()) {
        error_set(&err, ERROR_DEADLINE, "the deadline passed while the group was at work");
        group_answer(lead, index, NULL, 0, &err);
    } else {
        desk_put_back(desk, parcel, 1);
    }
}

static void settle(struct group_lead *lead)
{
    for (int i = 0; i < lead->count; i++) {
        if (!lead->answered[i]) {
            settle_one(lead, i);
        }
    }
}

static void destroy(struct group_lead *lead)
{
    struct groups *groups = lead->groups;
    if (lead->request->handling) {
        handling_stop(lead->request->handling);
    }
    settle(lead);
    if (lead->count > 0) {
        uint64_t now = clock_now();
        desk_note(desk_of(groups), lead->group, now - lead->taken_at, lead->count, now);
    }
    desk_resign(desk_of(groups), lead->group, groups->worker);
    loop_disarm(groups->runner->loop, &lead->timer);
    list_remove(&lead->link);
    generation_release(lead->request->generation);
    request_destroy(lead->request);
    free(lead);
}

static void on_ended(struct timer *timer)
{
    struct group_lead *lead = list_entry((void *)timer, struct group_lead, timer);
    struct groups *groups = lead->groups;
    int group = lead->group;
    destroy(lead);
    lead_if_free(groups, group);
}

/* Its frames are still on the stack: the rest happens from the loop. */
static void on_lead_done(struct request *request)
{
    struct group_lead *lead = request->edge;
    struct loop *loop = lead->groups->runner->loop;
    loop_arm(loop, &lead->timer, loop->now, on_ended);
}

static void on_lead_deadline(struct timer *timer)
{
    struct group_lead *lead = list_entry((void *)timer, struct group_lead, timer);
    struct loop *loop = lead->groups->runner->loop;
    uint64_t latest = lead->count == 0 ? desk_latest(desk_of(lead->groups), lead->group) : 0;
    if (latest > loop->now) {
        loop_arm(loop, timer, latest, on_lead_deadline);
        return;
    }
    handling_expire(lead->request->handling);
    if (!timer->slot) {
        /* It was not ended: a COMMIT has some time left. */
        loop_arm(lead->groups->runner->loop, timer, lead->request->deadline, on_lead_deadline);
    }
}

static struct request *internal_request(struct group_lead *lead, struct generation *generation,
                                        struct route *route)
{
    struct request *request = request_create();
    struct loop *loop = lead->groups->runner->loop;
    request->id = arena_printf(&request->arena, "group-%s", route->pattern);
    request->method = "GROUP";
    request->path = route->pattern;
    request->query = "";
    request->client = "";
    request->received = loop->now;
    request->deadline = loop->now + SECONDS(LEAD_LIMIT_S);
    request->match.target = route;
    request->match.pattern = route->pattern;
    request->on_done = on_lead_done;
    request->edge = lead;
    request->generation = generation;
    generation_hold(generation);
    return request;
}

static void on_begin(struct timer *timer)
{
    struct group_lead *lead = list_entry((void *)timer, struct group_lead, timer);
    struct runner *runner = lead->groups->runner;
    /* Before it has members it lives for those that wait: without them nothing must run on. */
    loop_arm(runner->loop, timer, desk_latest(desk_of(lead->groups), lead->group),
             on_lead_deadline);
    handling_start(runner, lead->request);
}

static void begin(struct groups *groups, int group, struct route *route)
{
    struct group_lead *lead = memory_zalloc(sizeof *lead);
    lead->groups = groups;
    lead->group = group;
    list_append(&groups->leads, &lead->link);
    lead->request = internal_request(lead, groups->current, route);
    /* From the loop: a member's own code may be running now. */
    loop_arm(groups->runner->loop, &lead->timer, groups->runner->loop->now, on_begin);
}

static void lead_if_free(struct groups *groups, int group)
{
    struct desk *desk = desk_of(groups);
    struct route *route = generation_group(groups->current, desk->groups[group].name);
    if (route && desk_lead(desk, group, groups->worker)) {
        begin(groups, group, route);
    }
}

bool groups_are_busy(const struct groups *groups)
{
    const struct list *leads = &groups->leads;
    for (const struct list *item = leads->next; item != leads; item = item->next) {
        if (list_entry((void *)item, struct group_lead, link)->count > 0) {
            return true;
        }
    }
    return false;
}

void groups_attend(struct groups *groups)
{
    collect(groups);
    attend_leads(groups);
    for (int i = 0; groups->current && i < DESK_GROUPS && desk_of(groups)->groups[i].name[0]; i++) {
        if (desk_of(groups)->posted[i] > 0) {
            lead_if_free(groups, i);
        }
    }
}

void groups_init(struct groups *groups, struct runner *runner, struct shared *shared,
                 uint32_t worker)
{
    memset(groups, 0, sizeof *groups);
    groups->runner = runner;
    groups->shared = shared;
    groups->worker = worker;
    list_init(&groups->members);
    list_init(&groups->leads);
}

void groups_finish(struct groups *groups)
{
    while (!list_is_empty(&groups->leads)) {
        destroy(list_entry(groups->leads.next, struct group_lead, link));
        /* What it leaves waiting is for another worker to lead. */
        shared_wake_all(groups->shared);
    }
}
