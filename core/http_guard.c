/* The grammar of RFC 9112, read in one go over pieces of any size. In doubt about where a message
 * ends it is refused: a proxy in front might see other borders, and let a second request slip
 * through inside the first. So a line ends in CR LF and nothing else, is not folded, and the length
 * of a body is told once.
 *
 *   START -> METHOD -> TARGET -> VERSION -> LINE_END -> FIELD  the request line
 *   FIELD -> NAME -> BLANKS -> VALUE -> LINE_END -> FIELD      each header
 *   FIELD -> HEAD_END -> START, BODY or CHUNK_SIZE             [end_head]
 *   BODY -> START
 *   CHUNK_SIZE -> EXTENSION -> SIZE_END -> CHUNK -> CHUNK_CR -> CHUNK_END -> CHUNK_SIZE
 *   SIZE_END -> FIELD                                          the last chunk: trailers follow */
#include "http_guard.h"

#include <string.h>
#include <strings.h>

#include "uri.h"

enum place {
    PLACE_START,
    PLACE_START_LF, /* of an empty line before a message */
    PLACE_METHOD,
    PLACE_TARGET,
    PLACE_VERSION,
    PLACE_LINE_END,
    PLACE_FIELD,
    PLACE_NAME,
    PLACE_BLANKS,
    PLACE_VALUE,
    PLACE_HEAD_END, /* the last that counts towards the limit */
    PLACE_BODY,
    PLACE_CHUNK_SIZE,
    PLACE_EXTENSION,
    PLACE_SIZE_END,
    PLACE_CHUNK,
    PLACE_CHUNK_CR,
    PLACE_CHUNK_END,
};

enum field { FIELD_OTHER, FIELD_LENGTH, FIELD_ENCODING, FIELD_HOST, FIELD_COOKIE, FIELD_ID };

enum {
    RECORD = 64,           /* bytes that MHD takes for a header, or a cookie, besides its text */
    EXTENSION_LIMIT = 128, /* bytes, of a chunk */
    SIZE_DIGITS = 15,      /* of a chunk; hexadecimal */
    LENGTH_DIGITS = 18,    /* of a body; decimal */
};

/* What a character may be part of. */
enum {
    TOKEN = 1,
    TARGET = 2,
    VALUE = 4,
    HOST = 8,
    TEXT = TARGET | VALUE,
    ANY = TOKEN | TEXT | HOST
};

static const uint8_t classes[256] = {
    ['\t'] = VALUE,
    [' '] = VALUE,
    ['!'] = ANY,
    ['"'] = TEXT,
    ['#'] = TOKEN | VALUE,
    ['$' ... '\''] = ANY,
    ['(' ... ')'] = TEXT | HOST,
    ['*' ... '+'] = ANY,
    [','] = TEXT | HOST,
    ['-' ... '.'] = ANY,
    ['/'] = TEXT,
    ['0' ... '9'] = ANY,
    [':' ... ';'] = TEXT | HOST,
    ['<'] = TEXT,
    ['='] = TEXT | HOST,
    ['>' ... '@'] = TEXT,
    ['A' ... 'Z'] = ANY,
    ['['] = TEXT | HOST,
    ['\\'] = TEXT,
    [']'] = TEXT | HOST,
    ['^'] = TOKEN | TEXT,
    ['_'] = ANY,
    ['`'] = TOKEN | TEXT,
    ['a' ... 'z'] = ANY,
    ['{'] = TEXT,
    ['|'] = TOKEN | TEXT,
    ['}'] = TEXT,
    ['~'] = ANY,
    [0x80 ... 0xff] = TEXT,
};

static const char too_large[] = "the body is too large";

static size_t span(const char *data, size_t size, uint8_t class)
{
    size_t length = 0;
    while (length < size && classes[(unsigned char)data[length]] & class) {
        length++;
    }
    return length;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static size_t fail(struct guard *guard, enum error_code code, const char *message)
{
    guard->fault = code;
    guard->message = message;
    return 0;
}

/* One character that must be there. */
static size_t expect(struct guard *guard, char c, char expected, enum place next)
{
    if (c != expected) {
        return fail(guard, ERROR_MALFORMED, "a line does not end in CR LF");
    }
    guard->place = next;
    return 1;
}

static void append_word(struct guard *guard, const char *data, size_t length)
{
    size_t room = (size_t)(GUARD_WORD - guard->word_length);
    size_t kept = length < room ? length : room;
    memcpy(guard->word + guard->word_length, data, kept);
    guard->word_length += (uint8_t)kept;
}

/* A text that is there whole can be shown; what came in two pieces is passed over. */
static void note(struct guard_text *text, const char *data, size_t length, bool whole)
{
    text->data = whole ? data : NULL;
    text->length = length;
}

/* -- The request line -- */

static void begin(struct guard *guard)
{
    guard->begun++;
    guard->place = PLACE_METHOD;
    guard->taken = 0;
    guard->lengths = guard->encodings = guard->hosts = 0;
    guard->chunked = guard->in_trailers = false;
    guard->bad_length = NULL;
    guard->word_length = 0;
    guard_forget(guard);
}

static size_t at_start(struct guard *guard, char *data, size_t size)
{
    if (*data == '\r') {
        guard->place = PLACE_START_LF;
        return 1;
    }
    begin(guard);
    return 0;
}

static size_t at_start_lf(struct guard *guard, char *data, size_t size)
{
    return expect(guard, *data, '\n', PLACE_START);
}

/* Takes a word of the request line, or what there is of it, up to the blank behind it. */
static size_t take_word(struct guard *guard, struct guard_text *text, const char *data, size_t size,
                        uint8_t class, enum place next, const char *malformed)
{
    size_t length = span(data, size, class);
    note(text, data, length, guard->word_length == 0);
    append_word(guard, data, length);
    if (length == size) {
        return length;
    }
    if (data[length] != ' ' || guard->word_length == 0) {
        return fail(guard, ERROR_MALFORMED, malformed);
    }
    guard->place = next;
    guard->word_length = 0;
    return length + 1;
}

static size_t at_method(struct guard *guard, char *data, size_t size)
{
    return take_word(guard, &guard->method, data, size, TOKEN, PLACE_TARGET,
                     "the method is malformed");
}

static size_t at_target(struct guard *guard, char *data, size_t size)
{
    return take_word(guard, &guard->target, data, size, TARGET, PLACE_VERSION,
                     "the target is malformed");
}

/* What is one day 1.2 will be good for 1.1 (RFC 9110, section 2.5). */
static size_t judge_version(struct guard *guard)
{
    const char *word = guard->word;
    if (guard->word_length != 8 || memcmp(word, "HTTP/", 5) != 0 || word[5] < '0' ||
        word[5] > '9' || word[6] != '.' || word[7] < '0' || word[7] > '9') {
        return fail(guard, ERROR_MALFORMED, "the version is malformed");
    }
    if (word[5] != '1') {
        return fail(guard, ERROR_VERSION, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    }
    guard->http_1_1 = word[7] > '0';
    guard->place = PLACE_LINE_END;
    return 1;
}

static size_t at_version(struct guard *guard, char *data, size_t size)
{
    size_t length = span(data, size, TARGET);
    append_word(guard, data, length);
    if (length == size) {
        return length;
    }
    if (data[length] != '\r') {
        return fail(guard, ERROR_MALFORMED, "the version is malformed");
    }
    return length + judge_version(guard);
}

static size_t at_line_end(struct guard *guard, char *data, size_t size)
{
    return expect(guard, *data, '\n', PLACE_FIELD);
}

/* -- Headers -- */

static size_t at_field(struct guard *guard, char *data, size_t size)
{
    if (*data == '\r') {
        guard->place = PLACE_HEAD_END;
        return 1;
    }
    guard->place = PLACE_NAME;
    guard->word_length = 0;
    return 0;
}

static enum field identify(const struct guard *guard)
{
#define NAMED(name, field)                                                                         \
    {                                                                                              \
        name, sizeof name - 1, field                                                               \
    }
    static const struct {
        const char *name;
        uint8_t length;
        enum field field;
    } fields[] = {NAMED("Host", FIELD_HOST), NAMED("Cookie", FIELD_COOKIE),
                  NAMED("Content-Length", FIELD_LENGTH), NAMED("Transfer-Encoding", FIELD_ENCODING),
                  NAMED("X-Request-Id", FIELD_ID)};
#undef NAMED
    for (size_t i = 0; i < sizeof fields / sizeof *fields && !guard->in_trailers; i++) {
        if (guard->word_length == fields[i].length &&
            strncasecmp(guard->word, fields[i].name, fields[i].length) == 0) {
            return fields[i].field;
        }
    }
    return FIELD_OTHER;
}

static void count(uint8_t *number)
{
    *number += *number < 2;
}

static void begin_value(struct guard *guard)
{
    guard->field = identify(guard);
    guard->taken += guard->field == FIELD_COOKIE ? 2 * RECORD : RECORD;
    if (guard->field == FIELD_LENGTH) {
        count(&guard->lengths);
    } else if (guard->field == FIELD_ENCODING) {
        count(&guard->encodings);
    } else if (guard->field == FIELD_HOST) {
        count(&guard->hosts);
    }
    guard->place = PLACE_BLANKS;
    guard->word_length = 0;
    guard->blank = false;
}

static size_t at_name(struct guard *guard, char *data, size_t size)
{
    size_t length = span(data, size, TOKEN);
    append_word(guard, data, length);
    if (length == size) {
        return length;
    }
    if (data[length] != ':' || guard->word_length == 0) {
        return fail(guard, ERROR_MALFORMED, "a header is malformed");
    }
    begin_value(guard);
    return length + 1;
}

static size_t at_blanks(struct guard *guard, char *data, size_t size)
{
    size_t length = 0;
    while (length < size && is_blank(data[length])) {
        length++;
    }
    if (length < size) {
        guard->place = PLACE_VALUE;
    }
    return length;
}

static bool is_host(struct guard *guard, const char *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (is_blank(data[i])) {
            guard->blank = true;
        } else if (guard->blank || !(classes[(unsigned char)data[i]] & HOST)) {
            return false;
        }
    }
    return true;
}

/* MHD copies cookies, and takes them apart. */
static void count_cookies(struct guard *guard, const char *data, size_t length)
{
    guard->taken += length;
    for (size_t i = 0; i < length; i++) {
        guard->taken += data[i] == ';' ? RECORD : 0;
    }
}

static const char *judge_length(struct guard *guard)
{
    size_t digits = 0;
    guard->left = 0;
    while (digits < guard->word_length && guard->word[digits] >= '0' &&
           guard->word[digits] <= '9') {
        guard->left = guard->left * 10 + (uint64_t)(guard->word[digits] - '0');
        digits++;
    }
    if (digits == 0 || digits < guard->word_length) {
        return "Content-Length is not a number";
    }
    return digits > LENGTH_DIGITS ? too_large : NULL;
}

/* The length or encoding is there. */
static void end_framing(struct guard *guard)
{
    if (guard->field == FIELD_ENCODING) {
        guard->chunked = guard->word_length == 7 && strncasecmp(guard->word, "chunked", 7) == 0;
    } else {
        guard->bad_length = judge_length(guard);
    }
}

/* MHD takes only leading blanks for what they are: those behind the value are kept from it. False
 * if there is more behind them. */
static bool read_framing(struct guard *guard, const char *data, size_t length)
{
    size_t i = 0;
    while (i < length && !is_blank(data[i])) {
        i++;
    }
    append_word(guard, data, i);
    if (i > 0 && guard->blank) {
        return false;
    }
    guard->blank = guard->blank || i < length;
    guard->kept_back = length - i;
    while (i < length && is_blank(data[i])) {
        i++;
    }
    return i == length;
}

/* What the value of a header says, as far as it has come. */
static bool read_value(struct guard *guard, const char *data, size_t length, bool ends)
{
    bool whole = guard->word_length == 0;
    switch ((enum field)guard->field) {
    case FIELD_LENGTH:
    case FIELD_ENCODING:
        if (!read_framing(guard, data, length)) {
            return false;
        }
        if (ends) {
            end_framing(guard);
        }
        return true;
    case FIELD_HOST:
        return is_host(guard, data, length);
    case FIELD_COOKIE:
        count_cookies(guard, data, length);
        return true;
    case FIELD_ID:
        append_word(guard, data, length);
        note(&guard->id, data, length, whole && ends);
        return true;
    case FIELD_OTHER:
        break;
    }
    return true;
}

static size_t at_value(struct guard *guard, char *data, size_t size)
{
    size_t length = span(data, size, VALUE);
    bool ends = length < size;
    if ((ends && data[length] != '\r') || !read_value(guard, data, length, ends)) {
        return fail(guard, ERROR_MALFORMED, "a header is malformed");
    }
    guard->place = ends ? PLACE_LINE_END : PLACE_VALUE;
    size_t kept_back = guard->kept_back;
    memmove(data + length - kept_back, data + length, size - length);
    return length - kept_back + ends;
}

/* -- The end of a head -- */

static const char *find_fault(const struct guard *guard)
{
    if (guard->lengths > 1 || guard->encodings > 1) {
        return "the length of the body is given more than once";
    }
    if (guard->lengths && guard->encodings) {
        return "Content-Length and Transfer-Encoding exclude each other";
    }
    if (guard->encodings && !(guard->chunked && guard->http_1_1)) {
        return "the only transfer encoding is \"chunked\", in HTTP/1.1";
    }
    if (guard->hosts > 1 || (guard->http_1_1 && guard->hosts == 0)) {
        return "exactly one Host header is needed";
    }
    return guard->bad_length;
}

static void begin_chunk(struct guard *guard)
{
    guard->place = PLACE_CHUNK_SIZE;
    guard->left = 0;
    guard->word_length = 0;
}

static size_t end_head(struct guard *guard)
{
    const char *fault = guard->in_trailers ? NULL : find_fault(guard);
    if (fault) {
        bool large = fault == too_large;
        return fail(guard, large ? ERROR_BODY_TOO_LARGE : ERROR_MALFORMED, fault);
    }
    if (guard->in_trailers || !(guard->chunked || (guard->lengths && guard->left))) {
        guard->place = PLACE_START;
    } else if (guard->chunked) {
        begin_chunk(guard);
    } else {
        guard->place = PLACE_BODY;
    }
    return 1;
}

static size_t at_head_end(struct guard *guard, char *data, size_t size)
{
    return expect(guard, *data, '\n', PLACE_START) ? end_head(guard) : 0;
}

/* -- Bodies -- */

/* Passes over what is left of a body or a chunk. */
static size_t skip(struct guard *guard, size_t size, enum place next)
{
    size_t length = guard->left < size ? (size_t)guard->left : size;
    guard->left -= length;
    if (guard->left == 0) {
        guard->place = next;
    }
    return length;
}

static size_t at_body(struct guard *guard, char *data, size_t size)
{
    return skip(guard, size, PLACE_START);
}

static size_t end_size(struct guard *guard, char c)
{
    if (guard->word_length == 0 || (c != ';' && c != '\r')) {
        return fail(guard, ERROR_MALFORMED, "a chunk is malformed");
    }
    guard->place = c == ';' ? PLACE_EXTENSION : PLACE_SIZE_END;
    guard->word_length = 0;
    return 1;
}

static size_t at_chunk_size(struct guard *guard, char *data, size_t size)
{
    int digit = uri_hex_digit(*data);
    if (digit < 0) {
        return end_size(guard, *data);
    }
    if (guard->word_length == SIZE_DIGITS) {
        return fail(guard, ERROR_BODY_TOO_LARGE, too_large);
    }
    guard->left = guard->left << 4 | (uint64_t)digit;
    guard->word_length++;
    return 1;
}

static size_t at_extension(struct guard *guard, char *data, size_t size)
{
    size_t length = span(data, size, VALUE);
    if (guard->word_length + length > EXTENSION_LIMIT) {
        return fail(guard, ERROR_MALFORMED, "a chunk extension is too long");
    }
    guard->word_length += (uint8_t)length;
    if (length == size) {
        return length;
    }
    return length + expect(guard, data[length], '\r', PLACE_SIZE_END);
}

/* Behind the last chunk there may be trailers, written like headers. */
static size_t at_size_end(struct guard *guard, char *data, size_t size)
{
    guard->in_trailers = guard->left == 0;
    return expect(guard, *data, '\n', guard->left ? PLACE_CHUNK : PLACE_FIELD);
}

static size_t at_chunk(struct guard *guard, char *data, size_t size)
{
    return skip(guard, size, PLACE_CHUNK_CR);
}

static size_t at_chunk_cr(struct guard *guard, char *data, size_t size)
{
    return expect(guard, *data, '\r', PLACE_CHUNK_END);
}

static size_t at_chunk_end(struct guard *guard, char *data, size_t size)
{
    begin_chunk(guard);
    return expect(guard, *data, '\n', PLACE_CHUNK_SIZE);
}

/* -- The whole -- */

/* Each takes what belongs to its place and returns how much that is: nothing if the place, or the
 * fault, begins with this character. */
static size_t (*const readers[])(struct guard *guard, char *data, size_t size) = {
    [PLACE_START] = at_start,           [PLACE_START_LF] = at_start_lf,
    [PLACE_METHOD] = at_method,         [PLACE_TARGET] = at_target,
    [PLACE_VERSION] = at_version,       [PLACE_LINE_END] = at_line_end,
    [PLACE_FIELD] = at_field,           [PLACE_NAME] = at_name,
    [PLACE_BLANKS] = at_blanks,         [PLACE_VALUE] = at_value,
    [PLACE_HEAD_END] = at_head_end,     [PLACE_BODY] = at_body,
    [PLACE_CHUNK_SIZE] = at_chunk_size, [PLACE_EXTENSION] = at_extension,
    [PLACE_SIZE_END] = at_size_end,     [PLACE_CHUNK] = at_chunk,
    [PLACE_CHUNK_CR] = at_chunk_cr,     [PLACE_CHUNK_END] = at_chunk_end,
};

static void check_limit(struct guard *guard, enum place place)
{
    if (guard->taken <= guard->limit || guard->fault != ERROR_NONE) {
        return;
    }
    if (place <= PLACE_TARGET) {
        fail(guard, ERROR_URI_TOO_LONG, "the target is too long");
    } else {
        fail(guard, ERROR_HEADERS_TOO_LARGE, "the headers are too large");
    }
}

void guard_init(struct guard *guard, size_t limit)
{
    memset(guard, 0, sizeof *guard);
    guard->limit = limit;
}

size_t guard_pass(struct guard *guard, char *data, size_t size)
{
    size_t start = 0; /* of the present message */
    size_t at = 0;
    guard_forget(guard);
    while (at < size && guard->fault == ERROR_NONE) {
        enum place place = guard->place;
        start = place == PLACE_START ? at : start;
        size_t taken = readers[place](guard, data + at, size - at);
        at += taken;
        size -= guard->kept_back;
        guard->kept_back = 0;
        if (place <= PLACE_HEAD_END) {
            guard->taken += taken;
            check_limit(guard, place);
        }
    }
    return guard->fault == ERROR_NONE ? size : start;
}

void guard_forget(struct guard *guard)
{
    guard->method.data = guard->target.data = guard->id.data = NULL;
}
