/* A request and its response: what travels from the HTTP edge to a handler and back. It owns an
 * arena; what else it borrows (coroutine, transaction, connection) is given back when it ends.
 * Passive data: the edge creates and frees it, the application fills in the response. */
#ifndef MOONPOOL_REQUEST_H
#define MOONPOOL_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena.h"
#include "buffer.h"
#include "error.h"
#include "list.h"
#include "router.h"
#include "times.h"

/* Both live as long as the request: in its arena, or with the edge. */
struct header {
    const char *name;
    const char *value;
};

struct response {
    int status;               /* 0 until there is one */
    struct buffer body;       /* owned by the request */
    const char *content_type; /* arena or static; NULL if there is no body */
    struct header *headers;   /* arena */
    size_t header_count;
    size_t header_capacity;
};

struct request {
    struct arena arena;
    const char *id;         /* arena; from X-Request-Id if that is sane, else made here */
    const char *method;     /* the edge's; lives as long as the request */
    const char *path;       /* arena; still percent-encoded, without the query */
    const char *query;      /* arena; still percent-encoded, without '?'; "" if there is none */
    const char *client;     /* the edge's; address of the peer */
    struct header *headers; /* arena */
    size_t header_count;
    struct buffer body; /* owned */
    bool has_body;      /* a Content-Length or Transfer-Encoding came with it */
    size_t body_limit;  /* bytes */

    uint64_t received; /* when its headers had arrived */
    uint64_t deadline; /* absolute; set from `received` and the route */

    struct router_match match;
    struct response response;
    enum error_code error; /* why it failed, for the access log; ERROR_NONE if it did not */
    struct request_times times;

    /* Set by the edge: called exactly once, by request_done(), when the response is there. */
    void (*on_done)(struct request *request);
    void *edge; /* the edge's own */

    /* Set by the application while the request is in its hands. */
    struct handling *handling;
    void *generation;
};

/* Heap; frees with request_destroy(), once nothing else holds it. */
struct request *request_create(void);
void request_destroy(struct request *request);

/* Makes it as new but keeps some of its memory, so that the next request needs no allocation. */
void request_reset(struct request *request);

/* The value of the first header with this name, in any case; NULL if there is none. */
const char *request_header(const struct request *request, const char *name);

/* Adds a response header; copies both. */
void request_add_header(struct request *request, const char *name, const char *value);

/* The same, but takes the place of those with this name. */
void request_set_header(struct request *request, const char *name, const char *value);

/* Makes the response the problem document for `err` (RFC 9457), dropping what was there before.
 * `extra` may be NULL: JSON members, each with a comma in front, appended inside the object. */
void request_fail(struct request *request, const struct error *err, const char *extra);

/* Tells the edge that the response is there. */
void request_done(struct request *request);

/* True if `text` may be the name of a header (RFC 9110, section 5.6.2). */
bool request_is_token(const char *text);

/* True if it may be the value of one. A line break would let text become headers of its own. */
bool request_is_header_value(const char *value, size_t length);

#endif
