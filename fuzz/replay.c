/* Runs a fuzz target once on each file of a folder and says so in TAP: the corpus as a test, for
 * any compiler. A finding ends the process, which meson counts as a failure. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

enum { MOST_BYTES = 1024 * 1024 };

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* From memory of the exact size, so that a sanitizer sees a read beyond it. */
static void run(const char *bytes, size_t size)
{
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, bytes, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static int run_file(const char *folder, const char *name)
{
    static char bytes[MOST_BYTES];
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file) {
        return -1;
    }
    run(bytes, fread(bytes, 1, sizeof bytes, file));
    fclose(file);
    return 0;
}

int main(int argc, char **argv)
{
    struct dirent **entries;
    int count = argc == 2 ? scandir(argv[1], &entries, is_visible, alphasort) : -1;
    int failures = count <= 0; /* A corpus that is not there tests nothing. */
    for (int i = 0; i < count; i++) {
        int failed = run_file(argv[1], entries[i]->d_name) != 0;
        printf("%sok %d - %s\n", failed ? "not " : "", i + 1, entries[i]->d_name);
        fflush(stdout);
        failures += failed;
        free(entries[i]);
    }
    if (count >= 0) {
        free(entries);
    }
    printf("1..%d\n", count < 0 ? 0 : count);
    return failures ? 1 : 0;
}
