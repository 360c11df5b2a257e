/* Names of classes beside images that have labels only: classes.txt, a line for each class, in order. */
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/names.h"

#include "source.h"

const char CLASSES_FILE[] = "classes.txt";

enum { FILE_MAX = CLASS_NAMES_MAX * (CLASS_NAME_MAX + 2) };

static int read_file(ClassNames *out, const char *path, Err *e)
{
    char *text, *label = mem_printf(e, "'%s'", path);
    size_t size;
    int result;

    if (!label || file_load(&text, &size, path, FILE_MAX, e)) {
        mem_free(label);
        return -1;
    }
    result = names_parse(out, text, size, label, e);
    mem_free(text);
    mem_free(label);
    return result;
}

static int take(Dataset *d, const ClassNames *names, const char *path, Err *e)
{
    for (int i = 0; i < d->n; i++)
        if (d->labels[i] >= names->n)
            return err_set(e, ERR_INPUT, "'%s' names %d classes, and label %d, of image %d, is none of them", path,
                           names->n, d->labels[i], i);
    d->class_name = mem_alloc((size_t)names->n, sizeof *d->class_name, "the names of classes", e);
    if (!d->class_name)
        return -1;
    d->classes = names->n;
    for (int i = 0; i < names->n; i++)
        if (!(d->class_name[i] = mem_strdup(names->name[i], e)))
            return -1;
    return 0;
}

int source_name_classes(Dataset *d, const DataFiles *files, Err *e)
{
    ClassNames names = {0};
    int result;

    if (files->n < 3)
        return 0;
    result = read_file(&names, files->path[2], e) ? -1 : take(d, &names, files->path[2], e);
    names_free(&names);
    return result;
}

int source_write_names(const char *dir, const Dataset *d, Err *e)
{
    char *path = mem_printf(e, "%s/%s", dir, CLASSES_FILE);
    FileOut *f = path ? file_create(path, e) : NULL;
    int result = f ? 0 : -1;

    for (int i = 0; i < d->classes && !result; i++)
        result = file_write(f, d->class_name[i], strlen(d->class_name[i]), e) || file_write(f, "\n", 1, e) ? -1 : 0;
    if (!result)
        result = file_commit(f, e);
    else
        file_abandon(f);
    mem_free(path);
    return result;
}
