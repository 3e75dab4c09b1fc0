/* A growable run of bytes on the heap. Whoever declares one finishes it. */
#ifndef MOONPOOL_BUFFER_H
#define MOONPOOL_BUFFER_H

#include <stddef.h>
#include <string.h>

struct buffer {
    char *data; /* owned; not NUL-terminated; NULL while empty */
    size_t length;
    size_t capacity;
};

void buffer_init(struct buffer *buffer);
void buffer_finish(struct buffer *buffer);

/* Makes room for `size` more bytes where there is none. */
void buffer_grow(struct buffer *buffer, size_t size);

/* Room for `size` more bytes: a pointer to the end, to be followed by raising `length`. Here and
 * below in line, because JSON is written in small pieces. */
static inline char *buffer_reserve(struct buffer *buffer, size_t size)
{
    if (buffer->capacity - buffer->length < size) {
        buffer_grow(buffer, size);
    }
    return buffer->data + buffer->length;
}

static inline void buffer_append(struct buffer *buffer, const char *data, size_t size)
{
    if (size) {
        memcpy(buffer_reserve(buffer, size), data, size);
        buffer->length += size;
    }
}

static inline void buffer_append_text(struct buffer *buffer, const char *text)
{
    buffer_append(buffer, text, strlen(text));
}

static inline void buffer_append_char(struct buffer *buffer, char c)
{
    *buffer_reserve(buffer, 1) = c;
    buffer->length++;
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
