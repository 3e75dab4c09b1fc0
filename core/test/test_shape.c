/* Objects by the names of columns: what is made of them, and what is refused. */
#include "shape.h"

#include <libpq-fe.h>

#include "buffer.h"
#include "error.h"
#include "pg_result.h"
#include "test.h"

enum { MOST_COLUMNS = 8 };

/* A result of these columns with one row, in which those are NULL whose place in `values` has '-'.
 */
static struct pg_result *make(const char *const *names, const char *values)
{
    PGresAttDesc attributes[MOST_COLUMNS] = {0};
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    int columns = 0;
    for (; columns < MOST_COLUMNS && names[columns]; columns++) {
        attributes[columns].name = (char *)names[columns];
    }
    PQsetResultAttrs(result, columns, attributes);
    for (int i = 0; values && i < columns; i++) {
        PQsetvalue(result, 0, i, "x", values[i] == '-' ? -1 : 1);
    }
    return (struct pg_result *)result;
}

/* "id user{name pet{name}}"; what is NULL has a "-" behind it. */
static void write_members(const struct shape *shape, const struct pg_result *result, int first,
                          int behind, struct buffer *out)
{
    for (int i = first; i < behind; i += 1 + shape->member[i].members) {
        const struct shape_member *member = &shape->member[i];
        buffer_printf(out, "%s%.*s", i > first ? " " : "", (int)member->length, member->name);
        if (member->members) {
            buffer_append_char(out, '{');
            write_members(shape, result, i + 1, i + 1 + member->members, out);
            buffer_append_char(out, '}');
        }
        if (pg_result_rows(result) > 0 && shape_is_null(member, result, 0)) {
            buffer_append_char(out, '-');
        }
    }
}

static void check_shape(const char *const *names, const char *values, const char *expected)
{
    struct pg_result *result = make(names, values);
    struct shape shape;
    struct buffer out;
    buffer_init(&out);
    shape_init(&shape, result);
    if (shape.member) {
        write_members(&shape, result, 0, shape.members, &out);
    }
    buffer_append_char(&out, '\0');
    check_text(out.data, expected, "the shape of %s ...", names[0]);
    buffer_finish(&out);
    shape_finish(&shape);
    pg_result_free(result);
}

static const struct {
    const char *names[MOST_COLUMNS + 1];
    const char *values;
    const char *expected;
} shapes[] = {
    {{"id", "name"}, NULL, ""},
    {{"id", "user.name", "user.age", "at"}, NULL, "id user{name age} at"},
    {{"user.name"}, NULL, "user{name}"},
    {{"a.b.c", "a.b.d", "a.e", "a.f.g", "h"}, NULL, "a{b{c d} e f{g}} h"},
    {{"a.b", "c.b", "ab.c", "abc"}, NULL, "a{b} c{b} ab{c} abc"},
    {{"a.x.y", "b.x.y"}, NULL, "a{x{y}} b{x{y}}"},
    {{"a.b.c.d.e.f.g.h.i"}, NULL, "a{b{c{d{e{f{g{h{i}}}}}}}}"},
    {{"id", "u.name", "u.age"}, "+--", "id u{name- age-}-"},
    {{"id", "u.name", "u.age"}, "+-+", "id u{name- age}"},
    {{"a.b.c", "a.b.d", "a.e"}, "--+", "a{b{c- d-}- e}"},
    {{"a.b.c", "a.b.d", "a.e"}, "---", "a{b{c- d-}- e-}-"},
    /* Not refused by whoever made no check, so that it has to be something. */
    {{"a.b", "c", "a.d"}, NULL, "a{b} c a{d}"},
    {{"a", "a.b"}, NULL, "a a{b}"},
    {{".", "..a", "b."}, NULL, "{ {a}} b{}"},
};

static const struct {
    const char *names[MOST_COLUMNS + 1];
    const char *message; /* NULL: fine */
} checks[] = {
    {{NULL}, NULL},
    {{"id", "name"}, NULL},
    {{"id", "a.b.c", "a.b.d", "a.e", "ab.c", "abc", "b"}, NULL},
    {{"a.b.c.d.e.f.g.h.i"}, NULL},
    {{"id", "id"}, "two columns are named \"id\": give one another name, with as"},
    {{"a.b", "a.b"}, "two columns are named \"a.b\": give one another name, with as"},
    {{"a.b", "id", "a.c"},
     "column \"a.c\" stands apart from the others of the object \"a\": put it right behind them"},
    {{"a.b.x", "a.c", "a.b.y"},
     "column \"a.b.y\" stands apart from the others of the object \"a.b\": put it right behind "
     "them"},
    {{"a.b", "a"},
     "column \"a.b\" makes an object of \"a\", and another column is named that: give one another "
     "name, with as"},
    {{"a.b", "a.b.c"},
     "column \"a.b.c\" makes an object of \"a.b\", and another column is named that: give one "
     "another name, with as"},
    {{".x"},
     "column \".x\" has a dot without a name on either side: name it as in \"profile.firstname\", "
     "with as"},
    {{"id", "a."},
     "column \"a.\" has a dot without a name on either side: name it as in \"profile.firstname\", "
     "with as"},
    {{"a..b"},
     "column \"a..b\" has a dot without a name on either side: name it as in "
     "\"profile.firstname\", with as"},
    {{"a.b.c.d.e.f.g.h.i.j"},
     "column \"a.b.c.d.e.f.g.h.i.j\" lies in more than 8 objects: give it a name with fewer dots, "
     "with as"},
};

static void test_checks(void)
{
    for (size_t i = 0; i < sizeof checks / sizeof *checks; i++) {
        struct error err = {0};
        struct pg_result *result = make(checks[i].names, NULL);
        int code = shape_check(result, &err);
        check_int(code, checks[i].message ? -1 : 0, "the columns of check %zu", i);
        check_text(err.message, checks[i].message ? checks[i].message : "", "what it says");
        pg_result_free(result);
    }
}

int main(void)
{
    struct shape none;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        check_shape(shapes[i].names, shapes[i].values, shapes[i].expected);
    }
    test_checks();
    shape_init(&none, NULL);
    check(!none.member, "no result has no objects");
    shape_finish(&none);
    return test_end();
}
