/* JSON on standard output: see json_out.h. */
#include "json_out.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

json_t *json_path(const char *path)
{
    json_t *text = json_string(path);
    size_t cap = 4 * strlen(path) + 1;
    char *safe = text ? NULL : mem_alloc(cap, 1, "a path", NULL);
    if (safe)
        text = json_string(text_safe(safe, cap, path));
    mem_free(safe);
    return text;
}

/* Jansson leaves DEL as it is; it can only lie in strings. */
int json_print(const json_t *root, Err *e)
{
    char *text = json_text(root, JSON_INDENT(2) | JSON_ENSURE_ASCII, "what there is", e);
    if (!text)
        return -1;
    for (const char *p = text; *p; p++)
        if (*p == 0x7f)
            printf("\\u007f");
        else
            putchar(*p);
    printf("\n");
    mem_free(text);
    return 0;
}
