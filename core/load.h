/* Building a generation from a snapshot, and checking its statements against the database. */
#ifndef MOONPOOL_LOAD_H
#define MOONPOOL_LOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "error.h"
#include "tx.h"

struct config;
struct generation;
struct source;

/* Parses the statements and runs the scripts. NULL with ERROR_SCRIPT and file:line on failure. */
struct generation *load_generation(const struct source *source, const struct config *config,
                                   struct error *err);

/* A check under way: every statement of the catalog is prepared and described, so that a misspelt
 * column is found now, and the types of the parameters are known from then on. */
struct load_check {
    struct tx tx;
    struct generation *generation; /* borrowed */
    struct error error;            /* of the first statement that is wrong, with file:line */
    void (*done)(struct load_check *check);
};

/* Begins the check; `done` is called from the loop. Then `error` is ERROR_NONE if all is well,
 * ERROR_UNAVAILABLE if the database could not be asked, else ERROR_SCRIPT. */
void load_check_start(struct load_check *check, struct generation *generation,
                      struct database *database, void (*done)(struct load_check *check));

/* Gives up if it is still under way, and frees what it used. */
void load_check_finish(struct load_check *check);

#endif
