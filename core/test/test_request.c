/* Requests: headers, the problem document, and reuse. */
#include "request.h"

#include "test.h"

static const char *body_text(struct request *request)
{
    buffer_append_char(&request->response.body, '\0');
    return request->response.body.data;
}

static struct request *sample(void)
{
    struct request *request = request_create();
    request->id = "r-1";
    request->method = "POST";
    request->path = "/users";
    request->query = "";
    return request;
}

static const char *response_header(const struct request *request, const char *name)
{
    for (size_t i = 0; i < request->response.header_count; i++) {
        if (strcmp(request->response.headers[i].name, name) == 0) {
            return request->response.headers[i].value;
        }
    }
    return NULL;
}

static void test_headers(void)
{
    struct request *request = sample();
    struct header headers[] = {{"Host", "a"}, {"X-Word", "first"}, {"x-word", "second"}};
    request->headers = headers;
    request->header_count = 3;
    check_text(request_header(request, "x-WORD"), "first", "a header is found in any case");
    check(!request_header(request, "X-Other"), "a header that is not there");
    char name[] = "X-0";
    for (char c = '0'; c <= '9'; c++) {
        name[2] = c;
        request_add_header(request, name, name + 2);
    }
    check_int(request->response.header_count, 10, "response headers are kept");
    check_text(response_header(request, "X-0"), "0", "the first one is a copy");
    check_text(response_header(request, "X-9"), "9", "and the last");
    request_destroy(request);
}

static void test_problem(void)
{
    struct request *request = sample();
    struct error err;
    error_set(&err, ERROR_CONFLICT, "the name \"%s\" is taken", "joe");
    strcpy(err.sqlstate, "23505");
    strcpy(err.constraint, "users_username_key");
    request_add_header(request, "X-Old", "1");
    buffer_append_text(&request->response.body, "half an answer");
    request_fail(request, &err, ",\"errors\":[]");
    check_int(request->response.status, 409, "a problem has its kind's status");
    check_int(request->error, ERROR_CONFLICT, "and tells the log");
    check_text(request->response.content_type, "application/problem+json", "the media type");
    check(!response_header(request, "X-Old"), "what was there before is dropped");
    check(!response_header(request, "Retry-After"), "no Retry-After for what stays wrong");
    check_text(body_text(request),
               "{\"type\":\"/problems/conflict\",\"title\":\"The request conflicts with what is "
               "stored\",\"status\":409,\"detail\":\"the name \\\"joe\\\" is taken\",\"instance\":"
               "\"/users\",\"request_id\":\"r-1\",\"sqlstate\":\"23505\",\"constraint\":"
               "\"users_username_key\",\"errors\":[]}",
               "the document");
    request_destroy(request);
}

static void test_sparse_problem(void)
{
    struct request *request = sample();
    struct error err;
    error_set(&err, ERROR_OVERLOADED, "%s", "");
    request->path = "/caf\xc3";
    request_fail(request, &err, NULL);
    check_text(response_header(request, "Retry-After"), "1", "what may be retried says so");
    check_text(body_text(request),
               "{\"type\":\"/problems/overloaded\",\"title\":\"The server is overloaded\","
               "\"status\":503,\"instance\":\"/caf?\",\"request_id\":\"r-1\"}",
               "empty members are left out, broken UTF-8 is shown in ASCII");
    request_destroy(request);
}

static void test_reset(void)
{
    struct request *request = sample();
    buffer_append_text(&request->body, "body");
    request_add_header(request, "X", "1");
    request->response.status = 200;
    memset(buffer_reserve(&request->response.body, 100000), 'x', 100000);
    request->response.body.length = 100000;
    request_reset(request);
    check(!request->id && !request->response.status && !request->response.header_count,
          "a reset request is as new");
    check(request->body.length == 0 && request->body.capacity > 0, "a small buffer is kept");
    check_int(request->response.body.capacity, 0, "a large one is not");
    request_destroy(request);
    request_destroy(NULL);
}

int main(void)
{
    test_headers();
    test_problem();
    test_sparse_problem();
    test_reset();
    return test_end();
}
