/* The memory of a Lua state: what is small is kept for the next of its size, contents survive every
 * change of size. The sanitizers see to the rest. */
#include "vm_blocks.h"

#include <stdlib.h>

#include "test.h"

enum { BLOCKS = 2000 };

static const size_t sizes[] = {1, 15, 16, 17, 100, 255, 256, 257, 1000, 5000};

enum { SIZES = sizeof sizes / sizeof *sizes };

static bool is_filled(const char *memory, char c, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (memory[i] != c) {
            return false;
        }
    }
    return true;
}

/* From each size to each other. */
static void test_resize(void)
{
    struct vm_blocks blocks = {0};
    for (int from = 0; from < SIZES; from++) {
        for (int to = 0; to < SIZES; to++) {
            size_t common = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            char *block = vm_blocks_resize(&blocks, NULL, 0, sizes[from]);
            memset(block, 'x', sizes[from]);
            block = vm_blocks_resize(&blocks, block, sizes[from], sizes[to]);
            check(is_filled(block, 'x', common), "from %zu to %zu bytes", sizes[from], sizes[to]);
            memset(block, 'y', sizes[to]);
            check(!vm_blocks_resize(&blocks, block, sizes[to], 0), "and away");
        }
    }
    vm_blocks_trim(&blocks);
}

/* As a sweep of the collector does. */
static void test_many(void)
{
    struct vm_blocks blocks = {0};
    static char *many[BLOCKS];
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < BLOCKS; i++) {
            many[i] = vm_blocks_resize(&blocks, NULL, 0, sizes[i % SIZES]);
            memset(many[i], 'a' + i % 26, sizes[i % SIZES]);
        }
        bool whole = true;
        for (int i = 0; i < BLOCKS; i++) {
            whole = whole && is_filled(many[i], (char)('a' + i % 26), sizes[i % SIZES]);
            vm_blocks_resize(&blocks, many[i], sizes[i % SIZES], 0);
        }
        check(whole, "no two of %d blocks overlap", BLOCKS);
    }
    vm_blocks_trim(&blocks);
    for (int class = 0; class < VM_BLOCK_CLASSES; class ++) {
        check(!blocks.spare[class], "class %d is empty then", class);
    }
    check(blocks.bytes == 0, "and nothing is spare");
}

static void test_nothing(void)
{
    struct vm_blocks blocks = {0};
    check(!vm_blocks_resize(&blocks, NULL, 0, 0), "nothing becomes nothing");
    vm_blocks_trim(&blocks);
}

int main(void)
{
    test_resize();
    test_many();
    test_nothing();
    return test_end();
}
