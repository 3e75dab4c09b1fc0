/* How fast a queue moves: the durations of what was served last, and what follows for who waits.
 * All times in microseconds. */
#ifndef MOONPOOL_PACE_H
#define MOONPOOL_PACE_H

#include <stdbool.h>
#include <stdint.h>

enum { PACE_SAMPLES = 32 };

/* Zeroed memory is one that knows nothing yet. */
struct pace {
    uint64_t durations[PACE_SAMPLES]; /* a ring */
    uint64_t ended[PACE_SAMPLES];     /* when; 0 for none */
    uint32_t next;
    uint64_t judged_at; /* when the following two were worked out; 0 when they were not */
    uint64_t usual;     /* 0 while there is too little to go by */
    uint64_t least;
};

/* Something took this long. */
void pace_note(struct pace *pace, uint64_t duration, uint64_t now);

/* True if one with `ahead` before it, served by `servers` at a time, will clearly not be done by
 * its deadline. When in doubt, and without a deadline (0), false. */
bool pace_is_hopeless(struct pace *pace, uint64_t now, uint32_t ahead, uint32_t servers,
                      uint64_t deadline);

#endif
