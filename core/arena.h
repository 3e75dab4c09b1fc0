/* Memory that dies together: allocate at will, free all at once. What belongs to a request comes
 * from its arena, so that an error which jumps over C frames leaks nothing.
 * Out of memory ends the process: a worker that cannot allocate is replaced by its master. */
#ifndef MOONPOOL_ARENA_H
#define MOONPOOL_ARENA_H

#include <stddef.h>

struct arena_chunk;

struct arena {
    struct arena_chunk *chunks; /* owned; newest first */
    char *next;                 /* first free byte of the newest chunk */
    char *end;
    size_t used; /* bytes handed out since the last reset */
};

void arena_init(struct arena *arena);

/* Frees everything. The arena is as after arena_init(). */
void arena_finish(struct arena *arena);

/* Forgets everything handed out but keeps one chunk for reuse. */
void arena_reset(struct arena *arena);

/* `size` bytes, aligned for any type, not initialised. Never NULL. */
void *arena_alloc(struct arena *arena, size_t size);

/* The same, zeroed. */
void *arena_zalloc(struct arena *arena, size_t size);

/* `size` bytes without alignment, for text and packed data. */
char *arena_bytes(struct arena *arena, size_t size);

/* A NUL-terminated copy of `length` bytes. */
char *arena_strndup(struct arena *arena, const char *text, size_t length);
char *arena_strdup(struct arena *arena, const char *text);

char *arena_printf(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* malloc, calloc and realloc that end the process instead of returning NULL. */
void *memory_alloc(size_t size);
void *memory_zalloc(size_t size);
void *memory_realloc(void *old, size_t size);

/* The same end for what a library could not allocate: `memory`, unless it is NULL. */
void *memory_check(void *memory);

#endif
