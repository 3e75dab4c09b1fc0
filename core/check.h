/* Validates scripts and statements without serving. */
#ifndef MOONPOOL_CHECK_H
#define MOONPOOL_CHECK_H

#include <stdbool.h>

struct config;

/* Loads the scripts, checks the statements against the database, prints what is wrong on stderr
 * and, if `print_routes`, the routes on stdout. The exit code of the process. */
int check_run(const struct config *config, bool print_routes);

#endif
