/* Numbers to JSON text, and plain decimals back. A double is written in the fewest digits that read
 * back as the same one: found with integers of 128 bits where these are exact, by trying elsewhere.
 */
#include "json.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "buffer.h"

__extension__ typedef unsigned __int128 wide;

/* Writes the digits of `value` so that they end at `end`; returns where they start. */
static char *format_digits(char *end, uint64_t value)
{
    do {
        *--end = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return end;
}

void json_write_integer(struct buffer *out, int64_t value)
{
    char text[20]; /* a minus and 19 digits */
    char *end = text + sizeof text;
    char *start = format_digits(end, value < 0 ? 0 - (uint64_t)value : (uint64_t)value);
    if (value < 0) {
        *--start = '-';
    }
    buffer_append(out, start, (size_t)(end - start));
}

/* digits x 10^exponent, in as few digits as tell the double from its neighbours. */
struct decimal {
    uint64_t digits;
    int exponent;
};

static wide power_of_ten(int exponent)
{
    wide power = 1;
    for (int i = 0; i < exponent; i++) {
        power *= 10;
    }
    return power;
}

/* The decimal of fewest digits between `low` and `high`, and of those the one nearest to `centre`,
 * all in units of 2^-shift x 10^exponent; the bounds belong to the range if `closed`. */
static struct decimal shortest_between(wide low, wide centre, wide high, int shift, bool closed,
                                       int exponent)
{
    uint64_t unit = 1;
    uint64_t top = (uint64_t)((high - !closed) >> shift);
    uint64_t bottom = (uint64_t)((low + !closed + ((wide)1 << shift) - 1) >> shift);
    while (top / 10 >= (bottom + 9) / 10) {
        top /= 10;
        bottom = (bottom + 9) / 10;
        unit *= 10;
        exponent++;
    }
    wide step = (wide)unit << shift;
    uint64_t nearest = (uint64_t)((centre + step / 2) / step);
    nearest -= nearest % 2 && nearest * step == centre + step / 2; /* a tie goes to the even one */
    nearest = nearest < bottom ? bottom : nearest > top ? top : nearest;
    return (struct decimal){.digits = nearest, .exponent = exponent};
}

/* For doubles with a fraction, from 1e-4 up to 2^53: scaled to 17 or 18 whole digits, the double
 * and the halves of the way to its neighbours are exact in 128 bits (55 + 70 at most). */
static struct decimal decimal_of_fraction(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint64_t mantissa = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    int exponent = (int)(bits >> 52) - 1075;        /* value = mantissa x 2^exponent */
    int magnitude = ((exponent + 52) * 1233) >> 12; /* of 10, rounded down */
    int power = 16 - magnitude;
    wide scale = power_of_ten(power);
    wide centre = 4 * mantissa * scale;
    /* Below a power of two the doubles lie twice as dense. */
    wide below = mantissa == UINT64_C(1) << 52 ? scale : 2 * scale;
    return shortest_between(centre - below, centre, centre + 2 * scale, 2 - exponent,
                            mantissa % 2 == 0, -power);
}

/* Reads what "%.*e" has printed: d.ddde+xx. */
static struct decimal decimal_of_text(const char *text)
{
    struct decimal decimal = {.digits = (uint64_t)(*text - '0')};
    for (text++; *text != 'e'; text++) {
        if (*text != '.') {
            decimal.digits = decimal.digits * 10 + (uint64_t)(*text - '0');
            decimal.exponent--;
        }
    }
    decimal.exponent += atoi(text + 1);
    while (decimal.digits % 10 == 0) {
        decimal.digits /= 10;
        decimal.exponent++;
    }
    return decimal;
}

/* Above a power of two the doubles lie further apart than below it, so that 16 digits rounded up
 * may read back where 16 digits rounded to the nearest did not. */
static struct decimal try_shorter(struct decimal decimal, double value)
{
    struct decimal shorter = {.digits = decimal.digits / 10 + 1, .exponent = decimal.exponent + 1};
    char text[JSON_NUMBER_SIZE];
    snprintf(text, sizeof text, "%" PRIu64 "e%d", shorter.digits, shorter.exponent);
    return strtod(text, NULL) == value ? shorter : decimal;
}

/* For all magnitudes, by trying: 15 digits are the fewest worth it for a normal double, since all
 * decimals of up to 15 digits survive the way through one and show as such. */
static struct decimal decimal_by_trial(double value)
{
    char text[JSON_NUMBER_SIZE];
    int digits = value < 0x1p-1022 ? 1 : 15;
    do {
        snprintf(text, sizeof text, "%.*e", digits - 1, value);
    } while (strtod(text, NULL) != value && digits++ < 17);
    return digits < 17 ? decimal_of_text(text) : try_shorter(decimal_of_text(text), value);
}

static struct decimal shortest_decimal(double value)
{
    if (value < 0x1p53 && value == (double)(uint64_t)value) {
        return (struct decimal){.digits = (uint64_t)value};
    }
    return value >= 1e-4 && value < 0x1p53 ? decimal_of_fraction(value) : decimal_by_trial(value);
}

static char *put(char *to, const char *text, int count)
{
    memcpy(to, text, (size_t)count);
    return to + count;
}

static char *put_zeros(char *to, int count)
{
    memset(to, '0', (size_t)count);
    return to + count;
}

/* Lays `count` digits out; the point stands before digit number `point`, counted from 0. Returns
 * the end. */
static char *lay_out(char *to, const char *digits, int count, int point)
{
    if (point > 16 || point < -5) {
        to = put(to, digits, 1);
        if (count > 1) {
            to = put(put(to, ".", 1), digits + 1, count - 1);
        }
        return to + sprintf(to, "e%+d", point - 1);
    }
    if (point <= 0) {
        return put(put_zeros(put(to, "0.", 2), -point), digits, count);
    }
    if (point >= count) {
        return put_zeros(put(to, digits, count), point - count);
    }
    return put(put(put(to, digits, point), ".", 1), digits + point, count - point);
}

size_t json_format_number(char text[JSON_NUMBER_SIZE], double value)
{
    char digits[20];
    char *end = digits + sizeof digits;
    char *to = text;
    assert(isfinite(value));
    struct decimal decimal = shortest_decimal(fabs(value));
    char *first = format_digits(end, decimal.digits);
    int count = (int)(end - first);
    if (signbit(value)) {
        *to++ = '-';
    }
    to = lay_out(to, first, count, count + decimal.exponent);
    *to = '\0';
    return (size_t)(to - text);
}

int json_write_number(struct buffer *out, double value)
{
    if (!isfinite(value)) {
        return -1;
    }
    out->length += json_format_number(buffer_reserve(out, JSON_NUMBER_SIZE), value);
    return 0;
}

/* The digits of a decimal as one number, and how many of them stand behind the point. False if
 * there are more than 64 bits hold, or anything but digits and a point. */
static bool read_digits(const char *text, size_t length, uint64_t *ret_digits, size_t *ret_fraction)
{
    uint64_t digits = 0;
    size_t point = length;
    if (length > 20 || length == 0) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            digits = digits * 10 + (uint64_t)(text[i] - '0');
        } else if (text[i] == '.' && point == length) {
            point = i;
        } else {
            return false;
        }
    }
    *ret_digits = digits;
    *ret_fraction = point == length ? 0 : length - point - 1;
    return point < length || length < 20;
}

#if defined(__x86_64__) && LDBL_MANT_DIG == 64

/* Digits and power are exact in the 64 bits of a long double, so one division gives the nearest of
 * these. Rounded again it is the nearest double, unless the first rounding led exactly half-way
 * between two. */
static bool divide(uint64_t digits, size_t fraction, double *ret_value)
{
    static const long double powers[] = {1e0L,  1e1L,  1e2L,  1e3L,  1e4L,  1e5L,  1e6L,
                                         1e7L,  1e8L,  1e9L,  1e10L, 1e11L, 1e12L, 1e13L,
                                         1e14L, 1e15L, 1e16L, 1e17L, 1e18L, 1e19L};
    long double quotient = (long double)digits / powers[fraction];
    uint64_t mantissa;
    memcpy(&mantissa, &quotient, sizeof mantissa);
    *ret_value = (double)quotient;
    return (mantissa & 0x7ff) != 0x400;
}

#else

/* Digits and power are exact, so one division gives the nearest double. */
static bool divide(uint64_t digits, size_t fraction, double *ret_value)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,
                                    1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19};
    *ret_value = (double)digits / powers[fraction];
    return digits <= UINT64_C(1) << 53;
}

#endif

bool json_read_decimal(const char *text, size_t length, double *ret_value)
{
    bool negative = length > 0 && *text == '-';
    uint64_t digits;
    size_t fraction;
    double value;
    if (!read_digits(text + negative, length - negative, &digits, &fraction) ||
        !divide(digits, fraction, &value)) {
        return false;
    }
    *ret_value = negative ? -value : value;
    return true;
}
