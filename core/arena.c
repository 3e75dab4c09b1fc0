/* Bump allocation in chunks that double up to 64 kB. A reset keeps the largest of those that a
 * request usually needs, so that the next one finds room for all it has in one chunk. */
#include "arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_chunk {
    struct arena_chunk *older;
    size_t size; /* bytes of data */
    _Alignas(max_align_t) char data[];
};

/* The first is of a size that malloc keeps at hand (1,032 bytes). */
enum {
    FIRST_CHUNK = 1024 - sizeof(struct arena_chunk),
    LARGEST_KEPT = 8 * 1024,
    LARGEST_CHUNK = 64 * 1024
};

void *memory_check(void *memory)
{
    if (!memory) {
        fputs("moonpool: out of memory\n", stderr);
        abort();
    }
    return memory;
}

void *memory_alloc(size_t size)
{
    return memory_realloc(NULL, size);
}

void *memory_zalloc(size_t size)
{
    return memset(memory_alloc(size), 0, size);
}

void *memory_realloc(void *old, size_t size)
{
    return memory_check(realloc(old, size ? size : 1));
}

static void use_chunk(struct arena *arena, struct arena_chunk *chunk)
{
    arena->next = chunk->data;
    arena->end = chunk->data + chunk->size;
}

static void add_chunk(struct arena *arena, size_t at_least)
{
    size_t size = arena->chunks ? arena->chunks->size * 2 : FIRST_CHUNK;
    if (size > LARGEST_CHUNK) {
        size = LARGEST_CHUNK;
    }
    if (size < at_least) {
        size = at_least;
    }
    struct arena_chunk *chunk = memory_alloc(sizeof *chunk + size);
    chunk->size = size;
    chunk->older = arena->chunks;
    arena->chunks = chunk;
    use_chunk(arena, chunk);
}

static void free_chunks(struct arena_chunk *chunk)
{
    while (chunk) {
        struct arena_chunk *older = chunk->older;
        free(chunk);
        chunk = older;
    }
}

void arena_init(struct arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

void arena_finish(struct arena *arena)
{
    free_chunks(arena->chunks);
    arena_init(arena);
}

/* Takes the chunk to be kept out of the chain; NULL if all are too large. */
static struct arena_chunk *take_kept(struct arena *arena)
{
    struct arena_chunk **best = NULL;
    for (struct arena_chunk **place = &arena->chunks; *place; place = &(*place)->older) {
        if ((*place)->size <= LARGEST_KEPT && (!best || (*place)->size > (*best)->size)) {
            best = place;
        }
    }
    struct arena_chunk *kept = best ? *best : NULL;
    if (kept) {
        *best = kept->older;
        kept->older = NULL;
    }
    return kept;
}

void arena_reset(struct arena *arena)
{
    struct arena_chunk *kept = take_kept(arena);
    arena_finish(arena);
    if (kept) {
        arena->chunks = kept;
        use_chunk(arena, kept);
    }
}

char *arena_bytes(struct arena *arena, size_t size)
{
    if (!arena->chunks || (size_t)(arena->end - arena->next) < size) {
        add_chunk(arena, size);
    }
    char *memory = arena->next;
    arena->next += size;
    arena->used += size;
    return memory;
}

void *arena_alloc(struct arena *arena, size_t size)
{
    size_t align = _Alignof(max_align_t);
    size_t skip = -(uintptr_t)arena->next & (align - 1);
    if (!arena->chunks || (size_t)(arena->end - arena->next) < size + skip) {
        add_chunk(arena, size);
        skip = 0;
    }
    char *memory = arena->next + skip;
    arena->next = memory + size;
    arena->used += size + skip;
    return memory;
}

void *arena_zalloc(struct arena *arena, size_t size)
{
    return memset(arena_alloc(arena, size), 0, size);
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
    char *copy = arena_bytes(arena, length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    char *text = arena_bytes(arena, (size_t)length + 1);
    va_start(args, format);
    vsnprintf(text, (size_t)length + 1, format, args);
    va_end(args);
    return text;
}
