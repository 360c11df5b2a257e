/* Which files a folder of pictures has: see folder.h and data.h. */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

/* The second row is what people have, too: that it cannot be read is said of each. */
static const char *const ENDINGS[] = {"png",  "jpg", "jpeg", "bmp", "gif", /* */
                                      "jfif", "jpe", "webp", "tif", "tiff", "heic", "heif", "avif", NULL};

/* One scan, and the folders that were read, as a tree of Place. */
typedef struct Walk {
    Folder *f;
    void *seen;
    Err *e;
} Walk;

typedef struct Place {
    dev_t dev;
    ino_t ino;
} Place;

bool folder_is_picture(const char *name)
{
    const char *dot = strrchr(name, '.');

    for (int i = 0; dot && ENDINGS[i]; i++)
        if (!strcasecmp(dot + 1, ENDINGS[i]))
            return true;
    return false;
}

/* ---- lists ---- */

/* Room for one more of `size` bytes: a list twice as long where there is none. */
static void *grown(void *list, int n, int *room, size_t size, const char *what, Err *e)
{
    const int more = n > 0 ? 2 * n : 16;
    void *longer;

    if (n < *room)
        return list;
    if (n > INT_MAX / 4) {
        err_set(e, ERR_INPUT, "more than %d %s", INT_MAX / 4, what);
        return NULL;
    }
    longer = mem_alloc((size_t)more, size, what, e);
    if (!longer)
        return NULL;
    if (n > 0)
        memcpy(longer, list, (size_t)n * size);
    mem_free(list);
    *room = more;
    return longer;
}

int lines_add(Lines *l, char *text, Err *e)
{
    char **item = text ? grown(l->item, l->n, &l->room, sizeof *item, "lines of a report", e) : NULL;

    if (!item) {
        mem_free(text);
        return -1;
    }
    l->item = item;
    item[l->n++] = text;
    return 0;
}

void lines_free(Lines *l)
{
    for (int i = 0; i < l->n; i++)
        mem_free(l->item[i]);
    mem_free(l->item);
    *l = (Lines){0};
}

/* ---- reading a folder ---- */

static int by_bytes(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_shown(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static void free_names(struct dirent **names, int n)
{
    for (int i = 0; i < n; i++)
        free(names[i]);
    free(names);
}

char *folder_path(const char *a, const char *b, Err *e)
{
    return mem_printf(e, "%s%s%s", a, *a && a[strlen(a) - 1] != '/' ? "/" : "", b);
}

static int by_place(const void *a, const void *b)
{
    const Place *p = a, *q = b;

    if (p->dev != q->dev)
        return p->dev < q->dev ? -1 : 1;
    return p->ino < q->ino ? -1 : p->ino > q->ino;
}

/* True: it was not there yet. Where there is no memory, too: then links end by the length of their path. */
static bool see(Walk *w, const struct stat *st)
{
    Place *p = malloc(sizeof *p); /* not mem_alloc: the tree frees it */
    Place *const *at;

    if (!p)
        return true;
    *p = (Place){st->st_dev, st->st_ino};
    at = tsearch(p, &w->seen, by_place);
    if (at && *at == p)
        return true;
    free(p);
    return !at;
}

static int64_t nanoseconds(struct timespec t)
{
    return (int64_t)((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec);
}

static int add_picture(Walk *w, char *path, int label, const struct stat *st)
{
    Folder *f = w->f;
    Picture *item = path ? grown(f->item, f->n, &f->room, sizeof *item, "pictures", w->e) : NULL;

    if (!item) {
        mem_free(path);
        return -1;
    }
    f->item = item;
    item[f->n++] = (Picture){path, label, {st->st_size, nanoseconds(st->st_mtim), nanoseconds(st->st_ctim)}};
    return 0;
}

/* A folder that cannot be read, or was already. */
static int leave_out(Walk *w, const char *path, const char *why)
{
    return lines_add(&w->f->left_out, mem_printf(w->e, "'%s': %s", path, why), w->e);
}

static int walk(Walk *w, const char *from, int label);

static int walk_folder(Walk *w, const char *from, int label, const char *path, const struct stat *st)
{
    return see(w, st) ? walk(w, from, label) : leave_out(w, path, "a folder that is read already");
}

/* One name in the folder `from` (from the root on). What cannot be looked at is told when it is read. */
static int walk_name(Walk *w, const char *from, const char *name, int label)
{
    char *inner = folder_path(from, name, w->e), *path = inner ? folder_path(w->f->root, inner, w->e) : NULL;
    struct stat st = {0};
    int rc = path ? 0 : -1;

    if (!rc && stat(path, &st))
        st = (struct stat){0};
    if (!rc && S_ISDIR(st.st_mode)) {
        rc = walk_folder(w, inner, label, path, &st);
    } else if (!rc && folder_is_picture(name)) {
        rc = add_picture(w, inner, label, &st);
        inner = NULL;
    }
    mem_free(inner);
    mem_free(path);
    return rc;
}

/* A folder that 'run.json' is in is a run of this program: its pictures are drawn, not given. */
static bool is_run(struct dirent **names, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(names[i]->d_name, FOLDER_RUN_FILE))
            return true;
    return false;
}

/* All of a folder that belongs to one class. */
static int walk(Walk *w, const char *from, int label)
{
    char *path = folder_path(w->f->root, from, w->e);
    struct dirent **names = NULL;
    const int n = path ? scandir(path, &names, is_shown, by_bytes) : 0, wanted = is_run(names, n) ? 0 : n;
    int rc = path ? 0 : -1;

    if (n < 0)
        rc = leave_out(w, path, strerror(errno));
    mem_free(path);
    for (int i = 0; i < wanted && !rc; i++)
        rc = walk_name(w, from, names[i]->d_name, label);
    free_names(names, n);
    return rc;
}

/* ---- classes ---- */

/* The folders among the names of the root, which is one of them already: *n is left with those that are to be read.
 * They are all known before the first is, so that no link from one into another mixes classes. */
static int keep_folders(Walk *w, struct dirent **names, int *n)
{
    int kept = 0, rc = 0;

    for (int i = 0; i < *n; i++) {
        char *path = rc ? NULL : folder_path(w->f->root, names[i]->d_name, w->e);
        struct stat st;
        bool folder = path && !stat(path, &st) && S_ISDIR(st.st_mode), first = folder && see(w, &st);
        if (!path || (folder && !first && leave_out(w, path, "a folder that is read already")))
            rc = -1;
        mem_free(path);
        if (first)
            names[kept++] = names[i];
        else
            free(names[i]);
    }
    *n = kept;
    return rc;
}

static int add_class(Folder *f, const char *name, Err *e)
{
    if (f->classes == DATA_CLASSES_MAX)
        return err_set(e, ERR_INPUT, "'%s' has more than %d folders of pictures, and there can be no more classes",
                       f->root, DATA_CLASSES_MAX);
    for (int c = 0; c < f->classes; c++)
        if (!strcasecmp(f->class_name[c], name))
            return err_set(e, ERR_INPUT,
                           "the classes '%s' and '%s' in '%s' differ in case only: rename one, or put "
                           "them together",
                           f->class_name[c], name, f->root);
    f->class_name[f->classes] = mem_strdup(name, e);
    return f->class_name[f->classes++] ? 0 : -1;
}

/* Also where it may be called as a picture. */
static bool is_folder(const Folder *f, const char *name)
{
    char *path = folder_path(f->root, name, NULL);
    const bool folder = path && file_is_dir(path);

    mem_free(path);
    return folder;
}

/* The pictures that lie in the root itself: all there are, or some that are told, as they are of no class. */
static int take_loose(Walk *w, struct dirent **names, int n, const char *name)
{
    Folder *f = w->f;
    const char *first = NULL;
    char *path;
    int loose = 0, rc = 0;

    for (int i = 0; i < n && !rc; i++) {
        if (!folder_is_picture(names[i]->d_name) || is_folder(f, names[i]->d_name))
            continue;
        first = first ? first : names[i]->d_name;
        loose++;
        if (f->classes == 0)
            rc = walk_name(w, "", names[i]->d_name, 0);
    }
    if (rc || loose == 0)
        return rc;
    f->flat = f->classes == 0;
    if (f->flat)
        return add_class(f, name, w->e);
    path = folder_path(f->root, first, w->e);
    rc = !path || lines_add(&f->left_out,
                            mem_printf(w->e, "'%s': %d picture%s beside the classes' folders", path, loose,
                                       loose > 1 ? "s" : ""),
                            w->e)
             ? -1
             : 0;
    mem_free(path);
    return rc;
}

static int walk_classes(Walk *w, struct dirent **folders, int n)
{
    for (int i = 0; i < n; i++) {
        const int before = w->f->n;
        if (walk(w, folders[i]->d_name, w->f->classes))
            return -1;
        if (w->f->n > before && add_class(w->f, folders[i]->d_name, w->e))
            return -1;
    }
    return 0;
}

static int scan(Walk *w, const char *name)
{
    Folder *f = w->f;
    struct dirent **files = NULL, **folders = NULL;
    struct stat st;
    int n = scandir(f->root, &files, is_shown, by_bytes), m = -1, rc = -1;

    if (n >= 0 && !stat(f->root, &st)) {
        see(w, &st);
        m = scandir(f->root, &folders, is_shown, by_bytes);
    }
    if (m < 0)
        err_errno(w->e, ERR_FAILED, "cannot read '%s'", f->root);
    else if (!keep_folders(w, folders, &m) && !walk_classes(w, folders, m) && !take_loose(w, files, n, name))
        rc = 0;
    free_names(folders, m);
    free_names(files, n);
    return rc;
}

int folder_scan(Folder *out, const char *root, const char *name, Err *e)
{
    Walk w = {.f = out, .e = e};
    int rc = -1;

    memset(out, 0, sizeof *out);
    out->root = mem_strdup(root, e);
    out->class_name = out->root ? mem_alloc(DATA_CLASSES_MAX, sizeof *out->class_name, "the classes", e) : NULL;
    if (out->class_name)
        rc = scan(&w, name);
    tdestroy(w.seen, free);
    if (rc)
        folder_free(out);
    return rc;
}

void folder_free(Folder *f)
{
    for (int i = 0; i < f->n; i++)
        mem_free(f->item[i].path);
    for (int i = 0; f->class_name && i < f->classes; i++)
        mem_free(f->class_name[i]);
    lines_free(&f->left_out);
    mem_free(f->item);
    mem_free(f->class_name);
    mem_free(f->root);
    memset(f, 0, sizeof *f);
}
