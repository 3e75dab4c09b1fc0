/* Timers: who fires when, and what a firing timer may do to itself and to others. */
#include "deadline.h"

#include <stdlib.h>

#include "test.h"

enum { ALARMS = 8, CROWD = 400 };

/* What a timer does when it fires, besides leaving its letter in the diary. */
enum deed { NOTHING, DISARM_NEXT, ARM_NEXT_FOR_NOW, ARM_NEXT_LATER, REARM_FOR_NOW, REARM_LATER };

struct alarm {
    struct timer timer;
    char letter;
    enum deed deed;
};

static struct timers timers;
static struct alarm alarms[ALARMS];
static char diary[64];

static void on_fire(struct timer *timer)
{
    struct alarm *alarm = (struct alarm *)timer;
    struct timer *next = &(alarm + 1)->timer;
    strncat(diary, &alarm->letter, 1);
    switch (alarm->deed) {
    case NOTHING:
        break;
    case DISARM_NEXT:
        timer_disarm(&timers, next);
        break;
    case ARM_NEXT_FOR_NOW:
        timer_arm(&timers, next, timer->at, on_fire);
        break;
    case ARM_NEXT_LATER:
        timer_arm(&timers, next, timer->at + 1000, on_fire);
        break;
    case REARM_FOR_NOW:
        timer_arm(&timers, timer, timer->at, on_fire);
        break;
    case REARM_LATER:
        timer_arm(&timers, timer, timer->at + 1000, on_fire);
        break;
    }
}

struct row {
    const char *name;
    uint64_t at[3]; /* of the alarms a, b and c; 0: not armed */
    enum deed deed; /* of a */
    const char *at_20, *at_50, *at_2000;
};

static const struct row rows[] = {
    {"none is armed", {0, 0, 0}, NOTHING, "", "", ""},
    {"in the order of their times", {30, 10, 20}, NOTHING, "bc", "bca", "bca"},
    {"one at its very time", {20, 21, 19}, NOTHING, "ca", "cab", "cab"},
    {"one disarms another that is due", {10, 15, 20}, DISARM_NEXT, "ac", "ac", "ac"},
    {"one disarms another that is not", {10, 40, 20}, DISARM_NEXT, "ac", "ac", "ac"},
    {"one disarms what is not armed", {10, 0, 20}, DISARM_NEXT, "ac", "ac", "ac"},
    {"one arms another for the past", {10, 0, 0}, ARM_NEXT_FOR_NOW, "a", "ab", "ab"},
    {"one arms another for later", {10, 0, 20}, ARM_NEXT_LATER, "ac", "ac", "acb"},
    {"one puts off another that is due", {10, 15, 20}, ARM_NEXT_LATER, "ac", "ac", "acb"},
    {"one moves another to the front", {10, 40, 0}, ARM_NEXT_FOR_NOW, "a", "ab", "ab"},
    {"one that re-arms itself fires once in a run", {10, 0, 0}, REARM_FOR_NOW, "a", "aa", "aaa"},
    {"though others are due", {10, 15, 0}, REARM_FOR_NOW, "ab", "aba", "abaa"},
    {"though others are armed", {10, 40, 45}, REARM_FOR_NOW, "a", "aabc", "aabca"},
    {"one that re-arms itself for later", {10, 15, 0}, REARM_LATER, "ab", "ab", "aba"},
};

static void run_row(const struct row *row)
{
    diary[0] = '\0';
    memset(alarms, 0, sizeof alarms);
    timers_init(&timers);
    alarms[0].deed = row->deed;
    for (int i = 0; i < 3; i++) {
        alarms[i].letter = (char)('a' + i);
        if (row->at[i]) {
            timer_arm(&timers, &alarms[i].timer, row->at[i], on_fire);
        }
    }
    timers_run(&timers, 20);
    check_text(diary, row->at_20, "%s: at 20", row->name);
    timers_run(&timers, 50);
    check_text(diary, row->at_50, "%s: at 50", row->name);
    timers_run(&timers, 2000);
    check_text(diary, row->at_2000, "%s: at 2000", row->name);
    timers_finish(&timers);
}

static void test_next(void)
{
    struct timer a = {0}, b = {0};
    timers_init(&timers);
    check(timers_next(&timers) == DEADLINE_NEVER, "without timers there is no next time");
    timer_disarm(&timers, &a);
    check(timers_next(&timers) == DEADLINE_NEVER, "disarming what is not armed is nothing");
    timer_arm(&timers, &a, 70, on_fire);
    timer_arm(&timers, &b, 50, on_fire);
    check_int(timers_next(&timers), 50, "the next time is the earliest");
    timer_arm(&timers, &b, 90, on_fire);
    check_int(timers_next(&timers), 70, "a timer moves later");
    timer_arm(&timers, &b, 60, on_fire);
    check_int(timers_next(&timers), 60, "and earlier");
    check_int(timers.count, 2, "and is there once");
    timer_disarm(&timers, &b);
    check_int(timers_next(&timers), 70, "the others stay when one is disarmed");
    check(!b.slot && a.slot, "a timer knows whether it is armed");
    timers_finish(&timers);
}

/* Many timers against a table of their times. */
struct member {
    struct timer timer;
    uint64_t at; /* 0: not armed */
};

static struct member crowd[CROWD];
static uint64_t crowd_now, crowd_latest;
static unsigned crowd_faults;

static void on_member(struct timer *timer)
{
    struct member *member = (struct member *)timer;
    /* In order, in time, and at the time that was asked for. */
    crowd_faults += member->at != timer->at || member->at > crowd_now || member->at < crowd_latest;
    crowd_latest = member->at;
    member->at = 0;
}

static uint64_t model_next(void)
{
    uint64_t next = DEADLINE_NEVER;
    for (int i = 0; i < CROWD; i++) {
        if (crowd[i].at && crowd[i].at < next) {
            next = crowd[i].at;
        }
    }
    return next;
}

static void move_at_random(struct member *member)
{
    member->at = random() % 3 ? crowd_now + 1 + (uint64_t)random() % 1000 : 0;
    if (member->at) {
        timer_arm(&timers, &member->timer, member->at, on_member);
    } else {
        timer_disarm(&timers, &member->timer);
    }
}

static void test_crowd(void)
{
    timers_init(&timers);
    srandom(7);
    for (int step = 0; step < 20000; step++) {
        move_at_random(&crowd[random() % CROWD]);
        crowd_faults += timers_next(&timers) != model_next();
        if (step % 50 == 0) {
            crowd_now += (uint64_t)random() % 200;
            crowd_latest = 0;
            timers_run(&timers, crowd_now);
            crowd_faults += model_next() <= crowd_now;
        }
    }
    check_int(crowd_faults, 0, "many timers, moved at random, fire as a table says");
    timers_finish(&timers);
}

static void test_clock(void)
{
    uint64_t before = clock_now();
    check(before > 0 && clock_now() >= before, "the clock does not go back");
    check_int(deadline_left(50, 20), 30, "what is left until a deadline");
    check_int(deadline_left(20, 20), 0, "nothing at the deadline");
    check_int(deadline_left(10, 20), 0, "nothing after it");
}

int main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        run_row(&rows[i]);
    }
    test_next();
    test_crowd();
    test_clock();
    return test_end();
}
