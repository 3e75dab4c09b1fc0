/* Which statements one connection has prepared, and under which names. */
#ifndef MOONPOOL_PG_PREPARED_H
#define MOONPOOL_PG_PREPARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct prepared {
    uint64_t key;    /* of the statement; 0 marks a free place */
    uint32_t serial; /* its name is "m<serial>"; 0 when it must be prepared again */
};

/* Empty when it is all zero. */
struct prepared_set {
    struct prepared *places; /* owned hash table of `slots`, a power of two */
    size_t count;
    size_t slots;
    uint32_t last_serial;
    uint32_t held; /* how many the server holds, with those that were prepared anew since */
};

void prepared_finish(struct prepared_set *set);

/* The serial of a statement; with `ret_fresh` it has to be prepared under that name first. */
uint32_t prepared_take(struct prepared_set *set, uint64_t key, bool *ret_fresh);

/* The server did not prepare it, or knows it no more. */
void prepared_forget(struct prepared_set *set, uint64_t key);

/* They may be stale: all are prepared again, under other names. */
void prepared_renew_all(struct prepared_set *set);

/* The server has forgotten, or is about to forget, all that is prepared. */
void prepared_forget_all(struct prepared_set *set);

#endif
