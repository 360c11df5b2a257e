/* Text for people: see text.h. */
#include "sdlora/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

typedef struct Range {
    uint32_t first, last;
} Range;

/* C0, DEL and C1; marks of direction (Unicode's Bidi_Control); separators of lines and paragraphs. */
static const Range ACTIVE[] = {{0x00, 0x1f},     {0x7f, 0x9f},     {0x61c, 0x61c},  {0x200e, 0x200f},
                               {0x2028, 0x2029}, {0x202a, 0x202e}, {0x2066, 0x2069}};
/* The blocks of marks over and under letters, and those that terminals show two columns wide: rough, but for a table.
 */
static const Range NONE[] = {{0x300, 0x36f}, {0x200b, 0x200d}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff}};
static const Range WIDE[] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf}, {0xac00, 0xd7a3},   {0xf900, 0xfaff},
                             {0xfe30, 0xfe6f}, {0xff01, 0xff60}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};

#define AMONG(c, ranges) among(c, ranges, sizeof(ranges) / sizeof *(ranges))
static bool among(uint32_t c, const Range *r, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (c >= r[i].first && c <= r[i].last)
            return true;
    return false;
}

/* Bytes of the character at s, and the character; 0: it is not UTF-8. The text's end is no continuation. */
static int decode(uint32_t *c, const unsigned char *s)
{
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    int n = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf8 ? 4 : 0;
    *c = n < 2 ? s[0] : s[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        *c = *c << 6 | (s[i] & 0x3f);
    }
    return n && *c >= LEAST[n] && *c <= 0x10ffff && (*c < 0xd800 || *c > 0xdfff) ? n : 0;
}

TextUnit text_unit(const char *s)
{
    TextUnit u = {0, 0, false};
    uint32_t c;
    int n;
    if (!*s)
        return u;
    n = decode(&c, (const unsigned char *)s);
    u.bytes = n ? n : 1;
    u.plain = n && !AMONG(c, ACTIVE);
    u.columns = !u.plain ? 4 * u.bytes : AMONG(c, NONE) ? 0 : AMONG(c, WIDE) ? 2 : 1;
    return u;
}

const char *text_safe(char *out, size_t cap, const char *s)
{
    size_t used = 0;
    for (TextUnit u; (u = text_unit(s)).bytes; s += u.bytes) {
        size_t need = (size_t)(u.plain ? u.bytes : 4 * u.bytes);
        if (used + need >= cap)
            break;
        if (u.plain)
            memcpy(out + used, s, need);
        for (int i = 0; i < u.bytes && !u.plain; i++)
            snprintf(out + used + 4 * i, 5, "\\x%02x", (unsigned char)s[i]);
        used += need;
    }
    out[used] = '\0';
    return out;
}

const char *text_ascii(char *out, size_t cap, const char *s)
{
    size_t used = 0;
    for (TextUnit u; (u = text_unit(s)).bytes && used + 1 < cap; s += u.bytes)
        out[used++] = *s >= ' ' && *s <= '~' ? *s : '?';
    out[used] = '\0';
    return out;
}

int text_columns(const char *s)
{
    int n = 0;
    for (TextUnit u; (u = text_unit(s)).bytes; s += u.bytes)
        n += u.columns;
    return n;
}

const char *text_count(char buf[32], int64_t n)
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRId64, n), out = 0;
    for (int i = 0; i < len; i++) {
        if (i && (len - i) % 3 == 0 && digits[i - 1] != '-')
            buf[out++] = ',';
        buf[out++] = digits[i];
    }
    buf[out] = '\0';
    return buf;
}
