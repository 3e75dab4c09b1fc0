/* The objects that the names of a result's columns make: a column "profile.firstname" is the member
 * firstname of an object profile. */
#ifndef MOONPOOL_SHAPE_H
#define MOONPOOL_SHAPE_H

#include <stdbool.h>
#include <stddef.h>

struct error;
struct pg_result;

/* Objects that lie in each other, at most. */
enum { SHAPE_DEPTH = 8 };

/* A value, or an object with at least one member. */
struct shape_member {
    const char *name; /* borrowed from the result; not NUL-terminated */
    size_t length;    /* of the name */
    int column;       /* its own; of an object the first */
    int columns;      /* of an object; they stand next to each other; 1 of a value */
    int members;      /* of an object, at any depth: that many follow it; 0 of a value */
};

struct shape {
    struct shape_member *member; /* owned, in the order of the columns; NULL if no name has a dot */
    int members;
};

/* -1 with ERROR_SCRIPT if the columns make no row: two have one name, or the names no objects. */
int shape_check(const struct pg_result *result, struct error *err);

/* `result` outlives the shape; NULL has no columns. One that was not checked has a shape as well,
 * in which a name may stand twice. */
void shape_init(struct shape *shape, const struct pg_result *result);
void shape_finish(struct shape *shape);

/* Whether a member is NULL in row `row`, 0-based: an object is if all its columns are. */
bool shape_is_null(const struct shape_member *member, const struct pg_result *result, int row);

#endif
