/* Finds the route for a method and path. Patterns are literal segments, `{name}` for one segment
 * and
 * `{name*}` for the rest, which must come last. A literal beats a parameter beats a rest. */
#ifndef MOONPOOL_ROUTER_H
#define MOONPOOL_ROUTER_H

#include <stddef.h>

struct arena;
struct error;

enum { ROUTER_PARAMETERS = 16 }; /* the most a pattern may have */

struct router_parameter {
    const char *name;  /* lives as long as the router */
    const char *value; /* arena; percent-decoded, NUL-terminated, valid UTF-8 without NUL */
};

enum router_outcome {
    ROUTER_FOUND,
    ROUTER_NO_PATH,
    ROUTER_NO_METHOD, /* the path exists, `allow` says for which methods */
    ROUTER_BAD_PATH,  /* a bad percent-encoding, invalid UTF-8 or a NUL */
};

struct router_match {
    void *target; /* as given to router_add() */
    const char *pattern;
    size_t parameter_count;
    struct router_parameter parameters[ROUTER_PARAMETERS];
    const char
        *allow; /* arena; "GET, HEAD, OPTIONS, POST"; set unless ROUTER_NO_PATH or BAD_PATH */
};

struct router;

struct router *router_create(void);
void router_destroy(struct router *router);

/* Adds a route. `method` in capitals; `pattern` begins with '/'; both are copied. `where` is the
 * file:line of the registration (copied), named in the error when a second route takes the same
 * method and pattern. -1 with ERROR_SCRIPT also for a malformed pattern. Two patterns that differ
 * only in the names of their parameters are the same pattern. */
int router_add(struct router *router, const char *method, const char *pattern, const char *where,
               void *target, struct error *err);

/* Looks up the raw path of a request (still percent-encoded, without the query). Segments are split
 * first and decoded then, so that %2F stays inside its segment. HEAD finds a GET route where no
 * HEAD route is. A trailing slash is significant. The target of a found route goes into
 * `ret_match`. */
enum router_outcome router_find(const struct router *router, const char *method, const char *path,
                                struct arena *arena, struct router_match *ret_match);

/* Calls `each` for every route in the order they were added. */
void router_each(const struct router *router,
                 void (*each)(void *context, const char *method, const char *pattern,
                              const char *where),
                 void *context);

#endif
