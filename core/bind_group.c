/* Inputs and outputs travel as JSON, since a member and the code that leads its group may be in
 * different processes. */
#include "bind_group.h"

#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "bind_error.h"
#include "bind_json.h"
#include "bind_place.h"
#include "bind_queue.h"
#include "buffer.h"
#include "error.h"
#include "generation.h"
#include "group.h"
#include "handling.h"
#include "request.h"
#include "vm.h"

/* An error at the script's line, which stands two calls up: behind it is Db:group(). */
static int refuse_group(lua_State *L, const char *format, const char *name)
{
    luaL_where(L, 2);
    lua_pushfstring(L, format, name);
    lua_concat(L, 2);
    return lua_error(L);
}

/* register(name, lead) */
static int add_group(lua_State *L)
{
    struct generation *generation = generation_of(L);
    const char *name = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    if (!*name || strlen(name) >= DESK_NAME) {
        return refuse_group(L, "the name of a group has 1 to 63 bytes: '%s'", name);
    }
    if (!generation->vm->source) {
        return refuse_group(L, "groups are made while the scripts are loaded, not later: '%s'",
                            name);
    }
    lua_settop(L, 2);
    if (generation_add_group(generation, name, luaL_ref(L, LUA_REGISTRYINDEX)) != 0) {
        return refuse_group(L, "there is a group named %s already", name);
    }
    return 0;
}

/* Members. */

/* JSON from a column is taken as it is. One that whoever leads cannot read, such as a number beyond
 * what there is, would fail the whole group. */
static void check_input(lua_State *L, const struct buffer *input)
{
    struct error err;
    if (input->length <= DESK_BYTES) {
        if (bind_json_decode(L, input->data, input->length, &err) != 0) {
            bind_place_error(L, "a group's input has to be JSON that can be read again: %s",
                             err.message);
        }
        lua_pop(L, 1);
    }
}

/* Moves a field of the table on top to the one below, unless it is empty. */
static void move_table(lua_State *L, const char *name)
{
    lua_getfield(L, -1, name);
    lua_pushnil(L);
    if (lua_next(L, -2)) {
        lua_pop(L, 2);
        lua_setfield(L, -3, name);
    } else {
        lua_pop(L, 1);
    }
}

/* `more` is what pack_error() has made. */
static void push_group_error(lua_State *L, const struct error *err, const char *more, size_t length)
{
    struct error ignored;
    bind_error_push(L, err);
    if (length > 0 && bind_json_decode_ordered(L, more, length, &ignored) == 0) {
        move_table(L, "extra");
        move_table(L, "headers");
        lua_pop(L, 1);
    }
}

static int go_on_join(lua_State *L, int status, lua_KContext context)
{
    struct group_member *member = (struct group_member *)context;
    struct handling *handling = member->handling;
    struct error err = *group_error(member);
    size_t length;
    const char *output = group_output(member, &length);
    /* Done by the group: a failure of ours from here on is not one of its work. */
    handling->committed |= err.code == ERROR_NONE || err.code == ERROR_OUTCOME_UNKNOWN;
    if (err.code != ERROR_NONE) {
        push_group_error(L, &err, output, length);
    } else if (bind_json_decode_ordered(L, output, length, &err) != 0) {
        bind_error_push(L, &err);
    }
    handling_stop_waiting(handling);
    return err.code == ERROR_NONE ? 1 : lua_error(L);
}

/* join(name, input) */
static int join(lua_State *L)
{
    struct handling *handling = handling_of(L);
    const char *name = luaL_checkstring(L, 1);
    luaL_checkany(L, 2);
    if (!list_is_empty(&handling->transactions)) {
        bind_place_error(L, "a transaction is open: a group cannot be joined before it has ended");
    }
    vm_check_wait(L);
    bind_queue_encode_json(L, 2, handling);
    check_input(L, &handling->scratch);
    struct group_member *member = arena_alloc(&handling->request->arena, sizeof *member);
    struct error err;
    if (group_join(handling->runner->groups, member, handling, name, handling->scratch.data,
                   handling->scratch.length, &err) != 0) {
        return bind_error_raise(L, &err);
    }
    return handling_wait_else(L, handling, go_on_join, (lua_KContext)member);
}

/* The leading code. */

static struct group_lead *check_lead(lua_State *L)
{
    struct handling *handling = handling_of(L);
    struct group_lead *lead = group_lead_of(handling->runner->groups, handling);
    if (!lead) {
        luaL_error(L, "this is for the code that leads a group");
    }
    return lead;
}

static void push_input(lua_State *L, struct group_lead *lead, int index)
{
    size_t length;
    struct error err;
    const char *input = group_input(lead, index, &length);
    if (bind_json_decode(L, input, length, &err) != 0) {
        bind_error_raise(L, &err);
    }
}

static int go_on_gather(lua_State *L, int status, lua_KContext context);

/* gather(most): returns when there is no more company to wait for. */
static int gather(lua_State *L)
{
    uint64_t left = group_linger(check_lead(L), (int)luaL_checkinteger(L, 1));
    return left == 0 ? 0 : handling_sleep(L, handling_of(L), left, go_on_gather);
}

static int go_on_gather(lua_State *L, int status, lua_KContext context)
{
    return gather(L);
}

/* take(most) -> inputs */
static int take(lua_State *L)
{
    struct group_lead *lead = check_lead(L);
    int count = group_take(lead, (int)luaL_checkinteger(L, 1));
    lua_createtable(L, count, 0);
    for (int i = 0; i < count; i++) {
        push_input(L, lead, i);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int check_index(lua_State *L, int argument)
{
    lua_Integer index = luaL_checkinteger(L, argument);
    luaL_argcheck(L, index >= 1 && index <= DESK_TAKE, argument, "index of a member expected");
    return (int)index - 1;
}

/* seal([index]) -> false if a member was answered meanwhile */
static int seal(lua_State *L)
{
    struct group_lead *lead = check_lead(L);
    lua_pushboolean(L, group_seal(lead, lua_isnoneornil(L, 1) ? -1 : check_index(L, 1)));
    return 1;
}

/* encode(output) -> text. Before COMMIT, so that what cannot be an output is not committed. */
static int encode_output(lua_State *L)
{
    struct handling *handling = handling_of(L);
    luaL_checkany(L, 1);
    bind_queue_encode_json(L, 1, handling);
    if (handling->scratch.length > DESK_BYTES) {
        return luaL_error(L, "the output of a group is longer than %d bytes", DESK_BYTES);
    }
    lua_pushlstring(L, handling->scratch.data, handling->scratch.length);
    return 1;
}

/* answer(index, text). What was committed is told by this. */
static int answer(lua_State *L)
{
    struct group_lead *lead = check_lead(L);
    int index = check_index(L, 1);
    size_t length;
    const char *text = luaL_checklstring(L, 2, &length);
    handling_of(L)->committed = false;
    group_answer(lead, index, text, length, NULL);
    return 0;
}

/* Whether the error at index 1 says already that nobody knows. */
static bool is_outcome_unknown(lua_State *L)
{
    bool unknown = false;
    if (lua_istable(L, 1)) {
        lua_pushliteral(L, "code");
        unknown = lua_rawget(L, 1) == LUA_TSTRING &&
                  strcmp(lua_tostring(L, -1), error_kind(ERROR_OUTCOME_UNKNOWN)->slug) == 0;
        lua_pop(L, 1);
    }
    return unknown;
}

/* failure(error) -> error. What to tell of a run that failed: if it committed before that, it must
 * not be taken for one that did nothing. */
static int failure(lua_State *L)
{
    struct handling *handling = handling_of(L);
    struct error err;
    lua_settop(L, 1);
    bool committed = handling->committed;
    handling->committed = false;
    if (committed && !is_outcome_unknown(L)) {
        error_set(&err, ERROR_OUTCOME_UNKNOWN,
                  "the transaction was committed, but then the script failed: %s",
                  luaL_tolstring(L, 1, NULL));
        bind_error_push(L, &err);
    }
    return 1;
}

/* Makes the members behind `start` an object: the comma in front of the first becomes a space. */
static void close_object(struct buffer *out, size_t start)
{
    if (out->length > start) {
        out->data[start] = ' ';
    }
    buffer_append_char(out, '}');
}

/* The error at `index`: what struct error has no room for goes into `more` as JSON. */
static void pack_error(lua_State *L, int index, struct error *err, struct buffer *more)
{
    more->length = 0;
    buffer_append_text(more, "{\"extra\":{");
    size_t start = more->length;
    if (!bind_error_read(L, index, err, more)) {
        more->length = 0;
        vm_error(L, err, NULL, 0);
        return;
    }
    close_object(more, start);
    buffer_append_text(more, ",\"headers\":{");
    start = more->length;
    bind_error_write_headers(L, index, more);
    close_object(more, start);
    buffer_append_char(more, '}');
}

/* refuse(index, error) */
static int refuse(lua_State *L)
{
    struct group_lead *lead = check_lead(L);
    struct buffer *more = &handling_of(L)->scratch;
    int index = check_index(L, 1);
    struct error err;
    lua_settop(L, 2);
    pack_error(L, 2, &err, more);
    group_answer(lead, index, more->data, more->length, &err);
    return 0;
}

static const luaL_Reg functions[] = {
    {"register", add_group},   {"join", join}, {"gather", gather}, {"take", take},
    {"encode", encode_output}, {"seal", seal}, {"answer", answer}, {"failure", failure},
    {"refuse", refuse},        {NULL, NULL},
};

int bind_group_open(lua_State *L)
{
    luaL_newlib(L, functions);
    return 1;
}
