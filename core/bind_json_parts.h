/* What the files of bind_json tell each other; everyone else includes bind_json.h. */
#ifndef MOONPOOL_BIND_JSON_PARTS_H
#define MOONPOOL_BIND_JSON_PARTS_H

#include <stddef.h>

struct lua_State;

/* What reading or writing a value counts, and what a longer text does besides. */
enum { STEPS_OF_VALUE = 10, BYTES_OF_STEP = 8 };

/* Pushes the metatable that marks arrays. */
void bind_json_push_array_metatable(struct lua_State *L);

/* The value of the light userdata that stands for an empty array. */
const void *bind_json_empty_array(void);

/* `length`, or less, so that at most `limit` bytes of whole UTF-8 characters are left. */
size_t bind_json_cut(const char *text, size_t length, size_t limit);

#endif
