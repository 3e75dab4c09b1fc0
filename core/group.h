/* Group commit in one worker: members wait here for what their group brings them, and the groups
 * that this worker leads run here, each in an internal request of its own. What meets between
 * workers meets at the desk. */
#ifndef MOONPOOL_GROUP_H
#define MOONPOOL_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "desk.h"
#include "handling.h"
#include "list.h"
#include "loop.h"

struct generation;
struct shared;
struct group_lead;

struct groups {
    struct runner *runner; /* borrowed, as the next */
    struct shared *shared;
    uint32_t worker;            /* this worker's index */
    struct generation *current; /* borrowed from the app: where groups are led */
    struct list members;        /* of struct group_member */
    struct list leads;          /* of struct group_lead */
};

/* A request that waits for its group. In the request's arena. */
struct group_member {
    struct waiting waiting; /* how its handling gives up */
    struct list link;       /* in groups.members */
    struct groups *groups;
    struct handling *handling;
    int group;
    int parcel;
    uint64_t since; /* clock_now() when it joined */
    bool answered;  /* error or output are there */
};

void groups_init(struct groups *groups, struct runner *runner, struct shared *shared,
                 uint32_t worker);

/* Ends what this worker leads. No member may be left. */
void groups_finish(struct groups *groups);

/* True if this worker leads a group that has members. */
bool groups_are_busy(const struct groups *groups);

/* Looks for answers and for groups to lead: called when the worker was woken. */
void groups_attend(struct groups *groups);

/* Posts a member's input. -1 with ERROR_OVERLOADED, ERROR_INVALID or, for one group too many,
 * ERROR_SCRIPT if the desk cannot take it. The handling is made ready when it is answered. */
int group_join(struct groups *groups, struct group_member *member, struct handling *handling,
               const char *name, const char *input, size_t length, struct error *err);

/* The answer: its error, and the JSON of the output or of what more there is of the error (may be
 * empty), good until handling_stop_waiting(). */
const struct error *group_error(const struct group_member *member);
const char *group_output(const struct group_member *member, size_t *ret_length);

/* For the leading code. */

/* The lead whose code is running in this handling; NULL if it is none. */
struct group_lead *group_lead_of(struct groups *groups, const struct handling *handling);

/* How long to wait for company before group_take(), in microseconds: desk_linger(). A handling that
 * sleeps for so long is woken when all are there. */
uint64_t group_linger(struct group_lead *lead, int most);

/* Closes the group: takes what waits, at most `most`. Returns how many. */
int group_take(struct group_lead *lead, int most);
const char *group_input(const struct group_lead *lead, int index, size_t *ret_length);

/* Before COMMIT, of the member at `index`, or of all with -1: false if one was answered meanwhile.
 */
bool group_seal(struct group_lead *lead, int index);

/* Gives the member at `index` its output or, with `err`, an error and what more there is of it. */
void group_answer(struct group_lead *lead, int index, const char *data, size_t length,
                  const struct error *err);

#endif
