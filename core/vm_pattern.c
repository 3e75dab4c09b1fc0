/* string.find, match, gmatch and gsub as in Lua 5.4, but for one thing: they count their steps, so
 * that a pattern which backtracks for ever ends at the deadline. An item of a pattern is a single
 * character or class with its repetition, a capture's bracket, %b, %f or a back reference.
 *
 *     match_items: one item after the other; where there is a choice, the rest is tried by match()
 */
#include "vm.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "vm_parts.h"

enum {
    MOST_CAPTURES = 32,
    MOST_DEPTH = 200,          /* of match() inside itself: each takes C stack */
    RUN = 4096,                /* characters taken between two looks at the clock */
    SHORT_SUBJECT = 64 * 1024, /* bytes in which a plain text is looked for at once */
};

/* What the length of a capture says besides. */
enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

struct capture {
    const char *start;
    ptrdiff_t length;
};

struct matcher {
    lua_State *L;
    struct vm *vm;
    const char *subject; /* on the Lua stack, like the pattern */
    const char *subject_end;
    const char *pattern; /* behind the anchor, if there is one */
    const char *pattern_end;
    bool anchored;
    int depth; /* of match(), still to be had */
    int count; /* of captures */
    struct capture captures[MOST_CAPTURES];
};

static const char *match(struct matcher *m, const char *s, const char *p);

/* ---- single characters ---- */

/* The end of the single character or class that begins at `p`. */
static const char *item_end(struct matcher *m, const char *p)
{
    char first = *p++;
    if (first == '%') {
        if (p == m->pattern_end) {
            luaL_error(m->L, "malformed pattern (ends with '%%')");
        }
        return p + 1;
    }
    if (first != '[') {
        return p;
    }
    p += *p == '^';
    do { /* a bracket that comes first stands for itself */
        if (p == m->pattern_end) {
            luaL_error(m->L, "malformed pattern (missing ']')");
        }
        p += *p == '%' && p + 1 < m->pattern_end ? 2 : 1;
    } while (*p != ']');
    return p + 1;
}

static bool is_of_class(int c, int name)
{
    bool is;
    switch (tolower(name)) {
    case 'a':
        is = isalpha(c);
        break;
    case 'c':
        is = iscntrl(c);
        break;
    case 'd':
        is = isdigit(c);
        break;
    case 'g':
        is = isgraph(c);
        break;
    case 'l':
        is = islower(c);
        break;
    case 'p':
        is = ispunct(c);
        break;
    case 's':
        is = isspace(c);
        break;
    case 'u':
        is = isupper(c);
        break;
    case 'w':
        is = isalnum(c);
        break;
    case 'x':
        is = isxdigit(c);
        break;
    case 'z': /* old, but Lua still has it */
        is = c == 0;
        break;
    default:
        return name == c;
    }
    return is != (bool)isupper(name);
}

/* Whether `c` is in the set from the bracket at `p` to the one at `last`. */
static bool is_in_set(int c, const char *p, const char *last)
{
    bool inside = true;
    if (*++p == '^') {
        inside = false;
        p++;
    }
    for (; p < last; p++) {
        if (*p == '%') {
            p++;
            if (is_of_class(c, (unsigned char)*p)) {
                return inside;
            }
        } else if (p[1] == '-' && p + 2 < last) {
            if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2]) {
                return inside;
            }
            p += 2;
        } else if ((unsigned char)*p == c) {
            return inside;
        }
    }
    return !inside;
}

/* Whether there is a character at `s`, and the item from `p` to `after` takes it. */
static inline bool takes(const struct matcher *m, const char *s, const char *p, const char *after)
{
    if (s == m->subject_end) {
        return false;
    }
    switch (*p) {
    case '.':
        return true;
    case '%':
        return is_of_class((unsigned char)*s, (unsigned char)p[1]);
    case '[':
        return is_in_set((unsigned char)*s, p, after - 1);
    default:
        return *s == *p;
    }
}

/* ---- repetitions ---- */

/* How many characters from `s` on the item takes. */
static ptrdiff_t count_taken(struct matcher *m, const char *s, const char *p, const char *after)
{
    const char *from = s;
    size_t cost = (size_t)(after - p);
    if (*p == '.') {
        return m->subject_end - s;
    }
    while (takes(m, s, p, after)) {
        size_t count = 1, most = 1 + RUN / cost;
        while (count < most && takes(m, s + count, p, after)) {
            count++;
        }
        s += count;
        vm_work(m->L, m->vm, count * cost);
    }
    return s - from;
}

static bool may_be_absent(char repetition)
{
    return repetition == '*' || repetition == '-' || repetition == '?';
}

/* As many characters as possible, then the rest of the pattern, which begins behind `after`. */
static const char *match_longest(struct matcher *m, const char *s, const char *p, const char *after)
{
    ptrdiff_t least = *after == '+';
    for (ptrdiff_t taken = count_taken(m, s, p, after); taken >= least; taken--) {
        const char *end = match(m, s + taken, after + 1);
        if (end) {
            return end;
        }
    }
    return NULL;
}

static const char *match_shortest(struct matcher *m, const char *s, const char *p,
                                  const char *after)
{
    for (;; s++) {
        const char *end = match(m, s, after + 1);
        if (end || !takes(m, s, p, after)) {
            return end;
        }
        vm_work(m->L, m->vm, (size_t)(after - p));
    }
}

/* ---- captures ---- */

/* `p` is behind the opening bracket. */
static const char *open_capture(struct matcher *m, const char *s, const char *p)
{
    bool position = *p == ')';
    if (m->count == MOST_CAPTURES) {
        luaL_error(m->L, "too many captures");
    }
    m->captures[m->count].start = s;
    m->captures[m->count].length = position ? CAPTURE_POSITION : CAPTURE_OPEN;
    m->count++;
    const char *end = match(m, s, p + position);
    m->count -= !end;
    return end;
}

static struct capture *innermost_open(struct matcher *m)
{
    for (int i = m->count - 1; i >= 0; i--) {
        if (m->captures[i].length == CAPTURE_OPEN) {
            return &m->captures[i];
        }
    }
    luaL_error(m->L, "invalid pattern capture");
    return NULL;
}

/* `p` is behind the closing bracket. */
static const char *close_capture(struct matcher *m, const char *s, const char *p)
{
    struct capture *capture = innermost_open(m);
    capture->length = s - capture->start;
    const char *end = match(m, s, p);
    if (!end) {
        capture->length = CAPTURE_OPEN;
    }
    return end;
}

/* ---- items that start with % ---- */

/* What the capture that `digit` names took, once more. */
static const char *match_again(struct matcher *m, const char *s, char digit)
{
    int i = digit - '1';
    if (i < 0 || i >= m->count || m->captures[i].length == CAPTURE_OPEN) {
        luaL_error(m->L, "invalid capture index %%%d", i + 1);
    }
    const struct capture *capture = &m->captures[i];
    bool fits = capture->length != CAPTURE_POSITION && m->subject_end - s >= capture->length;
    if (!fits) {
        return NULL;
    }
    vm_work(m->L, m->vm, 1 + (size_t)capture->length / 16);
    return memcmp(capture->start, s, (size_t)capture->length) == 0 ? s + capture->length : NULL;
}

/* From a character at `s` that is `pair[0]` to the `pair[1]` that balances it. */
static const char *match_balanced(struct matcher *m, const char *s, const char *pair)
{
    size_t level = 0;
    if (m->pattern_end - pair < 2) {
        luaL_error(m->L, "malformed pattern (missing arguments to '%%b')");
    }
    if (s == m->subject_end || *s != pair[0]) {
        return NULL;
    }
    for (; s < m->subject_end; s++) {
        vm_work(m->L, m->vm, 1);
        if (*s == pair[1] && (pair[0] != pair[1] || level == 1)) {
            if (--level == 0) {
                return s + 1;
            }
        } else if (*s == pair[0]) {
            level++;
        }
    }
    return NULL;
}

/* The border between what is not in the set at `set` and what is; the ends count as '\0'. */
static bool is_frontier(const struct matcher *m, const char *s, const char *set, const char *last)
{
    int before = s == m->subject ? '\0' : (unsigned char)s[-1];
    return !is_in_set(before, set, last) && is_in_set((unsigned char)*s, set, last);
}

static const char *match_frontier(struct matcher *m, const char *s, const char *set,
                                  const char **ret_after)
{
    if (*set != '[') {
        luaL_error(m->L, "missing '[' after '%%f' in pattern");
    }
    *ret_after = item_end(m, set);
    vm_work(m->L, m->vm, (size_t)(*ret_after - set));
    return is_frontier(m, s, set, *ret_after - 1) ? s : NULL;
}

static bool is_special(char c)
{
    return c == 'b' || c == 'f' || isdigit((unsigned char)c);
}

/* The item at `p`, for which is_special() holds. */
static const char *match_special(struct matcher *m, const char *s, const char *p,
                                 const char **ret_after)
{
    switch (p[1]) {
    case 'b':
        *ret_after = p + 4;
        return match_balanced(m, s, p + 2);
    case 'f':
        return match_frontier(m, s, p + 2, ret_after);
    default:
        *ret_after = p + 2;
        return match_again(m, s, p[1]);
    }
}

/* ---- the whole ---- */

/* The end of what the pattern from `p` on matches at `s`; NULL if it does not. */
static const char *match_items(struct matcher *m, const char *s, const char *p)
{
    while (s && p != m->pattern_end) {
        if (*p == '(') {
            return open_capture(m, s, p + 1);
        } else if (*p == ')') {
            return close_capture(m, s, p + 1);
        } else if (*p == '$' && p + 1 == m->pattern_end) {
            return s == m->subject_end ? s : NULL;
        } else if (*p == '%' && is_special(p[1])) {
            s = match_special(m, s, p, &p);
            continue;
        }
        const char *after = item_end(m, p), *end;
        vm_work(m->L, m->vm, (size_t)(after - p));
        if (!takes(m, s, p, after)) {
            s = may_be_absent(*after) ? s : NULL;
            p = after + 1;
            continue;
        }
        switch (*after) {
        case '*':
        case '+':
            return match_longest(m, s, p, after);
        case '-':
            return match_shortest(m, s, p, after);
        case '?':
            if ((end = match(m, s + 1, after + 1))) {
                return end;
            }
            p = after + 1;
            break;
        default:
            s++;
            p = after;
        }
    }
    return s;
}

static const char *match(struct matcher *m, const char *s, const char *p)
{
    if (m->depth-- == 0) {
        luaL_error(m->L, "pattern too complex");
    }
    vm_work(m->L, m->vm, 1);
    const char *end = match_items(m, s, p);
    m->depth++;
    return end;
}

/* The pattern from its begin at `s`. */
static const char *match_at(struct matcher *m, const char *s)
{
    m->depth = MOST_DEPTH;
    m->count = 0;
    return match(m, s, m->pattern);
}

/* The first place from `s` on where the pattern matches. */
static const char *search(struct matcher *m, const char *s, const char **ret_end)
{
    do {
        *ret_end = match_at(m, s);
        if (*ret_end) {
            return s;
        }
    } while (s++ < m->subject_end && !m->anchored);
    return NULL;
}

/* `subject` and `pattern` are indices. In an iteration nothing is anchored: it would never move. */
static void init(struct matcher *m, lua_State *L, int subject, int pattern, bool may_anchor)
{
    size_t length, pattern_length;
    m->L = L;
    m->vm = vm_of(L);
    m->subject = luaL_checklstring(L, subject, &length);
    m->subject_end = m->subject + length;
    m->pattern = luaL_checklstring(L, pattern, &pattern_length);
    m->pattern_end = m->pattern + pattern_length;
    m->anchored = may_anchor && *m->pattern == '^';
    m->pattern += m->anchored;
}

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
    init(&m, L, 1, 2, true);
    size_t begin = begin_of(L, 3, (size_t)(m.subject_end - m.subject));
    if (begin > (size_t)(m.subject_end - m.subject)) {
        luaL_pushfail(L);
        return 1;
    }
    if (find && (lua_toboolean(L, 4) || is_plain(&m))) {
        return find_plain(&m, m.subject + begin);
    }
    const char *start = search(&m, m.subject + begin, &end);
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
    init(&m, L, lua_upvalueindex(1), lua_upvalueindex(2), false);
    size_t length = (size_t)(m.subject_end - m.subject);
    for (; at->next <= length; at->next++) {
        const char *s = m.subject + at->next;
        const char *end = match_at(&m, s);
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
        const char *end = match_at(m, s);
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
    init(&m, L, 1, 2, true);
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
