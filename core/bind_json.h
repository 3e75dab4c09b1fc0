/* JSON for scripts: Lua values to JSON text and back, with lua-cjson's names. The module is found
 * as "json" and "moonpool.json": encode, decode, null, empty_array, array. */
#ifndef MOONPOOL_BIND_JSON_H
#define MOONPOOL_BIND_JSON_H

#include <stddef.h>

struct buffer;
struct error;
struct lua_State;

/* Beyond this the encoder gives up: a table that is met again and again can grow without end. */
enum { BIND_JSON_SIZE = 256 * 1024 * 1024 };

/* Opens the module; fits vm_preload_c(). All calls of one state give the same table. */
int bind_json_open(struct lua_State *L);

/* Marks the table on top of the stack as an array, as json.array() does. */
void bind_json_mark_array(struct lua_State *L);

/* Pushes the value of a JSON text. Arrays carry the array metatable, null is the sentinel, integers
 * stay integers. -1 with nothing pushed: what json_parse() says, ERROR_MALFORMED for a key that
 * stands twice in an object, ERROR_INVALID for a number beyond the range of a double,
 * ERROR_MEMORY. Never raises. */
int bind_json_decode(struct lua_State *L, const char *text, size_t length, struct error *err);

/* The same; objects remember the order of their keys (`__columns`), so that they are encoded as
 * they came. */
int bind_json_decode_ordered(struct lua_State *L, const char *text, size_t length,
                             struct error *err);

/* The same for what PostgreSQL has taken for JSON: of a key that stands twice the last value
 * counts, as in jsonb, and a number beyond the range of a double is an infinity, as in tonumber().
 */
int bind_json_decode_column(struct lua_State *L, const char *text, size_t length,
                            struct error *err);

/* Appends the value at `index` as JSON. -1 with ERROR_SCRIPT and the path to what cannot be
 * expressed
 * ("$.users[3].score is not a finite number", indices as in Lua); `out` is as before then. Lua
 * errors (out of memory, or raised by a script's __json) pass through: `out` is the caller's to cut
 * or free.
 *
 * A table whose keys are exactly 1..n is an array, one with string keys an object, an empty one
 * `{}` unless it carries the array metatable. A metatable may say otherwise:
 *   __columns  a sequence of names: these members first, in this order, `null` for those absent.
 *              Such a table is a row: in it, at any depth, NaN and infinities are the strings that
 *              PostgreSQL makes of them, "NaN", "Infinity" and "-Infinity";
 *   __json     a function: its result stands for the value; or a light userdata: a bind_json_hook.
 */
int bind_json_encode(struct lua_State *L, int index, struct buffer *out, struct error *err);

/* What a table or userdata of the core's own is encoded by. As bind_json_encode(). */
struct bind_json_hook {
    int (*encode)(struct lua_State *L, int index, struct buffer *out, struct error *err);
};

#endif
