/* libFuzzer target: any bytes as classes.txt. What is taken is good, and is there once. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "sdlora/names.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ClassNames c = {0};
    Err e = {ERR_NONE, ""};
    int i, rc = names_parse(&c, (const char *)bytes, size, "input", &e);

    for (i = 0; i < c.n; i++)
        if (!name_is_good(c.name[i]) || names_find(&c, c.name[i]) != i)
            abort();
    if (rc == 0 ? c.n < 1 || c.n > CLASS_NAMES_MAX : e.code != ERR_INPUT || !e.msg[0])
        abort();
    names_free(&c);
    return 0;
}
