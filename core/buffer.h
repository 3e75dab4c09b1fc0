/* A growable run of bytes on the heap. Whoever declares one finishes it. */
#ifndef MOONPOOL_BUFFER_H
#define MOONPOOL_BUFFER_H

#include <stddef.h>

struct buffer {
    char *data; /* owned; not NUL-terminated; NULL while empty */
    size_t length;
    size_t capacity;
};

void buffer_init(struct buffer *buffer);
void buffer_finish(struct buffer *buffer);

/* Room for `size` more bytes: a pointer to the end, to be followed by raising `length`. */
char *buffer_reserve(struct buffer *buffer, size_t size);

void buffer_append(struct buffer *buffer, const char *data, size_t size);
void buffer_append_text(struct buffer *buffer, const char *text);
void buffer_append_char(struct buffer *buffer, char c);
void buffer_printf(struct buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
