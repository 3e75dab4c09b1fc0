/* Routes and paths, against a judge that tries every route in turn. An input is lines: routes such
 * as "GET /a/{b}", an empty line, and the requests "GET /a/x" to be found. */
#include <string.h>

#include "arena.h"
#include "error.h"
#include "fuzz.h"
#include "json.h"
#include "router.h"
#include "uri.h"

enum { MOST_ROUTES = 32, MOST_BYTES = 1024, MOST_SEGMENTS = MOST_BYTES };

struct route {
    const char *method, *pattern; /* arena */
};

static struct route routes[MOST_ROUTES];
static size_t route_count;

/* What a segment of a pattern is, the better the lower. */
enum rank { RANK_LITERAL, RANK_PARAMETER, RANK_REST, RANK_NONE };

static enum rank rank_of(const char *segment, size_t length)
{
    if (length == 0 || segment[0] != '{') {
        return RANK_LITERAL;
    }
    return segment[length - 2] == '*' ? RANK_REST : RANK_PARAMETER;
}

/* Does one segment of a pattern take one of a path? */
static bool takes(const char *segment, size_t length, const char *raw, size_t raw_length)
{
    char text[MOST_BYTES];
    ptrdiff_t decoded = uri_decode(raw, raw + raw_length, false, text);
    if (rank_of(segment, length) == RANK_PARAMETER) {
        return decoded > 0;
    }
    return decoded == (ptrdiff_t)length && memcmp(text, segment, length) == 0;
}

/* The ranks of the segments of `pattern` on its way along `path`; false if it does not match. */
static bool follow(const char *pattern, const char *path, unsigned char ranks[MOST_SEGMENTS])
{
    size_t count = 0;
    memset(ranks, 0, MOST_SEGMENTS);
    while (*pattern && *path) {
        size_t length = strcspn(++pattern, "/"), raw_length = strcspn(++path, "/");
        ranks[count] = rank_of(pattern, length);
        if (ranks[count] == RANK_REST) {
            return true;
        }
        if (!takes(pattern, length, path, raw_length)) {
            return false;
        }
        count++;
        pattern += length;
        path += raw_length;
    }
    return !*pattern && !*path;
}

static bool serves(const struct route *route, const char *method)
{
    return strcmp(route->method, method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(route->method, "GET") == 0);
}

/* What the judge finds: the ranks of the best route, or that only the path is there. */
static enum router_outcome judge(const char *method, const char *path,
                                 unsigned char best[MOST_SEGMENTS])
{
    enum router_outcome outcome = ROUTER_NO_PATH;
    for (size_t i = 0; i < route_count; i++) {
        unsigned char ranks[MOST_SEGMENTS];
        if (!follow(routes[i].pattern, path, ranks)) {
            continue;
        }
        if (!serves(&routes[i], method)) {
            outcome = outcome == ROUTER_FOUND ? outcome : ROUTER_NO_METHOD;
        } else if (outcome != ROUTER_FOUND || memcmp(ranks, best, sizeof ranks) < 0) {
            memcpy(best, ranks, sizeof ranks);
            outcome = ROUTER_FOUND;
        }
    }
    return outcome;
}

static void check_match(const struct router_match *match, const char *path,
                        const unsigned char best[MOST_SEGMENTS])
{
    const struct route *route = match->target;
    unsigned char ranks[MOST_SEGMENTS];
    claim(route >= routes && route < routes + route_count);
    claim(strcmp(route->pattern, match->pattern) == 0);
    claim(follow(match->pattern, path, ranks));
    claim(memcmp(ranks, best, sizeof ranks) == 0);
    for (size_t i = 0; i < match->parameter_count; i++) {
        const struct router_parameter *parameter = &match->parameters[i];
        claim(strstr(match->pattern, parameter->name));
        claim(json_is_utf8(parameter->value, strlen(parameter->value)));
    }
}

/* True if all segments of the path can be decoded. */
static bool is_good(const char *path)
{
    char text[MOST_BYTES];
    return uri_decode(path, path + strlen(path), false, text) >= 0;
}

static void find(const struct router *router, const char *method, const char *path,
                 struct arena *arena)
{
    unsigned char best[MOST_SEGMENTS];
    struct router_match match;
    enum router_outcome outcome = router_find(router, method, path, arena, &match);
    if (path[0] != '/') {
        claim(outcome == ROUTER_NO_PATH);
        return;
    }
    if (outcome == ROUTER_BAD_PATH) {
        claim(!is_good(path));
        return;
    }
    claim(outcome == judge(method, path, best));
    if (outcome == ROUTER_FOUND) {
        check_match(&match, path, best);
    }
    if (outcome != ROUTER_NO_PATH) {
        claim(strstr(match.allow, "OPTIONS"));
    }
}

static void add(struct router *router, const char *method, const char *pattern, struct arena *arena)
{
    struct route *route = &routes[route_count];
    struct error err;
    if (route_count == MOST_ROUTES) {
        return;
    }
    if (router_add(router, method, pattern, "spec:1", route, &err) != 0) {
        claim(err.code == ERROR_SCRIPT && err.message[0]);
        claim(strcmp(err.where, "spec:1") == 0);
        return;
    }
    *route = (struct route){method, pattern};
    route_count++;
    find(router, method, pattern, arena); /* a pattern is a path, too */
}

static void run_lines(struct router *router, char *text, struct arena *arena)
{
    bool adding = true;
    char *rest = text, *line;
    while ((line = strsep(&rest, "\n"))) {
        char *method = strsep(&line, " ");
        if (!line) {
            adding = false;
        } else if (adding) {
            add(router, method, line, arena);
        } else {
            find(router, method, line, arena);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    if (size > MOST_BYTES) {
        return 0;
    }
    arena_init(&arena);
    struct router *router = router_create();
    route_count = 0;
    run_lines(router, arena_strndup(&arena, (const char *)data, size), &arena);
    router_destroy(router);
    arena_finish(&arena);
    return 0;
}
