/* Files of `sample`: see sample_files.h. */
#include "sample_files.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/idx.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/text.h"
#include "sdlora/npy.h"

#include "sample_picture.h"

/* ---- names ---- */

enum { KIND_MAX = 64 };

/* Of a class's name what may stand in that of a file and needs no quotes: letters, of any script, and digits. */
static void file_part(char out[KIND_MAX], const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._";
    size_t used = 0;
    for (TextUnit u; (u = text_unit(name)).bytes && used + (size_t)u.bytes < KIND_MAX; name += u.bytes) {
        const bool keep = u.bytes > 1 || strchr(plain, *name);
        memcpy(out + used, keep ? name : "-", (size_t)(keep ? u.bytes : 1));
        used += (size_t)(keep ? u.bytes : 1);
    }
    out[used] = '\0';
}

/* sample.png, sample-5.png, sample-cat.png, sample-none-lora.png, trajectory.png, ... */
static char *default_name(const SampleJob *j, Err *e)
{
    const SampleArgs *a = j->args;
    const int id = j->plan.first_class;
    char kind[KIND_MAX] = "", name[CLASS_NAME_MAX];
    if (j->plan.kinds == 1)
        file_part(kind, id == j->model->config.classes ? "none" : names_at(name, &j->model->names, id));
    return mem_printf(e, "%s%s%s%s%s",
                      a->trajectory    ? "trajectory"
                      : a->interpolate ? "interpolate"
                                       : "sample",
                      kind[0] ? "-" : "", kind,
                      a->compare   ? "-compare"
                      : a->loras.n ? "-lora"
                                   : "",
                      a->format == FORMAT_PNG ? ".png" : "");
}

static int check_file(const char *path, const SampleArgs *a, Err *e)
{
    if (cli_check_apart_from_model(path, a->model, &a->loras, e) || (a->init && cli_check_apart(path, a->init, e)) ||
        (a->mask && cli_check_apart(path, a->mask, e)) ||
        (!a->output && cli_check_default(path, a->format == FORMAT_PNG, e)))
        return -1;
    return cli_check_output(path, e);
}

/* Two names can lead to one file, and what is written second would be all that is left. (/dev/null takes both.) */
static int check_two(const char *a, const char *b, Err *e)
{
    char *one = realpath(a, NULL), *two = realpath(b, NULL);
    struct stat st;
    int rc = one && two && !strcmp(one, two) && !stat(one, &st) && S_ISREG(st.st_mode)
                 ? err_set(e, ERR_USAGE, "'%s' and '%s' are one file; name others with --output", a, b)
                 : 0;
    free(one);
    free(two);
    return rc;
}

int sample_files_name(SampleJob *j, Err *e)
{
    const SampleArgs *a = j->args;
    char *name = a->output ? mem_strdup(a->output, e) : default_name(j, e);
    int rc = name ? 0 : -1;
    if (!rc && a->format != FORMAT_PNG) {
        const bool idx = a->format == FORMAT_IDX;
        j->path[0] = mem_printf(e, idx ? "%s-images-idx3-ubyte.gz" : "%s_images.npy", name);
        j->path[1] = j->path[0] ? mem_printf(e, idx ? "%s-labels-idx1-ubyte.gz" : "%s_labels.npy", name) : NULL;
        rc = j->path[1] ? 0 : -1;
        mem_free(name);
    } else {
        j->path[0] = name;
    }
    for (int i = 0; i < 2 && j->path[i] && !rc && ranks_me() == 0; i++) /* who writes */
        rc = check_file(j->path[i], a, e);
    return rc || !j->path[1] ? rc : check_two(j->path[0], j->path[1], e);
}

int sample_blocks(const SampleJob *j)
{
    return j->args->compare ? 1 + j->args->loras.n : 1;
}

int sample_files_measure(size_t *bytes, const SampleJob *j, Err *e)
{
    int size = j->model->config.image_size;
    if (j->args->format == FORMAT_NPY) {
        *bytes = (size_t)j->plan.n; /* the labels */
        return 0;
    }
    if (j->args->format == FORMAT_IDX) {
        Idx images = {.nd = 3, .d = {(uint32_t)j->plan.n, (uint32_t)size, (uint32_t)size}};
        int rc = idx_check_size(bytes, j->path[0], &images, e);
        *bytes = (size_t)j->plan.n; /* the labels */
        return rc;
    }
    return sample_picture_measure(bytes, j, e);
}

/* ---- writing ---- */

enum { MOMENT_MS = 80, LAST_MS = 1500 }; /* of an animation */

static int write_apng(const SampleJob *j, Err *e)
{
    const int n = j->args->trajectory;
    Image *frames = mem_alloc((size_t)n, sizeof *frames, "an animation", e);
    int *ms = mem_alloc((size_t)n, sizeof *ms, "an animation", e), rc = frames && ms ? 0 : -1;
    for (int i = 0; i < n && !rc; i++) {
        ms[i] = i < n - 1 ? MOMENT_MS : LAST_MS;
        rc = sample_frame(&frames[i], j, i, e);
    }
    if (!rc)
        rc = image_write_apng(j->path[0], frames, n, ms, j->recipe.item, e);
    for (int i = 0; frames && i < n; i++)
        image_free(&frames[i]);
    mem_free(frames);
    mem_free(ms);
    if (!rc)
        printf("%s\n", j->path[0]);
    return rc;
}

static int write_png(const SampleJob *j, Err *e)
{
    Image im = {0};
    int rc = sample_picture(&im, j, e);
    assert(j->path[0]); /* sample_files_name */
    if (!rc)
        rc = image_write_png(j->path[0], &im, j->recipe.item, e);
    if (!rc && j->args->show) {
        char *text = image_half_blocks(&im, term_columns() - 1, term_query().truecolour, e);
        rc = text ? 0 : -1;
        if (text)
            fputs(text, stderr);
        mem_free(text);
    }
    image_free(&im);
    if (!rc && strcmp(j->path[0], "-"))
        printf("%s\n", j->path[0]);
    return rc;
}

static int write_idx(const SampleJob *j, uint8_t *labels, Err *e)
{
    const uint32_t n = (uint32_t)j->plan.n, size = (uint32_t)j->model->config.image_size;
    const Idx images = {.nd = 3, .d = {n, size, size}, .data = j->px[0]}, classes = {.nd = 1, .d = {n}, .data = labels};
    return idx_write_gz(j->path[0], &images, e) || idx_write_gz(j->path[1], &classes, e) ? -1 : 0;
}

static int write_npy(const SampleJob *j, uint8_t *labels, Err *e)
{
    const int n = j->plan.n, size = j->model->config.image_size, channels = j->model->config.in_channels;
    const Npy images = {.n = n, .channels = channels, .h = size, .w = size, .data = j->px[0]};
    const Npy classes = {.n = n, .channels = 1, .h = 1, .w = 1, .data = labels};
    return npy_write(j->path[0], &images, NPY_IMAGES, e) || npy_write(j->path[1], &classes, NPY_LABELS, e) ? -1 : 0;
}

/* Images and labels in two files. */
static int write_set(const SampleJob *j, Err *e)
{
    const size_t n = (size_t)j->plan.n;
    uint8_t *labels = mem_alloc(n, 1, "the labels", e);
    int rc = labels ? 0 : -1;
    for (size_t i = 0; !rc && i < n; i++)
        labels[i] = (uint8_t)j->plan.classes[i];
    if (!rc)
        rc = j->args->format == FORMAT_IDX ? write_idx(j, labels, e) : write_npy(j, labels, e);
    mem_free(labels);
    if (!rc)
        printf("%s\n%s\n", j->path[0], j->path[1]);
    return rc;
}

int sample_files_write(const SampleJob *j, Err *e)
{
    for (int i = 0; i < 2 && j->path[i] && !j->args->output;
         i++) /* again: somebody may have put a file there meanwhile */
        if (cli_check_default(j->path[i], j->args->format == FORMAT_PNG, e))
            return -1;
    if (sample_moves(j->args))
        return write_apng(j, e);
    return j->args->format == FORMAT_PNG ? write_png(j, e) : write_set(j, e);
}
