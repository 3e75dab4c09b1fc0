/* Objects by the names of columns. Members stand in one array, an object's behind it: the one next
 * to member i is at i + 1 + member[i].members. */
#include "shape.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "error.h"
#include "pg_result.h"

/* Checking. A prefix is the name of an object with those around it: of "a.b.c" these are "a" and
 * "a.b". */

static bool has_empty_part(const char *name)
{
    return *name == '.' || strstr(name, "..") || name[strlen(name) - 1] == '.';
}

/* True for a column of the object whose prefix is the first `length` bytes of `name`. */
static bool is_within(const struct pg_result *result, int column, const char *name, size_t length)
{
    const char *other = pg_result_name(result, column);
    return strncmp(other, name, length) == 0 && other[length] == '.';
}

static bool is_value(const struct pg_result *result, const char *prefix, size_t length)
{
    int columns = pg_result_columns(result);
    for (int column = 0; column < columns; column++) {
        const char *other = pg_result_name(result, column);
        if (strncmp(other, prefix, length) == 0 && !other[length]) {
            return true;
        }
    }
    return false;
}

/* True if an object goes on at `column` that had ended before. */
static bool stands_apart(const struct pg_result *result, int column, size_t length)
{
    const char *name = pg_result_name(result, column);
    for (int before = 0; before < column; before++) {
        if (is_within(result, before, name, length)) {
            return true;
        }
    }
    return false;
}

static int check_object(const struct pg_result *result, int column, size_t length,
                        struct error *err)
{
    const char *name = pg_result_name(result, column);
    if (column > 0 && is_within(result, column - 1, name, length)) {
        return 0; /* It was checked there. */
    }
    if (is_value(result, name, length)) {
        return error_set(err, ERROR_SCRIPT,
                         "column \"%s\" makes an object of \"%.*s\", and another column is named "
                         "that: give one another name, with as",
                         name, (int)length, name);
    }
    if (stands_apart(result, column, length)) {
        return error_set(err, ERROR_SCRIPT,
                         "column \"%s\" stands apart from the others of the object \"%.*s\": put "
                         "it right behind them",
                         name, (int)length, name);
    }
    return 0;
}

static int check_path(const struct pg_result *result, int column, struct error *err)
{
    const char *name = pg_result_name(result, column);
    int depth = 0;
    if (has_empty_part(name)) {
        return error_set(err, ERROR_SCRIPT,
                         "column \"%s\" has a dot without a name on either side: name it as in "
                         "\"profile.firstname\", with as",
                         name);
    }
    for (const char *dot = strchr(name, '.'); dot; dot = strchr(dot + 1, '.')) {
        depth++;
        if (depth > SHAPE_DEPTH) {
            return error_set(err, ERROR_SCRIPT,
                             "column \"%s\" lies in more than %d objects: give it a name with "
                             "fewer dots, with as",
                             name, SHAPE_DEPTH);
        }
        if (check_object(result, column, (size_t)(dot - name), err) != 0) {
            return -1;
        }
    }
    return 0;
}

int shape_check(const struct pg_result *result, struct error *err)
{
    int columns = pg_result_columns(result);
    const char *twin = pg_result_twin(result);
    if (twin) {
        return error_set(err, ERROR_SCRIPT,
                         "two columns are named \"%s\": give one another name, with as", twin);
    }
    for (int column = 0; column < columns; column++) {
        if (strchr(pg_result_name(result, column), '.') && check_path(result, column, err) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Making. */

static int count_dots(const struct pg_result *result)
{
    int columns = pg_result_columns(result), dots = 0;
    for (int column = 0; column < columns; column++) {
        const char *dot = strchr(pg_result_name(result, column), '.');
        for (; dot; dot = strchr(dot + 1, '.')) {
            dots++;
        }
    }
    return dots;
}

/* How many columns from `first` on, those before `behind`, are of one object with that. */
static int count_columns(const struct pg_result *result, int first, int behind, size_t prefix)
{
    const char *name = pg_result_name(result, first);
    int column = first + 1;
    while (column < behind && is_within(result, column, name, prefix)) {
        column++;
    }
    return column - first;
}

/* Adds what the columns from `first` to before `behind` make, of whose names `start` bytes are
 * those of the objects around. */
static void add_members(struct shape *shape, const struct pg_result *result, int first, int behind,
                        size_t start)
{
    for (int column = first; column < behind;) {
        int place = shape->members++;
        struct shape_member *member = &shape->member[place];
        member->name = pg_result_name(result, column) + start;
        member->length = strcspn(member->name, ".");
        member->column = column;
        member->columns = 1;
        if (member->name[member->length] == '.') {
            size_t prefix = start + member->length;
            member->columns = count_columns(result, column, behind, prefix);
            add_members(shape, result, column, column + member->columns, prefix + 1);
        }
        member->members = shape->members - place - 1;
        column += member->columns;
    }
}

void shape_init(struct shape *shape, const struct pg_result *result)
{
    int columns = pg_result_columns(result), dots = count_dots(result);
    *shape = (struct shape){0};
    if (dots > 0) {
        shape->member = memory_alloc((size_t)(columns + dots) * sizeof *shape->member);
        add_members(shape, result, 0, columns, 0);
    }
}

void shape_finish(struct shape *shape)
{
    free(shape->member);
    *shape = (struct shape){0};
}

bool shape_is_null(const struct shape_member *member, const struct pg_result *result, int row)
{
    size_t length;
    for (int i = 0; i < member->columns; i++) {
        if (pg_result_value(result, row, member->column + i, &length)) {
            return false;
        }
    }
    return true;
}
