/* The master: binds the sockets, forks the workers, replaces those that die, hands them new
 * generations, and ends them. Single-threaded; never touches Lua, libpq or HTTP. */
#ifndef MOONPOOL_MASTER_H
#define MOONPOOL_MASTER_H

struct config;

/* Serves until SIGTERM or SIGINT; the exit code of the process: 0 after a drained stop, 1 if it
 * could not start (it has printed why) or workers had to be killed. */
int master_run(const struct config *config);

#endif
