/* Matches a pattern of Lua's against a subject, and counts its steps: it raises at the deadline. */
#ifndef MOONPOOL_VM_MATCH_H
#define MOONPOOL_VM_MATCH_H

#include <stdbool.h>
#include <stddef.h>

struct lua_State;
struct vm;

enum { MOST_CAPTURES = 32 };

/* What the length of a capture says besides. */
enum { CAPTURE_OPEN = -1, CAPTURE_POSITION = -2 };

struct capture {
    const char *start;
    ptrdiff_t length;
};

struct matcher {
    struct lua_State *L;
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

/* `subject` and `pattern` are indices. In an iteration nothing is anchored: it would never move. */
void matcher_init(struct matcher *m, struct lua_State *L, int subject, int pattern,
                  bool may_anchor);

/* The end of what the pattern matches from its begin at `s`; NULL if it does not. */
const char *matcher_try(struct matcher *m, const char *s);

/* The first place from `s` on where the pattern matches; NULL if there is none. */
const char *matcher_search(struct matcher *m, const char *s, const char **ret_end);

#endif
