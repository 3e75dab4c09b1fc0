/* Listening TCP sockets: made by the master, served by its workers. */
#ifndef MOONPOOL_LISTENER_H
#define MOONPOOL_LISTENER_H

#include <stddef.h>
#include <stdint.h>

struct error;

/* Binds `count` times to `address` ("host:port"): sockets between whose queues the kernel spreads
 * the clients, from when each listens. The first does so at once, the others when listener_begin()
 * is called. With port 0 the first picks a port and the others take it too. The sockets are
 * non-blocking and the caller's to close. -1 if the address cannot be had, another server listening
 * there included; the message then begins with `flag`. */
int listener_open(const char *flag, const char *address, int *ret_fds, uint32_t count,
                  struct error *err);

/* Lets clients into the queue of `fd`; does nothing if they are let in already. -1 with errno. */
int listener_begin(int fd);

/* "http://127.0.0.1:8608": where `fd` listens. */
void listener_url(int fd, char *text, size_t size);

#endif
