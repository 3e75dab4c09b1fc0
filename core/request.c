/* Requests: headers in and out, and the problem document. */
#include "request.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "json.h"

/* A body buffer beyond this is not kept for the next request. */
enum { KEPT_BODY = 16 * 1024 };

struct request *request_create(void)
{
    struct request *request = memory_zalloc(sizeof *request);
    arena_init(&request->arena);
    buffer_init(&request->body);
    buffer_init(&request->response.body);
    return request;
}

void request_destroy(struct request *request)
{
    if (!request) {
        return;
    }
    buffer_finish(&request->body);
    buffer_finish(&request->response.body);
    arena_finish(&request->arena);
    free(request);
}

static struct buffer emptied(struct buffer buffer)
{
    if (buffer.capacity > KEPT_BODY) {
        buffer_finish(&buffer);
    }
    buffer.length = 0;
    return buffer;
}

void request_reset(struct request *request)
{
    arena_reset(&request->arena);
    *request = (struct request){
        .arena = request->arena,
        .body = emptied(request->body),
        .response.body = emptied(request->response.body),
    };
}

const char *request_header(const struct request *request, const char *name)
{
    for (size_t i = 0; i < request->header_count; i++) {
        if (strcasecmp(request->headers[i].name, name) == 0) {
            return request->headers[i].value;
        }
    }
    return NULL;
}

static void grow_headers(struct request *request)
{
    struct response *response = &request->response;
    size_t capacity = response->header_capacity ? response->header_capacity * 2 : 4;
    struct header *headers = arena_alloc(&request->arena, capacity * sizeof *headers);
    if (response->header_count) {
        memcpy(headers, response->headers, response->header_count * sizeof *headers);
    }
    response->headers = headers;
    response->header_capacity = capacity;
}

void request_add_header(struct request *request, const char *name, const char *value)
{
    struct response *response = &request->response;
    if (response->header_count == response->header_capacity) {
        grow_headers(request);
    }
    response->headers[response->header_count++] = (struct header){
        .name = arena_strdup(&request->arena, name),
        .value = arena_strdup(&request->arena, value),
    };
}

void request_set_header(struct request *request, const char *name, const char *value)
{
    struct response *response = &request->response;
    size_t kept = 0;
    for (size_t i = 0; i < response->header_count; i++) {
        if (strcasecmp(response->headers[i].name, name) != 0) {
            response->headers[kept++] = response->headers[i];
        }
    }
    response->header_count = kept;
    request_add_header(request, name, value);
}

/* What is not UTF-8 (a raw path, a message cut in the middle of a character) is shown in ASCII. */
static void write_text(struct request *request, const char *text)
{
    struct buffer *body = &request->response.body;
    size_t length = strlen(text);
    if (json_write_string(body, text, length) == 0) {
        return;
    }
    char *ascii = arena_strndup(&request->arena, text, length);
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)ascii[i] >= 0x80) {
            ascii[i] = '?';
        }
    }
    json_write_string(body, ascii, length);
}

/* A member that has nothing to say is left out. */
static void write_member(struct request *request, const char *name, const char *value)
{
    if (value && value[0]) {
        buffer_printf(&request->response.body, ",\"%s\":", name);
        write_text(request, value);
    }
}

static int status_of(const struct error *err)
{
    return err->status ? err->status : error_kind(err->code)->status;
}

static void write_problem(struct request *request, const struct error *err, const char *extra)
{
    const struct error_kind *kind = error_kind(err->code);
    struct buffer *body = &request->response.body;
    buffer_printf(body, "{\"type\":\"/problems/%s\"", kind->slug);
    write_member(request, "title", kind->title);
    buffer_printf(body, ",\"status\":%d", status_of(err));
    write_member(request, "detail", err->message);
    write_member(request, "instance", request->path);
    write_member(request, "request_id", request->id);
    write_member(request, "sqlstate", err->sqlstate);
    write_member(request, "constraint", err->constraint);
    buffer_append_text(body, extra ? extra : "");
    buffer_append_char(body, '}');
}

void request_fail(struct request *request, const struct error *err, const char *extra)
{
    const struct error_kind *kind = error_kind(err->code);
    request->error = err->code;
    request->response.status = status_of(err);
    request->response.content_type = "application/problem+json";
    request->response.header_count = 0;
    request->response.body.length = 0;
    write_problem(request, err, extra);
    if (kind->retry) {
        request_add_header(request, "Retry-After", "1");
    }
}

void request_done(struct request *request)
{
    request->on_done(request);
}

bool request_is_header_value(const char *value, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return false;
        }
    }
    return true;
}

bool request_is_token(const char *text)
{
    size_t length = strspn(text, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    return length > 0 && text[length] == '\0';
}
