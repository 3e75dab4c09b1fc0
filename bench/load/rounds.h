/* Rounds of creating users, as standard input asks for them. A line is
 *
 *     count N PREFIX       N creates, shared among the clients
 *     seconds S PREFIX     creates for S seconds; what has begun by then is waited for
 *
 * and its answer on standard output is one line, followed by one for each create:
 *
 *     round ELAPSED_US CPU_US CREATES
 *     STATUS MICROSECONDS USERNAME
 *
 * CPU_US is what this process used. Each client creates one user after the other; it pauses after a
 * failure, as a well-behaved client does. */
#ifndef BENCH_ROUNDS_H
#define BENCH_ROUNDS_H

enum { ROUNDS_NAME_SIZE = 64 };

/* How a client creates users. A client is made once and serves all rounds. */
struct rounds_backend {
    /* Gives the client, or NULL after saying why on standard error. */
    void *(*open)(const void *settings);
    /* Gives the HTTP status, or 0 if there was no answer. */
    int (*create)(void *client, const char *username);
    void (*close)(void *client);
};

/* Runs until standard input ends. Gives the exit status. */
int rounds_run(const struct rounds_backend *backend, const void *settings, int clients_count);

#endif
