/* A value on its way to PostgreSQL. */
#ifndef MOONPOOL_PARAMETER_H
#define MOONPOOL_PARAMETER_H

#include <stdbool.h>
#include <stdint.h>

struct parameter {
    const char *value; /* in the batch's arena or static; NULL is SQL NULL */
    int32_t length;    /* bytes */
    bool binary;       /* PostgreSQL's binary format rather than text */
};

#endif
