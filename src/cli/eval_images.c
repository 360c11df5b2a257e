/* What `eval` scores: images out of a model, or out of files. See eval.h. */
#include <stdlib.h>
#include <string.h>

#include "sdlora/idx.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/npy.h"
#include "sdlora/ranks.h"
#include "sdlora/store.h"

#include "drawn_ranks.h"
#include "eval.h"

enum { DRAWN = 10000 }; /* of a model, unless told otherwise */

/* ---- images out of files ---- */

/* The first of PREFIX + ending that is there; *path is the caller's, NULL: none is. */
static int find_ending(char **path, const char *prefix, const char *const *endings, Err *e)
{
    for (*path = NULL; *endings; endings++) {
        if (!(*path = mem_printf(e, "%s%s", prefix, *endings)))
            return -1;
        if (file_exists(*path))
            return 0;
        mem_free(*path);
        *path = NULL;
    }
    return 0;
}

static const char *const IMAGE_ENDINGS[] = {"-images-idx3-ubyte.gz", "-images-idx3-ubyte", "_images.npy", NULL};
static const char *const LABEL_ENDINGS[] = {"-labels-idx1-ubyte.gz", "-labels-idx1-ubyte", "_labels.npy", NULL};

static bool is_npy(const char *path)
{
    unsigned char head[6];
    size_t got = 0;
    bool zipped;
    return !idx_peek(head, &got, sizeof head, &zipped, path, NULL) && got == 6 && !memcmp(head, "\x93NUMPY", 6);
}

static int read_images(Dataset *out, const char *path, Err *e)
{
    if (is_npy(path)) {
        Npy a;
        if (npy_read(&a, path, NPY_IMAGES, e))
            return -1;
        *out = (Dataset){.n = a.n, .channels = a.channels, .h = a.h, .w = a.w, .images = a.data};
    } else {
        Idx a;
        if (idx_read(&a, path, 3, e))
            return -1;
        *out = (Dataset){.n = (int)a.d[0], .channels = 1, .h = (int)a.d[1], .w = (int)a.d[2], .images = a.data};
    }
    return 0;
}

static int read_labels(Dataset *out, const char *path, const char *images, Err *e)
{
    Npy a = {0};
    Idx b = {0};
    const bool npy = is_npy(path);
    int n;
    if (npy ? npy_read(&a, path, NPY_LABELS, e) : idx_read(&b, path, 1, e))
        return -1;
    n = npy ? a.n : (int)b.d[0];
    out->labels = npy ? a.data : b.data;
    if (n != out->n)
        return err_set(e, ERR_INPUT, "'%s' has %d images, but '%s' has %d labels: they do not belong together", images,
                       out->n, path, n);
    for (int i = 0; i < n; i++)
        out->classes = out->labels[i] >= out->classes ? out->labels[i] + 1 : out->classes;
    return (out->label_path = mem_strdup(path, e)) ? 0 : -1;
}

/* PREFIX-images-idx3-ubyte.gz and its labels, as sample --format idx writes them. */
static int read_pair(EvalJob *j, const char *images, const char *prefix, Err *e)
{
    char *labels = NULL;
    int rc = find_ending(&labels, prefix, LABEL_ENDINGS, e) || read_images(&j->images, images, e) ? -1 : 0;
    j->labelled = labels != NULL;
    if (!rc && labels)
        rc = read_labels(&j->images, labels, images, e);
    mem_free(labels);
    return rc;
}

/* A directory's training part, or its test part where there is no other; of pictures all, as large as the data. */
static int read_directory(EvalJob *j, const char *path, Err *e)
{
    const EvalArgs *a = j->args;
    PictureArgs all = a->pictures;
    DataConfig c;
    DataFiles files;
    DataSplit split;
    all.val = NULL;
    all.val_split = 0;
    if (picture_args_config(&c, &all, j->test.h, j->test.channels, e) || dataset_files(&files, path, DATA_TRAIN, e))
        return -1;
    split = files.n ? DATA_TRAIN : DATA_TEST;
    data_files_free(&files);
    j->labelled = true;
    return picture_args_read(&j->images, path, split, &c, &all, a->sample.progress, a->sample.quiet, e) ||
                   classes_match(&j->names, &j->classes, &j->images, MATCH_KNOWN, "those of the data", e)
               ? -1
               : 0;
}

/* ---- to the data's size ---- */

static int resize_all(Dataset *d, int h, int w, Err *e)
{
    const size_t in = (size_t)d->h * (size_t)d->w, out = (size_t)h * (size_t)w;
    const size_t planes = (size_t)d->n * (size_t)d->channels;
    uint8_t *px = mem_alloc(planes, out, "the images", e);
    int rc = px ? 0 : -1;
    for (size_t i = 0; i < planes && !rc; i++)
        rc = resize_bilinear(px + i * out, h, w, d->images + i * in, d->h, d->w, e);
    if (rc) {
        mem_free(px);
        return -1;
    }
    mem_free(d->images);
    d->images = px;
    d->h = h;
    d->w = w;
    return 0;
}

/* Checks that they can be compared with the data, and makes them as large. */
static int settle(EvalJob *j, Err *e)
{
    Dataset *d = &j->images;
    if (d->channels != j->test.channels)
        return err_set(e, ERR_INPUT, "the images of '%s' have %d channel%s, those of '%s' %d: they cannot be compared",
                       j->args->source, d->channels, d->channels == 1 ? "" : "s", j->args->data, j->test.channels);
    if (j->labelled && dataset_check_labels(d, j->classes, e))
        return -1;
    if (d->h == j->test.h && d->w == j->test.w)
        return 0;
    return resize_all(d, j->test.h, j->test.w, e);
}

static int limit(EvalJob *j, Err *e)
{
    Dataset *d = &j->images;
    const int n = j->args->sample.n;
    if (n && n < d->n && j->labelled)
        return dataset_balance(d, n, e);
    if (n && n < d->n)
        d->n = n;
    return d->n < 2 ? err_set(e, ERR_INPUT, "'%s' has one image; a distance of sets needs two", j->args->source) : 0;
}

/* ---- images out of a model ---- */

static int open_model(EvalJob *j, const Given *g, Err *e)
{
    SampleArgs *a = &j->args->sample;
    char sha256[65];
    if (cli_model_file(a->model_file, j->args->source, e))
        return -1;
    a->model = a->model_file;
    if (!(j->model = cli_load_model(a->model, sha256, e)) ||
        cli_load_adapters(&j->loras, &a->loras, j->model, a->model, sha256, e) ||
        cli_merge_adapters(j->model, &j->loras, e) || sample_args_settle(a, g, j->model, e))
        return -1;
    if (!a->n)
        a->n = DRAWN;
    return a->n < 2 ? err_set(e, ERR_USAGE, "the number of images (--count) must be 2 at least") : 0;
}

/* Whoever forgot --data may wonder about the figures. */
static void note_other_data(const EvalJob *j)
{
    const Facts *f = &j->model->facts;
    if (j->args->sample.quiet || j->loras.n || !*f->data_sha256 || !strcmp(f->data_sha256, j->train.sha256))
        return;
    fputs("note: the model was trained on other images (", stderr);
    cli_put(stderr, *f->data_name ? f->data_name : f->data_sha256);
    fputs(") than those that it is compared with; --data names others\n", stderr);
}

/* Can what it draws be compared with the data? */
static int check_model(const EvalJob *j, Err *e)
{
    const ModelConfig *m = &j->model->config;
    if (m->classes != j->train.classes)
        return err_set(e, ERR_INPUT,
                       "'%s' draws %d classes, and '%s' has %d; name the data that it is to be like with --data",
                       j->args->sample.model, m->classes, j->args->data, j->train.classes);
    if (m->in_channels != j->test.channels)
        return err_set(e, ERR_INPUT, "'%s' draws images of %d channels, and those of '%s' have %d",
                       j->args->sample.model, m->in_channels, j->args->data, j->test.channels);
    note_other_data(j);
    return 0;
}

/* Class after class, as sample draws them; the first ones have one image more where they cannot all have as many. */
static void share_out(int *classes, uint8_t *labels, int n, int k)
{
    for (int c = 0, i = 0; c < k; c++)
        for (int each = n / k + (c < n % k); each > 0; each--, i++) {
            classes[i] = c;
            labels[i] = (uint8_t)c;
        }
}

static int on_step(void *ctx, int first, int n, int step, int steps, const float *x)
{
    EvalJob *j = ctx;
    (void)first, (void)step, (void)steps, (void)x;
    j->done += n;
    progress_update(&j->progress, j->done, "drawing", "", false);
    return 0;
}

/* The images of --seed, as sample would draw them into files. */
static int draw(EvalJob *j, const int *classes, float *x, Err *e)
{
    SampleArgs *a = &j->args->sample;
    Dataset *d = &j->images;
    const size_t hw = (size_t)d->h * (size_t)d->w, values = dataset_image_bytes(d);
    DrawnShare s;
    int rc;
    if (drawn_share(&s, j->model, &a->config, d->n, a->mixed_machines, e))
        return -1;
    progress_begin(&j->progress, a->progress, a->quiet, "images", 0, (int64_t)s.n * a->config.steps,
                   1.0 / a->config.steps);
    j->done = 0;
    rc = s.n ? sample_images(x, j->model, classes + s.first, s.n, &s.config, on_step, j, e) : 0;
    progress_end(&j->progress);
    for (int i = 0; i < s.n && !rc; i++)
        image_planes(d->images + (size_t)(s.first + i) * values, x + (size_t)i * values, hw, d->channels);
    if (ranks_agree(rc, e))
        return -1;
    ranks_gather(d->images, values, d->n);
    return 0;
}

static int draw_all(EvalJob *j, Err *e)
{
    SampleArgs *a = &j->args->sample;
    const ModelConfig *m = &j->model->config;
    Dataset *d = &j->images;
    const size_t n = (size_t)a->n, values = model_image_values(m);
    float *x = mem_alloc(n, values * sizeof *x, "the images", e);
    int *classes = mem_alloc(n, sizeof *classes, "the classes", e), rc = -1;
    bool ready;
    *d =
        (Dataset){.n = a->n, .channels = m->in_channels, .h = m->image_size, .w = m->image_size, .classes = m->classes};
    d->images = mem_alloc(n, values, "the images", e);
    d->labels = mem_alloc(n, 1, "the classes", e);
    j->labelled = true;
    ready = x && classes && d->images && d->labels;
    if (!ranks_agree(ready ? 0 : -1, e) && ready) {
        share_out(classes, d->labels, a->n, m->classes);
        a->config.other_bytes = n * values * (sizeof *x + 2) + ((size_t)j->train.n + (size_t)j->test.n) * values;
        rc = draw(j, classes, x, e);
    }
    mem_free(x);
    mem_free(classes);
    return rc;
}

int eval_draw(EvalJob *j, Err *e)
{
    if (j->kind == EVAL_IMAGES)
        return 0;
    return draw_all(j, e) || (ranks_me() == 0 && settle(j, e)) ? -1 : 0;
}

/* ---- which of these it is ---- */

/* Settings of drawing are no settings of images that are there. */
static int refuse_settings(const EvalJob *j, const Given *g, Err *e)
{
    for (int i = 0; i < g->n; i++)
        if (g->items[i].option->flags & OPT_DRAWN)
            return err_set(e, ERR_USAGE, "--%s is for models, and '%s' holds images", g->items[i].option->name,
                           j->args->source);
    return 0;
}

static bool is_model(const char *path)
{
    const size_t n = strlen(path);
    char *inside = mem_printf(NULL, "%s/model.safetensors", path);
    const bool run = inside && file_is_dir(path) && file_exists(inside);
    mem_free(inside);
    return run || (!file_is_dir(path) && ((n > 12 && !strcmp(path + n - 12, ".safetensors")) || model_is_file(path)));
}

int eval_open(EvalJob *j, const Given *g, Err *e)
{
    const char *path = j->args->source;
    char *images = NULL;
    int rc = find_ending(&images, path, IMAGE_ENDINGS, e);
    if (!rc && !file_exists(path) && !images)
        rc = err_set(e, ERR_INPUT, "there is no '%s', and no '%s%s': name a model, a directory of images or a file",
                     path, path, IMAGE_ENDINGS[0]);
    j->kind = !images && is_model(path) ? EVAL_MODEL : EVAL_IMAGES;
    mem_free(images);
    if (rc)
        return -1;
    return j->kind == EVAL_MODEL ? open_model(j, g, e) : refuse_settings(j, g, e);
}

int eval_fit(EvalJob *j, Err *e)
{
    const char *path = j->args->source;
    char *images = NULL;
    int rc;
    if (j->kind == EVAL_MODEL)
        return check_model(j, e);
    if (find_ending(&images, path, IMAGE_ENDINGS, e))
        return -1;
    rc = images              ? read_pair(j, images, path, e)
         : file_is_dir(path) ? read_directory(j, path, e)
                             : read_images(&j->images, path, e);
    mem_free(images);
    return rc || settle(j, e) || limit(j, e) ? -1 : 0;
}
