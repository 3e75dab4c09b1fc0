/* What the files of the HTTP edge tell each other; everyone else includes http.h. libmicrohttpd's
 * own header stays in those files: here are only names of its structs. */
#ifndef MOONPOOL_HTTP_PARTS_H
#define MOONPOOL_HTTP_PARTS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "deadline.h"
#include "error.h"
#include "http.h"
#include "http_guard.h"
#include "list.h"
#include "loop.h"

struct MHD_Connection;
struct MHD_Daemon;

enum { ID_PREFIX = 9 }; /* eight random digits and a dash */

/* A connection without a request. */
#define IDLE_TIME SECONDS(75)

/* How long after the deadline an answer may still be on its way, and once again when it still is.
 */
#define SEND_GRACE MILLISECONDS(50)

struct http {
    struct loop *loop; /* borrowed */
    struct http_options options;
    struct http_handler handler;
    struct MHD_Daemon *daemon; /* owned */
    struct watch watch;        /* MHD's epoll descriptor */
    bool ready;                /* MHD has something to do */
    bool draining;
    bool quiet; /* it accepts nobody any more */
    struct list clients;
    unsigned client_count;
    unsigned client_peak; /* the most since memory was given back last */
    struct timer trim_timer;
    unsigned handling; /* exchanges in the application's hands */
    unsigned polled;   /* those of them that are not suspended */
    bool body_moved;   /* in this run a piece of a body came; more may be there */
    bool resumed;      /* since the last run a suspended connection was resumed */
    struct timer poll_timer;
    bool full;               /* MHD accepts nobody until a connection ends */
    uint64_t next_complaint; /* when the log may say so again */
    struct timer rest_timer;
    struct list spare;          /* exchanges for reuse */
    struct exchange *answering; /* borrowed; the last whose answer MHD got, or NULL */
    unsigned spare_count;
    char id_prefix[ID_PREFIX + 1];
    uint64_t id_counter;
};

struct client {
    struct http *http; /* borrowed */
    struct list link;  /* on http->clients */
    int fd;            /* borrowed from MHD */
    char address[INET6_ADDRSTRLEN];
    struct exchange *exchange; /* the current one, or NULL; owned */
    struct watch watch;        /* for a hang-up while its request waits */
    struct timer timer;
    uint64_t due;         /* when its patience ends */
    uint64_t bytes_acked; /* by the client, when that was looked at last */
    struct guard guard;
    uint32_t ended;           /* exchanges that are over */
    uint64_t head_begun;      /* when the head that is arriving began to */
    struct exchange *refusal; /* of a message that MHD will not see, until it is sent; owned */
    bool over;                /* it has had its last answer: what still arrives is thrown away */
};

enum stage { STAGE_HEADERS, STAGE_BODY, STAGE_HANDLING, STAGE_ANSWERED, STAGE_GONE };

struct exchange {
    struct request *request; /* owned */
    struct client *client;   /* borrowed; outlives it */
    struct MHD_Connection *connection;
    struct list link; /* on http->spare while it waits for reuse */
    enum stage stage;
    bool known;           /* on_headers() was called, so on_end() must be */
    bool polled;          /* MHD calls for it in each run */
    bool suspended;       /* MHD leaves it alone until it is resumed */
    bool overdue;         /* the time for its answer has passed once */
    uint64_t handed_over; /* when the application got it */
    uint64_t body_seen;   /* bytes, those thrown away included */
    int status;           /* what the client was told; 0 if nothing */
};

/* http_client.c. A client is made and ended with its connection. */
struct client *client_create(struct http *http, struct MHD_Connection *connection);
void client_destroy(struct client *client);

/* The client's patience ends at `at`. */
void client_set_due(struct client *client, uint64_t at);

/* The first byte of a request has come. */
void client_begin_head(struct client *client);

/* An exchange is over. */
void client_wait_for_next(struct client *client);

/* MHD accepts nobody until a connection ends; the log says it once per while. */
void http_fill_up(struct http *http, const char *how);

/* http.c. The line in the access log. */
void http_log_request(const struct exchange *exchange);

/* http_input.c. What MHD reads from the client passes its guard from now on, or no longer does. */
void input_open(struct client *client);
void input_close(struct client *client);

/* True if the request after those that are over has begun to arrive. */
bool input_has_begun(const struct client *client);

/* Refuses the request that is arriving, as soon as those before it are answered. */
void input_refuse(struct client *client, enum error_code code, const char *message);

/* One more is answered. */
void input_refuse_if_due(struct client *client);

/* The last answer has been sent: the connection is closed when its client has seen that. */
void input_end(struct client *client);

/* http_exchange.c. An exchange is made with its request line and kept for reuse at its end. */
struct exchange *exchange_create(struct http *http);
void exchange_recycle(struct http *http, struct exchange *exchange);
void exchange_destroy(struct exchange *exchange);

/* The one place that changes the stage. */
void exchange_enter(struct exchange *exchange, enum stage stage);

/* MHD has the answer, and begins to send it. */
void exchange_on_sending(struct exchange *exchange);

/* The application's request_done(). */
void exchange_on_done(struct request *request);

/* Gives the request to the application; false if it answered at once and MHD refuses the answer. */
bool exchange_hand_over(struct exchange *exchange);

/* The application still has it: polls, or suspends the connection. */
void exchange_wait_on(struct exchange *exchange);

/* http_request.c. The request line is there: MHD's earliest call. Returns the exchange it makes. */
void *http_on_target(void *context, const char *target, struct MHD_Connection *connection);

/* Fills in what is known of a request with its line. */
void exchange_start(struct exchange *exchange, struct client *client, const char *target);

/* Takes over the request's id from its client if it is sane. */
void exchange_choose_id(struct exchange *exchange, const char *id);

/* The headers are there: reads and judges them; false if MHD is to drop the connection. */
bool exchange_begin(struct exchange *exchange, const char *method, const char *version);

/* Takes a piece of the body; false if MHD is to drop the connection. */
bool exchange_take_body(struct exchange *exchange, const char *data, size_t size);

/* http_response.c. Fills in a response with a problem document. */
void exchange_fail(struct exchange *exchange, enum error_code code, const char *message);

/* Hands the response to MHD; false if MHD refuses it. */
bool exchange_answer(struct exchange *exchange);

/* MHD has no room for the head of the answer and closes the connection: answers 500 instead. */
void exchange_fail_answer(struct exchange *exchange);

/* Answers on the socket itself while MHD cannot; it is the last answer. */
void exchange_answer_past_mhd(struct exchange *exchange);

#endif
