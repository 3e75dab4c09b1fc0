/* The desk: what each step makes of a parcel in each state, and that processes which do these steps
 * at random neither lose a parcel nor do one twice. */
#include "desk.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "test.h"

enum { MEMBER = 1, LEADER = 2, STRANGER = 3, GROUP = 0 };
enum { NEVER = 1000000 }; /* a deadline that does not come */

static void *share(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

static struct desk *create(void)
{
    struct desk *desk = share(sizeof *desk);
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&desk->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    desk_group(desk, "first");
    desk_group(desk, "second");
    return desk;
}

static void destroy(struct desk *desk)
{
    pthread_mutex_destroy(&desk->lock);
    munmap(desk, sizeof *desk);
}

static int post(struct desk *desk, const char *input)
{
    return desk_post(desk, GROUP, MEMBER, NEVER, input, strlen(input));
}

static int take(struct desk *desk, int *parcels, int most)
{
    bool answered;
    return desk_take(desk, GROUP, LEADER, most, 0, parcels, &answered);
}

/* -- One parcel -- */

static void withdraw(struct desk *desk, int parcel)
{
    enum parcel_state before = (enum parcel_state)desk->parcels[parcel].state;
    check_int(desk_withdraw(desk, parcel), before, "  who withdraws hears how it was");
}

static void leave(struct desk *desk, int parcel)
{
    desk_leave(desk, parcel);
}

static void put_back(struct desk *desk, int parcel)
{
    desk_put_back(desk, &parcel, 1);
}

static void seal(struct desk *desk, int parcel)
{
    bool prevented = desk->parcels[parcel].state == PARCEL_ABANDONED;
    check(desk_seal(desk, &parcel, 1) == !prevented, "  it is sealed unless it was abandoned");
}

static void answer(struct desk *desk, int parcel)
{
    desk_answer(desk, parcel, "out", 3, NULL);
}

static void refuse(struct desk *desk, int parcel)
{
    struct error err;
    error_set(&err, ERROR_CONFLICT, "no");
    desk_answer(desk, parcel, NULL, 0, &err);
}

static void bury_member(struct desk *desk, int parcel)
{
    desk_bury(desk, MEMBER);
}

static void bury_leader(struct desk *desk, int parcel)
{
    desk_bury(desk, LEADER);
}

static void bury_stranger(struct desk *desk, int parcel)
{
    desk_bury(desk, STRANGER);
}

/* Brings a parcel into a state on the way that real ones take. */
static int bring(struct desk *desk, enum parcel_state state)
{
    int parcel = post(desk, "in");
    int taken = parcel;
    if (state != PARCEL_POSTED) {
        take(desk, &taken, 1);
    }
    if (state == PARCEL_SEALED) {
        desk_seal(desk, &taken, 1);
    } else if (state == PARCEL_ABANDONED) {
        desk_withdraw(desk, taken);
    } else if (state == PARCEL_ANSWERED) {
        answer(desk, taken);
    }
    return taken;
}

static const struct {
    enum parcel_state from;
    bool orphan; /* its member has left before */
    void (*step)(struct desk *desk, int parcel);
    const char *name;
    enum parcel_state then;
    enum error_code error;
} steps[] = {
    {PARCEL_POSTED, false, withdraw, "posted, withdrawn", PARCEL_FREE, ERROR_NONE},
    {PARCEL_POSTED, false, leave, "posted, left", PARCEL_FREE, ERROR_NONE},
    {PARCEL_POSTED, false, bury_member, "posted, member dead", PARCEL_FREE, ERROR_NONE},
    {PARCEL_POSTED, false, bury_leader, "posted, leader dead", PARCEL_POSTED, ERROR_NONE},

    {PARCEL_TAKEN, false, withdraw, "taken, withdrawn", PARCEL_ABANDONED, ERROR_NONE},
    {PARCEL_TAKEN, false, leave, "taken, left", PARCEL_TAKEN, ERROR_NONE},
    {PARCEL_TAKEN, false, put_back, "taken, put back", PARCEL_POSTED, ERROR_NONE},
    {PARCEL_TAKEN, false, seal, "taken, sealed", PARCEL_SEALED, ERROR_NONE},
    {PARCEL_TAKEN, false, answer, "taken, answered", PARCEL_ANSWERED, ERROR_NONE},
    {PARCEL_TAKEN, false, refuse, "taken, refused", PARCEL_ANSWERED, ERROR_CONFLICT},
    {PARCEL_TAKEN, false, bury_member, "taken, member dead", PARCEL_TAKEN, ERROR_NONE},
    {PARCEL_TAKEN, false, bury_leader, "taken, leader dead", PARCEL_POSTED, ERROR_NONE},
    {PARCEL_TAKEN, false, bury_stranger, "taken, another dead", PARCEL_TAKEN, ERROR_NONE},

    {PARCEL_SEALED, false, withdraw, "sealed, withdrawn", PARCEL_SEALED, ERROR_NONE},
    {PARCEL_SEALED, false, leave, "sealed, left", PARCEL_SEALED, ERROR_NONE},
    {PARCEL_SEALED, false, put_back, "sealed, put back", PARCEL_POSTED, ERROR_NONE},
    {PARCEL_SEALED, false, seal, "sealed, sealed again", PARCEL_SEALED, ERROR_NONE},
    {PARCEL_SEALED, false, answer, "sealed, answered", PARCEL_ANSWERED, ERROR_NONE},
    {PARCEL_SEALED, false, refuse, "sealed, refused", PARCEL_ANSWERED, ERROR_CONFLICT},
    {PARCEL_SEALED, false, bury_member, "sealed, member dead", PARCEL_SEALED, ERROR_NONE},
    {PARCEL_SEALED, false, bury_leader, "sealed, leader dead", PARCEL_ANSWERED,
     ERROR_OUTCOME_UNKNOWN},
    {PARCEL_SEALED, false, bury_stranger, "sealed, another dead", PARCEL_SEALED, ERROR_NONE},

    {PARCEL_ABANDONED, false, seal, "abandoned, sealed", PARCEL_ABANDONED, ERROR_NONE},
    {PARCEL_ABANDONED, false, put_back, "abandoned, put back", PARCEL_FREE, ERROR_NONE},
    {PARCEL_ABANDONED, false, answer, "abandoned, answered", PARCEL_FREE, ERROR_NONE},
    {PARCEL_ABANDONED, false, bury_member, "abandoned, member dead", PARCEL_ABANDONED, ERROR_NONE},
    {PARCEL_ABANDONED, false, bury_leader, "abandoned, leader dead", PARCEL_FREE, ERROR_NONE},

    {PARCEL_ANSWERED, false, withdraw, "answered, withdrawn", PARCEL_ANSWERED, ERROR_NONE},
    {PARCEL_ANSWERED, false, leave, "answered, left", PARCEL_FREE, ERROR_NONE},
    {PARCEL_ANSWERED, false, desk_free, "answered, read", PARCEL_FREE, ERROR_NONE},
    {PARCEL_ANSWERED, false, put_back, "answered, put back", PARCEL_ANSWERED, ERROR_NONE},
    {PARCEL_ANSWERED, false, bury_member, "answered, member dead", PARCEL_FREE, ERROR_NONE},
    {PARCEL_ANSWERED, false, bury_leader, "answered, leader dead", PARCEL_ANSWERED, ERROR_NONE},

    {PARCEL_TAKEN, true, seal, "orphan taken, sealed", PARCEL_SEALED, ERROR_NONE},
    {PARCEL_TAKEN, true, put_back, "orphan taken, put back", PARCEL_FREE, ERROR_NONE},
    {PARCEL_TAKEN, true, answer, "orphan taken, answered", PARCEL_FREE, ERROR_NONE},
    {PARCEL_TAKEN, true, bury_leader, "orphan taken, leader dead", PARCEL_FREE, ERROR_NONE},
    {PARCEL_SEALED, true, put_back, "orphan sealed, put back", PARCEL_FREE, ERROR_NONE},
    {PARCEL_SEALED, true, answer, "orphan sealed, answered", PARCEL_FREE, ERROR_NONE},
    {PARCEL_SEALED, true, bury_leader, "orphan sealed, leader dead", PARCEL_FREE,
     ERROR_OUTCOME_UNKNOWN},
};

static void test_steps(void)
{
    struct desk *desk = create();
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int parcel = bring(desk, steps[i].from);
        if (steps[i].orphan) {
            desk_leave(desk, parcel);
        }
        steps[i].step(desk, parcel);
        enum parcel_state state = desk_state(desk, parcel);
        check_int(state, steps[i].then, "%s", steps[i].name);
        check_int(desk->posted[GROUP], state == PARCEL_POSTED, "  and the count of those posted");
        check_int(desk->bodies[parcel].error.code, steps[i].error, "  and its error");
        desk_free(desk, parcel);
    }
    destroy(desk);
}

/* -- Many -- */

static void test_groups(void)
{
    struct desk *desk = create();
    char name[DESK_NAME + 1];
    check_int(desk_group(desk, "first"), 0, "a group keeps its index");
    check_int(desk_group(desk, "second"), 1, "the next has another");
    memset(name, 'x', DESK_NAME);
    name[DESK_NAME] = '\0';
    check_int(desk_group(desk, name), -1, "a name that is too long is refused");
    check(desk_group(desk, name + 1) > 0, "the longest is not");
    for (int i = 3; i < DESK_GROUPS; i++) {
        snprintf(name, sizeof name, "group %d", i);
        desk_group(desk, name);
    }
    check_int(desk_group(desk, "one more"), -1, "there is an end to groups");
    check_int(desk_group(desk, "group 31"), DESK_GROUPS - 1, "but those there are stay");
    destroy(desk);
}

static bool holds(const struct desk *desk, int parcel, const char *text)
{
    const struct parcel_body *body = &desk->bodies[parcel];
    return body->length == strlen(text) && memcmp(body->data, text, body->length) == 0;
}

static void test_order(void)
{
    struct desk *desk = create();
    int parcels[DESK_TAKE];
    int first = post(desk, "a");
    post(desk, "b");
    desk_withdraw(desk, first);
    post(desk, "c");
    post(desk, "d");
    desk_post(desk, 1, MEMBER, NEVER, "e", 1);
    check_int(take(desk, parcels, 2), 2, "no more are taken than wanted");
    check(holds(desk, parcels[0], "b") && holds(desk, parcels[1], "c"), "the oldest first");
    check_int(take(desk, parcels, 2), 1, "the rest later, without those of another group");
    check(holds(desk, parcels[0], "d"), "and it is the youngest");
    check_int(take(desk, parcels, 2), 0, "then there are none");
    check_int(desk->posted[1], 1, "the other group's still waits");
    destroy(desk);
}

static void test_put_back_order(void)
{
    struct desk *desk = create();
    int parcels[3];
    post(desk, "a");
    post(desk, "b");
    take(desk, parcels, 1);
    desk_put_back(desk, parcels, 1);
    take(desk, parcels, 2);
    check(holds(desk, parcels[0], "a"), "what is put back has kept its place");
    destroy(desk);
}

static void test_seal_all_or_none(void)
{
    struct desk *desk = create();
    int parcels[3];
    post(desk, "a");
    post(desk, "b");
    post(desk, "c");
    take(desk, parcels, 3);
    desk_withdraw(desk, parcels[2]);
    check(!desk_seal(desk, parcels, 3), "a group with one abandoned is not sealed");
    check_int(desk_state(desk, parcels[0]), PARCEL_TAKEN, "nor are its others");
    check(desk_seal(desk, parcels, 2), "without it it is");
    check_int(desk_withdraw(desk, parcels[0]), PARCEL_SEALED, "who withdraws now is too late");
    destroy(desk);
}

static void test_shedding(void)
{
    struct desk *desk = create();
    int parcels[2];
    bool answered;
    int late = desk_post(desk, GROUP, MEMBER, 1500, "late", 4);
    int good = desk_post(desk, GROUP, MEMBER, 3000, "good", 4);
    desk_note(desk, GROUP, 1000, 1, 0);
    check_int(desk_take(desk, GROUP, LEADER, 2, 1000, parcels, &answered), 1,
              "who cannot make the deadline is not taken");
    check(answered && parcels[0] == good, "but those who can");
    check_int(desk_state(desk, late), PARCEL_ANSWERED, "the late one is answered");
    check_int(desk->bodies[late].error.code, ERROR_OVERLOADED, "as by an overloaded server");
    desk_note(desk, GROUP, 9000, 1, 0);
    check_int(desk->groups[GROUP].average, 2000, "the average moves slowly");
    desk_note(desk, 1, 5000, 1, 0);
    check_int(desk->groups[GROUP].average, 2000, "each group has its own");
    destroy(desk);
}

/* Else a group that was slow once would refuse everybody for ever, as it learns nothing any more.
 */
static void test_recovery_from_slowness(void)
{
    struct desk *desk = create();
    bool answered;
    int parcel, rounds = 0;
    desk_note(desk, GROUP, 60000, 1, 0);
    do {
        parcel = desk_post(desk, GROUP, MEMBER, 2000, "x", 1);
        rounds++;
    } while (desk_take(desk, GROUP, LEADER, 1, 0, &parcel, &answered) == 0 && rounds < 100);
    check(rounds < 20, "a group that was slow is tried again after %d refusals", rounds);
    destroy(desk);
}

/* A group of two has ended at 100,000 after 8 ms; a third member waited behind it. */
static void test_linger(void)
{
    struct desk *desk = create();
    check_int(desk_linger(desk, GROUP, 64, 1), 0, "the first group waits for nobody");
    desk_post(desk, GROUP, MEMBER, NEVER, "x", 1);
    desk_note(desk, GROUP, 8000, 2, 100000);
    check_int(desk_linger(desk, GROUP, 64, 100300), 700, "who was answered just now may come back");
    check_int(desk_linger(desk, GROUP, 1, 100300), 0, "where there is room");
    check_int(desk_linger(desk, GROUP, 64, 101000), 0, "an eighth of what a group takes is enough");
    desk_post(desk, GROUP, MEMBER, NEVER, "x", 1);
    check_int(desk_linger(desk, GROUP, 64, 100300), 700, "as long as not all of them are there");
    check_int(desk_gathered(desk, GROUP), -1, "the leader is not told of the first");
    desk_post(desk, GROUP, MEMBER, NEVER, "x", 1);
    check_int(desk_gathered(desk, GROUP), -1, "nobody is told where nobody leads");
    check(desk_lead(desk, GROUP, LEADER), "a leader");
    check_int(desk_gathered(desk, GROUP), LEADER, "the leader is told of the last");
    check_int(desk_gathered(desk, GROUP), -1, "once");
    check_int(desk_linger(desk, GROUP, 64, 100300), 0, "and no longer");
    check_int(desk_gathered(desk, GROUP), -1, "who does not linger is not told");
    desk_note(desk, 1, 1000000, 2, 100000);
    check_int(desk_linger(desk, 1, 64, 100000), 2000, "never for more than 2 ms");
    destroy(desk);
}

static void test_limits(void)
{
    struct desk *desk = create();
    char *large = calloc(1, DESK_BYTES + 1);
    check_int(desk_post(desk, GROUP, MEMBER, NEVER, large, DESK_BYTES + 1), -1,
              "an input that is too long is refused");
    int longest = desk_post(desk, GROUP, MEMBER, NEVER, large, DESK_BYTES);
    check(longest >= 0, "the longest is not");
    take(desk, &longest, 1);
    desk_answer(desk, longest, large, DESK_BYTES + 1, NULL);
    check_int(desk->bodies[longest].error.code, ERROR_SCRIPT, "an output may be too long as well");
    check_int(desk->bodies[longest].length, 0, "there is none of it then");
    int count = 1;
    while (post(desk, "x") >= 0) {
        count++;
    }
    check_int(count, DESK_PARCELS, "the desk has its places");
    desk_free(desk, longest);
    check_int(post(desk, "x"), longest, "one that is freed is used again");
    free(large);
    destroy(desk);
}

static void test_leading(void)
{
    struct desk *desk = create();
    check(!desk_lead(desk, GROUP, LEADER), "nobody leads where nobody waits");
    post(desk, "x");
    check(!desk_lead(desk, 1, LEADER), "nor does one group's member matter to another");
    check(desk_lead(desk, GROUP, LEADER), "the first leads");
    check(!desk_lead(desk, GROUP, STRANGER), "a second does not");
    desk_resign(desk, GROUP, STRANGER);
    check(!desk_lead(desk, GROUP, STRANGER), "only the leader can resign");
    desk_resign(desk, GROUP, LEADER);
    check(desk_lead(desk, GROUP, STRANGER), "then another leads");
    desk_bury(desk, STRANGER);
    check(desk_lead(desk, GROUP, LEADER), "or when it has died");
    destroy(desk);
}

/* A worker killed between two writes under the lock. */
static void test_death_in_the_middle(void)
{
    struct desk *desk = create();
    pid_t child = fork();
    if (child == 0) {
        pthread_mutex_lock(&desk->lock);
        desk->posted[GROUP]++;
        kill(getpid(), SIGKILL);
    }
    waitpid(child, NULL, 0);
    desk_bury(desk, LEADER);
    check_int(desk->posted[GROUP], 0, "what a dead worker had half done is put right");
    check(!desk_lead(desk, GROUP, LEADER), "and nobody leads because of it");
    destroy(desk);
}

/* -- The race -- */

enum { RACERS = 4, ROUNDS = 20000, HELD = 8, TAKEN_AT_ONCE = 6, INPUTS = RACERS * ROUNDS };

enum fate { FATE_NONE, FATE_POSTED, FATE_ANSWERED, FATE_WITHDRAWN, FATE_LEFT, FATE_UNKNOWN };

struct track {
    struct desk *desk;
    _Atomic int committed[INPUTS]; /* how often a leader committed this input */
    _Atomic int fate[INPUTS];      /* enum fate, as its member saw it */
};

struct racer {
    struct track *track;
    uint32_t worker;
    int inputs; /* posted so far */
    unsigned seed;
    int parcels[HELD]; /* -1: none */
    int numbers[HELD]; /* of the inputs in them */
};

static int chance(struct racer *racer, int of)
{
    return rand_r(&racer->seed) % of;
}

static void race_post(struct racer *racer, int slot)
{
    int number = (int)racer->worker * ROUNDS + racer->inputs;
    int parcel =
        desk_post(racer->track->desk, GROUP, racer->worker, NEVER, (char *)&number, sizeof number);
    if (parcel >= 0) {
        racer->inputs++;
        racer->parcels[slot] = parcel;
        racer->numbers[slot] = number;
        racer->track->fate[number] = FATE_POSTED;
    }
}

static void settle(struct racer *racer, int slot, enum fate fate)
{
    racer->track->fate[racer->numbers[slot]] = fate;
    racer->parcels[slot] = -1;
}

/* The output must be that of this input. */
static void race_read(struct racer *racer, int slot)
{
    struct parcel_body *body = &racer->track->desk->bodies[racer->parcels[slot]];
    int output;
    memcpy(&output, body->data, sizeof output);
    bool unknown = body->error.code != ERROR_NONE;
    if (!unknown && output != -racer->numbers[slot]) {
        _exit(2);
    }
    desk_free(racer->track->desk, racer->parcels[slot]);
    settle(racer, slot, unknown ? FATE_UNKNOWN : FATE_ANSWERED);
}

static void race_member(struct racer *racer, int slot, bool patient)
{
    struct desk *desk = racer->track->desk;
    int parcel = racer->parcels[slot];
    int what = patient ? 0 : chance(racer, 16);
    if (parcel < 0) {
        if (!patient) {
            race_post(racer, slot);
        }
    } else if (desk_state(desk, parcel) == PARCEL_ANSWERED) {
        race_read(racer, slot);
    } else if (what == 1) {
        enum parcel_state before = desk_withdraw(desk, parcel);
        if (before == PARCEL_POSTED || before == PARCEL_TAKEN) {
            settle(racer, slot, FATE_WITHDRAWN);
        }
    } else if (what == 2) {
        desk_leave(desk, parcel);
        settle(racer, slot, FATE_LEFT);
    }
}

static void race_answer(struct racer *racer, const int *parcels, int count)
{
    struct desk *desk = racer->track->desk;
    for (int i = 0; i < count; i++) {
        int number;
        memcpy(&number, desk->bodies[parcels[i]].data, sizeof number);
        racer->track->committed[number]++;
        int output = -number;
        desk_answer(desk, parcels[i], (char *)&output, sizeof output, NULL);
    }
}

static void race_lead(struct racer *racer, bool dies)
{
    struct desk *desk = racer->track->desk;
    int parcels[TAKEN_AT_ONCE];
    bool answered;
    if (!desk_lead(desk, GROUP, racer->worker)) {
        return;
    }
    int count = desk_take(desk, GROUP, racer->worker, 1 + chance(racer, TAKEN_AT_ONCE), 0, parcels,
                          &answered);
    sched_yield();
    bool sealed = chance(racer, 4) > 0 && desk_seal(desk, parcels, count);
    if (dies) {
        race_answer(racer, parcels, sealed ? count / 2 : 0);
        kill(getpid(), SIGKILL);
    }
    if (sealed) {
        race_answer(racer, parcels, count);
    } else {
        desk_put_back(desk, parcels, count);
    }
    desk_resign(desk, GROUP, racer->worker);
}

static bool holds_any(const struct racer *racer)
{
    for (int i = 0; i < HELD; i++) {
        if (racer->parcels[i] >= 0) {
            return true;
        }
    }
    return false;
}

/* The first racer dies in the middle of leading, or at the end if it never came to lead late
 * enough; the others stay until they have all their answers. */
static void run_racer(struct track *track, uint32_t worker)
{
    struct racer racer = {.track = track, .worker = worker, .seed = worker + 1};
    memset(racer.parcels, -1, sizeof racer.parcels);
    bool patient = false;
    while (!patient || holds_any(&racer)) {
        patient = patient || racer.inputs == ROUNDS;
        race_member(&racer, chance(&racer, HELD), patient);
        if (chance(&racer, 3) == 0) {
            race_lead(&racer, worker == 0 && racer.inputs > ROUNDS / 2);
        }
    }
    if (worker == 0) {
        kill(getpid(), SIGKILL);
    }
    _exit(0);
}

static int count_broken(const struct track *track)
{
    int broken = 0;
    for (int i = 0; i < INPUTS; i++) {
        int fate = track->fate[i], committed = track->committed[i];
        bool alive = i >= ROUNDS;
        broken += committed > 1 || (fate == FATE_ANSWERED && committed != 1) ||
                  (fate == FATE_WITHDRAWN && committed != 0) || (fate == FATE_POSTED && alive);
    }
    return broken;
}

static int count_used(const struct desk *desk)
{
    int used = 0;
    for (int i = 0; i < DESK_PARCELS; i++) {
        used += desk->parcels[i].state != PARCEL_FREE;
    }
    return used;
}

/* Buries the racer that dies, as the master does. */
static int wait_for_racers(struct desk *desk, const pid_t *children)
{
    int bad = 0, status;
    for (int i = 0; i < RACERS; i++) {
        pid_t ended = wait(&status);
        bool killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        if (ended == children[0]) {
            desk_bury(desk, 0);
        }
        bad += ended == children[0] ? !killed : status != 0;
    }
    return bad;
}

static void test_race(void)
{
    struct track *track = share(sizeof *track);
    pid_t children[RACERS];
    track->desk = create();
    for (uint32_t i = 0; i < RACERS; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            run_racer(track, i);
        }
    }
    check_int(wait_for_racers(track->desk, children), 0, "each gets the output of its input");
    check_int(count_broken(track), 0, "each input is committed as often as its member was told");
    check_int(count_used(track->desk), 0, "no parcel is left");
    check_int(track->desk->posted[GROUP], 0, "none is counted");
    check(!track->desk->groups[GROUP].led, "nobody leads any more");
    destroy(track->desk);
    munmap(track, sizeof *track);
}

int main(void)
{
    test_steps();
    test_groups();
    test_order();
    test_put_back_order();
    test_seal_all_or_none();
    test_shedding();
    test_recovery_from_slowness();
    test_linger();
    test_limits();
    test_leading();
    test_death_in_the_middle();
    test_race();
    return test_end();
}
