/* One worker: a process with one loop that serves one listen socket. */
#ifndef MOONPOOL_WORKER_H
#define MOONPOOL_WORKER_H

#include <stdint.h>

struct config;
struct shared;

/* What a worker exits with when it cannot load the scripts and has said why (EX_CONFIG). */
enum { WORKER_EXIT_CONFIG = 78 };

/* Serves until SIGTERM, then drains; the exit code of the process. Called in the child right after
 * the fork; both descriptors are non-blocking, listening, and stay open in the master.
 *
 * The worker starts on `shared->sources[shared->good]`, says so with `ready` and wakes the master.
 * From then on, whenever `shared->generation` differs from its slot's `generation`, it loads
 * `shared->candidate`, stores `load` first and `generation` second, and wakes the master. The
 * master changes no snapshot that a worker may be reading: it publishes only when all workers are
 * ready and have decided, and replaces dead workers only between publications. A worker's
 * `heartbeat` must not be older than 5 s, or than twice the default deadline if that is longer. */
int worker_run(const struct config *config, struct shared *shared, uint32_t index, int listen_fd,
               int admin_fd);

#endif
