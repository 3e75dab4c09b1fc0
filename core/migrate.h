/* Brings the schema up to date: `moonpool migrate`. */
#ifndef MOONPOOL_MIGRATE_H
#define MOONPOOL_MIGRATE_H

struct config;
struct error;

/* Applies what is missing of <config->sql>/migrations/NNNN_name.sql in the order of the numbers,
 * each file in a transaction of its own, and records it with its SHA-256 in the table
 * moonpool_migrations. Runs that overlap wait for each other. Prints a line for each file on
 * stdout. Blocks: to be called by a process that does nothing else. -1 with a message that begins
 * with the file, or file:line, it is about: a misnamed, repeated, changed, vanished, late or
 * failing file, or a database that cannot be reached. What was applied before the failing file
 * stays. */
int migrate_run(const struct config *config, struct error *err);

#endif
