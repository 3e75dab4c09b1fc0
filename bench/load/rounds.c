/* Rounds of creating users: a thread per client, since each waits for one answer at a time. Samples
 * stay in memory until the round is over, so that printing them costs the measurement nothing. */
#include "rounds.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PAUSE_AFTER_FAILURE_US = 100000, PREFIX_SIZE = 32 };

struct sample {
    int status; /* of HTTP; 0 means no answer */
    uint64_t microseconds;
    char username[ROUNDS_NAME_SIZE];
};

struct round {
    char prefix[PREFIX_SIZE];
    atomic_long left; /* creates that may still begin */
    uint64_t limit;   /* microseconds from the start in which creates may begin */
    uint64_t start;
    pthread_barrier_t ready; /* of all clients and the one who takes the time */
};

struct client {
    const struct rounds_backend *backend; /* borrowed; outlives all clients */
    struct round *round;                  /* borrowed; set for each round */
    void *handle;                         /* owned; the backend's */
    int number;
    struct sample *samples; /* owned */
    size_t count, capacity;
};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static uint64_t cpu_used(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static struct sample *next_sample(struct client *client)
{
    if (client->count == client->capacity) {
        size_t capacity = client->capacity ? 2 * client->capacity : 64;
        struct sample *samples = realloc(client->samples, capacity * sizeof *samples);
        if (!samples) {
            perror("bench: samples");
            exit(EXIT_FAILURE);
        }
        client->samples = samples;
        client->capacity = capacity;
    }
    return &client->samples[client->count++];
}

static bool may_begin(struct round *round)
{
    return now() - round->start < round->limit && atomic_fetch_sub(&round->left, 1) > 0;
}

static void create_one(struct client *client)
{
    struct sample *sample = next_sample(client);
    uint64_t start;
    snprintf(sample->username, sizeof sample->username, "%s_%d_%zu", client->round->prefix,
             client->number, client->count);
    start = now();
    sample->status = client->backend->create(client->handle, sample->username);
    sample->microseconds = now() - start;
    if (sample->status < 200 || sample->status > 299) {
        usleep(PAUSE_AFTER_FAILURE_US);
    }
}

static void *client_main(void *data)
{
    struct client *client = data;
    client->count = 0;
    pthread_barrier_wait(&client->round->ready);
    pthread_barrier_wait(&client->round->ready);
    while (may_begin(client->round)) {
        create_one(client);
    }
    return NULL;
}

static void print_round(const struct client *clients, int count, uint64_t elapsed, uint64_t cpu)
{
    size_t total = 0;
    for (int i = 0; i < count; i++) {
        total += clients[i].count;
    }
    printf("round %llu %llu %zu\n", (unsigned long long)elapsed, (unsigned long long)cpu, total);
    for (int i = 0; i < count; i++) {
        for (size_t j = 0; j < clients[i].count; j++) {
            const struct sample *sample = &clients[i].samples[j];
            printf("%d %llu %s\n", sample->status, (unsigned long long)sample->microseconds,
                   sample->username);
        }
    }
    fflush(stdout);
}

static void start_threads(pthread_t *threads, struct client *clients, int count,
                          struct round *round)
{
    for (int i = 0; i < count; i++) {
        clients[i].round = round;
        if (pthread_create(&threads[i], NULL, client_main, &clients[i]) != 0) {
            perror("bench: thread");
            exit(EXIT_FAILURE);
        }
    }
}

/* The clients wait twice: between the two, the clock starts. */
static void play(struct client *clients, int count, struct round *round)
{
    pthread_t *threads = calloc((size_t)count, sizeof *threads);
    uint64_t cpu;
    if (!threads) {
        perror("bench: threads");
        exit(EXIT_FAILURE);
    }
    pthread_barrier_init(&round->ready, NULL, (unsigned)count + 1);
    start_threads(threads, clients, count, round);
    pthread_barrier_wait(&round->ready);
    cpu = cpu_used();
    round->start = now();
    pthread_barrier_wait(&round->ready);
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    print_round(clients, count, now() - round->start, cpu_used() - cpu);
    pthread_barrier_destroy(&round->ready);
    free(threads);
}

static bool parse_round(const char *line, struct round *round)
{
    double seconds;
    long count;
    if (sscanf(line, "count %ld %31s", &count, round->prefix) == 2) {
        atomic_init(&round->left, count);
        round->limit = UINT64_MAX;
        return true;
    }
    if (sscanf(line, "seconds %lf %31s", &seconds, round->prefix) == 2) {
        atomic_init(&round->left, INT32_MAX);
        round->limit = (uint64_t)(seconds * 1e6);
        return true;
    }
    fprintf(stderr, "bench: not understood: %s", line);
    return false;
}

static int play_rounds(struct client *clients, int count)
{
    char line[128];
    while (fgets(line, sizeof line, stdin)) {
        struct round round;
        if (!parse_round(line, &round)) {
            return EXIT_FAILURE;
        }
        play(clients, count, &round);
    }
    return EXIT_SUCCESS;
}

static void close_clients(struct client *clients, int count)
{
    for (int i = 0; i < count; i++) {
        clients[i].backend->close(clients[i].handle);
        free(clients[i].samples);
    }
    free(clients);
}

int rounds_run(const struct rounds_backend *backend, const void *settings, int clients_count)
{
    struct client *clients = calloc((size_t)clients_count, sizeof *clients);
    int opened = 0, status = EXIT_FAILURE;
    if (!clients) {
        perror("bench: clients");
        return EXIT_FAILURE;
    }
    for (; opened < clients_count; opened++) {
        struct client *client = &clients[opened];
        client->backend = backend;
        client->number = opened;
        client->handle = backend->open(settings);
        if (!client->handle) {
            break;
        }
    }
    if (opened == clients_count) {
        status = play_rounds(clients, clients_count);
    }
    close_clients(clients, opened);
    return status;
}
