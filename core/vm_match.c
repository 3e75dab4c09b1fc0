/* A pattern of Lua's against a subject. An item of a pattern is a single character or class with
 * its repetition, a capture's bracket, %b, %f or a back reference.
 *
 *     match_items: one item after the other; where there is a choice, the rest is tried by match()
 */
#include "vm_match.h"

#include <ctype.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>

#include "vm.h"

enum {
    MOST_DEPTH = 200, /* of match() inside itself: each takes C stack */
    RUN = 4096,       /* characters taken between two looks at the clock */
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

const char *matcher_try(struct matcher *m, const char *s)
{
    m->depth = MOST_DEPTH;
    m->count = 0;
    return match(m, s, m->pattern);
}

const char *matcher_search(struct matcher *m, const char *s, const char **ret_end)
{
    do {
        *ret_end = matcher_try(m, s);
        if (*ret_end) {
            return s;
        }
    } while (s++ < m->subject_end && !m->anchored);
    return NULL;
}

void matcher_init(struct matcher *m, lua_State *L, int subject, int pattern, bool may_anchor)
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
