/* Buffers: growth by pieces of all sizes. */
#include "buffer.h"

#include <stdlib.h>

#include "test.h"

static void test_growth(size_t size, int times)
{
    struct buffer buffer;
    char *piece = malloc(size + 1);
    bool good = true;
    buffer_init(&buffer);
    for (int i = 0; i < times; i++) {
        memset(piece, i, size);
        buffer_append(&buffer, piece, size);
    }
    for (size_t i = 0; i < buffer.length; i++) {
        good = good && buffer.data[i] == (char)(i / size);
    }
    check(good && buffer.length == size * (size_t)times, "%d pieces of %zu bytes", times, size);
    check(buffer.capacity >= buffer.length, "have room");
    buffer_finish(&buffer);
    free(piece);
}

static void test_empty(void)
{
    struct buffer buffer;
    buffer_init(&buffer);
    buffer_append(&buffer, NULL, 0);
    buffer_append_text(&buffer, "");
    check(!buffer.data && !buffer.length, "nothing appended to nothing needs no memory");
    buffer_finish(&buffer);
    check(!buffer.data && !buffer.capacity, "finishing an empty buffer");
}

static void test_mixture(void)
{
    struct buffer buffer;
    buffer_init(&buffer);
    buffer_append_text(&buffer, "users");
    buffer_append_char(&buffer, '/');
    buffer_printf(&buffer, "%d%s", 7, "");
    memcpy(buffer_reserve(&buffer, 1000), "?x", 2);
    buffer.length += 2;
    check_int(buffer.length, 9, "the length is what was written, not what was reserved");
    buffer_append_char(&buffer, '\0');
    check_text(buffer.data, "users/7?x", "text, a character, a format and reserved room");
    buffer.length = 0;
    size_t capacity = buffer.capacity;
    buffer_append_text(&buffer, "again");
    check(buffer.capacity == capacity, "an emptied buffer keeps its memory");
    buffer_finish(&buffer);
}

/* The NUL that vsnprintf writes behind the text needs room as well. */
static void test_exact_format(void)
{
    for (int length = 250; length < 260; length++) {
        struct buffer buffer;
        buffer_init(&buffer);
        buffer_printf(&buffer, "%0*d", length, 7);
        check(buffer.length == (size_t)length && buffer.data[length - 1] == '7',
              "a format of %d characters", length);
        buffer_finish(&buffer);
    }
}

int main(void)
{
    test_empty();
    test_growth(1, 1000);
    test_growth(3, 200);
    test_growth(256, 5);
    test_growth(257, 5);
    test_growth(10000, 9);
    test_mixture();
    test_exact_format();
    return test_end();
}
