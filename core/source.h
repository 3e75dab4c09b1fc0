/* A snapshot of the scripts and SQL folders: the bytes that one generation is built from. The
 * master reads the folders into memory shared with the workers, so that all workers load the same
 * bytes, a worker started later loads what last proved good, and nothing reads the disk while
 * serving. */
#ifndef MOONPOOL_SOURCE_H
#define MOONPOOL_SOURCE_H

#include <stddef.h>
#include <stdint.h>

struct error;

enum { SOURCE_BYTES = 8 * 1024 * 1024 }; /* the most one snapshot may hold */

struct source_file {
    const char *path; /* as the user would write it: "scripts/users.lua"; NUL-terminated */
    const char *name; /* path below its folder: "users.lua", "lib/money.lua" */
    const char *data; /* NUL-terminated behind `length` bytes */
    size_t length;
};

/* Lies in shared memory; offsets inside, so that every process may map it where it likes. */
struct source {
    uint64_t digest; /* of all names and bytes; equal digests mean equal snapshots */
    uint32_t script_count;
    uint32_t sql_count;
    size_t used;
    char bytes[SOURCE_BYTES];
};

/* Fills `source` from `scripts` (every *.lua, recursively) and `sql` (every *.sql, but not below
 * migrations/), each sorted by path. Files whose names begin with '.', or that editors leave behind
 * (ending in ~), are passed over. -1 if a folder or a file cannot be read or it is too much. */
int source_read(struct source *source, const char *scripts, const char *sql, struct error *err);

/* The n-th script or SQL file, 0-based; -1 behind the last. Pointers go into `source`. */
int source_script(const struct source *source, uint32_t index, struct source_file *ret_file);
int source_sql(const struct source *source, uint32_t index, struct source_file *ret_file);

/* The script whose name is `name`; -1 if there is none. */
int source_find_script(const struct source *source, const char *name, struct source_file *ret_file);

#endif
