/* Reads the scripts and SQL folders into one snapshot. `bytes` begins with a table of entries, the
 * scripts first, and holds their paths and contents behind it. The folders may change while they
 * are read: what vanishes in between is left out. Symbolic links to files are followed, those to
 * folders are not, since they may lead in circles. */
#include "source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arena.h"
#include "error.h"
#include "hash.h"

/* Offsets into `bytes`. */
struct entry {
    size_t path;
    size_t name;
    size_t data;
    size_t length;
};

/* The paths of one folder's files, gathered before any is read. */
struct listing {
    struct arena *arena; /* borrowed; owns paths and array */
    const char *extension;
    const char *skipped; /* path of a folder passed over; NULL for none */
    const char **paths;
    size_t count;
    size_t capacity;
};

static int fail(struct error *err, const char *path)
{
    return error_set(err, ERROR_SCRIPT, "cannot read %s: %s", path, strerror(errno));
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* ---- listing a folder ---- */

static void add_path(struct listing *listing, const char *path)
{
    if (listing->count == listing->capacity) {
        size_t capacity = listing->capacity ? listing->capacity * 2 : 32;
        const char **grown = arena_alloc(listing->arena, capacity * sizeof *grown);
        if (listing->count) {
            memcpy(grown, listing->paths, listing->count * sizeof *grown);
        }
        listing->paths = grown;
        listing->capacity = capacity;
    }
    listing->paths[listing->count++] = path;
}

static int list_folder(struct listing *listing, const char *folder, bool must_exist,
                       struct error *err);

/* A folder is walked, a file of the right kind is listed, all else is passed over. */
static int list_entry(struct listing *listing, const char *path, struct error *err)
{
    struct stat status;
    if (lstat(path, &status) != 0) {
        return errno == ENOENT ? 0 : fail(err, path);
    }
    if (S_ISDIR(status.st_mode)) {
        bool skipped = listing->skipped && strcmp(path, listing->skipped) == 0;
        return skipped ? 0 : list_folder(listing, path, false, err);
    }
    if (!ends_with(path, listing->extension)) {
        return 0;
    }
    if (S_ISLNK(status.st_mode) && stat(path, &status) != 0) {
        return errno == ENOENT ? 0 : fail(err, path);
    }
    if (S_ISREG(status.st_mode)) {
        add_path(listing, path);
    }
    return 0;
}

static int list_entries(struct listing *listing, DIR *stream, const char *folder, struct error *err)
{
    struct dirent *item;
    while (errno = 0, (item = readdir(stream))) {
        if (item->d_name[0] == '.' || ends_with(item->d_name, "~")) {
            continue;
        }
        const char *path = arena_printf(listing->arena, "%s/%s", folder, item->d_name);
        if (list_entry(listing, path, err) != 0) {
            return -1;
        }
    }
    return errno ? fail(err, folder) : 0;
}

static int list_folder(struct listing *listing, const char *folder, bool must_exist,
                       struct error *err)
{
    /* Root's own path is empty without its slash. */
    DIR *stream = opendir(*folder ? folder : "/");
    if (!stream) {
        return errno == ENOENT && !must_exist ? 0 : fail(err, folder);
    }
    int result = list_entries(listing, stream, folder, err);
    closedir(stream);
    return result;
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int list_root(struct listing *listing, const char *root, struct error *err)
{
    if (list_folder(listing, root, true, err) != 0) {
        return -1;
    }
    if (listing->count) {
        qsort(listing->paths, listing->count, sizeof *listing->paths, compare_paths);
    }
    return 0;
}

/* `folder` without the slashes at its end. */
static char *trim_folder(struct arena *arena, const char *folder)
{
    size_t length = strlen(folder);
    while (length > 0 && folder[length - 1] == '/') {
        length--;
    }
    return arena_strndup(arena, folder, length);
}

/* ---- filling the snapshot ---- */

static struct entry get_entry(const struct source *source, uint32_t index)
{
    struct entry entry;
    memcpy(&entry, source->bytes + index * sizeof entry, sizeof entry);
    return entry;
}

static void put_entry(struct source *source, uint32_t index, const struct entry *entry)
{
    memcpy(source->bytes + index * sizeof *entry, entry, sizeof *entry);
}

static int too_much(struct error *err, const char *path)
{
    return error_set(err, ERROR_SCRIPT,
                     "%s does not fit: scripts and statements may hold %d MiB together", path,
                     SOURCE_BYTES / 1024 / 1024);
}

/* Reads all of `fd` to the end of `bytes`, and a NUL behind it. */
static int read_bytes(struct source *source, int fd, const char *path, size_t *ret_length,
                      struct error *err)
{
    size_t begin = source->used;
    ssize_t got;
    do {
        size_t room = SOURCE_BYTES - source->used;
        if (room == 0) {
            return too_much(err, path);
        }
        got = read(fd, source->bytes + source->used, room);
        if (got < 0 && errno != EINTR) {
            return fail(err, path);
        }
        source->used += got > 0 ? (size_t)got : 0;
    } while (got != 0);
    *ret_length = source->used - begin;
    source->bytes[source->used++] = '\0';
    return 0;
}

static int add_text(struct source *source, const char *text, struct error *err)
{
    size_t size = strlen(text) + 1;
    if (SOURCE_BYTES - source->used < size) {
        return too_much(err, text);
    }
    memcpy(source->bytes + source->used, text, size);
    source->used += size;
    return 0;
}

/* Puts one file at the end; *count rises unless it has vanished. */
static int add_file(struct source *source, const char *root, const char *path, uint32_t *count,
                    struct error *err)
{
    /* Not to wait for a pipe that has taken the place of the file. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return errno == ENOENT ? 0 : fail(err, path);
    }
    struct entry entry = {.path = source->used, .name = source->used + strlen(root) + 1};
    int result = add_text(source, path, err);
    entry.data = source->used;
    if (result == 0) {
        result = read_bytes(source, fd, path, &entry.length, err);
    }
    close(fd);
    if (result == 0) {
        put_entry(source, source->script_count + source->sql_count, &entry);
        ++*count;
    }
    return result;
}

static int add_files(struct source *source, const char *root, const struct listing *listing,
                     uint32_t *count, struct error *err)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (add_file(source, root, listing->paths[i], count, err) != 0) {
            return -1;
        }
    }
    return 0;
}

static uint64_t digest_of(const struct source *source)
{
    uint32_t count = source->script_count + source->sql_count;
    uint64_t hash = hash_bytes(HASH_START, &source->script_count, sizeof source->script_count);
    for (uint32_t i = 0; i < count; i++) {
        struct entry entry = get_entry(source, i);
        const char *name = source->bytes + entry.name;
        hash = hash_bytes(hash, name, strlen(name) + 1);
        hash = hash_bytes(hash, &entry.length, sizeof entry.length);
        hash = hash_bytes(hash, source->bytes + entry.data, entry.length);
    }
    return hash;
}

static int read_roots(struct source *source, struct arena *arena, const char *scripts,
                      const char *sql, struct error *err)
{
    struct listing lua_files = {.arena = arena, .extension = ".lua"};
    struct listing sql_files = {.arena = arena, .extension = ".sql"};
    sql_files.skipped = arena_printf(arena, "%s/migrations", sql);
    if (list_root(&lua_files, scripts, err) != 0 || list_root(&sql_files, sql, err) != 0) {
        return -1;
    }
    if (lua_files.count + sql_files.count > SOURCE_BYTES / sizeof(struct entry)) {
        return too_much(err, scripts);
    }
    source->used = (lua_files.count + sql_files.count) * sizeof(struct entry);
    if (add_files(source, scripts, &lua_files, &source->script_count, err) != 0 ||
        add_files(source, sql, &sql_files, &source->sql_count, err) != 0) {
        return -1;
    }
    source->digest = digest_of(source);
    return 0;
}

int source_read(struct source *source, const char *scripts, const char *sql, struct error *err)
{
    struct arena arena;
    source->digest = 0;
    source->script_count = 0;
    source->sql_count = 0;
    source->used = 0;
    arena_init(&arena);
    int result =
        read_roots(source, &arena, trim_folder(&arena, scripts), trim_folder(&arena, sql), err);
    arena_finish(&arena);
    return result;
}

/* ---- looking into a snapshot ---- */

static int get_file(const struct source *source, uint32_t index, struct source_file *ret_file)
{
    struct entry entry = get_entry(source, index);
    ret_file->path = source->bytes + entry.path;
    ret_file->name = source->bytes + entry.name;
    ret_file->data = source->bytes + entry.data;
    ret_file->length = entry.length;
    return 0;
}

int source_script(const struct source *source, uint32_t index, struct source_file *ret_file)
{
    return index < source->script_count ? get_file(source, index, ret_file) : -1;
}

int source_sql(const struct source *source, uint32_t index, struct source_file *ret_file)
{
    return index < source->sql_count ? get_file(source, source->script_count + index, ret_file)
                                     : -1;
}

int source_find_script(const struct source *source, const char *name, struct source_file *ret_file)
{
    struct source_file file;
    for (uint32_t i = 0; source_script(source, i, &file) == 0; i++) {
        if (strcmp(file.name, name) == 0) {
            *ret_file = file;
            return 0;
        }
    }
    return -1;
}
