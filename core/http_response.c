/* The answer of an exchange: through MHD, or past it where it cannot answer. */
#include "http.h"

#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <microhttpd.h>

#include "buffer.h"
#include "error.h"
#include "http_parts.h"
#include "log.h"
#include "request.h"

void exchange_fail(struct exchange *exchange, enum error_code code, const char *message)
{
    struct error err;
    error_set(&err, code, "%s", message);
    request_fail(exchange->request, &err, NULL);
}

/* Headers that only the edge can get right. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {"Connection",        "Content-Length", "Keep-Alive",
                                        "Transfer-Encoding", "Upgrade",        "X-Request-Id"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcasecmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* MHD refuses a value with a line break in it, which would forge a header. */
static void add_header(struct MHD_Response *response, const struct request *request,
                       const struct header *header)
{
    if (is_reserved(header->name)) {
        return;
    }
    if (!request_is_token(header->name) ||
        MHD_add_response_header(response, header->name, header->value) != MHD_YES) {
        log_event(LOG_WARN, "response header dropped", "request %s: not a valid header: %s",
                  request->id, header->name);
    }
}

static void add_headers(struct MHD_Response *response, const struct request *request)
{
    bool typed = false;
    for (size_t i = 0; i < request->response.header_count; i++) {
        const struct header *header = &request->response.headers[i];
        typed = typed || strcasecmp(header->name, "Content-Type") == 0;
        add_header(response, request, header);
    }
    if (!typed && request->response.content_type) {
        MHD_add_response_header(response, "Content-Type", request->response.content_type);
    }
    MHD_add_response_header(response, "X-Request-Id", request->id);
}

static bool has_no_body(int status)
{
    return status == MHD_HTTP_NO_CONTENT || status == MHD_HTTP_NOT_MODIFIED;
}

/* The body is not copied: the request outlives the response. */
bool exchange_answer(struct exchange *exchange)
{
    const struct request *request = exchange->request;
    size_t length = has_no_body(request->response.status) ? 0 : request->response.body.length;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        length, length ? request->response.body.data : "", MHD_RESPMEM_PERSISTENT);
    if (!response) {
        return false;
    }
    add_headers(response, request);
    if (exchange->client->http->draining) {
        MHD_add_response_header(response, "Connection", "close");
    }
    enum MHD_Result result =
        MHD_queue_response(exchange->connection, (unsigned)request->response.status, response);
    MHD_destroy_response(response);
    exchange->status = request->response.status;
    exchange->client->http->answering = exchange;
    exchange_on_sending(exchange);
    return result == MHD_YES;
}

/* Nothing of the answer has been sent. */
void exchange_fail_answer(struct exchange *exchange)
{
    exchange_fail(exchange, ERROR_SCRIPT, "the headers of the answer are too large");
    log_event(LOG_ERROR, "response headers too large",
              "request %s: a larger --header-limit makes room for them", exchange->request->id);
    exchange_answer_past_mhd(exchange);
}

/* They are all our own: no script has answered yet, or its headers have been dropped. */
static void write_headers(struct buffer *text, const struct response *response)
{
    for (size_t i = 0; i < response->header_count; i++) {
        const struct header *header = &response->headers[i];
        buffer_printf(text, "%s: %s\r\n", header->name, header->value);
    }
}

/* MHD cannot answer while a request is still arriving, so this goes straight to the socket; it is
 * small enough for an empty send buffer. */
void exchange_answer_past_mhd(struct exchange *exchange)
{
    struct request *request = exchange->request;
    struct response *response = &request->response;
    const char *type = response->content_type ? response->content_type : "text/plain";
    struct buffer text;
    buffer_init(&text);
    buffer_printf(&text,
                  "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: %s\r\n"
                  "Content-Length: %zu\r\nX-Request-Id: %s\r\n",
                  response->status, MHD_get_reason_phrase_for((unsigned)response->status), type,
                  response->body.length, request->id);
    write_headers(&text, response);
    buffer_append_text(&text, "\r\n");
    if (strcmp(request->method, "HEAD") != 0) {
        buffer_append(&text, response->body.data, response->body.length);
    }
    send(exchange->client->fd, text.data, text.length, MSG_NOSIGNAL | MSG_DONTWAIT);
    buffer_finish(&text);
    exchange->status = response->status;
    input_end(exchange->client);
}
