/* The router: which route a path finds, with which parameters, and which patterns are refused. */
#include "../router.h"

#include <stdlib.h>

#include "../arena.h"
#include "../error.h"
#include "test.h"

/* Targets are the patterns themselves, preceded by the method. */
static const char *const routes[] = {
    "GET /",
    "GET /users",
    "POST /users",
    "GET /users/",
    "GET /users/{id}",
    "DELETE /users/{user_id}",
    "GET /users/me",
    "PUT /users/me",
    "GET /users/{id}/posts/{post}",
    "GET /a/{x}/c",
    "GET /a/b/d",
    "GET /a/{rest*}",
    "GET /b/{x}/{y}/z",
    "GET /b/1/{rest*}",
    "GET /b/{x}/2",
    "PURGE /cache",
    "HEAD /head",
    "GET /head",
    "OPTIONS /options",
    "GET /caf\xc3\xa9",
    "GET /deep/{a}/{b}/{c}/{d}",
    "GET /files/{path*}",
    "POST /only",
};

enum { ROUTES = sizeof routes / sizeof *routes };

static struct router *make_router(void)
{
    struct router *router = router_create();
    for (size_t i = 0; i < ROUTES; i++) {
        struct error err = {0};
        char method[16], where[32];
        size_t length = strcspn(routes[i], " ");
        snprintf(method, sizeof method, "%.*s", (int)length, routes[i]);
        snprintf(where, sizeof where, "s.lua:%zu", i + 1);
        int result =
            router_add(router, method, routes[i] + length + 1, where, (void *)routes[i], &err);
        check(result == 0, "%s is added %s", routes[i], err.message);
    }
    return router;
}

struct row {
    const char *method;
    const char *path;
    enum router_outcome outcome;
    const char *target;     /* NULL if none is found */
    const char *parameters; /* "name=value,name=value" */
    const char *allow;      /* NULL: not looked at */
};

#define FOUND ROUTER_FOUND
#define NO_PATH ROUTER_NO_PATH, NULL, "", NULL
#define BAD_PATH ROUTER_BAD_PATH, NULL, "", NULL
#define NO_METHOD ROUTER_NO_METHOD, NULL, ""

static const struct row rows[] = {
    {"GET", "/", FOUND, "GET /", "", "GET, HEAD, OPTIONS"},
    {"GET", "/users", FOUND, "GET /users", "", "GET, HEAD, OPTIONS, POST"},
    {"POST", "/users", FOUND, "POST /users", "", "GET, HEAD, OPTIONS, POST"},
    {"HEAD", "/users", FOUND, "GET /users", "", NULL},
    {"OPTIONS", "/users", NO_METHOD, "GET, HEAD, OPTIONS, POST"},
    {"PATCH", "/users", NO_METHOD, "GET, HEAD, OPTIONS, POST"},
    {"get", "/users", NO_METHOD, "GET, HEAD, OPTIONS, POST"},
    {"GET", "/users/", FOUND, "GET /users/", "", NULL},
    {"POST", "/users/", NO_METHOD, "GET, HEAD, OPTIONS"},
    {"GET", "/users/7", FOUND, "GET /users/{id}", "id=7", "DELETE, GET, HEAD, OPTIONS"},
    {"DELETE", "/users/7", FOUND, "DELETE /users/{user_id}", "user_id=7", NULL},
    {"GET", "/users/me", FOUND, "GET /users/me", "", "DELETE, GET, HEAD, OPTIONS, PUT"},
    {"DELETE", "/users/me", FOUND, "DELETE /users/{user_id}", "user_id=me", NULL},
    {"POST", "/users/me", NO_METHOD, "DELETE, GET, HEAD, OPTIONS, PUT"},
    {"GET", "/users/me/", NO_PATH},
    {"GET", "/users/7/posts/9", FOUND, "GET /users/{id}/posts/{post}", "id=7,post=9", NULL},
    {"GET", "/users/me/posts/9", FOUND, "GET /users/{id}/posts/{post}", "id=me,post=9", NULL},
    {"GET", "/users//posts/9", NO_PATH},
    {"GET", "/users/7/posts/", NO_PATH},
    {"GET", "/users/7/posts", NO_PATH},
    {"GET", "//users", NO_PATH},
    {"GET", "/Users", NO_PATH},
    {"GET", "/user", NO_PATH},
    {"GET", "/userss", NO_PATH},
    {"GET", "/a/b/c", FOUND, "GET /a/{x}/c", "x=b", NULL},
    {"GET", "/a/b/d", FOUND, "GET /a/b/d", "", NULL},
    {"GET", "/a/b/e", FOUND, "GET /a/{rest*}", "rest=b/e", NULL},
    {"GET", "/a/b", FOUND, "GET /a/{rest*}", "rest=b", NULL},
    {"GET", "/a/", FOUND, "GET /a/{rest*}", "rest=", NULL},
    {"GET", "/a//c", FOUND, "GET /a/{rest*}", "rest=/c", NULL},
    {"GET", "/a", NO_PATH},
    {"GET", "/b/1/2", FOUND, "GET /b/1/{rest*}", "rest=2", NULL},
    {"GET", "/b/1/2/z", FOUND, "GET /b/1/{rest*}", "rest=2/z", NULL},
    {"GET", "/b/9/2/z", FOUND, "GET /b/{x}/{y}/z", "x=9,y=2", NULL},
    {"GET", "/b/9/2", FOUND, "GET /b/{x}/2", "x=9", NULL},
    {"GET", "/b/9/2/y", NO_PATH},
    {"PURGE", "/cache", FOUND, "PURGE /cache", "", "OPTIONS, PURGE"},
    {"GET", "/cache", NO_METHOD, "OPTIONS, PURGE"},
    {"HEAD", "/cache", NO_METHOD, "OPTIONS, PURGE"},
    {"HEAD", "/head", FOUND, "HEAD /head", "", "GET, HEAD, OPTIONS"},
    {"GET", "/head", FOUND, "GET /head", "", NULL},
    {"OPTIONS", "/options", FOUND, "OPTIONS /options", "", "OPTIONS"},
    {"GET", "/options", NO_METHOD, "OPTIONS"},
    {"GET", "/caf%C3%A9", FOUND, "GET /caf\xc3\xa9", "", NULL},
    {"GET", "/caf%c3%a9", FOUND, "GET /caf\xc3\xa9", "", NULL},
    {"GET", "/caf\xc3\xa9", FOUND, "GET /caf\xc3\xa9", "", NULL},
    {"GET", "/%75sers/7", FOUND, "GET /users/{id}", "id=7", NULL},
    {"GET", "/users%2F7", NO_PATH},
    {"GET", "/users/a%2Fb", FOUND, "GET /users/{id}", "id=a/b", NULL},
    {"GET", "/users/a%20b+c%25", FOUND, "GET /users/{id}", "id=a b+c%", NULL},
    {"GET", "/users/a%0", BAD_PATH},
    {"GET", "/users/%", BAD_PATH},
    {"GET", "/users/%4", BAD_PATH},
    {"GET", "/users/%4/1", BAD_PATH},
    {"GET", "/users/%zz", BAD_PATH},
    {"GET", "/users/%4g", BAD_PATH},
    {"GET", "/users/%G4", BAD_PATH},
    {"GET", "/users/%+1", BAD_PATH},
    {"GET", "/users/%%41", BAD_PATH},
    {"GET", "/users/a%00b", BAD_PATH},
    {"GET", "/users/%ff", BAD_PATH},
    {"GET", "/users/\xff", BAD_PATH},
    {"GET", "/users/%c0%af", BAD_PATH},
    {"GET", "/users/%ed%a0%80", BAD_PATH},
    {"GET", "/users/%c3", BAD_PATH},
    {"GET", "/users/%c3/%a9", BAD_PATH},
    {"GET", "/nowhere/%zz", BAD_PATH},
    {"GET", "/users/.", FOUND, "GET /users/{id}", "id=.", NULL},
    {"GET", "/users/..", FOUND, "GET /users/{id}", "id=..", NULL},
    {"GET", "/users/../users", NO_PATH},
    {"GET", "/files/a/b.txt", FOUND, "GET /files/{path*}", "path=a/b.txt", NULL},
    {"GET", "/files/a%2Fb/%C3%A9/", FOUND, "GET /files/{path*}", "path=a/b/\xc3\xa9/", NULL},
    {"GET", "/files/", FOUND, "GET /files/{path*}", "path=", NULL},
    {"GET", "/files//", FOUND, "GET /files/{path*}", "path=/", NULL},
    {"GET", "/files/../etc", FOUND, "GET /files/{path*}", "path=../etc", NULL},
    {"GET", "/files", NO_PATH},
    {"GET", "/files/%zz", BAD_PATH},
    {"GET", "/deep/1/2/3/4", FOUND, "GET /deep/{a}/{b}/{c}/{d}", "a=1,b=2,c=3,d=4", NULL},
    {"GET", "/deep/1/2/3/4/5", NO_PATH},
    {"POST", "/only", FOUND, "POST /only", "", "OPTIONS, POST"},
    {"HEAD", "/only", NO_METHOD, "OPTIONS, POST"},
    {"OPTIONS", "*", NO_PATH},
    {"GET", "", NO_PATH},
    {"GET", "users", NO_PATH},
    {"GET", "http://host/users", NO_PATH},
};

static const char *format_parameters(const struct router_match *match)
{
    static char text[512];
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < match->parameter_count; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s=%s", i ? "," : "",
                                 match->parameters[i].name, match->parameters[i].value);
    }
    return text;
}

static void test_rows(const struct router *router)
{
    struct arena arena;
    arena_init(&arena);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        struct router_match match;
        enum router_outcome outcome = router_find(router, row->method, row->path, &arena, &match);
        check_int(outcome, row->outcome, "%s %s: outcome", row->method, row->path);
        if (outcome == ROUTER_FOUND && row->target) {
            check_text(match.target, row->target, "%s %s: target", row->method, row->path);
            check_text(match.pattern, strchr(row->target, ' ') + 1, "%s %s: pattern", row->method,
                       row->path);
        }
        check_text(format_parameters(&match), row->parameters, "%s %s: parameters", row->method,
                   row->path);
        if (row->allow) {
            check_text(match.allow, row->allow, "%s %s: allow", row->method, row->path);
        }
        arena_reset(&arena);
    }
    arena_finish(&arena);
}

static const struct {
    const char *method;
    const char *pattern;
    const char *message; /* part of it */
} refused[] = {
    {"GET", "", "must begin with /"},
    {"GET", "users", "must begin with /"},
    {"GET", "{id}", "must begin with /"},
    {"", "/x", "no HTTP method"},
    {"get", "/x", "no HTTP method"},
    {"GET ", "/x", "no HTTP method"},
    {"GET", "/x//y", "two slashes"},
    {"GET", "//", "two slashes"},
    {"GET", "/{", "no closing }"},
    {"GET", "/{id", "no closing }"},
    {"GET", "/{id}.json", "no closing }"},
    {"GET", "/{}", "must be {name}"},
    {"GET", "/{*}", "must be {name}"},
    {"GET", "/{1a}", "must be {name}"},
    {"GET", "/{a-b}", "must be {name}"},
    {"GET", "/{a}{b}", "must be {name}"},
    {"GET", "/{a**}", "must be {name}"},
    {"GET", "/{\xc3\xa9}", "must be {name}"},
    {"GET", "/on{ly", "\"{\" cannot stand in"},
    {"GET", "/x}", "\"}\" cannot stand in"},
    {"GET", "/x?y=1", "\"?\" cannot stand in"},
    {"GET", "/x#y", "\"#\" cannot stand in"},
    {"GET", "/x%20y", "\"%\" cannot stand in"},
    {"GET", "/:id", "instead of \":id\""},
    {"GET", "/x/*", "instead of \"*\""},
    {"GET", "/{a*}/x", "{a*} must come last"},
    {"GET", "/{a*}/", "{a*} must come last"},
    {"GET", "/\xff", "not valid UTF-8"},
    {"GET", "/{a}/{b}/{a}", "two parameters named a"},
    {"GET", "/{a}/{a*}", "two parameters named a"},
    {"GET", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}/{j}/{k}/{l}/{m}/{n}/{o}/{p}/{q}",
     "more than 16 parameters"},
    {"POST", "/users", "is taken by /users at s.lua:3"},
    {"GET", "/users/{name}", "is taken by /users/{id} at s.lua:5"},
    {"GET", "/files/{other*}", "is taken by /files/{path*} at s.lua:22"},
};

static void test_refused(struct router *router)
{
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        struct error err = {0};
        int result =
            router_add(router, refused[i].method, refused[i].pattern, "new.lua:5", NULL, &err);
        check_int(result, -1, "%s %s is refused", refused[i].method, refused[i].pattern);
        check_int(err.code, ERROR_SCRIPT, "%s: code", refused[i].pattern);
        check_text(err.where, "new.lua:5", "%s: place", refused[i].pattern);
        if (!check(strstr(err.message, refused[i].message), "%s: message", refused[i].pattern)) {
            printf("# %s\n", err.message);
        }
    }
}

static void count_in_order(void *context, const char *method, const char *pattern,
                           const char *where)
{
    size_t *count = context;
    char text[128], place[32];
    snprintf(text, sizeof text, "%s %s", method, pattern);
    snprintf(place, sizeof place, "s.lua:%zu", *count + 1);
    if (*count < ROUTES && strcmp(text, routes[*count]) == 0 && strcmp(where, place) == 0) {
        ++*count;
    }
}

static void test_each(const struct router *router)
{
    size_t count = 0;
    router_each(router, count_in_order, &count);
    check_int(count, ROUTES, "each route is told, in order, and none that was refused");
}

static void test_many_routes(void)
{
    struct router *router = router_create();
    struct arena arena;
    struct error err;
    struct router_match match;
    char pattern[64];
    int found = 0;
    arena_init(&arena);
    for (int i = 0; i < 5000; i++) {
        snprintf(pattern, sizeof pattern, "/r%d/{id}/x%d", i, i % 7);
        router_add(router, "GET", pattern, "m.lua:1", router, &err);
    }
    for (int i = 0; i < 5000; i++) {
        snprintf(pattern, sizeof pattern, "/r%d/%d/x%d", i, i, i % 7);
        found += router_find(router, "GET", pattern, &arena, &match) == ROUTER_FOUND &&
                 atoi(match.parameters[0].value) == i;
        arena_reset(&arena);
    }
    check_int(found, 5000, "five thousand routes are found");
    check_int(router_find(router, "GET", "/r5000/1/x2", &arena, &match), ROUTER_NO_PATH,
              "and no other");
    arena_finish(&arena);
    router_destroy(router);
}

static void test_long_paths(const struct router *router)
{
    enum { LENGTH = 100000 };
    struct arena arena;
    struct router_match match;
    arena_init(&arena);
    char *path = arena_bytes(&arena, LENGTH + 1);
    memset(path, '/', LENGTH);
    path[LENGTH] = '\0';
    check_int(router_find(router, "GET", path, &arena, &match), ROUTER_NO_PATH,
              "a path of slashes leads nowhere");
    memcpy(path, "/files/", 7);
    check_int(router_find(router, "GET", path, &arena, &match), ROUTER_FOUND,
              "a long rest is found");
    check_int(strlen(match.parameters[0].value), LENGTH - 7, "and whole");
    arena_finish(&arena);
}

static void test_methods(void)
{
    struct router *router = router_create();
    struct error err = {0};
    char method[8];
    int added = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(method, sizeof method, "M%c%c", 'A' + i / 26, 'A' + i % 26);
        added += router_add(router, method, "/x", "m.lua:1", NULL, &err) == 0;
    }
    check_int(added, 61, "as many methods as a set holds are known");
    check_text(err.message, "there are more than 64 methods", "and the next is refused");
    router_destroy(router);
    router_destroy(NULL);
}

int main(void)
{
    struct router *router = make_router();
    test_rows(router);
    test_refused(router);
    test_rows(router);
    test_each(router);
    test_long_paths(router);
    router_destroy(router);
    test_many_routes();
    test_methods();
    return test_end();
}
