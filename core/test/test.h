/* What a C test needs: checks that count, and TAP for meson. A test program includes this once,
 * calls its cases, and returns test_end(). */
#ifndef MOONPOOL_TEST_H
#define MOONPOOL_TEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int test_count;
static int test_failures;

/* One TAP line. `format` names the case. */
__attribute__((format(printf, 4, 5))) static inline bool
test_check(bool good, const char *file, int line, const char *format, ...)
{
    va_list args;
    test_count++;
    printf("%sok %d - ", good ? "" : "not ", test_count);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    if (!good) {
        test_failures++;
        printf("# %s:%d\n", file, line);
    }
    return good;
}

/* check(condition, "name of the case %d", n) */
#define check(condition, ...) test_check((condition), __FILE__, __LINE__, __VA_ARGS__)

/* Compares and, if they differ, shows both. */
#define check_text(actual, expected, ...)                                                          \
    do {                                                                                           \
        const char *actual_ = (actual), *expected_ = (expected);                                   \
        if (!check(actual_ && expected_ && strcmp(actual_, expected_) == 0, __VA_ARGS__)) {        \
            printf("# expected: %s\n# actual:   %s\n", expected_, actual_);                        \
        }                                                                                          \
    } while (0)

#define check_int(actual, expected, ...)                                                           \
    do {                                                                                           \
        long long actual_ = (long long)(actual), expected_ = (long long)(expected);                \
        if (!check(actual_ == expected_, __VA_ARGS__)) {                                           \
            printf("# expected: %lld, actual: %lld\n", expected_, actual_);                        \
        }                                                                                          \
    } while (0)

/* Prints the plan; the value for main() to return. */
static inline int test_end(void)
{
    printf("1..%d\n", test_count);
    return test_failures ? 1 : 0;
}

#endif
