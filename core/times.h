/* Where the time of a request goes, in microseconds: for its line in the access log. */
#ifndef MOONPOOL_TIMES_H
#define MOONPOOL_TIMES_H

#include <stdint.h>

struct request_times {
    uint64_t queued;   /* waiting for its turn at a serialised transaction */
    uint64_t pool;     /* waiting for a connection */
    uint64_t database; /* waiting for PostgreSQL */
    uint64_t group;    /* waiting for a group to begin, and at work */
};

#endif
