/* What a fuzz target is: one function that is called with inputs, by libFuzzer which makes them up,
 * or by replay.c with those of the corpus. It claims what must be true of any input. */
#ifndef MOONPOOL_FUZZ_H
#define MOONPOOL_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* The target; its name and result are libFuzzer's. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process if the condition does not hold: the input is a finding then. */
#define claim(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#endif
