/* Strict JSON on jansson, see json_strict.h. One scan before jansson sees the text counts depth and values, and finds
 * the integers that jansson cannot hold or would confuse: 2^63..2^64-1 are rewritten as their two's complement,
 * negative integers as reals (-5 becomes -5.0). So every JSON_INTEGER of the tree is an unsigned 64-bit number, bit for
 * bit. The rewriting maps valid text to valid text and invalid to invalid; most headers have neither kind and are not
 * copied. */
#include "json_strict.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

typedef struct Scan {
    size_t depth, deepest, values;
    size_t len; /* of the rewritten text */
} Scan;

static bool is_number_byte(char c)
{
    return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E';
}

static bool all_digits(const char *s, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9')
            return false;
    return n > 0;
}

/* The number token s of n bytes into buf when it must be rewritten; its new length, or 0: leave it alone. */
static size_t rewrite_number(char buf[48], const char *s, size_t n)
{
    uint64_t v = 0;
    size_t i;

    if (n >= 2 && n < 40 && s[0] == '-' && all_digits(s + 1, n - 1))
        return (size_t)snprintf(buf, 48, "%.*s.0", (int)n, s);
    if (n < 19 || n > 20 || s[0] == '0' || !all_digits(s, n))
        return 0;
    for (i = 0; i < n; i++) {
        uint64_t digit = (uint64_t)(s[i] - '0');
        if (v > (UINT64_MAX - digit) / 10)
            return 0; /* beyond 64 bits: jansson refuses it */
        v = v * 10 + digit;
    }
    if (v <= INT64_MAX)
        return 0;
    /* -(2^64 - v); the magnitude is at most 2^63, which jansson reads back exactly */
    return (size_t)snprintf(buf, 48, "-%" PRIu64, ~v + 1);
}

static size_t string_end(const char *s, size_t i, size_t n)
{
    for (i++; i < n && s[i] != '"'; i++)
        if (s[i] == '\\')
            i++;
    return i < n ? i + 1 : n;
}

static void emit(Scan *scan, char *out, const char *s, size_t n)
{
    if (out)
        memcpy(out + scan->len, s, n);
    scan->len += n;
}

static Scan scan_text(char *out, const char *s, size_t n)
{
    Scan scan = {0, 0, 0, 0};
    char buf[48];
    size_t i = 0;

    while (i < n) {
        size_t end = i + 1, len = 0;
        if (s[i] == '"') {
            end = string_end(s, i, n);
        } else if (s[i] == '{' || s[i] == '[') {
            scan.values++;
            if (++scan.depth > scan.deepest)
                scan.deepest = scan.depth;
        } else if ((s[i] == '}' || s[i] == ']') && scan.depth > 0) {
            scan.depth--;
        } else if (s[i] == ',') {
            scan.values++;
        } else if (is_number_byte(s[i])) {
            while (end < n && is_number_byte(s[end]))
                end++;
            len = rewrite_number(buf, s + i, end - i);
        }
        if (len > 0)
            emit(&scan, out, buf, len);
        else
            emit(&scan, out, s + i, end - i);
        i = end;
    }
    return scan;
}

json_t *json_strict_parse(const char *text, size_t n, char *why, size_t cap)
{
    Scan scan = scan_text(NULL, text, n);
    char *copy = NULL;
    json_error_t error;
    json_t *root;

    if (scan.deepest > JSON_STRICT_DEPTH || scan.values > JSON_STRICT_VALUES) {
        if (scan.deepest > JSON_STRICT_DEPTH)
            snprintf(why, cap, "nested %zu levels deep, %d at most", scan.deepest, JSON_STRICT_DEPTH);
        else
            snprintf(why, cap, "%zu values, %d at most", scan.values, JSON_STRICT_VALUES);
        return NULL;
    }
    if (scan.len != n) {
        copy = mem_alloc(scan.len, 1, "a JSON text", NULL);
        if (!copy) {
            snprintf(why, cap, "no memory");
            return NULL;
        }
        scan_text(copy, text, n);
    }
    root = json_loadb(copy ? copy : text, scan.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
    mem_free(copy);
    if (!root)
        text_safe(why, cap, error.text);
    return root;
}

bool json_strict_u64(const json_t *v, uint64_t *out)
{
    if (!json_is_integer(v))
        return false;
    *out = (uint64_t)json_integer_value(v);
    return true;
}
