/* The states of a COPY.
 *
 *   NONE     -> STARTING  [copy_start]
 *   STARTING -> FEEDING   [take_result]  the server is ready for rows
 *   STARTING -> ENDING    [take_result]  it is not
 *   FEEDING  -> ENDING    [copy_end]
 *   ENDING   -> NONE      [finish]
 *
 * While it is fed, libpq shows notices but keeps an error to itself until the end was sent. So what
 * the server says then, and is no notice, is taken for an error; since it might be the first half
 * of a notice, some more rows are sent before they are given up. */
#include "pg_copy.h"

#include <stdlib.h>
#include <string.h>

#include <libpq-fe.h>

#include "pg_result.h"

enum { FED_IN_VAIN = 16 };

int copy_start(struct pg_copy *copy, struct pg_conn *conn, struct copy_run *run, const char *sql)
{
    *copy = (struct pg_copy){.state = COPY_STARTING, .conn = conn, .run = run};
    run->over = false;
    run->lost = false;
    run->count = 0;
    memset(&run->error, 0, sizeof run->error);
    return PQexitPipelineMode(conn) && PQsendQuery(conn, sql) ? 0 : -1;
}

int copy_feed(struct pg_copy *copy, const char *rows, size_t length)
{
    copy->fed_in_vain += copy->answered;
    return PQputCopyData(copy->conn, rows, (int)length) == 1 ? 0 : -1;
}

bool copy_is_refused(const struct pg_copy *copy)
{
    return copy->answered && copy->fed_in_vain >= FED_IN_VAIN;
}

int copy_end(struct pg_copy *copy, const char *refusal)
{
    copy->state = COPY_ENDING;
    return PQputCopyEnd(copy->conn, refusal) == 1 ? 0 : -1;
}

int copy_abandon(struct pg_copy *copy)
{
    copy->run = NULL;
    return copy->state == COPY_FEEDING ? copy_end(copy, "the client has given up") : 0;
}

/* The context of an error has a line such as `COPY users, line 3, column id: "x"`, in the server's
 * language: the first number behind the name is the row's. */
static size_t find_row(const char *context, const char *table)
{
    size_t row = 0;
    for (const char *line = context; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        size_t length = strlen(table);
        if (strncmp(line, "COPY ", 5) == 0 && strncmp(line + 5, table, length) == 0) {
            const char *behind = line + 5 + length;
            row = strtoull(behind + strcspn(behind, "0123456789\n"), NULL, 10);
        }
    }
    return row;
}

static void take_error(struct pg_copy *copy, const PGresult *result)
{
    struct error err;
    pg_result_error(result, &err, NULL);
    copy->retire |= error_ends_session(&err);
    copy->refused_write |= strcmp(err.sqlstate, "25006") == 0;
    if (copy->run && copy->run->error.code == ERROR_NONE) {
        const char *context = PQresultErrorField(result, PG_DIAG_CONTEXT);
        err.row = context ? find_row(context, copy->run->table) : 0;
        copy->run->error = err;
    }
}

static int take_result(struct pg_copy *copy, PGresult *result)
{
    int code = 0;
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_COPY_IN) {
        copy->state = COPY_FEEDING;
        code = copy->run ? 0 : copy_abandon(copy);
    } else if (status == PGRES_COMMAND_OK) {
        copy->state = COPY_ENDING;
        if (copy->run) {
            copy->run->count = pg_result_count(result);
        }
    } else {
        copy->state = COPY_ENDING;
        take_error(copy, result);
    }
    PQclear(result);
    return code;
}

static int finish(struct pg_copy *copy)
{
    if (PQstatus(copy->conn) != CONNECTION_OK || !PQenterPipelineMode(copy->conn)) {
        return -1;
    }
    copy->state = COPY_NONE;
    if (copy->run) {
        copy->run->over = true;
    }
    return 0;
}

/* Called when something has come while it is fed; behind encryption it need not be a message. */
static void note_answer(struct pg_copy *copy)
{
    bool hidden = PQsslInUse(copy->conn) || PQgssEncInUse(copy->conn);
    copy->answered = !hidden && copy->notices == copy->notices_before;
    copy->notices_before = copy->notices;
    if (!copy->answered) {
        copy->fed_in_vain = 0;
    }
}

int copy_read(struct pg_copy *copy)
{
    if (copy->state == COPY_FEEDING) {
        note_answer(copy);
        return 0;
    }
    int code = 0;
    while (code == 0 && copy->state != COPY_NONE && copy->state != COPY_FEEDING &&
           !PQisBusy(copy->conn)) {
        PGresult *result = PQgetResult(copy->conn);
        code = result ? take_result(copy, result) : finish(copy);
    }
    return code == 0 && PQstatus(copy->conn) == CONNECTION_OK ? 0 : -1;
}
