/* The states of parcels. Few and short critical sections; a scan over the parcels costs
 * microseconds and happens once per group, not once per member. */
#include "desk.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* How long a group may wait for company: see desk_linger(). */
enum { LINGER_SHARE = 8, LINGER_MOST = 2000 };

/* A worker that died under the lock may have written a state or its count, but not the other. */
static void recount(struct desk *desk)
{
    memset(desk->posted, 0, sizeof desk->posted);
    for (int i = 0; i < DESK_PARCELS; i++) {
        desk->posted[desk->parcels[i].group] += desk->parcels[i].state == PARCEL_POSTED;
    }
}

static void lock(struct desk *desk)
{
    int status = pthread_mutex_lock(&desk->lock);
    if (status == EOWNERDEAD) {
        recount(desk);
        status = pthread_mutex_consistent(&desk->lock);
    }
    assert(status == 0);
}

static void unlock(struct desk *desk)
{
    pthread_mutex_unlock(&desk->lock);
}

static struct parcel_body *body_of(struct desk *desk, const struct parcel *parcel)
{
    return &desk->bodies[parcel - desk->parcels];
}

static int find_group(struct desk *desk, const char *name)
{
    for (int i = 0; i < DESK_GROUPS; i++) {
        if (!desk->groups[i].name[0]) {
            snprintf(desk->groups[i].name, DESK_NAME, "%s", name);
        }
        if (strcmp(desk->groups[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

int desk_group(struct desk *desk, const char *name)
{
    lock(desk);
    int group = strlen(name) < DESK_NAME ? find_group(desk, name) : -1;
    unlock(desk);
    return group;
}

static void set_state(struct desk *desk, struct parcel *parcel, enum parcel_state state)
{
    desk->posted[parcel->group] += state == PARCEL_POSTED;
    desk->posted[parcel->group] -= parcel->state == PARCEL_POSTED;
    parcel->state = state;
}

static int find_free(const struct desk *desk)
{
    for (int i = 0; i < DESK_PARCELS; i++) {
        if (desk->parcels[i].state == PARCEL_FREE) {
            return i;
        }
    }
    return -1;
}

static void fill(struct desk *desk, struct parcel *parcel, int group, uint32_t worker,
                 uint64_t deadline)
{
    parcel->group = group;
    parcel->member = worker;
    parcel->orphan = false;
    parcel->deadline = deadline;
    parcel->sequence = desk->sequence++;
    body_of(desk, parcel)->error.code = ERROR_NONE;
    set_state(desk, parcel, PARCEL_POSTED);
}

int desk_post(struct desk *desk, int group, uint32_t worker, uint64_t deadline, const char *data,
              size_t length)
{
    if (length > DESK_BYTES) {
        return -1;
    }
    lock(desk);
    int index = find_free(desk);
    if (index >= 0) {
        struct parcel *parcel = &desk->parcels[index];
        memcpy(desk->bodies[index].data, data, length);
        desk->bodies[index].length = length;
        fill(desk, parcel, group, worker, deadline);
    }
    unlock(desk);
    return index;
}

bool desk_lead(struct desk *desk, int group, uint32_t worker)
{
    struct desk_group *g = &desk->groups[group];
    lock(desk);
    bool leads = !g->led && desk->posted[group] > 0;
    if (leads) {
        g->led = true;
        g->leader = worker;
    }
    unlock(desk);
    return leads;
}

uint64_t desk_latest(struct desk *desk, int group)
{
    uint64_t latest = 0;
    lock(desk);
    for (int i = 0; i < DESK_PARCELS; i++) {
        const struct parcel *parcel = &desk->parcels[i];
        if (parcel->state == PARCEL_POSTED && parcel->group == group && parcel->deadline > latest) {
            latest = parcel->deadline;
        }
    }
    unlock(desk);
    return latest;
}

void desk_resign(struct desk *desk, int group, uint32_t worker)
{
    struct desk_group *g = &desk->groups[group];
    lock(desk);
    if (g->led && g->leader == worker) {
        g->led = false;
    }
    unlock(desk);
}

/* Under the lock. The oldest waiting parcel of the group, or -1. */
static int find_oldest(const struct desk *desk, int group)
{
    int oldest = -1;
    for (int i = 0; i < DESK_PARCELS; i++) {
        const struct parcel *parcel = &desk->parcels[i];
        if (parcel->state == PARCEL_POSTED && parcel->group == group &&
            (oldest < 0 || parcel->sequence < desk->parcels[oldest].sequence)) {
            oldest = i;
        }
    }
    return oldest;
}

/* Under the lock. */
static void finish(struct desk *desk, struct parcel *parcel)
{
    bool nobody_waits = parcel->orphan || parcel->state == PARCEL_ABANDONED;
    set_state(desk, parcel, nobody_waits ? PARCEL_FREE : PARCEL_ANSWERED);
}

/* Under the lock. An error of the desk's own. */
static void fail(struct desk *desk, struct parcel *parcel, enum error_code code,
                 const char *message)
{
    struct parcel_body *body = body_of(desk, parcel);
    error_set(&body->error, code, "%s", message);
    body->length = 0;
    finish(desk, parcel);
}

/* A group that refuses everybody does nothing from which the average could learn that it would be
 * faster now. */
static void be_less_strict(struct desk_group *g)
{
    g->average -= (g->average + 3) / 4;
}

int desk_take(struct desk *desk, int group, uint32_t worker, int most, uint64_t now,
              int *ret_parcels, bool *ret_answered)
{
    int count = 0;
    *ret_answered = false;
    lock(desk);
    uint64_t needed = desk->groups[group].average;
    while (count < most) {
        int index = find_oldest(desk, group);
        if (index < 0) {
            break;
        }
        struct parcel *parcel = &desk->parcels[index];
        if (parcel->deadline < now + needed) {
            fail(desk, parcel, ERROR_OVERLOADED,
                 "this cannot be done before the deadline of the request");
            *ret_answered = true;
        } else {
            parcel->leader = worker;
            set_state(desk, parcel, PARCEL_TAKEN);
            ret_parcels[count++] = index;
        }
    }
    if (count == 0 && *ret_answered) {
        be_less_strict(&desk->groups[group]);
    }
    unlock(desk);
    return count;
}

bool desk_seal(struct desk *desk, const int *parcels, int count)
{
    bool good = true;
    lock(desk);
    for (int i = 0; i < count; i++) {
        int state = desk->parcels[parcels[i]].state;
        good = good && (state == PARCEL_TAKEN || state == PARCEL_SEALED);
    }
    for (int i = 0; good && i < count; i++) {
        set_state(desk, &desk->parcels[parcels[i]], PARCEL_SEALED);
    }
    unlock(desk);
    return good;
}

void desk_put_back(struct desk *desk, const int *parcels, int count)
{
    lock(desk);
    for (int i = 0; i < count; i++) {
        struct parcel *parcel = &desk->parcels[parcels[i]];
        if (parcel->state == PARCEL_ABANDONED) {
            set_state(desk, parcel, PARCEL_FREE);
        } else if (parcel->state == PARCEL_TAKEN || parcel->state == PARCEL_SEALED) {
            set_state(desk, parcel, parcel->orphan ? PARCEL_FREE : PARCEL_POSTED);
        }
    }
    unlock(desk);
}

void desk_answer(struct desk *desk, int index, const char *data, size_t length,
                 const struct error *err)
{
    struct parcel *parcel = &desk->parcels[index];
    struct parcel_body *body = &desk->bodies[index];
    bool fits = length <= DESK_BYTES;
    lock(desk);
    if (err) {
        body->error = *err;
    } else if (!fits) {
        error_set(&body->error, ERROR_SCRIPT, "the output of a group is longer than %d bytes",
                  DESK_BYTES);
    }
    body->length = fits ? length : 0;
    if (body->length > 0) {
        memcpy(body->data, data, length);
    }
    finish(desk, parcel);
    unlock(desk);
}

void desk_note(struct desk *desk, int group, uint64_t duration, int count, uint64_t now)
{
    struct desk_group *g = &desk->groups[group];
    lock(desk);
    g->average = g->average ? (g->average * 7 + duration) / 8 : duration;
    g->ended_at = now;
    g->crowd = (uint32_t)count + desk->posted[group];
    unlock(desk);
}

uint64_t desk_linger(struct desk *desk, int group, int most, uint64_t now)
{
    struct desk_group *g = &desk->groups[group];
    lock(desk);
    uint32_t wanted = g->crowd < (uint32_t)most ? g->crowd : (uint32_t)most;
    uint64_t moment = g->average / LINGER_SHARE;
    uint64_t until = g->ended_at + (moment < LINGER_MOST ? moment : LINGER_MOST);
    uint64_t left = desk->posted[group] < wanted && now < until ? until - now : 0;
    g->awaited = left > 0 ? wanted : 0;
    unlock(desk);
    return left;
}

int desk_gathered(struct desk *desk, int group)
{
    struct desk_group *g = &desk->groups[group];
    lock(desk);
    bool gathered = g->led && g->awaited > 0 && desk->posted[group] >= g->awaited;
    int leader = gathered ? (int)g->leader : -1;
    g->awaited = gathered ? 0 : g->awaited;
    unlock(desk);
    return leader;
}

enum parcel_state desk_state(struct desk *desk, int parcel)
{
    lock(desk);
    enum parcel_state state = (enum parcel_state)desk->parcels[parcel].state;
    unlock(desk);
    return state;
}

enum parcel_state desk_withdraw(struct desk *desk, int index)
{
    struct parcel *parcel = &desk->parcels[index];
    lock(desk);
    enum parcel_state before = (enum parcel_state)parcel->state;
    if (before == PARCEL_POSTED) {
        set_state(desk, parcel, PARCEL_FREE);
    } else if (before == PARCEL_TAKEN) {
        set_state(desk, parcel, PARCEL_ABANDONED);
    }
    unlock(desk);
    return before;
}

void desk_leave(struct desk *desk, int index)
{
    struct parcel *parcel = &desk->parcels[index];
    lock(desk);
    if (parcel->state == PARCEL_POSTED || parcel->state == PARCEL_ANSWERED) {
        set_state(desk, parcel, PARCEL_FREE);
    } else {
        parcel->orphan = true;
    }
    unlock(desk);
}

void desk_free(struct desk *desk, int index)
{
    lock(desk);
    set_state(desk, &desk->parcels[index], PARCEL_FREE);
    unlock(desk);
}

/* Under the lock. The leader of this parcel has died. */
static void lose_leader(struct desk *desk, struct parcel *parcel)
{
    if (parcel->state == PARCEL_TAKEN) {
        set_state(desk, parcel, parcel->orphan ? PARCEL_FREE : PARCEL_POSTED);
    } else if (parcel->state == PARCEL_ABANDONED) {
        set_state(desk, parcel, PARCEL_FREE);
    } else if (parcel->state == PARCEL_SEALED) {
        fail(desk, parcel, ERROR_OUTCOME_UNKNOWN,
             "the worker that sent COMMIT died before its answer came");
    }
}

/* Under the lock. The member of this parcel has died. */
static void lose_member(struct desk *desk, struct parcel *parcel)
{
    if (parcel->state == PARCEL_POSTED || parcel->state == PARCEL_ANSWERED) {
        set_state(desk, parcel, PARCEL_FREE);
    } else if (parcel->state != PARCEL_FREE) {
        parcel->orphan = true;
    }
}

void desk_bury(struct desk *desk, uint32_t worker)
{
    lock(desk);
    for (int i = 0; i < DESK_PARCELS; i++) {
        struct parcel *parcel = &desk->parcels[i];
        if (parcel->state != PARCEL_FREE && parcel->member == worker) {
            lose_member(desk, parcel);
        }
        if (parcel->leader == worker) {
            lose_leader(desk, parcel);
        }
    }
    for (int i = 0; i < DESK_GROUPS; i++) {
        if (desk->groups[i].led && desk->groups[i].leader == worker) {
            desk->groups[i].led = false;
        }
    }
    unlock(desk);
}
