/* string.find, match, gmatch and gsub as in Lua 5.4, but for one thing: they count their steps, so
 * that a pattern which backtracks for ever ends at the deadline. */
#include "vm.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "vm_match.h"
#include "vm_parts.h"

/* Bytes in which a plain text is looked for at once. */
enum { SHORT_SUBJECT = 64 * 1024 };

/* ---- results ---- */

/* Pushes capture `i` of the match from `s` to `end`; without any, 0 is the whole match. */
static void push_capture(struct matcher *m, int i, const char *s, const char *end)
{
    if (i >= m->count) {
        if (i != 0) {
            luaL_error(m->L, "invalid capture index %%%d", i + 1);
        }
        lua_pushlstring(m->L, s, (size_t)(end - s));
        return;
    }
    const struct capture *capture = &m->captures[i];
    if (capture->length == CAPTURE_OPEN) {
        luaL_error(m->L, "unfinished capture");
    } else if (capture->length == CAPTURE_POSITION) {
        lua_pushinteger(m->L, capture->start - m->subject + 1);
    } else {
        lua_pushlstring(m->L, capture->start, (size_t)capture->length);
    }
}

/* Pushes all captures, or the whole match if there are none and `s` is given. */
static int push_captures(struct matcher *m, const char *s, const char *end)
{
    int count = m->count == 0 && s ? 1 : m->count;
    luaL_checkstack(m->L, count, "too many captures");
    for (int i = 0; i < count; i++) {
        push_capture(m, i, s, end);
    }
    return count;
}

/* The optional argument that says where to begin: an offset, beyond the end if it is too far. */
static size_t begin_of(lua_State *L, int index, size_t length)
{
    lua_Integer position = luaL_optinteger(L, index, 1);
    if (position > 0) {
        return (size_t)position - 1;
    }
    if (position == 0 || position < -(lua_Integer)length) {
        return 0;
    }
    return length + (size_t)position;
}

/* Whether the pattern has nothing but characters that stand for themselves. */
static bool is_plain(const struct matcher *m)
{
    for (const char *p = m->pattern - m->anchored; p < m->pattern_end; p++) {
        switch (*p) {
        case '^':
        case '$':
        case '*':
        case '+':
        case '?':
        case '.':
        case '(':
        case '[':
        case '%':
        case '-':
            return false;
        }
    }
    return true;
}

/* The first place of `wanted` in the subject from `s` on. What is long is gone over in runs. */
static const char *find_bytes(struct matcher *m, const char *s, const char *wanted, size_t length)
{
    size_t left = (size_t)(m->subject_end - s);
    if (left <= SHORT_SUBJECT || length == 0) {
        return memmem(s, left, wanted, length);
    }
    for (; left >= length; left = (size_t)(m->subject_end - s)) {
        size_t places = left - length + 1, run = places < SHORT_SUBJECT ? places : SHORT_SUBJECT;
        const char *found = memchr(s, *wanted, run);
        vm_work(m->L, m->vm, 1 + (found ? (size_t)(found - s) + length : run) / 16);
        if (found && memcmp(found, wanted, length) == 0) {
            return found;
        }
        s = found ? found + 1 : s + run;
    }
    return NULL;
}

static int find_plain(struct matcher *m, const char *from)
{
    const char *wanted = m->pattern - m->anchored;
    size_t length = (size_t)(m->pattern_end - wanted);
    const char *found = find_bytes(m, from, wanted, length);
    if (!found) {
        luaL_pushfail(m->L);
        return 1;
    }
    lua_pushinteger(m->L, found - m->subject + 1);
    lua_pushinteger(m->L, found - m->subject + (lua_Integer)length);
    return 2;
}

static int find_or_match(lua_State *L, bool find)
{
    struct matcher m;
    const char *end;
    matcher_init(&m, L, 1, 2, true);
    size_t begin = begin_of(L, 3, (size_t)(m.subject_end - m.subject));
    if (begin > (size_t)(m.subject_end - m.subject)) {
        luaL_pushfail(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || is_plain(&m))) {
        return find_plain(&m, m.subject + begin);
    }
    const char *start = matcher_search(&m, m.subject + begin, &end);
    if (!start) {
        luaL_pushfail(L);
        return 1;
    }
    if (!find) {
        return push_captures(&m, start, end);
    }
    lua_pushinteger(L, start - m.subject + 1);
    lua_pushinteger(L, end - m.subject);
    return 2 + push_captures(&m, NULL, NULL);
}

static int find(lua_State *L)
{
    return find_or_match(L, true);
}

static int match_once(lua_State *L)
{
    return find_or_match(L, false);
}

/* ---- gmatch ---- */

/* Where the iteration is. An empty match at the end of the last one does not count. */
struct iteration {
    size_t next;
    size_t last_end; /* SIZE_MAX before the first match */
};

/* The iterator: its upvalues are the subject, the pattern, and the iteration. */
static int match_next(lua_State *L)
{
    struct matcher m;
    struct iteration *at = lua_touserdata(L, lua_upvalueindex(3));
    matcher_init(&m, L, lua_upvalueindex(1), lua_upvalueindex(2), false);
    size_t length = (size_t)(m.subject_end - m.subject);
    for (; at->next <= length; at->next++) {
        const char *s = m.subject + at->next;
        const char *end = matcher_try(&m, s);
        if (end && (size_t)(end - m.subject) != at->last_end) {
            at->next = at->last_end = (size_t)(end - m.subject);
            return push_captures(&m, s, end);
        }
    }
    return 0;
}

static int match_all(lua_State *L)
{
    size_t length;
    luaL_checklstring(L, 1, &length);
    luaL_checkstring(L, 2);
    size_t begin = begin_of(L, 3, length);
    lua_settop(L, 2);
    struct iteration *at = lua_newuserdatauv(L, sizeof *at, 0);
    at->next = begin;
    at->last_end = SIZE_MAX;
    lua_pushcclosure(L, match_next, 3);
    return 1;
}

/* ---- gsub ---- */

static void add_bytes(struct matcher *m, luaL_Buffer *out, const char *bytes, size_t length)
{
    vm_work(m->L, m->vm, 1 + length / 16);
    luaL_addlstring(out, bytes, length);
}

static void add_capture(struct matcher *m, luaL_Buffer *out, char digit, const char *s,
                        const char *end)
{
    if (digit == '0') {
        add_bytes(m, out, s, (size_t)(end - s));
    } else {
        push_capture(m, digit - '1', s, end);
        vm_work(m->L, m->vm, 1 + lua_rawlen(m->L, -1) / 16);
        luaL_addvalue(out);
    }
}

/* The replacement text at index 3, with its captures. */
static void add_text(struct matcher *m, luaL_Buffer *out, const char *s, const char *end)
{
    size_t length;
    const char *text = lua_tolstring(m->L, 3, &length);
    const char *text_end = text + length, *percent;
    while ((percent = memchr(text, '%', (size_t)(text_end - text)))) {
        add_bytes(m, out, text, (size_t)(percent - text));
        if (percent[1] == '%') {
            luaL_addchar(out, '%');
        } else if (isdigit((unsigned char)percent[1])) {
            add_capture(m, out, percent[1], s, end);
        } else {
            luaL_error(m->L, "invalid use of '%c' in replacement string", '%');
        }
        text = percent + 2;
    }
    add_bytes(m, out, text, (size_t)(text_end - text));
}

/* The value for the match that a table has or a function returns; false to leave the match as it
 * is.
 */
static bool add_value(struct matcher *m, luaL_Buffer *out, const char *s, const char *end)
{
    lua_State *L = m->L;
    if (lua_isfunction(L, 3)) {
        lua_pushvalue(L, 3);
        lua_call(L, push_captures(m, s, end), 1);
    } else {
        push_capture(m, 0, s, end);
        lua_gettable(L, 3);
    }
    if (!lua_toboolean(L, -1)) {
        lua_pop(L, 1);
        return false;
    }
    if (!lua_isstring(L, -1)) {
        luaL_error(L, "invalid replacement value (a %s)", luaL_typename(L, -1));
    }
    vm_work(L, m->vm, 1 + lua_rawlen(L, -1) / 16);
    luaL_addvalue(out);
    return true;
}

static bool add_replacement(struct matcher *m, luaL_Buffer *out, const char *s, const char *end)
{
    if (lua_isstring(m->L, 3)) {
        add_text(m, out, s, end);
        return true;
    }
    return add_value(m, out, s, end);
}

/* Puts the subject with up to `most` matches replaced on the stack; returns their number. */
static lua_Integer substitute(struct matcher *m, lua_Integer most)
{
    luaL_Buffer out;
    lua_Integer count = 0;
    const char *s = m->subject, *kept = s, *last_end = NULL; /* from `kept` on nothing is copied */
    luaL_buffinit(m->L, &out);
    while (count < most) {
        const char *end = matcher_try(m, s);
        if (end && end != last_end) {
            count++;
            add_bytes(m, &out, kept, (size_t)(s - kept));
            kept = add_replacement(m, &out, s, end) ? end : s;
            s = last_end = end;
        } else if (s++ == m->subject_end) {
            break;
        }
        if (m->anchored) {
            break;
        }
    }
    add_bytes(m, &out, kept, (size_t)(m->subject_end - kept));
    luaL_pushresult(&out);
    return count;
}

static int replace(lua_State *L)
{
    struct matcher m;
    matcher_init(&m, L, 1, 2, true);
    int type = lua_type(L, 3);
    luaL_argexpected(L,
                     type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
                         type == LUA_TTABLE,
                     3, "string/function/table");
    lua_Integer most = luaL_optinteger(L, 4, m.subject_end - m.subject + 1);
    lua_pushinteger(L, substitute(&m, most));
    return 2;
}

static const luaL_Reg functions[] = {
    {"find", find}, {"match", match_once}, {"gmatch", match_all}, {"gsub", replace}, {NULL, NULL},
};

void vm_open_patterns(lua_State *L)
{
    luaL_setfuncs(L, functions, 0);
}
