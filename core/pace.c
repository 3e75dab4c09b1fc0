/* Goes by the last few durations, if they are recent. The longest are left out of the mean, so that
 * a slow one among many changes nothing; who is next is refused only if there is less time left
 * than three quarters of the others took. */
#include "pace.h"

#include <stdlib.h>

#include "deadline.h"

enum { FEWEST_SAMPLES = 4, FRESH_S = 10, OUTLIERS = 8 /* one in so many */ };

/* Between two notes many may ask. */
enum { JUDGEMENT_MS = 5 };

void pace_note(struct pace *pace, uint64_t duration, uint64_t now)
{
    pace->durations[pace->next] = duration;
    pace->ended[pace->next] = now;
    pace->next = (pace->next + 1) % PACE_SAMPLES;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static uint32_t take_fresh(const struct pace *pace, uint64_t now, uint64_t *fresh)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < PACE_SAMPLES; i++) {
        if (pace->ended[i] && pace->ended[i] + SECONDS(FRESH_S) > now) {
            fresh[count++] = pace->durations[i];
        }
    }
    return count;
}

static void judge(struct pace *pace, uint64_t now)
{
    uint64_t fresh[PACE_SAMPLES];
    uint32_t count = take_fresh(pace, now, fresh);
    pace->judged_at = now;
    pace->usual = 0;
    if (count < FEWEST_SAMPLES) {
        return;
    }
    qsort(fresh, count, sizeof *fresh, compare);
    uint32_t kept = count - (count + OUTLIERS - 1) / OUTLIERS;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < kept; i++) {
        sum += fresh[i];
    }
    pace->usual = sum / kept;
    pace->least = fresh[count / 4];
}

bool pace_is_hopeless(struct pace *pace, uint64_t now, uint32_t ahead, uint32_t servers,
                      uint64_t deadline)
{
    if (deadline == 0) {
        return false;
    }
    if (pace->judged_at + MILLISECONDS(JUDGEMENT_MS) <= now) {
        judge(pace, now);
    }
    uint64_t wait = pace->usual * ahead / (servers ? servers : 1);
    return pace->usual > 0 && now + wait + pace->least > deadline;
}
