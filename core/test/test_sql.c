/* What the text of a statement tells. */
#include "sql.h"

#include <stddef.h>

#include "test.h"

static const struct {
    const char *sql;
    const char *rest;
} first_words[] = {
    {"select 1", "select 1"},
    {" \n\tselect 1", "select 1"},
    {"-- a\n-- b\nselect", "select"},
    {"-- a\rselect", "select"},
    {"/* a */ /* b */select", "select"},
    {"/* a /* b */ select */ set", "set"},
    {"/* open", ""},
    {"--", ""},
    {"", ""},
};

static const struct {
    const char *sql;
    enum sql_traces traces;
} rows[] = {
    {"select 1", SQL_NO_TRACES},
    {"SELECT 1", SQL_NO_TRACES},
    {"(select 1) union (select 2)", SQL_NO_TRACES},
    {"with x as (insert into t (a) values (1)) select 1", SQL_NO_TRACES},
    {"insert into rooms (temp) select 1", SQL_NO_TRACES},
    {"with x as (insert into templates values (1)) select temperature from x", SQL_NO_TRACES},
    {"begin isolation level serializable", SQL_NO_TRACES},
    {"rollback to savepoint s", SQL_NO_TRACES},
    {"lock table users in share row exclusive mode", SQL_NO_TRACES},
    {"set local statement_timeout = 1", SQL_NO_TRACES},
    {"set /* a */ LOCAL role nobody", SQL_NO_TRACES},
    {"set transaction read only", SQL_NO_TRACES},
    {"set constraints all deferred", SQL_NO_TRACES},
    {"select pg_advisory_xact_lock(1)", SQL_NO_TRACES},
    {"select pg_try_advisory_xact_lock(1)", SQL_NO_TRACES},
    {"-- only a comment", SQL_NO_TRACES},
    {"; select 1", SQL_NO_TRACES},
    {"; set local role nobody", SQL_NO_TRACES},
    {"insert into trucks (load) values (1)", SQL_NO_TRACES},
    {"", SQL_NO_TRACES},

    {"set search_path = other", SQL_TRACES},
    {"SET\nrole nobody", SQL_TRACES},
    {"/* /* */ select */ set role nobody", SQL_TRACES},
    {"set session characteristics as transaction read only", SQL_TRACES},
    {"set\"role\" to nobody", SQL_TRACES},
    {"setlocal", SQL_TRACES},
    {"reset all", SQL_TRACES},
    {"listen news", SQL_TRACES},
    {"prepare p as select 1", SQL_TRACES},
    {"deallocate m1", SQL_TRACES},
    {"declare c cursor with hold for select 1", SQL_TRACES},
    {"create temp table t (a int)", SQL_TRACES},
    {"do $$ begin perform set_config('a.b', 'c', false); end $$", SQL_TRACES},
    {"call change_settings()", SQL_TRACES},
    {"select 1 into temp t", SQL_TRACES},
    {"select 1 into /* a */ temporary t", SQL_TRACES},
    {"; select 1 into temp t", SQL_TRACES},
    {"; set role nobody", SQL_TRACES},
    {"do $$ begin update trucks set loaded = true; end $$", SQL_TRACES},
    {"select 1 into pg_temp.t", SQL_TRACES},
    {"with x as (select 1) select * into temp t from x", SQL_TRACES},
    {"select SET_CONFIG('role', 'nobody', false)", SQL_TRACES},
    {"select pg_catalog . \"set_config\"('role', 'nobody', false)", SQL_TRACES},
    {"select U&\"set\\005fconfig\"('role', 'nobody', false)", SQL_TRACES},
    {"update pg_settings set setting = 'nobody' where name = 'role'", SQL_TRACES},
    {"select pg_advisory_lock_shared(1)", SQL_TRACES},
    {"select pg_try_advisory_lock(1)", SQL_TRACES},
    {"select setseed(0.5)", SQL_TRACES},

    {"load 'auto_explain'", SQL_LASTING_TRACES},
    {"; /* a */ ;-- b\nLOAD 'auto_explain'", SQL_LASTING_TRACES},
    {"do $$ begin load 'auto_explain'; end $$", SQL_LASTING_TRACES},
    {"; do $$ begin Load 'auto_explain'; end $$", SQL_LASTING_TRACES},
    {"select dblink_connect('a', 'b')", SQL_LASTING_TRACES},
    {"select pg_create_physical_replication_slot('a', true, true)", SQL_LASTING_TRACES},
    {"select pg_replication_origin_session_setup('a')", SQL_LASTING_TRACES},
};

static const struct {
    const char *sql;
    enum sql_block block;
    bool may_commit;
} blocks[] = {
    {"select 1", SQL_KEEPS_BLOCK, false},
    {"/* a */ (\nSELECT 1) union (select 2)", SQL_KEEPS_BLOCK, false},
    {"; ; (select 1)", SQL_KEEPS_BLOCK, false},
    {"with x as (insert into t values (1)) select 1", SQL_KEEPS_BLOCK, false},
    {"set local statement_timeout = 1", SQL_KEEPS_BLOCK, false},
    {"savepoint s", SQL_KEEPS_BLOCK, false},
    {"release s", SQL_KEEPS_BLOCK, false},

    {"call p()", SQL_KEEPS_BLOCK, true},
    {"DO $$ begin commit; end $$", SQL_KEEPS_BLOCK, true},
    {"create index concurrently on t (a)", SQL_KEEPS_BLOCK, true},
    {"vacuum", SQL_KEEPS_BLOCK, true},

    {"commit work", SQL_ENDS_BLOCK, true},
    {"-- a\nCOMMIT", SQL_ENDS_BLOCK, true},
    {"Commit and chain", SQL_ENDS_BLOCK, true},
    {"end", SQL_ENDS_BLOCK, true},
    {"ending", SQL_KEEPS_BLOCK, true},
    {"rollback", SQL_ENDS_BLOCK, true},
    {"abort", SQL_ENDS_BLOCK, true},
    {"prepare transaction 'a'", SQL_ENDS_BLOCK, true},
    {"; /* a */; commit", SQL_ENDS_BLOCK, true},
    {"", SQL_KEEPS_BLOCK, true},
    {"; ", SQL_KEEPS_BLOCK, true},

    {"rollback to s", SQL_KEEPS_BLOCK, true},
    {"rollback -- all\nto savepoint s", SQL_KEEPS_BLOCK, true},
    {"ROLLBACK WORK TO SAVEPOINT s", SQL_KEEPS_BLOCK, true},
    {"rollback transaction to s", SQL_KEEPS_BLOCK, true},
    {"rollback work", SQL_ENDS_BLOCK, true},
    {"rollback transaction and no chain", SQL_ENDS_BLOCK, true},
    {"rollback work/* to s */", SQL_ENDS_BLOCK, true},
    {"prepare p as select 1", SQL_KEEPS_BLOCK, true},
    {"prepare work as select 1", SQL_KEEPS_BLOCK, true},
    {"prepare work (int) as select $1", SQL_KEEPS_BLOCK, true},
    {"prepare transaction AS select 1", SQL_KEEPS_BLOCK, true},
    {"prepare transaction(int) as select $1", SQL_KEEPS_BLOCK, true},
    {"Prepare /* a */ Transaction $$as$$", SQL_ENDS_BLOCK, true},
    {"prepare transaction E'a'", SQL_ENDS_BLOCK, true},
    {"commit prepared 'a'", SQL_KEEPS_BLOCK, true},
    {"rollback prepared 'a'", SQL_KEEPS_BLOCK, true},

    {"begin", SQL_BEGINS_BLOCK, true},
    {"/* a */; Begin isolation level serializable", SQL_BEGINS_BLOCK, true},
    {"start transaction read only", SQL_BEGINS_BLOCK, true},
    {"start /* a */", SQL_KEEPS_BLOCK, true},
    {"beginning", SQL_KEEPS_BLOCK, true},
};

int main(void)
{
    for (size_t i = 0; i < sizeof first_words / sizeof *first_words; i++) {
        check_text(sql_first_word(first_words[i].sql), first_words[i].rest, "first word of: %.20s",
                   strpbrk(first_words[i].sql, "\r\n") ? "several lines" : first_words[i].sql);
    }
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        check_int(sql_traces(rows[i].sql), rows[i].traces, "case %zu", i);
    }
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        check_int(sql_block(blocks[i].sql), blocks[i].block, "its block: case %zu", i);
        check_int(sql_may_commit(blocks[i].sql), blocks[i].may_commit, "may commit: case %zu", i);
    }
    return test_end();
}
