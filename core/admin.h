/* The admin listener: /livez, /readyz and /metrics, for the whole server: each worker answers from
 * the shared memory that all of them write. */
#ifndef MOONPOOL_ADMIN_H
#define MOONPOOL_ADMIN_H

#include "http.h"

struct shared;

/* `shared` is borrowed for as long as the handler is used. */
struct http_handler admin_handler(struct shared *shared);

#endif
