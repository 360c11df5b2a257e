/* Names of classes: see names.h. */
#include "sdlora/names.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

bool name_is_good(const char *name)
{
    const size_t len = strlen(name);

    for (TextUnit u; (u = text_unit(name)).bytes; name += u.bytes)
        if (!u.plain)
            return false;
    return len > 0 && len < CLASS_NAME_MAX;
}

int names_find(const ClassNames *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->name[i], name))
            return i;
    return -1;
}

/* Room for n, those that are there kept. */
static int grow(ClassNames *c, int n, Err *e)
{
    char(*more)[CLASS_NAME_MAX] = mem_alloc((size_t)n, sizeof *more, "the names of classes", e);

    if (!more)
        return -1;
    if (c->n > 0)
        memcpy(more, c->name, (size_t)c->n * sizeof *more);
    mem_free(c->name);
    c->name = more;
    return 0;
}

int names_add(ClassNames *c, const char *name, Err *e)
{
    char shown[4 * CLASS_NAME_MAX];

    text_safe(shown, sizeof shown, name);
    if (!name_is_good(name))
        return err_set(e, ERR_USAGE,
                       "no class can be called '%s': a name is UTF-8 of 1 to %d bytes, without control characters",
                       shown, CLASS_NAME_MAX - 1);
    if (names_find(c, name) >= 0)
        return err_set(e, ERR_USAGE, "two classes are called '%s'", shown);
    if (c->n == CLASS_NAMES_MAX)
        return err_set(e, ERR_USAGE, "there are more than %d classes", CLASS_NAMES_MAX);
    if (grow(c, c->n + 1, e))
        return -1;
    memcpy(c->name[c->n++], name, strlen(name) + 1);
    return 0;
}

int names_fill(ClassNames *c, int n, Err *e)
{
    char name[32];

    while (c->n < n) {
        snprintf(name, sizeof name, "%d", c->n);
        if (names_find(c, name) >= 0)
            snprintf(name, sizeof name, "class %d", c->n);
        if (names_add(c, name, e))
            return -1;
    }
    return 0;
}

/* Is there nothing but empty lines up to the end? */
static bool only_empty(const char *text, const char *end)
{
    while (text < end && (*text == '\r' || *text == '\n'))
        text++;
    return text == end;
}

int names_parse(ClassNames *c, const char *text, size_t size, const char *label, Err *e)
{
    const char *end = text + size, *next;
    char line[CLASS_NAME_MAX + 1]; /* of one that is too long enough to see that */
    Err why;

    if (memchr(text, 0, size))
        return err_set(e, ERR_INPUT, "%s is no text: it holds a zero byte", label);
    for (; !only_empty(text, end); text = next) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        next = stop ? stop + 1 : end;
        stop = stop ? stop : end;
        if (stop > text && stop[-1] == '\r')
            stop--;
        snprintf(line, sizeof line, "%.*s", (int)mem_min((size_t)(stop - text), CLASS_NAME_MAX), text);
        if (names_add(c, line, &why))
            return err_set(e, why.code == ERR_USAGE ? ERR_INPUT : why.code, "%s, line %d: %s", label, c->n + 1,
                           why.msg);
    }
    return c->n ? 0 : err_set(e, ERR_INPUT, "%s names no class", label);
}

int names_copy(ClassNames *out, const ClassNames *c, Err *e)
{
    if (c->n > 0 && grow(out, c->n, e))
        return -1;
    if (c->n > 0)
        memcpy(out->name, c->name, (size_t)c->n * sizeof *out->name);
    out->n = c->n;
    return 0;
}

void names_free(ClassNames *c)
{
    mem_free(c->name);
    *c = (ClassNames){0};
}

const char *names_at(char buf[CLASS_NAME_MAX], const ClassNames *c, int i)
{
    if (i < c->n)
        return c->name[i];
    snprintf(buf, CLASS_NAME_MAX, "%d", i);
    return buf;
}
