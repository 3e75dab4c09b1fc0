/* Arenas: alignment, growth, and what is kept for reuse. */
#include "arena.h"

#include <stdint.h>

#include "test.h"

enum { LARGE = 200 * 1024 };

static const size_t sizes[] = {0, 1, 2, 7, 8, 15, 16, 17, 100, 2047, 2048, 4096, 65536, LARGE};

static bool is_aligned(const void *memory)
{
    return (uintptr_t)memory % _Alignof(max_align_t) == 0;
}

static bool is_filled(const char *memory, char c, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (memory[i] != c) {
            return false;
        }
    }
    return true;
}

/* Before each block an odd number of bytes, to bring what follows out of alignment. */
static void test_sizes(void)
{
    enum { SIZES = sizeof sizes / sizeof *sizes };
    char *blocks[SIZES];
    struct arena arena;
    arena_init(&arena);
    for (int i = 0; i < SIZES; i++) {
        memset(arena_bytes(&arena, 3), '?', 3);
        blocks[i] = arena_alloc(&arena, sizes[i]);
        check(is_aligned(blocks[i]), "a block of %zu bytes is aligned", sizes[i]);
        memset(blocks[i], 'a' + i, sizes[i]);
    }
    for (int i = 0; i < SIZES; i++) {
        check(is_filled(blocks[i], (char)('a' + i), sizes[i]), "one of %zu bytes is its own",
              sizes[i]);
    }
    arena_finish(&arena);
    check(!arena.chunks && !arena.used, "a finished arena is as new");
}

static void test_zeroed(void)
{
    struct arena arena;
    arena_init(&arena);
    memset(arena_alloc(&arena, 1000), 'x', 1000);
    arena_reset(&arena);
    check(is_filled(arena_zalloc(&arena, 1000), '\0', 1000),
          "memory used before comes back zeroed");
    arena_finish(&arena);
}

static void test_reset(void)
{
    struct arena arena;
    arena_init(&arena);
    arena_reset(&arena);
    check(!arena.chunks, "an arena that was never used has nothing to keep");
    for (int i = 0; i < 100; i++) {
        arena_alloc(&arena, 1000);
    }
    check(arena.used >= 100 * 1000, "what was handed out is counted");
    arena_reset(&arena);
    check_int(arena.used, 0, "and forgotten by a reset");
    struct arena_chunk *kept = arena.chunks;
    for (int i = 0; i < 4; i++) {
        arena_alloc(&arena, 1000);
    }
    check(kept && arena.chunks == kept, "which keeps enough for what is usual");
    arena_finish(&arena);
}

static void test_large_first(void)
{
    struct arena arena;
    arena_init(&arena);
    arena_alloc(&arena, LARGE);
    arena_reset(&arena);
    check(!arena.chunks, "a chunk larger than usual is not kept");
    check(arena_alloc(&arena, 1) != NULL, "and the arena goes on");
    arena_finish(&arena);
}

static void test_text(void)
{
    struct arena arena;
    arena_init(&arena);
    check_text(arena_strdup(&arena, ""), "", "an empty text");
    check_text(arena_strdup(&arena, "moon"), "moon", "a copy");
    check_text(arena_strndup(&arena, "moonpool", 4), "moon", "a copy of a part");
    check_text(arena_printf(&arena, "%s-%d", "r", 7), "r-7", "a formatted text");
    check_text(arena_printf(&arena, "%s", ""), "", "an empty formatted text");
    char *longer = arena_printf(&arena, "%05000d", 7);
    check(strlen(longer) == 5000 && longer[4999] == '7', "one that needs a chunk of its own");
    arena_finish(&arena);
}

int main(void)
{
    test_sizes();
    test_zeroed();
    test_reset();
    test_large_first();
    test_text();
    return test_end();
}
