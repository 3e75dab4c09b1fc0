/* The limit of W1: the create-user transaction on plain libpq pipelining, with no HTTP, no Lua and
 * no pool. It makes the fewest trips there can be: one to lock, insert and read the scores, one for
 * all that depends on them. usage: create_user row|unnest CONNINFO CLIENTS, then rounds on standard
 * input as rounds.h says. */
#include <arpa/inet.h>
#include <libpq-fe.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../load/rounds.h"

enum { CREATED = 201, NUMBER_SIZE = 32 };

static const struct {
    const char *name, *sql;
} STATEMENTS[] = {
    {"begin", "begin"},
    {"lock", "lock table users in share row exclusive mode"},
    {"user", "insert into users (username, score) values ($1, 100) returning id, created"},
    {"scores", "select id, score from users order by id"},
    {"profile", "insert into user_profile (user_id, firstname, lastname) "
                "values ($1, 'Bench', 'Mark')"},
    {"update", "update users set score = $2, updated = current_timestamp where id = $1"},
    {"updates", "update users u set score = v.score, updated = current_timestamp "
                "from unnest($1::int[], $2::numeric[]) v(id, score) where u.id = v.id"},
    {"action", "insert into actions (description) values ($1)"},
    {"commit", "commit"},
};

struct limit_settings {
    const char *conninfo; /* borrowed from the command line */
    bool unnest;
};

struct limit_client {
    PGconn *conn; /* owned */
    bool unnest;
    char *ids, *scores; /* owned; arrays as text, for unnest */
    size_t capacity;    /* of each of them */
};

static bool complain(PGconn *conn, const char *what)
{
    fprintf(stderr, "create_user: %s: %s", what, PQerrorMessage(conn));
    return false;
}

static bool prepare_all(PGconn *conn)
{
    for (size_t i = 0; i < sizeof STATEMENTS / sizeof *STATEMENTS; i++) {
        PGresult *result = PQprepare(conn, STATEMENTS[i].name, STATEMENTS[i].sql, 0, NULL);
        bool good = PQresultStatus(result) == PGRES_COMMAND_OK;
        PQclear(result);
        if (!good) {
            return complain(conn, STATEMENTS[i].name);
        }
    }
    return true;
}

static void limit_close(void *data)
{
    struct limit_client *client = data;
    PQfinish(client->conn);
    free(client->ids);
    free(client->scores);
    free(client);
}

static void *limit_open(const void *data)
{
    const struct limit_settings *settings = data;
    struct limit_client *client = calloc(1, sizeof *client);
    if (!client) {
        return NULL;
    }
    client->unnest = settings->unnest;
    client->conn = PQconnectdb(settings->conninfo);
    if (PQstatus(client->conn) != CONNECTION_OK || !prepare_all(client->conn) ||
        PQenterPipelineMode(client->conn) != 1) {
        complain(client->conn, "connect");
        limit_close(client);
        return NULL;
    }
    return client;
}

/* Parameters are text, but for an id, which is as short in binary. */
static bool send_texts(PGconn *conn, const char *statement, int count, const char *first,
                       const char *second)
{
    const char *values[2] = {first, second};
    return PQsendQueryPrepared(conn, statement, count, values, NULL, NULL, 0) == 1;
}

static bool send_update(PGconn *conn, int id, const char *score)
{
    uint32_t wire = htonl((uint32_t)id);
    const char *values[2] = {(const char *)&wire, score};
    int lengths[2] = {sizeof wire, 0}, formats[2] = {1, 0};
    return PQsendQueryPrepared(conn, "update", 2, values, lengths, formats, 0) == 1;
}

/* Takes the result of the next statement of the pipeline; NULL if it failed. */
static PGresult *take(PGconn *conn, ExecStatusType expected)
{
    PGresult *result = PQgetResult(conn);
    if (PQresultStatus(result) != expected) {
        complain(conn, "result");
        PQclear(result);
        return NULL;
    }
    if (expected != PGRES_PIPELINE_SYNC) {
        PQclear(PQgetResult(conn)); /* the NULL behind each result */
    }
    return result;
}

static bool skip(PGconn *conn, int count)
{
    for (int i = 0; i < count; i++) {
        PGresult *result = take(conn, PGRES_COMMAND_OK);
        if (!result) {
            return false;
        }
        PQclear(result);
    }
    return true;
}

static bool begin(struct limit_client *client, const char *username)
{
    PGconn *conn = client->conn;
    return send_texts(conn, "begin", 0, NULL, NULL) && send_texts(conn, "lock", 0, NULL, NULL) &&
           send_texts(conn, "user", 1, username, NULL) &&
           send_texts(conn, "scores", 0, NULL, NULL) && PQsendFlushRequest(conn) == 1 &&
           PQflush(conn) == 0 && skip(conn, 2);
}

/* The shortest text that reads back as the same number. */
static void print_score(char text[NUMBER_SIZE], double score)
{
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, NUMBER_SIZE, "%.*g", digits, score);
        if (strtod(text, NULL) == score) {
            return;
        }
    }
}

static void new_score(char text[NUMBER_SIZE], PGresult *users, int row)
{
    double score = strtod(PQgetvalue(users, row, 1), NULL);
    print_score(text, 1 + score + score / PQntuples(users));
}

static bool update_rows(struct limit_client *client, PGresult *users)
{
    char score[NUMBER_SIZE];
    for (int row = 0; row < PQntuples(users); row++) {
        new_score(score, users, row);
        if (!send_update(client->conn, atoi(PQgetvalue(users, row, 0)), score)) {
            return complain(client->conn, "update");
        }
    }
    return true;
}

static bool make_room(struct limit_client *client, int rows)
{
    size_t needed = ((size_t)rows + 1) * NUMBER_SIZE;
    if (needed > client->capacity) {
        free(client->ids);
        free(client->scores);
        client->ids = malloc(needed);
        client->scores = malloc(needed);
        client->capacity = client->ids && client->scores ? needed : 0;
    }
    return client->capacity > 0;
}

static bool update_unnest(struct limit_client *client, PGresult *users)
{
    char *ids, *scores, score[NUMBER_SIZE];
    if (!make_room(client, PQntuples(users))) {
        return false;
    }
    ids = client->ids;
    scores = client->scores;
    for (int row = 0; row < PQntuples(users); row++) {
        new_score(score, users, row);
        ids += sprintf(ids, "%c%s", row == 0 ? '{' : ',', PQgetvalue(users, row, 0));
        scores += sprintf(scores, "%c%s", row == 0 ? '{' : ',', score);
    }
    strcpy(ids, "}");
    strcpy(scores, "}");
    return send_texts(client->conn, "updates", 2, client->ids, client->scores);
}

/* All that follows from the scores, and the results of it. */
static bool finish(struct limit_client *client, const char *id, const char *username,
                   PGresult *users)
{
    PGconn *conn = client->conn;
    int updates = client->unnest ? 1 : PQntuples(users);
    char action[160];
    PGresult *sync;
    snprintf(action, sizeof action, "new user created with id %s and username %s", id, username);
    if (!send_texts(conn, "profile", 1, id, NULL) ||
        !(client->unnest ? update_unnest(client, users) : update_rows(client, users)) ||
        !send_texts(conn, "action", 1, action, NULL) ||
        !send_texts(conn, "commit", 0, NULL, NULL) || PQpipelineSync(conn) != 1 ||
        !skip(conn, updates + 3)) {
        return false;
    }
    sync = take(conn, PGRES_PIPELINE_SYNC);
    PQclear(sync);
    return sync != NULL;
}

/* A failure here is a fault of this program or its database: there is no point in going on. */
static int limit_create(void *data, const char *username)
{
    struct limit_client *client = data;
    PGresult *user = NULL, *users = NULL;
    bool good = begin(client, username) && (user = take(client->conn, PGRES_TUPLES_OK)) &&
                (users = take(client->conn, PGRES_TUPLES_OK)) &&
                finish(client, PQgetvalue(user, 0, 0), username, users);
    PQclear(user);
    PQclear(users);
    if (!good) {
        exit(EXIT_FAILURE);
    }
    return CREATED;
}

static const struct rounds_backend LIMIT = {limit_open, limit_create, limit_close};

int main(int argc, char **argv)
{
    struct limit_settings settings;
    if (argc != 4 || (strcmp(argv[1], "row") != 0 && strcmp(argv[1], "unnest") != 0) ||
        atoi(argv[3]) < 1) {
        fprintf(stderr, "usage: create_user row|unnest CONNINFO CLIENTS\n");
        return 2;
    }
    settings = (struct limit_settings){.conninfo = argv[2], .unnest = argv[1][0] == 'u'};
    return rounds_run(&LIMIT, &settings, atoi(argv[3]));
}
