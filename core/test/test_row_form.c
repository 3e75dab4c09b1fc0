/* Forms of rows: kept as long as the columns are the same, and made anew when they are not. */
#include "row_form.h"

#include <libpq-fe.h>

#include "pg_result.h"
#include "statement.h"
#include "test.h"

static struct pg_result *make(const char *first, const char *second)
{
    PGresAttDesc attributes[] = {{.name = (char *)first, .typid = 23},
                                 {.name = (char *)second, .typid = 25}};
    PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
    PQsetResultAttrs(result, 2, attributes);
    return (struct pg_result *)result;
}

/* The form says how the texts of its columns go. */
static void check_texts(const struct row_form *form, const char *expected)
{
    check_int((int)form->texts.length, (int)strlen(expected), "the length of %s", expected);
    check(memcmp(form->texts.data, expected, strlen(expected)) == 0, "the texts %s", expected);
}

static void check_form(struct row_forms *forms, const char *first, const char *second,
                       const char *expected)
{
    static const struct statement statement = {.key = 7};
    struct pg_result *result = make(first, second);
    struct row_form *form = row_forms_get(forms, &statement, result);
    pg_result_free(result);
    check_texts(form, expected);
    check(form->writable, "and can be written");
    row_form_release(form);
}

static void test_texts(void)
{
    struct row_forms forms = {0};
    check_form(&forms, "id", "name", "{\"id\":,\"name\":");
    check_form(&forms, "id", "a\"b", "{\"id\":,\"a\\\"b\":");
    check_form(&forms, "id", "user.name", "{\"id\":,\"user\":{\"name\":");
    row_forms_finish(&forms);
}

static void test_keeping(void)
{
    static const struct statement statement = {.key = 7}, other = {.key = 8};
    struct row_forms forms = {0};
    struct pg_result *result = make("id", "name"), *same = make("id", "name");
    struct pg_result *changed = make("id", "title");
    struct row_form *form = row_forms_get(&forms, &statement, result);
    struct row_form *again = row_forms_get(&forms, &statement, same);
    check(form == again, "the same columns have the same form");
    row_form_release(again);
    again = row_forms_get(&forms, &other, same);
    check(form != again, "another statement has its own");
    row_form_release(again);
    again = row_forms_get(&forms, &statement, changed);
    check(form != again, "other columns have another");
    check_texts(again, "{\"id\":,\"title\":");
    check_texts(form, "{\"id\":,\"name\":");
    row_form_release(again);
    row_forms_finish(&forms);
    check_texts(form, "{\"id\":,\"name\":");
    row_form_release(form);
    pg_result_free(result);
    pg_result_free(same);
    pg_result_free(changed);
}

static void test_odd(void)
{
    static const struct statement statement = {0};
    struct row_forms forms = {0};
    struct pg_result *broken = make("id", "\xff");
    struct row_form *form = row_forms_get(&forms, &statement, broken);
    check(!form->writable, "a name that is not UTF-8 cannot be written");
    row_form_release(form);
    form = row_forms_get(&forms, &statement, NULL);
    check_int((int)form->texts.length, 0, "no result has no columns");
    row_form_release(form);
    row_forms_finish(&forms);
    pg_result_free(broken);
}

int main(void)
{
    test_texts();
    test_keeping();
    test_odd();
    return test_end();
}
