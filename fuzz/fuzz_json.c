/* The JSON parser: what it accepts, written plainly, is accepted again and comes out the same; what
 * it refuses it refuses with a place. */
#include <string.h>

#include "buffer.h"
#include "error.h"
#include "fuzz.h"
#include "json.h"

/* Writes what it is told. */
struct writer {
    struct buffer out;
    bool comma; /* before the next key or item */
    bool value; /* the next thing is a member's value: its comma has been written */
    int depth;
};

static void begin_item(struct writer *writer)
{
    if (writer->comma && !writer->value) {
        buffer_append_char(&writer->out, ',');
    }
    writer->comma = true;
    writer->value = false;
}

static int take_null(void *context, struct error *err)
{
    struct writer *writer = context;
    begin_item(writer);
    buffer_append_text(&writer->out, "null");
    return 0;
}

static int take_boolean(void *context, bool value, struct error *err)
{
    struct writer *writer = context;
    begin_item(writer);
    buffer_append_text(&writer->out, value ? "true" : "false");
    return 0;
}

static int take_integer(void *context, int64_t value, struct error *err)
{
    struct writer *writer = context;
    begin_item(writer);
    json_write_integer(&writer->out, value);
    return 0;
}

static int take_number(void *context, double value, struct error *err)
{
    struct writer *writer = context;
    begin_item(writer);
    return json_write_number(&writer->out, value) ? error_set(err, ERROR_INVALID, "beyond") : 0;
}

static int take_string(void *context, const char *text, size_t length, struct error *err)
{
    struct writer *writer = context;
    begin_item(writer);
    claim(json_is_utf8(text, length));
    claim(json_write_string(&writer->out, text, length) == 0);
    return 0;
}

static int take_key(void *context, const char *text, size_t length, struct error *err)
{
    struct writer *writer = context;
    take_string(context, text, length, err);
    buffer_append_char(&writer->out, ':');
    writer->value = true;
    return 0;
}

static int open_bracket(struct writer *writer, char bracket)
{
    begin_item(writer);
    buffer_append_char(&writer->out, bracket);
    writer->comma = false;
    claim(++writer->depth <= JSON_DEPTH);
    return 0;
}

static int close_bracket(struct writer *writer, char bracket)
{
    buffer_append_char(&writer->out, bracket);
    writer->comma = true;
    claim(writer->depth-- > 0);
    return 0;
}

static int take_object(void *context, struct error *err)
{
    return open_bracket(context, '{');
}

static int take_object_end(void *context, struct error *err)
{
    return close_bracket(context, '}');
}

static int take_array(void *context, struct error *err)
{
    return open_bracket(context, '[');
}

static int take_array_end(void *context, struct error *err)
{
    return close_bracket(context, ']');
}

static const struct json_handler handler = {
    .on_null = take_null,
    .on_boolean = take_boolean,
    .on_integer = take_integer,
    .on_number = take_number,
    .on_string = take_string,
    .on_key = take_key,
    .on_object = take_object,
    .on_object_end = take_object_end,
    .on_array = take_array,
    .on_array_end = take_array_end,
};

static int rewrite(const char *text, size_t length, struct writer *writer, struct error *err)
{
    struct buffer scratch;
    memset(writer, 0, sizeof *writer);
    buffer_init(&writer->out);
    buffer_init(&scratch);
    int result = json_parse(text, length, &handler, writer, &scratch, err);
    buffer_finish(&scratch);
    return result;
}

static void check_again(const struct buffer *text)
{
    struct writer again;
    struct error err;
    claim(json_is_utf8(text->data, text->length));
    claim(rewrite(text->data, text->length, &again, &err) == 0);
    claim(again.out.length == text->length);
    claim(memcmp(again.out.data, text->data, text->length) == 0);
    buffer_finish(&again.out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct writer writer;
    struct error err;
    if (rewrite((const char *)data, size, &writer, &err) == 0) {
        claim(writer.depth == 0);
        check_again(&writer.out);
    } else {
        claim(err.code == ERROR_MALFORMED || err.code == ERROR_INVALID);
        claim(strncmp(err.message, "line ", 5) == 0);
        claim(json_is_utf8(err.message, strlen(err.message)));
    }
    buffer_finish(&writer.out);
    return 0;
}
