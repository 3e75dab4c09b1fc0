/* Lua asks for a dozen small blocks per request, and its collector gives them back hundreds at a
 * time. malloc keeps seven of a size within easy reach; here are as many as a sweep returns. */
#include "vm_blocks.h"

#include <stdlib.h>
#include <string.h>

enum { UNIT = 16, LARGEST = UNIT * VM_BLOCK_CLASSES };

/* Bytes: the rows of a long list are mostly of one size. The sanitizers are to see each block go.
 */
#ifdef __SANITIZE_ADDRESS__
enum { SPARE_MOST = 0 };
#else
enum { SPARE_MOST = 1024 * 1024 };
#endif

struct vm_block {
    struct vm_block *next;
};

static size_t class_of(size_t size)
{
    return (size - 1) / UNIT;
}

static void *take(struct vm_blocks *blocks, size_t size)
{
    if (size > LARGEST) {
        return malloc(size);
    }
    size_t class = class_of(size);
    struct vm_block *block = blocks->spare[class];
    if (!block) {
        return malloc((class + 1) * UNIT);
    }
    blocks->spare[class] = block->next;
    blocks->bytes -= (class + 1) * UNIT;
    return block;
}

static void give_back(struct vm_blocks *blocks, void *memory, size_t size)
{
    struct vm_block *block = memory;
    size_t class = size ? class_of(size) : VM_BLOCK_CLASSES;
    if (class >= VM_BLOCK_CLASSES || blocks->bytes + (class + 1) * UNIT > SPARE_MOST) {
        free(memory);
        return;
    }
    block->next = blocks->spare[class];
    blocks->spare[class] = block;
    blocks->bytes += (class + 1) * UNIT;
}

static void *move(struct vm_blocks *blocks, void *block, size_t old_size, size_t size)
{
    void *moved = take(blocks, size);
    if (!moved && size < old_size) {
        return block; /* To become smaller must not fail. */
    }
    if (moved && block) {
        memcpy(moved, block, old_size < size ? old_size : size);
        give_back(blocks, block, old_size);
    }
    return moved;
}

void *vm_blocks_resize(struct vm_blocks *blocks, void *block, size_t old_size, size_t size)
{
    if (size == 0) {
        give_back(blocks, block, old_size);
        return NULL;
    }
    if (old_size > LARGEST && size > LARGEST) {
        return realloc(block, size);
    }
    if (block && old_size <= LARGEST && size <= LARGEST && class_of(old_size) == class_of(size)) {
        return block;
    }
    return move(blocks, block, old_size, size);
}

void vm_blocks_trim(struct vm_blocks *blocks)
{
    for (size_t class = 0; class < VM_BLOCK_CLASSES; class ++) {
        while (blocks->spare[class]) {
            struct vm_block *block = blocks->spare[class];
            blocks->spare[class] = block->next;
            free(block);
        }
    }
    blocks->bytes = 0;
}
