/* Which of a folder's pictures are for training, and which for testing: see folder.h and data.h. */
#include "folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

/* Which of its folders are the test part; the first that is there. */
static const char *const TEST_NAMES[] = {"val", "valid", "test", NULL};
#define TRAIN_NAME "train"

/* ---- is there anything ---- */

enum { LOOKS_MAX = 100000, DEPTH_MAX = 32 };

static bool look_into(const char *path, int depth, int *looks);

static bool look_at(const char *folder, const struct dirent *d, int depth, int *looks)
{
    bool found = folder_is_picture(d->d_name);
    char *path;

    if (found || d->d_type == DT_REG || depth == DEPTH_MAX)
        return found;
    path = folder_path(folder, d->d_name, NULL);
    found = path && look_into(path, depth + 1, looks);
    mem_free(path);
    return found;
}

static bool look_into(const char *path, int depth, int *looks)
{
    char *run = folder_path(path, FOLDER_RUN_FILE, NULL);
    DIR *dir = run && file_exists(run) ? NULL : opendir(path);
    const struct dirent *d;
    bool found = false;

    mem_free(run);
    while (dir && !found && *looks > 0 && (d = readdir(dir))) {
        --*looks;
        if (d->d_name[0] != '.')
            found = look_at(path, d, depth, looks);
    }
    if (dir)
        closedir(dir);
    return found;
}

bool folder_has_picture(const char *path)
{
    int looks = LOOKS_MAX;

    return look_into(path, 0, &looks);
}

/* ---- parts that are folders ---- */

static bool is_test_name(const char *name)
{
    for (int i = 0; TEST_NAMES[i]; i++)
        if (!strcmp(name, TEST_NAMES[i]))
            return true;
    return false;
}

/* "PATH/NAME" where that holds pictures, else NULL; the caller's. */
static char *part_in(const char *path, const char *name, Err *e)
{
    char *part = folder_path(path, name, e);

    if (part && folder_has_picture(part))
        return part;
    mem_free(part);
    return NULL;
}

/* Does it hold pictures in train/, and no other classes? */
static bool has_parts(const char *path, Err *e)
{
    struct dirent **names = NULL;
    int n = scandir(path, &names, NULL, NULL);
    bool train = false, others = false;

    for (int i = 0; i < n; i++) {
        const char *name = names[i]->d_name;
        const bool is_train = !strcmp(name, TRAIN_NAME), is_other = name[0] != '.' && !is_test_name(name);
        char *part = is_train || (is_other && !others) ? part_in(path, name, e) : NULL;
        train |= part && is_train;
        others |= part && !is_train;
        mem_free(part);
        free(names[i]);
    }
    free(names);
    return train && !others;
}

int folder_part(char **root, bool *whole, const char *path, DataSplit split, Err *e)
{
    Err none = {0};
    const bool parts = has_parts(path, &none);
    char *test = NULL;

    for (int i = 0; parts && TEST_NAMES[i] && !test; i++)
        test = part_in(path, TEST_NAMES[i], &none);
    *whole = test != NULL;
    if (test && split == DATA_TEST) {
        *root = test;
        return 0;
    }
    mem_free(test);
    *root = parts ? part_in(path, TRAIN_NAME, &none) : mem_strdup(path, &none);
    return *root ? 0 : err_set(e, ERR_FAILED, "'%s' changes while it is read", path);
}

/* ---- a part of one folder ---- */

/* 0..1, the same for the same name wherever the folder lies and whatever else is in it. */
static double place_of(const char *path)
{
    char hex[65];

    file_sha256(hex, path, strlen(path));
    hex[13] = '\0'; /* 52 bits, as many as a double has */
    return (double)strtoll(hex, NULL, 16) / (double)(1LL << 52);
}

void folder_split(Folder *f, DataSplit split, double part)
{
    int trains[DATA_CLASSES_MAX] = {0}, kept = 0;

    for (int i = 0; i < f->n; i++)
        trains[f->item[i].label] += !(place_of(f->item[i].path) < part);
    for (int i = 0; i < f->n; i++) {
        const bool test = trains[f->item[i].label] > 0 && place_of(f->item[i].path) < part;
        if (test == (split == DATA_TEST))
            f->item[kept++] = f->item[i];
        else
            mem_free(f->item[i].path);
    }
    f->n = kept;
    if (split == DATA_TEST)
        lines_free(&f->left_out); /* told with the other part */
}

/* ---- classes that are wanted ---- */

static int no_such_class(const Folder *f, const char *name, const DataConfig *c, Err *e)
{
    char list[512] = "";
    size_t used = 0;

    for (int i = 0; i < c->classes && used < sizeof list; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s'%s'", i ? ", " : "", c->class_name[i]);
    return err_set(e, ERR_INPUT, "'%s' has a class '%s' that is not trained on; there %s %s", f->root, name,
                   c->classes == 1 ? "is" : "are", list);
}

int folder_name_classes(Folder *f, const DataConfig *c, Err *e)
{
    int label[DATA_CLASSES_MAX];

    if (!c->class_name)
        return 0;
    for (int i = 0; i < f->classes; i++) {
        label[i] = f->flat && c->classes == 1 ? 0 : -1;
        for (int k = 0; k < c->classes && label[i] < 0; k++)
            if (!strcmp(f->class_name[i], c->class_name[k]))
                label[i] = k;
        if (label[i] < 0)
            return no_such_class(f, f->class_name[i], c, e);
    }
    for (int i = 0; i < f->n; i++)
        f->item[i].label = label[f->item[i].label];
    for (int i = 0; i < f->classes; i++)
        mem_free(f->class_name[i]);
    memset(f->class_name, 0, DATA_CLASSES_MAX * sizeof *f->class_name);
    f->classes = c->classes;
    for (int k = 0; k < c->classes; k++)
        if (!(f->class_name[k] = mem_strdup(c->class_name[k], e)))
            return -1;
    return 0;
}
