/* Text that came out of a file, for a person to read: what could speak to the terminal, or lie about the order or the
 * length of a line, is shown as \xNN, a byte each. That is every control character (C0, DEL, C1), line and paragraph
 * separators, bidirectional controls, and bytes that are not UTF-8. */
#ifndef SDLORA_TEXT_H
#define SDLORA_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct TextUnit {
    int bytes;   /* of the character; 1 where it is none; 0 at the end of the text */
    int columns; /* on the screen, as \xNN where it is not plain */
    bool plain;  /* it may be shown as it is */
} TextUnit;

/* What the text begins with. */
TextUnit text_unit(const char *s);

/* s as it is to be shown, cut to fit at a whole character. Returns out. */
const char *text_safe(char *out, size_t cap, const char *s);

/* The columns that this takes, uncut. */
int text_columns(const char *s);

/* One '?' for each character that is not ASCII, or is no letter; cut to fit. Returns out. */
const char *text_ascii(char *out, size_t cap, const char *s);

/* "1,234,567", into buf, which is returned. */
const char *text_count(char buf[32], int64_t n);

#endif
