/* Looks at what arrives on a connection before libmicrohttpd (MHD) does, which takes much for HTTP
 * that is none. Knows where each message begins and ends, and keeps nothing of it. */
#ifndef MOONPOOL_HTTP_GUARD_H
#define MOONPOOL_HTTP_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

enum { GUARD_WORD = 32 };

/* A text in the piece that was passed last, valid with it; NULL if it came before, or never. */
struct guard_text {
    const char *data;
    size_t length;
};

struct guard {
    enum error_code fault; /* ERROR_NONE, or why nothing passes any more */
    const char *message;   /* static; what to tell the client of it */
    uint32_t begun;        /* messages whose first byte has come */
    size_t limit;          /* memory that a head and its trailers may take in MHD */
    struct guard_text method, target, id;

    /* The guard's own. */
    size_t taken;  /* of the limit */
    uint64_t left; /* bytes of the body or of the chunk */
    uint8_t place;
    uint8_t field;   /* whose value it is */
    uint8_t lengths; /* how many of them, up to 2 */
    uint8_t encodings;
    uint8_t hosts;
    uint8_t word_length; /* GUARD_WORD if it does not fit */
    bool http_1_1;
    bool chunked;
    bool blank;       /* the value has a blank behind it */
    size_t kept_back; /* blanks behind what was read last, which are taken out of the piece */
    bool in_trailers;
    const char *bad_length; /* static; what is wrong with Content-Length, or NULL */
    char word[GUARD_WORD];  /* what is being read, if that matters */
};

void guard_init(struct guard *guard, size_t limit);

/* The next piece. Returns how many bytes of it may go on: all, or up to the beginning of the
 * message with the fault, which may have been before this piece. Blanks behind the length of a body
 * are taken out, since MHD does not know them there. */
size_t guard_pass(struct guard *guard, char *data, size_t size);

/* The piece that was passed last is no longer valid. */
void guard_forget(struct guard *guard);

#endif
