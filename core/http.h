/* The HTTP edge: libmicrohttpd driven from the worker's loop. Turns bytes into requests and
 * responses into bytes; knows routes and scripts only as the three callbacks below. */
#ifndef MOONPOOL_HTTP_H
#define MOONPOOL_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error;
struct loop;
struct request;

struct http_handler {
    /* The headers are there. Finds the route; may set `deadline` and `body_limit`. Returns -1 with
     * the response filled in to answer without reading the body. */
    int (*on_headers)(void *context, struct request *request);
    /* The body is there too. The response comes by request_done(), now or later. */
    void (*on_request)(void *context, struct request *request);
    /* The request is over: answered, or its client is gone, or its deadline has passed (the edge
     * has answered for it then). Gives back whatever it holds; the edge frees it afterwards. Called
     * for each request for which on_headers() was called, exactly once. */
    void (*on_end)(void *context, struct request *request);
    /* The deadline has passed while the application had it. Fills in the response and calls
     * request_done(), or moves `deadline` on (a COMMIT is on its way) and returns. */
    void (*on_deadline)(void *context, struct request *request);
    /* The client hung up while the application had it. The application stops its work; the edge
     * calls on_end() soon. */
    void (*on_client_gone)(void *context, struct request *request);
    void *context;
};

struct http_options {
    int listen_fd; /* borrowed: stays open in the master */
    uint64_t deadline;
    size_t body_limit;
    uint64_t send_timeout; /* 0, or how long after its deadline a client may take nothing */
    size_t header_limit;   /* bytes for a request's head; each connection takes a little more */
    unsigned connection_limit;
    bool access_log;
    bool answer_half_closed; /* a client that has only closed its sending side is not gone */
};

struct http;

struct http *http_create(struct loop *loop, const struct http_options *options,
                         const struct http_handler *handler, struct error *err);

/* Ends every connection. on_end() is called for those requests that were still there. */
void http_destroy(struct http *http);

/* Lets libmicrohttpd do what it can now: once per tick. */
void http_run(struct http *http);

/* When it wants to be run again at the latest; absolute, DEADLINE_NEVER if not at all. */
uint64_t http_next(const struct http *http);

/* Stops accepting; answers carry "Connection: close" from now on. */
void http_drain(struct http *http);

/* Connections still open, and requests in the application's hands. */
unsigned http_connections(const struct http *http);
unsigned http_requests(const struct http *http);

/* Frees what is kept for requests to come. */
void http_tidy(struct http *http);

#endif
