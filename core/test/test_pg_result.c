/* Packed results: what is left of one is what it was. The sanitizer build tells whether the columns
 * they share are freed once. */
#include "pg_result.h"

#include <libpq-fe.h>

#include "test.h"

static struct pg_result *make(const char *const *names, int columns, const char *const *values,
                              int rows)
{
    PGresAttDesc attributes[4] = {0};
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    for (int i = 0; i < columns; i++) {
        attributes[i].name = (char *)names[i];
        attributes[i].typid = (Oid)(20 + i);
    }
    PQsetResultAttrs(result, columns, attributes);
    for (int i = 0; i < rows * columns; i++) {
        int length = values[i] ? (int)strlen(values[i]) : -1;
        PQsetvalue(result, i / columns, i % columns, (char *)values[i], length);
    }
    return result;
}

static const char *const names[] = {"id", "name"};
static const char *const others[] = {"id", "mane"};
static const char *const values[] = {"1", "one", "2", "", NULL, "three"};

static void check_values(const struct pg_result *result, const char *what)
{
    check_int(pg_result_rows(result), 3, "%s: rows", what);
    check_int(pg_result_columns(result), 2, "%s: columns", what);
    check_text(pg_result_name(result, 1), "name", "%s: a name", what);
    check_int(pg_result_type(result, 1), 21, "%s: a type", what);
    for (int i = 0; i < 6; i++) {
        size_t length = 0;
        const char *value = pg_result_value(result, i / 2, i % 2, &length);
        if (values[i]) {
            check_text(value, values[i], "%s: value %d", what, i);
            check_int((long long)length, (long long)strlen(values[i]), "%s: its length", what);
        } else {
            check(!value, "%s: value %d is NULL", what, i);
        }
    }
}

static void test_packed(void)
{
    struct pg_result *first = pg_result_pack(make(names, 2, values, 3), NULL);
    struct pg_result *second = pg_result_pack(make(names, 2, values, 3), first);
    struct pg_result *other = pg_result_pack(make(others, 2, values, 3), first);
    check(pg_result_is_packed(first) && pg_result_is_packed(second), "small results are packed");
    check_values(first, "the first");
    pg_result_free(first);
    check_values(second, "the second, without the first");
    check_text(pg_result_name(other, 1), "mane", "one of other columns keeps its own");
    check(pg_result_memory(second) < 100, "a packed result takes some bytes");
    check(!pg_result_twin(second), "no two of its columns have one name");
    pg_result_free(second);
    pg_result_free(other);
}

static void test_unpacked(void)
{
    struct pg_result *empty = pg_result_pack(make(names, 2, values, 0), NULL);
    check(!pg_result_is_packed(empty), "a result without rows stays as it is");
    check_int(pg_result_rows(empty), 0, "and has none");
    struct pg_result *result = make(names, 2, values, 3);
    check_values(result, "libpq's own");
    pg_result_free(result);
    pg_result_free(empty);
    pg_result_free(NULL);
}

int main(void)
{
    test_packed();
    test_unpacked();
    return test_end();
}
