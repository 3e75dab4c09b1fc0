/* The pace of a queue: who is told that it cannot be done in time, and who is not. */
#include "pace.h"

#include <stddef.h>

#include "deadline.h"
#include "test.h"

static const struct {
    const char *name;
    const char *durations; /* ms, the last one ended now */
    uint64_t age;          /* ms since then */
    uint32_t ahead;
    uint32_t servers;
    uint64_t left; /* ms */
    bool hopeless;
} rows[] = {
    {"nothing is known", "", 0, 1000, 1, 1, false},
    {"too little is known", "100 100 100", 0, 1000, 1, 1, false},
    {"there is time", "100 100 100 100", 0, 8, 1, 1000, false},
    {"there is not", "100 100 100 100", 0, 10, 1, 1000, true},
    {"more servers", "100 100 100 100", 0, 10, 4, 1000, false},
    {"more servers, and more ahead", "100 100 100 100", 0, 40, 4, 1000, true},
    {"a server that is not there yet", "100 100 100 100", 0, 10, 0, 1000, true},
    {"next, with time enough", "100 100 100 100", 0, 0, 1, 101, false},
    {"next, with too little time", "100 100 100 100", 0, 0, 1, 99, true},
    {"next, and some are fast enough", "100 100 1 100 1", 0, 0, 1, 50, false},
    {"a slow one among fast ones", "1 1 5000 1 1", 0, 100, 1, 1000, false},
    {"a slow one at the end", "1 1 1 5000", 0, 100, 1, 1000, false},
    {"as many slow as fast", "1 200 1 200 1 200 1 200 1 200", 0, 20, 1, 1000, true},
    {"long ago", "100 100 100 100", 10001, 1000, 1, 1, false},
    {"only the last ones count",
     "900 900 900 900 900 900 900 900 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 "
     "1 1",
     0, 100, 1, 1000, false},
};

static void fill(struct pace *pace, const char *durations, uint64_t now)
{
    while (*durations) {
        uint64_t duration = 0;
        for (; *durations >= '0' && *durations <= '9'; durations++) {
            duration = duration * 10 + (uint64_t)(*durations - '0');
        }
        durations += *durations == ' ';
        pace_note(pace, MILLISECONDS(duration), now);
    }
}

static void test_turn_of_events(void)
{
    struct pace pace = {0};
    uint64_t now = SECONDS(1000);
    fill(&pace, "100 100 100 100", now);
    check(!pace_is_hopeless(&pace, now, 100, 1, 0), "who has no deadline is never refused");
    check(pace_is_hopeless(&pace, now, 100, 1, now + SECONDS(1)), "the queue is slow");
    fill(&pace, "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", now);
    now += MILLISECONDS(5);
    check(!pace_is_hopeless(&pace, now, 100, 1, now + SECONDS(1)), "then it is fast");
}

int main(void)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct pace pace = {0};
        uint64_t now = SECONDS(1000);
        fill(&pace, rows[i].durations, now);
        now += MILLISECONDS(rows[i].age);
        check(pace_is_hopeless(&pace, now, rows[i].ahead, rows[i].servers,
                               now + MILLISECONDS(rows[i].left)) == rows[i].hopeless,
              "%s", rows[i].name);
    }
    test_turn_of_events();
    return test_end();
}
