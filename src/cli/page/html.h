/* Pieces of a page of HTML that needs nothing but itself. */
#ifndef SDLORA_CLI_HTML_H
#define SDLORA_CLI_HTML_H

#include <stdbool.h>
#include <stdio.h>

/* Text from anywhere, as it is to be read: what HTML gives a meaning is escaped, for elements and quoted attributes,
 * and what would lie about the text is shown as text.h has it. */
void html_text(FILE *f, const char *text);

/* <img> with the PNG file in it, its size, and what it shows for those who do not see it. False, and nothing, where
 * there is no such file (links are not followed), it is no PNG, it is larger than HTML_PICTURE_MAX bytes, or the page
 * has HTML_PAGE_MAX already. */
#define HTML_PICTURE_MAX ((size_t)4 << 20)
#define HTML_PAGE_MAX    ((long)32 << 20)
bool html_picture(FILE *f, const char *path, const char *alt);

/* A number for people: "0.0123", "1,234", "-" where it is none. */
const char *html_number(char buf[32], double x);

#endif
