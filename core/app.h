/* A worker's application: the generation that serves, its replacement while the server runs, and
 * the answers to the edge's questions. */
#ifndef MOONPOOL_APP_H
#define MOONPOOL_APP_H

#include <stdbool.h>
#include <stdint.h>

#include "group.h"
#include "handling.h"
#include "http.h"
#include "load.h"
#include "tx.h"

struct config;
struct loop;
struct shared;
struct shared_worker;

struct app {
    const struct config *config; /* borrowed, as the next five */
    struct shared *shared;
    struct shared_worker *slot;
    struct loop *loop;
    struct database *database;
    bool speaks; /* this worker's words on a bad generation go to the log at full level */
    struct runner runner;
    struct groups groups;
    struct generation *current;   /* serves; NULL before the first one does */
    struct generation *candidate; /* being checked; NULL while none is */
    uint64_t candidate_number;
    struct load_check check;
    bool checking;
    bool replaces;        /* a worker served in this slot before: scripts that were good then are
                             served, whatever has become of the database's tables */
    struct timer recheck; /* the database was away when the current one was to be checked */
    void (*booted)(struct app *app, const struct error *err);
    void *owner;
};

void app_init(struct app *app, const struct config *config, struct shared *shared,
              struct shared_worker *slot, struct loop *loop, struct database *database,
              bool speaks);

/* Ends the check and the generations. No request may be left. */
void app_finish(struct app *app);

/* Loads the good snapshot. `booted` is called from the loop: with ERROR_NONE the application
 * serves, be it that the database is away; else the scripts or statements are wrong. */
void app_boot(struct app *app, void (*booted)(struct app *app, const struct error *err));

/* Looks whether there is a new snapshot to load. Called when the worker was woken. */
void app_attend(struct app *app);

/* The edge's questions. */
struct http_handler app_handler(struct app *app);

#endif
