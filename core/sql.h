/* What can be told of a statement from its text alone. Whoever asks must be safe with an answer
 * that is too cautious. */
#ifndef MOONPOOL_SQL_H
#define MOONPOOL_SQL_H

#include <stdbool.h>

/* What a statement may leave behind in its session when its transaction has ended. */
enum sql_traces {
    SQL_NO_TRACES,
    SQL_TRACES,         /* settings, a role, LISTEN, advisory locks, temporary tables, cursors,
                           prepared statements: DISCARD ALL takes them away */
    SQL_LASTING_TRACES, /* what only ends with the session */
};

/* Behind the -- comment that begins at `at`: at the end of its line, which a lone CR is too, or at
 * `end`. */
const char *sql_skip_line_comment(const char *at, const char *end);

/* Behind the comment that begins at `at` with its opening; they nest. NULL if it is not closed. */
const char *sql_skip_block_comment(const char *at, const char *end);

/* The text from its first word on: behind white space and comments. */
const char *sql_first_word(const char *sql);

/* What a statement does to the transaction block that it is run in, or that there is none. COMMIT
 * PREPARED and its like end another one. */
enum sql_block { SQL_KEEPS_BLOCK, SQL_BEGINS_BLOCK, SQL_ENDS_BLOCK };

enum sql_block sql_block(const char *sql);

/* False if, run outside of a transaction block, it surely neither commits nor rolls back by itself.
 * What CALL and DO run may, and some DDL does. */
bool sql_may_commit(const char *sql);

/* Finds all that plain SQL can leave; not what a function does inside. */
enum sql_traces sql_traces(const char *sql);

#endif
