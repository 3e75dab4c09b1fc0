/* inotify over trees. It watches single folders only, and forgets those that go: so after every
 * change all watches are made anew. Changes in between are not missed, because the folders are read
 * after that. */
#include "folders.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"
#include "list.h"
#include "log.h"

/* A program that saves several files, or one in several steps, is given the time to finish. */
#define QUIET MILLISECONDS(50)
#define PATIENCE MILLISECONDS(500)

/* Deeper folders are not watched; a link that leads back up would never end. */
enum { DEEPEST = 16 };

static const uint32_t tree_events = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM |
                                    IN_MOVED_TO | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;

static const uint32_t place_events =
    IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF;

static int add(struct folders *folders, const char *path, uint32_t events)
{
    return inotify_add_watch(folders->inotify_fd, path, events | IN_ONLYDIR | IN_MASK_ADD);
}

static bool is_folder(int parent, const struct dirent *entry)
{
    struct stat status;
    if (entry->d_type != DT_UNKNOWN && entry->d_type != DT_LNK) {
        return entry->d_type == DT_DIR;
    }
    return fstatat(parent, entry->d_name, &status, 0) == 0 && S_ISDIR(status.st_mode);
}

static void add_tree(struct folders *folders, const char *path, int depth);

static void add_children(struct folders *folders, const char *path, int depth)
{
    char child[PATH_MAX];
    DIR *directory = opendir(path);
    if (!directory) {
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (entry->d_name[0] != '.' && is_folder(dirfd(directory), entry) &&
            snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < (int)sizeof child) {
            add_tree(folders, child, depth + 1);
        }
    }
    closedir(directory);
}

static void add_tree(struct folders *folders, const char *path, int depth)
{
    int descriptor = add(folders, path, tree_events);
    if (descriptor < 0) {
        return; /* It has gone meanwhile, or cannot be read: reading the folders will say so. */
    }
    for (int i = 0; i < FOLDERS_ROOTS; i++) {
        if (folders->places[i].descriptor == descriptor) {
            folders->places[i].descriptor = -1;
        }
    }
    if (depth < DEEPEST) {
        add_children(folders, path, depth);
    }
}

/* Cuts the last name off `path`: "a/b" becomes "a" and "b", "a" becomes "." and "a". */
static void split(char *path, char *name, size_t size)
{
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/') {
        path[--length] = '\0';
    }
    char *slash = strrchr(path, '/');
    snprintf(name, size, "%s", slash ? slash + 1 : path);
    if (!slash) {
        strcpy(path, ".");
    } else {
        slash[slash == path] = '\0';
    }
}

/* Watches the nearest folder above `root` that is there. */
static void add_place(struct folders *folders, const char *root, struct folders_place *place)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s", root);
    do {
        split(path, place->name, sizeof place->name);
        place->descriptor = add(folders, path, place_events);
    } while (place->descriptor < 0 && strcmp(path, ".") != 0 && strcmp(path, "/") != 0);
}

/* Places first: a tree that holds one takes it over. */
static void add_all(struct folders *folders)
{
    for (int i = 0; i < FOLDERS_ROOTS; i++) {
        add_place(folders, folders->roots[i], &folders->places[i]);
    }
    for (int i = 0; i < FOLDERS_ROOTS; i++) {
        add_tree(folders, folders->roots[i], 0);
    }
}

/* A place's folder may be a busy one: only what happens to the root, or to itself, counts there. */
static bool matters(const struct folders *folders, const struct inotify_event *event)
{
    bool is_place = false;
    for (int i = 0; i < FOLDERS_ROOTS; i++) {
        if (folders->places[i].descriptor == event->wd) {
            is_place = true;
            if (event->len == 0 || strcmp(event->name, folders->places[i].name) == 0) {
                return true;
            }
        }
    }
    return !is_place;
}

static bool read_events(struct folders *folders)
{
    char bytes[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    bool found = false;
    ssize_t length;
    while ((length = read(folders->inotify_fd, bytes, sizeof bytes)) > 0) {
        for (ssize_t at = 0; at < length;) {
            const struct inotify_event *event = (const struct inotify_event *)(bytes + at);
            found = matters(folders, event) || found;
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
    return found;
}

static void stop(struct folders *folders)
{
    if (folders->inotify_fd >= 0) {
        loop_remove(folders->loop, &folders->watch);
        close(folders->inotify_fd);
        folders->inotify_fd = -1;
    }
}

static int start(struct folders *folders, struct error *err);

static void on_settled(struct timer *timer)
{
    struct folders *folders = list_entry(timer, struct folders, settle);
    struct error err;
    stop(folders);
    if (start(folders, &err) != 0) {
        log_event(LOG_WARN, "watch failed", "%s", err.message);
    }
    folders->changed(folders);
}

static void on_events(struct watch *watch, uint32_t events)
{
    struct folders *folders = list_entry(watch, struct folders, watch);
    if (!read_events(folders)) {
        return;
    }
    uint64_t now = folders->loop->now;
    if (folders->settle.slot == 0) {
        folders->settle_until = now + PATIENCE;
    }
    uint64_t quiet = now + QUIET;
    loop_arm(folders->loop, &folders->settle,
             quiet < folders->settle_until ? quiet : folders->settle_until, on_settled);
}

static int start(struct folders *folders, struct error *err)
{
    folders->inotify_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (folders->inotify_fd < 0) {
        return error_set(err, ERROR_UNAVAILABLE, "inotify: %s", strerror(errno));
    }
    add_all(folders);
    if (loop_add(folders->loop, &folders->watch, folders->inotify_fd, EPOLLIN, on_events) != 0) {
        return error_set(err, ERROR_UNAVAILABLE, "inotify: %s", strerror(errno));
    }
    return 0;
}

int folders_init(struct folders *folders, struct loop *loop, const char *first, const char *second,
                 void (*changed)(struct folders *folders), struct error *err)
{
    memset(folders, 0, sizeof *folders);
    folders->loop = loop;
    folders->roots[0] = first;
    folders->roots[1] = second;
    folders->changed = changed;
    folders->watch.fd = -1;
    if (start(folders, err) != 0) {
        folders_finish(folders);
        return -1;
    }
    return 0;
}

void folders_finish(struct folders *folders)
{
    if (folders->loop) {
        loop_disarm(folders->loop, &folders->settle);
        stop(folders);
        folders->loop = NULL;
    }
}

void folders_abandon(struct folders *folders)
{
    if (folders->loop) {
        close(folders->inotify_fd);
        folders->loop = NULL;
    }
}
