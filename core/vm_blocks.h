/* The memory of a Lua state: malloc's, with what is small kept at hand. */
#ifndef MOONPOOL_VM_BLOCKS_H
#define MOONPOOL_VM_BLOCKS_H

#include <stddef.h>

enum { VM_BLOCK_CLASSES = 16 };

struct vm_block;

/* Blocks of one class are of the same size and linked through their first word. */
struct vm_blocks {
    struct vm_block *spare[VM_BLOCK_CLASSES]; /* owned */
    size_t bytes;                             /* of all that are spare */
};

/* As realloc(), but that the caller knows the old size, and that a size of 0 gives the block back.
 * 0 and NULL are a block that is not there yet. NULL if there is no memory: the block is as before.
 */
void *vm_blocks_resize(struct vm_blocks *blocks, void *block, size_t old_size, size_t size);

/* Gives the spare blocks back. */
void vm_blocks_trim(struct vm_blocks *blocks);

#endif
