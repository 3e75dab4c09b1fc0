/* A hash table with open addressing. A statement that was forgotten keeps its place, but gets
 * another serial when it is prepared again. */
#include "pg_prepared.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"

enum { FIRST_SLOTS = 32 };

static struct prepared *find_place(struct prepared *places, size_t slots, uint64_t key)
{
    size_t i = key & (slots - 1);
    while (places[i].key && places[i].key != key) {
        i = (i + 1) & (slots - 1);
    }
    return &places[i];
}

static void grow(struct prepared_set *set)
{
    size_t slots = set->slots ? set->slots * 2 : FIRST_SLOTS;
    struct prepared *places = memory_zalloc(slots * sizeof *places);
    for (size_t i = 0; i < set->slots; i++) {
        if (set->places[i].key) {
            *find_place(places, slots, set->places[i].key) = set->places[i];
        }
    }
    free(set->places);
    set->places = places;
    set->slots = slots;
}

void prepared_finish(struct prepared_set *set)
{
    free(set->places);
    memset(set, 0, sizeof *set);
}

static struct prepared *place_for(struct prepared_set *set, uint64_t key)
{
    if (set->count * 2 >= set->slots) {
        grow(set);
    }
    struct prepared *place = find_place(set->places, set->slots, key);
    if (!place->key) {
        place->key = key;
        set->count++;
    }
    return place;
}

uint32_t prepared_take(struct prepared_set *set, uint64_t key, bool *ret_fresh)
{
    struct prepared *place = place_for(set, key);
    *ret_fresh = place->serial == 0;
    if (*ret_fresh) {
        place->serial = ++set->last_serial;
        set->held++;
    }
    return place->serial;
}

void prepared_forget(struct prepared_set *set, uint64_t key)
{
    if (key && set->slots) {
        find_place(set->places, set->slots, key)->serial = 0;
    }
}

void prepared_renew_all(struct prepared_set *set)
{
    if (set->slots) {
        memset(set->places, 0, set->slots * sizeof *set->places);
    }
    set->count = 0;
}

void prepared_forget_all(struct prepared_set *set)
{
    prepared_renew_all(set);
    set->held = 0;
}
