/* Text in images: stb_easy_font gives each letter as rectangles of whole dots. See image.h. */
#include "sdlora/image.h"

#include <limits.h>
#include <string.h>

#include <stb_easy_font.h>

enum { QUADS_MAX = 32 }; /* of one letter; stb_easy_font has 14 at most */

typedef struct Corner { /* as stb_easy_font_print writes them: four of a rectangle, clockwise from its upper left */
    float x, y, z;
    unsigned char colour[4];
} Corner;

/* stb takes a string that it could write to, and looks up any char in a table. */
static void one_letter(char out[2], char c)
{
    out[0] = (char)(c >= ' ' && c <= '~' ? c : '?');
    out[1] = '\0';
}

int image_text_width(const char *text, int scale)
{
    int64_t width = 0;
    char letter[2];
    for (; *text && width < INT_MAX; text++) {
        one_letter(letter, *text);
        width += (int64_t)stb_easy_font_width(letter) * scale;
    }
    return width < INT_MAX ? (int)width : INT_MAX;
}

static void fill(Image *im, int64_t x0, int64_t y0, int64_t x1, int64_t y1, uint8_t level)
{
    x0 = x0 > 0 ? x0 : 0;
    x1 = x1 < im->w ? x1 : im->w;
    for (int64_t y = y0 > 0 ? y0 : 0; y < y1 && y < im->h && x0 < x1; y++)
        memset(im->px + ((size_t)y * (size_t)im->w + (size_t)x0) * (size_t)im->channels, level,
               (size_t)(x1 - x0) * (size_t)im->channels);
}

void image_text(Image *im, int x, int y, const char *text, int scale, uint8_t level)
{
    Corner quads[QUADS_MAX][4];
    int64_t left = x;
    char letter[2];
    for (; *text && left < im->w; text++) {
        int n;
        one_letter(letter, *text);
        n = stb_easy_font_print(0, 0, letter, NULL, quads, sizeof quads);
        for (int i = 0; i < n; i++) {
            const Corner *a = &quads[i][0], *b = &quads[i][2];
            fill(im, left + (int64_t)a->x * scale, y + (int64_t)a->y * scale, left + (int64_t)b->x * scale,
                 y + (int64_t)b->y * scale, level);
        }
        left += (int64_t)stb_easy_font_width(letter) * scale;
    }
}
