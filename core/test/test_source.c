/* The snapshot of scripts and statements: what is read, what is passed over, what is refused. */
#include "../source.h"

#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../error.h"
#include "test.h"

static struct source *source; /* owned */
static struct error err;

static void write_bytes(const char *path, const char *data, size_t length)
{
    FILE *file = fopen(path, "w");
    if (!file || fwrite(data, 1, length, file) != length || fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void write_file(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static void make_folder(const char *path)
{
    if (mkdir(path, 0755) != 0) {
        perror(path);
        exit(1);
    }
}

static void make_link(const char *to, const char *path)
{
    if (symlink(to, path) != 0) {
        perror(path);
        exit(1);
    }
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *ftw)
{
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void make_tree(void)
{
    make_folder("scripts");
    make_folder("scripts/lib");
    make_folder("scripts/.git");
    make_folder("scripts/folder.lua");
    make_folder("sql");
    make_folder("sql/migrations");
    make_folder("sql/deep");
    make_folder("sql/deep/migrations");
    write_file("scripts/users.lua", "return 1\n");
    write_bytes("scripts/actions.lua", "a\0b", 3);
    write_file("scripts/empty.lua", "");
    write_file("scripts/lib/money.lua", "money");
    write_file("scripts/folder.lua/inner.lua", "inner");
    write_file("scripts/.#users.lua", "lock");
    write_file("scripts/.hidden.lua", "hidden");
    write_file("scripts/users.lua~", "backup");
    write_file("scripts/notes.txt", "notes");
    write_file("scripts/.git/x.lua", "git");
    make_link("../scripts/users.lua", "scripts/link.lua");
    make_link("nowhere.lua", "scripts/dangling.lua");
    make_link(".", "scripts/circle");
    if (mkfifo("scripts/pipe.lua", 0600) != 0) {
        exit(1);
    }
    write_file("sql/users.sql", "-- name: a :one\nselect 1;\n");
    write_file("sql/actions.sql", "select");
    write_file("sql/migrations/0001_x.sql", "create");
    write_file("sql/deep/migrations/y.sql", "deep");
}

static int read_all(void)
{
    int result = source_read(source, "scripts", "sql", &err);
    if (result != 0) {
        printf("# %s\n", err.message);
    }
    return result;
}

static void test_contents(void)
{
    static const char *const names[] = {"actions.lua",   "empty.lua", "folder.lua/inner.lua",
                                        "lib/money.lua", "link.lua",  "users.lua"};
    static const char *const data[] = {"a", "", "inner", "money", "return 1\n", "return 1\n"};
    static const size_t lengths[] = {3, 0, 5, 5, 9, 9};
    struct source_file file;
    char path[64];
    check_int(read_all(), 0, "the folders are read");
    check_int(source->script_count, 6, "with six scripts");
    for (uint32_t i = 0; i < 6 && source_script(source, i, &file) == 0; i++) {
        snprintf(path, sizeof path, "scripts/%s", names[i]);
        check_text(file.name, names[i], "script %u: name", i);
        check_text(file.path, path, "script %u: path", i);
        check_text(file.data, data[i], "script %u: data", i);
        check_int(file.length, lengths[i], "script %u: length", i);
        check(file.data[file.length] == '\0', "script %u: a NUL behind it", i);
    }
    check_int(source_script(source, 6, &file), -1, "there is no seventh");
}

static void test_sql(void)
{
    static const char *const paths[] = {"sql/actions.sql", "sql/deep/migrations/y.sql",
                                        "sql/users.sql"};
    struct source_file file;
    check_int(source->sql_count, 3, "three SQL files, and no migration");
    for (uint32_t i = 0; i < 3 && source_sql(source, i, &file) == 0; i++) {
        check_text(file.path, paths[i], "SQL file %u: path", i);
        check_text(file.name, paths[i] + 4, "SQL file %u: name", i);
    }
    check_int(source_sql(source, 3, &file), -1, "there is no fourth");
    check_int(source_sql(source, UINT32_MAX, &file), -1, "nor a last");
}

static void test_find(void)
{
    struct source_file file = {0};
    check_int(source_find_script(source, "lib/money.lua", &file), 0, "a script is found by name");
    check_text(file.data, "money", "with its text");
    check_int(source_find_script(source, "users.sql", &file), -1, "a statement file is no script");
    check_int(source_find_script(source, "", &file), -1, "an empty name is none");
}

static void test_folder_as_given(void)
{
    char here[4096], folder[4200], expected[4300];
    struct source_file file = {0};
    uint64_t digest = source->digest;
    check_int(source_read(source, "./scripts///", "sql/", &err), 0, "slashes at the end are fine");
    source_script(source, 0, &file);
    check_text(file.path, "./scripts/actions.lua", "and are not shown");
    check_int(source->sql_count, 3, "migrations are passed over then, too");
    check(source->digest == digest, "the digest is of names below the folder");
    if (!getcwd(here, sizeof here)) {
        exit(1);
    }
    snprintf(folder, sizeof folder, "%s/scripts", here);
    snprintf(expected, sizeof expected, "%s/actions.lua", folder);
    check_int(source_read(source, folder, "sql", &err), 0, "an absolute folder is read");
    source_script(source, 0, &file);
    check_text(file.path, expected, "and shown as given");
    make_link("scripts", "linked");
    check_int(source_read(source, "linked", "sql", &err), 0, "the folder itself may be a link");
    check_int(source->script_count, 6, "and is followed");
}

static bool digest_changes(uint64_t *digest)
{
    uint64_t before = *digest;
    int result = read_all();
    *digest = source->digest;
    return result == 0 && *digest != before;
}

static void test_digest(void)
{
    read_all();
    uint64_t first = source->digest, digest = first;
    check(!digest_changes(&digest), "the digest stays while nothing changes");
    write_file("scripts/users.lua", "return 2\n");
    check(digest_changes(&digest), "it changes with a byte");
    rename("scripts/empty.lua", "scripts/empti.lua");
    check(digest_changes(&digest), "with a name");
    write_file("sql/new.sql", "");
    check(digest_changes(&digest), "with an empty file");
    write_file("scripts/users.lua", "return 1\n");
    rename("scripts/empti.lua", "scripts/empty.lua");
    remove("sql/new.sql");
    check(digest_changes(&digest) && digest == first, "and is back when all is as before");
}

static void refused(const char *scripts, const char *sql, const char *message)
{
    memset(&err, 0, sizeof err);
    check_int(source_read(source, scripts, sql, &err), -1, "refused: %s", message);
    check_int(err.code, ERROR_SCRIPT, "its code");
    if (!check(strstr(err.message, message), "its message")) {
        printf("# %s\n", err.message);
    }
}

static void test_refused(void)
{
    refused("absent", "sql", "cannot read absent: No such file");
    refused("scripts", "absent", "cannot read absent: No such file");
    refused("scripts/users.lua", "sql", "cannot read scripts/users.lua: Not a directory");
    make_link("loop.lua", "scripts/loop.lua");
    refused("scripts", "sql", "cannot read scripts/loop.lua: Too many levels");
    remove("scripts/loop.lua");
    if (geteuid() != 0) {
        write_file("sql/closed.sql", "x");
        chmod("sql/closed.sql", 0);
        refused("scripts", "sql", "cannot read sql/closed.sql: Permission denied");
        remove("sql/closed.sql");
    }
}

static void test_too_much(void)
{
    read_all();
    size_t room = SOURCE_BYTES - source->used;
    size_t overhead = 4 * sizeof(size_t) + sizeof "sql/z.sql" + 1;
    char *data = calloc(1, room);
    memset(data, 'z', room);
    write_bytes("sql/z.sql", data, room - overhead);
    check_int(read_all(), 0, "a snapshot may be full to the last byte");
    check_int(source->used, SOURCE_BYTES, "as this one is");
    write_bytes("sql/z.sql", data, room - overhead + 1);
    refused("scripts", "sql", "sql/z.sql does not fit");
    write_bytes("sql/z.sql", data, room - overhead);
    write_file("sql/zz.sql", "");
    refused("scripts", "sql", "does not fit");
    free(data);
    remove("sql/z.sql");
    remove("sql/zz.sql");
}

static void test_empty(void)
{
    make_folder("none");
    check_int(source_read(source, "none", "none", &err), 0, "empty folders are fine");
    check_int(source->script_count + source->sql_count, 0, "and hold nothing");
}

int main(void)
{
    char folder[] = "/tmp/test_source.XXXXXX";
    source = malloc(sizeof *source);
    if (!source || !mkdtemp(folder) || chdir(folder) != 0) {
        perror("test_source");
        return 1;
    }
    make_tree();
    test_contents();
    test_sql();
    test_find();
    test_folder_as_given();
    test_digest();
    test_refused();
    test_too_much();
    test_empty();
    remove_tree(folder);
    free(source);
    return test_end();
}
