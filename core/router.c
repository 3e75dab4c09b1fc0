/* A trie of path segments. Every literal step from node to node stands in one hash table of the
 * router, so that a lookup costs the same with ten routes and with ten thousand. A search tries, at
 * each node, the literal step, then the parameter, then the rest, and steps back where a way ends.
 * Nodes, routes and strings belong to the router's arena. */
#include "router.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "error.h"
#include "hash.h"
#include "json.h"
#include "uri.h"

/* A set of methods is a word with one bit for each method the router knows. */
enum { METHODS = 64, FIRST_SLOTS = 64 };

struct route {
    struct route *next_at_node;
    struct route *next; /* in the order of router_add() */
    int method;         /* index in `methods` */
    const char *pattern;
    const char *where;
    void *target; /* borrowed */
    size_t parameter_count;
    const char *names[ROUTER_PARAMETERS];
};

struct node {
    struct node *parent;
    const char *segment; /* the literal that leads here from `parent` */
    size_t length;
    uint64_t hash;          /* of all literals from the root */
    struct node *parameter; /* where {name} leads */
    struct node *rest;      /* where {name*} leads */
    struct route *routes;   /* that end here */
    uint64_t methods;       /* of `routes`, with HEAD and OPTIONS where they come for free */
    const char *allow;      /* `methods` as text */
};

struct router {
    struct arena arena;
    struct node root;
    struct node **steps; /* owned hash table of `slots` entries, a power of two */
    size_t slots;
    size_t count;
    struct route *first;
    struct route *last;
    const char *methods[METHODS];
    int method_count;
};

/* ---- methods ---- */

static int find_method(const struct router *router, const char *method)
{
    for (int i = 0; i < router->method_count; i++) {
        if (strcmp(router->methods[i], method) == 0) {
            return i;
        }
    }
    return -1;
}

/* The index of `method`, which is made known; -1 if there are too many. */
static int know_method(struct router *router, const char *method)
{
    int index = find_method(router, method);
    if (index < 0 && router->method_count < METHODS) {
        index = router->method_count++;
        router->methods[index] = arena_strdup(&router->arena, method);
    }
    return index;
}

static uint64_t method_bit(const struct router *router, const char *method)
{
    int index = find_method(router, method);
    return index < 0 ? 0 : UINT64_C(1) << index;
}

static bool is_method(const char *method)
{
    size_t length = strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-_");
    return length > 0 && !method[length];
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "GET, HEAD, OPTIONS": the methods of a set, sorted. */
static const char *format_methods(const struct router *router, uint64_t methods,
                                  struct arena *arena)
{
    const char *names[METHODS];
    size_t count = 0, size = 1;
    for (int i = 0; i < router->method_count; i++) {
        if (methods >> i & 1) {
            names[count++] = router->methods[i];
            size += strlen(router->methods[i]) + 2;
        }
    }
    qsort(names, count, sizeof *names, compare_names);
    char *text = arena_bytes(arena, size), *at = text;
    *at = '\0';
    for (size_t i = 0; i < count; i++) {
        at += sprintf(at, i ? ", %s" : "%s", names[i]);
    }
    return text;
}

/* ---- the trie ---- */

struct router *router_create(void)
{
    struct router *router = memory_zalloc(sizeof *router);
    arena_init(&router->arena);
    router->root.hash = HASH_START;
    router->slots = FIRST_SLOTS;
    router->steps = memory_zalloc(router->slots * sizeof *router->steps);
    know_method(router, "GET");
    know_method(router, "HEAD");
    know_method(router, "OPTIONS");
    return router;
}

void router_destroy(struct router *router)
{
    if (router) {
        free(router->steps);
        arena_finish(&router->arena);
        free(router);
    }
}

static uint64_t step_hash(const struct node *parent, const char *segment, size_t length)
{
    return hash_bytes(hash_bytes(parent->hash, "/", 1), segment, length);
}

/* The slot of the literal step from `parent`, or the empty one where it belongs. */
static struct node **slot_of(const struct router *router, const struct node *parent,
                             const char *segment, size_t length, uint64_t hash)
{
    size_t slot = hash & (router->slots - 1);
    for (;; slot = (slot + 1) & (router->slots - 1)) {
        const struct node *node = router->steps[slot];
        if (!node || (node->hash == hash && node->parent == parent && node->length == length &&
                      memcmp(node->segment, segment, length) == 0)) {
            return &router->steps[slot];
        }
    }
}

static struct node *literal_step(const struct router *router, const struct node *parent,
                                 const char *segment, size_t length)
{
    uint64_t hash = step_hash(parent, segment, length);
    return *slot_of(router, parent, segment, length, hash);
}

static void grow_steps(struct router *router)
{
    struct node **old = router->steps;
    size_t old_slots = router->slots;
    router->slots *= 2;
    router->steps = memory_zalloc(router->slots * sizeof *router->steps);
    for (size_t i = 0; i < old_slots; i++) {
        if (old[i]) {
            struct node *node = old[i];
            *slot_of(router, node->parent, node->segment, node->length, node->hash) = node;
        }
    }
    free(old);
}

static struct node *add_node(struct router *router, struct node *parent, const char *segment,
                             size_t length)
{
    struct node *node = arena_zalloc(&router->arena, sizeof *node);
    node->parent = parent;
    node->segment = arena_strndup(&router->arena, segment, length);
    node->length = length;
    node->hash = step_hash(parent, segment, length);
    return node;
}

static struct node *add_literal(struct router *router, struct node *parent, const char *segment,
                                size_t length)
{
    struct node *node = literal_step(router, parent, segment, length);
    if (!node) {
        /* At most half full, so that a search ends soon. */
        if ((router->count + 1) * 2 > router->slots) {
            grow_steps(router);
        }
        node = add_node(router, parent, segment, length);
        *slot_of(router, parent, segment, length, node->hash) = node;
        router->count++;
    }
    return node;
}

/* ---- patterns ---- */

enum segment_kind { SEGMENT_LITERAL, SEGMENT_PARAMETER, SEGMENT_REST };

struct segment {
    enum segment_kind kind;
    const char *text; /* the literal, or the name; borrowed from the pattern */
    size_t length;
};

static bool is_name(const char *text, size_t length)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_";
    static const char digits[] = "0123456789";
    for (size_t i = 0; i < length; i++) {
        bool is_digit = strchr(digits, text[i]) != NULL;
        if ((!strchr(letters, text[i]) && !is_digit) || (i == 0 && is_digit)) {
            return false;
        }
    }
    return length > 0;
}

static int parse_parameter(struct segment *segment, const char *pattern, struct error *err)
{
    const char *text = segment->text;
    size_t length = segment->length;
    if (length < 2 || text[length - 1] != '}') {
        return error_set(err, ERROR_SCRIPT,
                         "the pattern %s is malformed: \"%.*s\" has no closing }", pattern,
                         (int)length, text);
    }
    bool is_rest = text[length - 2] == '*';
    segment->kind = is_rest ? SEGMENT_REST : SEGMENT_PARAMETER;
    segment->text = text + 1;
    segment->length = length - 2 - is_rest;
    if (!is_name(segment->text, segment->length)) {
        return error_set(err, ERROR_SCRIPT,
                         "the pattern %s is malformed: \"%.*s\" must be {name}, or {name*} at the "
                         "end, with a name of letters, digits and underscores",
                         pattern, (int)length, text);
    }
    return 0;
}

static int check_literal(const struct segment *segment, const char *pattern, struct error *err)
{
    const char *text = segment->text;
    size_t length = segment->length;
    if (length > 0 && (text[0] == ':' || text[0] == '*')) {
        return error_set(err, ERROR_SCRIPT,
                         "the pattern %s is malformed: write {name} for a parameter and {name*} "
                         "for the rest instead of \"%.*s\"",
                         pattern, (int)length, text);
    }
    for (size_t i = 0; i < length; i++) {
        if (strchr("{}?#%", text[i])) {
            return error_set(err, ERROR_SCRIPT,
                             "the pattern %s is malformed: \"%c\" cannot stand in \"%.*s\"; a "
                             "pattern is written without percent-encoding and query",
                             pattern, text[i], (int)length, text);
        }
    }
    return 0;
}

/* Cuts the next segment out of `pattern` at `*at`, which moves behind it. */
static int parse_segment(const char *pattern, const char **at, struct segment *ret_segment,
                         struct error *err)
{
    size_t length = strcspn(*at, "/");
    struct segment segment = {.text = *at, .length = length};
    int result = segment.length > 0 && segment.text[0] == '{'
                     ? parse_parameter(&segment, pattern, err)
                     : check_literal(&segment, pattern, err);
    if (result != 0) {
        return -1;
    }
    bool is_last = (*at)[length] == '\0';
    if (length == 0 && !is_last) {
        return error_set(err, ERROR_SCRIPT, "the pattern %s is malformed: two slashes in a row",
                         pattern);
    }
    if (segment.kind == SEGMENT_REST && !is_last) {
        return error_set(err, ERROR_SCRIPT, "the pattern %s is malformed: {%.*s*} must come last",
                         pattern, (int)segment.length, segment.text);
    }
    *at += is_last ? length : length + 1;
    *ret_segment = segment;
    return 0;
}

static int add_parameter(struct router *router, struct route *route, const struct segment *segment,
                         struct error *err)
{
    if (route->parameter_count == ROUTER_PARAMETERS) {
        return error_set(err, ERROR_SCRIPT, "the pattern %s has more than %d parameters",
                         route->pattern, ROUTER_PARAMETERS);
    }
    const char *name = arena_strndup(&router->arena, segment->text, segment->length);
    for (size_t i = 0; i < route->parameter_count; i++) {
        if (strcmp(route->names[i], name) == 0) {
            return error_set(err, ERROR_SCRIPT, "the pattern %s has two parameters named %s",
                             route->pattern, name);
        }
    }
    route->names[route->parameter_count++] = name;
    return 0;
}

static struct node *add_step(struct router *router, struct node *node,
                             const struct segment *segment)
{
    if (segment->kind == SEGMENT_LITERAL) {
        return add_literal(router, node, segment->text, segment->length);
    }
    struct node **step = segment->kind == SEGMENT_REST ? &node->rest : &node->parameter;
    if (!*step) {
        *step = add_node(router, node, "{", 1);
    }
    return *step;
}

/* Grows the trie along the pattern of `route`. NULL on failure. */
static struct node *add_pattern(struct router *router, struct route *route, struct error *err)
{
    struct node *node = &router->root;
    const char *at = route->pattern + 1;
    bool more = true;
    while (more) {
        struct segment segment = {0};
        const char *begin = at;
        if (parse_segment(route->pattern, &at, &segment, err) != 0) {
            return NULL;
        }
        if (segment.kind != SEGMENT_LITERAL && add_parameter(router, route, &segment, err) != 0) {
            return NULL;
        }
        node = add_step(router, node, &segment);
        /* A slash at the end opens one more segment, which is empty. */
        more = at > begin && at[-1] == '/';
    }
    return node;
}

/* ---- adding a route ---- */

static const struct route *route_at(const struct node *node, int method)
{
    const struct route *route = node->routes;
    while (route && route->method != method) {
        route = route->next_at_node;
    }
    return route;
}

static void append_route(struct router *router, struct node *node, struct route *route)
{
    route->next_at_node = node->routes;
    node->routes = route;
    if (router->last) {
        router->last->next = route;
    } else {
        router->first = route;
    }
    router->last = route;
    node->methods |= UINT64_C(1) << route->method | method_bit(router, "OPTIONS");
    if (node->methods & method_bit(router, "GET")) {
        node->methods |= method_bit(router, "HEAD");
    }
    node->allow = format_methods(router, node->methods, &router->arena);
}

static struct route *make_route(struct router *router, const char *method, const char *pattern,
                                const char *where, void *target)
{
    struct route *route = arena_zalloc(&router->arena, sizeof *route);
    route->method = know_method(router, method);
    route->pattern = arena_strdup(&router->arena, pattern);
    route->where = arena_strdup(&router->arena, where);
    route->target = target;
    return route;
}

static int check_route(const char *method, const char *pattern, struct error *err)
{
    if (!is_method(method)) {
        return error_set(err, ERROR_SCRIPT, "\"%s\" is no HTTP method: write it in capitals",
                         method);
    }
    if (pattern[0] != '/') {
        return error_set(err, ERROR_SCRIPT, "the pattern \"%s\" must begin with /", pattern);
    }
    if (!json_is_utf8(pattern, strlen(pattern))) {
        return error_set(err, ERROR_SCRIPT, "the pattern \"%s\" is not valid UTF-8", pattern);
    }
    return 0;
}

static int add_route(struct router *router, const char *method, const char *pattern,
                     const char *where, void *target, struct error *err)
{
    if (check_route(method, pattern, err) != 0) {
        return -1;
    }
    struct route *route = make_route(router, method, pattern, where, target);
    if (route->method < 0) {
        return error_set(err, ERROR_SCRIPT, "there are more than %d methods", METHODS);
    }
    struct node *node = add_pattern(router, route, err);
    if (!node) {
        return -1;
    }
    const struct route *other = route_at(node, route->method);
    if (other) {
        return error_set(err, ERROR_SCRIPT, "the route %s %s is taken by %s at %s", method, pattern,
                         other->pattern, other->where);
    }
    append_route(router, node, route);
    return 0;
}

int router_add(struct router *router, const char *method, const char *pattern, const char *where,
               void *target, struct error *err)
{
    if (add_route(router, method, pattern, where, target, err) != 0) {
        snprintf(err->where, sizeof err->where, "%s", where);
        return -1;
    }
    return 0;
}

/* ---- the search ---- */

struct part {
    const char *text; /* arena; decoded */
    size_t length;
    const char *raw; /* where it begins in the path */
};

struct search {
    const struct router *router;
    struct arena *arena;
    struct part *parts; /* arena */
    size_t count;
    int method;                      /* -1 if no route has it */
    size_t taken[ROUTER_PARAMETERS]; /* which part each parameter on the way took */
    size_t taken_count;
    uint64_t methods;   /* of all nodes that match */
    const char *allow;  /* of the first of them */
    uint64_t allow_set; /* the methods in `allow` */
    bool found;
    struct router_match *match;
};

static size_t count_slashes(const char *path)
{
    size_t count = 0;
    for (; *path; path++) {
        count += *path == '/';
    }
    return count;
}

/* Splits the path, which begins with a slash, into decoded parts. -1 if it is bad. */
static int split(struct search *search, const char *path)
{
    search->parts = arena_alloc(search->arena, count_slashes(path) * sizeof *search->parts);
    char *out = arena_bytes(search->arena, strlen(path));
    while (*path) {
        const char *raw = path + 1;
        path = raw + strcspn(raw, "/");
        ptrdiff_t length = uri_decode(raw, path, false, out);
        if (length < 0) {
            return -1;
        }
        out[length] = '\0';
        search->parts[search->count++] =
            (struct part){.text = out, .length = (size_t)length, .raw = raw};
        out += length + 1;
    }
    return 0;
}

static const char *decode_rest(struct search *search, const char *raw)
{
    size_t length = strlen(raw);
    char *out = arena_bytes(search->arena, length + 1);
    ptrdiff_t decoded = uri_decode(raw, raw + length, false, out);
    assert(decoded >= 0); /* Its parts have been decoded before. */
    out[decoded] = '\0';
    return out;
}

/* Records the first match; its last parameter takes the whole rest if `is_rest`. */
static void record(struct search *search, const struct route *route, bool is_rest)
{
    struct router_match *match = search->match;
    search->found = true;
    match->target = route->target;
    match->pattern = route->pattern;
    match->parameter_count = route->parameter_count;
    for (size_t i = 0; i < route->parameter_count; i++) {
        const struct part *part = &search->parts[search->taken[i]];
        bool takes_rest = is_rest && i + 1 == route->parameter_count;
        match->parameters[i].name = route->names[i];
        match->parameters[i].value = takes_rest ? decode_rest(search, part->raw) : part->text;
    }
}

/* The path ends at `node`: a match if a route does too. */
static void arrive(struct search *search, const struct node *node, bool is_rest)
{
    if (!node->routes) {
        return;
    }
    if (!search->allow) {
        search->allow = node->allow;
        search->allow_set = node->methods;
    }
    search->methods |= node->methods;
    const struct route *route = NULL;
    if (!search->found && search->method >= 0) {
        route = route_at(node, search->method);
        if (!route && search->method == find_method(search->router, "HEAD")) {
            route = route_at(node, find_method(search->router, "GET"));
        }
    }
    if (route) {
        record(search, route, is_rest);
    }
}

/* Tries all ways from `node` for the parts from `depth` on, the best first. Ends, since it goes no
 * deeper than the patterns do. Goes on after a match only to learn of the other methods. */
static void visit(struct search *search, const struct node *node, size_t depth)
{
    if (depth == search->count) {
        arrive(search, node, false);
        return;
    }
    const struct part *part = &search->parts[depth];
    const struct node *literal = literal_step(search->router, node, part->text, part->length);
    if (literal) {
        visit(search, literal, depth + 1);
    }
    if (node->parameter && part->length > 0) {
        search->taken[search->taken_count++] = depth;
        visit(search, node->parameter, depth + 1);
        search->taken_count--;
    }
    if (node->rest) {
        search->taken[search->taken_count++] = depth;
        arrive(search, node->rest, true);
        search->taken_count--;
    }
}

enum router_outcome router_find(const struct router *router, const char *method, const char *path,
                                struct arena *arena, struct router_match *ret_match)
{
    struct search search = {.router = router, .arena = arena, .match = ret_match};
    memset(ret_match, 0, sizeof *ret_match);
    if (path[0] != '/') {
        return ROUTER_NO_PATH;
    }
    if (split(&search, path) != 0) {
        return ROUTER_BAD_PATH;
    }
    search.method = find_method(router, method);
    visit(&search, &router->root, 0);
    if (!search.methods) {
        return ROUTER_NO_PATH;
    }
    ret_match->allow = search.allow_set == search.methods
                           ? search.allow
                           : format_methods(router, search.methods, arena);
    return search.found ? ROUTER_FOUND : ROUTER_NO_METHOD;
}

void router_each(const struct router *router,
                 void (*each)(void *context, const char *method, const char *pattern,
                              const char *where),
                 void *context)
{
    for (const struct route *route = router->first; route; route = route->next) {
        each(context, router->methods[route->method], route->pattern, route->where);
    }
}
