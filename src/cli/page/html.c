/* Escaping, pictures: see html.h. */
#include "html.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

static void put_plain(FILE *f, const char *c, int bytes)
{
    static const char special[] = "&<>\"'";
    static const char *const escaped[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    const char *at = bytes == 1 ? strchr(special, *c) : NULL;
    if (at)
        fputs(escaped[at - special], f);
    else
        fwrite(c, 1, (size_t)bytes, f);
}

void html_text(FILE *f, const char *text)
{
    for (TextUnit u; (u = text_unit(text)).bytes; text += u.bytes)
        if (u.plain)
            put_plain(f, text, u.bytes);
        else
            for (int i = 0; i < u.bytes; i++)
                fprintf(f, "\\x%02x", (unsigned char)text[i]);
}

/* RFC 4648, 4. */
static void put_base64(FILE *f, const unsigned char *p, size_t n)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        const size_t have = n - i < 3 ? n - i : 3;
        const uint32_t bits =
            (uint32_t)p[i] << 16 | (have > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (have > 2 ? p[i + 2] : 0);
        for (size_t k = 0; k < 4; k++)
            fputc(k <= have ? digit[bits >> (18 - 6 * k) & 63] : '=', f);
    }
}

static unsigned big_endian(const unsigned char *p)
{
    return (unsigned)p[0] << 24 | (unsigned)p[1] << 16 | (unsigned)p[2] << 8 | p[3];
}

bool html_picture(FILE *f, const char *path, const char *alt)
{
    struct stat st;
    char *png = NULL;
    const unsigned char *bytes;
    size_t n = 0;
    bool good = ftell(f) < HTML_PAGE_MAX && !lstat(path, &st) && S_ISREG(st.st_mode) &&
                !file_load(&png, &n, path, HTML_PICTURE_MAX, NULL) && n >= 24 && !memcmp(png, "\x89PNG\r\n\x1a\n", 8) &&
                !memcmp(png + 12, "IHDR", 4);
    if (good) {
        bytes = (const unsigned char *)png;
        fprintf(f, "<img width=\"%u\" height=\"%u\" alt=\"", big_endian(bytes + 16), big_endian(bytes + 20));
        html_text(f, alt);
        fputs("\" src=\"data:image/png;base64,", f);
        put_base64(f, bytes, n);
        fputs("\">", f);
    }
    mem_free(png);
    return good;
}

const char *html_number(char buf[32], double x)
{
    if (!isfinite(x))
        snprintf(buf, 32, "-");
    else if (fabs(x) >= 1000 && fabs(x) < 1e15)
        text_count(buf, (int64_t)llround(x));
    else
        snprintf(buf, 32, "%.4g", x);
    return buf;
}
