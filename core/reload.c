/* One snapshot is good, the other is free or a candidate.
 *
 *     SETTLED -> DECIDING   a change was read and published             [publish]
 *     DECIDING -> SETTLED   every living worker has loaded it: it is good now     [decide]
 *     DECIDING -> SETTLED   one has refused it: the old one stays                 [decide]
 *
 * A snapshot is read by workers that start (the good one) and, while DECIDING, by those that load
 * the candidate. So the free one is written only while SETTLED and with no worker starting, and the
 * master starts no worker while DECIDING. */
#include "reload.h"

#include <string.h>

#include "config.h"
#include "deadline.h"
#include "error.h"
#include "log.h"
#include "shared.h"
#include "source.h"

int reload_init(struct reload *reload, const struct config *config, struct shared *shared,
                struct error *err)
{
    memset(reload, 0, sizeof *reload);
    reload->config = config;
    reload->shared = shared;
    if (source_read(&shared->sources[0], config->scripts, config->sql, err) != 0) {
        return -1;
    }
    reload->digest = shared->sources[0].digest;
    shared->good = 0;
    shared->candidate = 0;
    shared->generation = 1;
    return 0;
}

void reload_request(struct reload *reload, bool force)
{
    reload->changed = true;
    reload->forced = reload->forced || force;
}

static void publish(struct reload *reload, int slot)
{
    struct shared *shared = reload->shared;
    reload->deciding = true;
    reload->since = clock_now();
    shared->candidate = slot;
    shared->generation++; /* last: workers that see it find the candidate in place */
    shared_wake_all(shared);
}

static void log_refused(const struct reload *reload, const char *message)
{
    struct log_line line = log_begin(LOG_WARN, "reload refused");
    log_int(&line, "generation", (int64_t)reload->shared->generation);
    log_text(&line, "message", message);
    log_end(&line);
}

static void log_reloaded(const struct reload *reload)
{
    const struct source *good = &reload->shared->sources[reload->shared->good];
    struct log_line line = log_begin(LOG_INFO, "reloaded");
    log_int(&line, "generation", (int64_t)reload->shared->generation);
    log_int(&line, "scripts", good->script_count);
    log_int(&line, "statement_files", good->sql_count);
    log_ms(&line, "duration_ms", clock_now() - reload->since);
    log_end(&line);
}

/* What the living workers say about the newest generation. */
struct votes {
    uint32_t starting; /* not ready yet */
    uint32_t loading;
    uint32_t loaded;
    uint32_t refused;
};

static void count_vote(struct votes *votes, const struct shared_worker *worker, uint64_t generation)
{
    if (!worker->ready) {
        votes->starting++;
    } else if (worker->generation != generation || worker->load == SHARED_LOADING) {
        votes->loading++;
    } else if (worker->load == SHARED_REFUSED) {
        votes->refused++;
    } else {
        votes->loaded++;
    }
}

static struct votes count_votes(const struct shared *shared)
{
    struct votes votes = {0};
    for (uint32_t i = 0; i < shared->worker_count; i++) {
        if (shared->workers[i].pid != 0) {
            count_vote(&votes, &shared->workers[i], shared->generation);
        }
    }
    return votes;
}

/* Workers that could not agree are brought together again on the good snapshot, published once
 * more; should some refuse even that, they keep what they have. */
static void refuse(struct reload *reload, const struct votes *votes)
{
    struct shared *shared = reload->shared;
    log_refused(reload, "the last good version goes on serving");
    if (votes->loaded > 0 && shared->candidate != shared->good) {
        publish(reload, shared->good);
    }
}

static void decide(struct reload *reload, const struct votes *votes)
{
    struct shared *shared = reload->shared;
    reload->deciding = false;
    if (votes->refused == 0 && votes->loaded > 0) {
        shared->good = shared->candidate;
        log_reloaded(reload);
    } else {
        refuse(reload, votes);
    }
}

static void read_again(struct reload *reload)
{
    int slot = 1 - reload->shared->good;
    struct source *source = &reload->shared->sources[slot];
    struct error err;
    bool forced = reload->forced;
    reload->changed = false;
    reload->forced = false;
    if (source_read(source, reload->config->scripts, reload->config->sql, &err) != 0) {
        log_refused(reload, err.message);
        reload->digest = 0; /* Once repaired it is published, which tells that it is. */
    } else if (forced || source->digest != reload->digest) {
        reload->digest = source->digest;
        publish(reload, slot);
    }
}

void reload_step(struct reload *reload)
{
    struct votes votes = count_votes(reload->shared);
    bool settled = votes.starting == 0 && votes.loading == 0;
    if (reload->deciding && settled) {
        decide(reload, &votes);
    }
    bool anybody = votes.loaded + votes.refused > 0;
    if (reload->changed && settled && anybody && !reload->deciding) {
        read_again(reload);
    }
}
