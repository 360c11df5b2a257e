/* sdlora predict: the network once, on given tensors; how anyone compares it with another implementation.
 * In: x (N,C,H,W) F32, t (N) I64, y (N) I64. Out: eps (N,C,H,W) F32, whatever the model predicts. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/mem.h"
#include "sdlora/safetensors.h"
#include "sdlora/threads.h"
#include "sdlora/train.h"

#include "cli.h"

enum { CHUNK = 32 };

typedef struct PredictArgs {
    const char *model, *input, *output;
    char model_file[FILE_PATH_MAX]; /* where the model lies, in a directory that was named */
    TextList loras;
    bool batch_stats, quiet;
    ConvAlgo conv;
    Precision precision;
    size_t max_bytes;
    int threads;
} PredictArgs;

/* clang-format off */
static const Option OPTIONS[] = {
    OPTION_MODEL(PredictArgs),
    {.name = "input", .letter = 'i', .arg = "FILE",
     OPTION_OWN(PredictArgs, FIELD_TEXT, input, .help = "safetensors with x (N,C,H,W) F32, t (N) I64, y (N) I64")},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "FILE",
     OPTION_OWN(PredictArgs, FIELD_TEXT, output,
                .help = "safetensors to write: eps (N,C,H,W) F32; - for standard output")},
    OPTION_LORAS(PredictArgs),
    OPTION_BN(PredictArgs, batch_stats),
    OPTION_CONV(PredictArgs, conv),
    OPTION_PRECISION(PredictArgs, precision),
    OPTION_MEM(PredictArgs, max_bytes),
    OPTION_THREADS(PredictArgs),
    OPTION_QUIET(PredictArgs),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "predict",
    .summary = "run the network once on given tensors",
    .text = "  sdlora predict --model M.safetensors --input in.safetensors --output out.safetensors\n",
    .options = OPTIONS,
};

typedef struct Tensors {
    int n, channels, h, w;
    int chunk, workers; /* images a pass, passes side by side */
    float *x, *out;     /* (n,channels,h,w) */
    int *t, *y;         /* (n) */
} Tensors;

static UnetOptions network(const Tensors *t, const PredictArgs *a)
{
    return (UnetOptions){.n = t->n,
                         .h = t->h,
                         .w = t->w,
                         .batch_stats = a->batch_stats,
                         .conv = a->conv,
                         .precision = a->precision,
                         .workers = t->workers};
}

static const StTensor *need(const StFile *f, const char *name, DType dtype, int nd, Err *e)
{
    const StTensor *t = st_find(f, name);
    if (!t)
        err_set(e, ERR_INPUT, "'%s' has no tensor '%s'; x, t and y are wanted", st_label(f), name);
    else if (t->dtype != dtype)
        err_set(e, ERR_INPUT, "'%s': tensor '%s' is %s, %s is wanted", st_label(f), name, dtype_name(t->dtype),
                dtype_name(dtype));
    else if (t->nd != nd)
        err_set(e, ERR_INPUT, "'%s': tensor '%s' has %d dimensions, %d are wanted", st_label(f), name, t->nd, nd);
    else
        return t;
    return NULL;
}

/* Integers of 0..limit-1, n of them. */
static int *read_ids(const StFile *f, const char *name, int n, int limit, Err *e)
{
    const StTensor *t = need(f, name, DT_I64, 1, e);
    int64_t *wide;
    int *ids;
    if (!t)
        return NULL;
    if (t->d[0] != (uint64_t)n) {
        err_set(e, ERR_INPUT, "'%s': tensor '%s' has %llu values, x has %d images", st_label(f), name,
                (unsigned long long)t->d[0], n);
        return NULL;
    }
    wide = mem_alloc((size_t)n, sizeof *wide, name, e);
    ids = mem_alloc((size_t)n, sizeof *ids, name, e);
    if (!wide || !ids || st_read_i64(wide, f, t, e))
        goto fail;
    for (int i = 0; i < n; i++) {
        if (wide[i] < 0 || wide[i] >= limit) {
            err_set(e, ERR_INPUT, "'%s': tensor '%s' holds %lld at %d, the model takes 0 to %d", st_label(f), name,
                    (long long)wide[i], i, limit - 1);
            goto fail;
        }
        ids[i] = (int)wide[i];
    }
    mem_free(wide);
    return ids;
fail:
    mem_free(wide);
    mem_free(ids);
    return NULL;
}

static int check_x(const StFile *f, const StTensor *x, const ModelConfig *m, Err *e)
{
    uint64_t step = UINT64_C(1) << (m->levels - 1);
    if (x->d[1] != (uint64_t)m->in_channels)
        return err_set(e, ERR_INPUT, "'%s': tensor 'x' has %llu channels, %d %s wanted", st_label(f),
                       (unsigned long long)x->d[1], m->in_channels, m->in_channels == 1 ? "is" : "are");
    if (!x->d[0] || !x->d[2] || !x->d[3] || x->d[0] > INT_MAX || x->d[2] > 65536 || x->d[3] > 65536)
        return err_set(e, ERR_INPUT, "'%s': tensor 'x' is empty or too large", st_label(f));
    if (x->d[2] % step || x->d[3] % step)
        return err_set(e, ERR_INPUT,
                       "'%s': tensor 'x' is %llux%llu; the model halves images %d times and needs multiples of %llu",
                       st_label(f), (unsigned long long)x->d[2], (unsigned long long)x->d[3], m->levels - 1,
                       (unsigned long long)step);
    return 0;
}

static int check_bound(size_t bytes, const char *path, const PredictArgs *a, Err *e)
{
    const size_t bound = mem_bound(a->max_bytes);
    return bytes <= bound
               ? 0
               : err_set(e, ERR_USAGE,
                         "predicting all of '%s' needs %.1f MB of memory, more than the %.1f MB %s; give it fewer or "
                         "smaller images at a time",
                         path, (double)bytes / 1e6, (double)bound / 1e6, a->max_bytes ? "allowed" : "of this machine");
}

/* Images a pass: at most CHUNK, in whole groups, and as many passes side by side as there are threads, which changes no
 * bit of a result; where memory is short, first smaller passes, then fewer. Statistics over a batch need it whole. */
static int choose_chunk(Tensors *t, const char *path, Model *m, const PredictArgs *a, Err *e)
{
    const size_t values = (size_t)t->n * (size_t)t->channels * (size_t)t->h * (size_t)t->w, n = (size_t)t->n;
    /* the file while it is read, or the network; beside x and out, t and y as the network takes them and as they are
     * read */
    const size_t file = values * sizeof(float) + n * 2 * sizeof(int64_t);
    const size_t kept = m->params->n_values * sizeof(real) + values * 2 * sizeof(float) + n * 2 * sizeof(int64_t);
    const int most = a->batch_stats ? t->n : CHUNK, least = a->batch_stats ? t->n : BACKEND_GROUP;
    size_t net = 0;
    for (t->workers = threads_count(); t->workers > 0; t->workers /= 2)
        for (t->chunk = most; t->chunk >= least; t->chunk /= 2) {
            UnetOptions o = network(t, a);
            if (unet_chunks_measure(&net, NULL, m, &o, t->chunk, e))
                return -1;
            net = kept + (net > file ? net : file);
            if (net <= mem_bound(a->max_bytes))
                return 0;
        }
    return check_bound(net, path, a, e);
}

static int read_tensors(Tensors *out, const char *path, Model *model, const PredictArgs *a, Err *e)
{
    const ModelConfig *m = &model->config;
    const StTensor *x;
    struct stat st;
    StFile *f;
    int rc = -1;
    if (!stat(path, &st) && check_bound((size_t)st.st_size, path, a, e))
        return -1;
    if (!(f = st_open(path, e)))
        return -1;
    x = need(f, "x", DT_F32, 4, e);
    if (x && !check_x(f, x, m, e)) {
        out->n = (int)x->d[0];
        out->channels = (int)x->d[1];
        out->h = (int)x->d[2];
        out->w = (int)x->d[3];
        if (choose_chunk(out, path, model, a, e)) {
            st_close(f);
            return -1;
        }
        out->t = read_ids(f, "t", out->n, m->timesteps, e);
        out->y = out->t ? read_ids(f, "y", out->n, m->classes + m->null_class, e) : NULL;
        out->x = out->y ? mem_alloc(x->numel, sizeof *out->x, "x", e) : NULL;
        out->out = out->x ? mem_alloc(x->numel, sizeof *out->out, "eps", e) : NULL;
        rc = out->out ? st_read_f32(out->x, f, x, e) : -1;
    }
    for (size_t i = 0; !rc && i < x->numel; i++)
        if (!isfinite(out->x[i]))
            rc = err_set(e, ERR_INPUT, "'%s': tensor 'x' holds values that are not finite (number %zu is %g)", path, i,
                         (double)out->x[i]);
    st_close(f);
    return rc;
}

static int save(const Tensors *t, const char *path, Err *e)
{
    int d[4] = {t->n, t->channels, t->h, t->w}, rc;
    StWriter *w = st_writer(e);
    if (!w)
        return -1;
    rc = st_add(w, "eps", DT_F32, 4, d, t->out, e);
    if (!rc)
        rc = st_save(w, path, e);
    st_writer_free(w);
    return rc;
}

static int predict(PredictArgs *a, Tensors *t, Model **m, AdapterSet *loras, Err *e)
{
    UnetOptions o;
    char sha256[65];
    if (!a->input || !a->output)
        return err_set(e, ERR_USAGE, "'predict' needs --%s", a->input ? "output" : "input");
    cli_threads(a->threads);
    if (cli_model_file(a->model_file, a->model, e))
        return -1;
    a->model = a->model_file;
    if (cli_check_apart(a->output, a->input, e) || cli_check_apart_from_model(a->output, a->model, &a->loras, e) ||
        cli_check_output(a->output, e) || !(*m = cli_load_model(a->model, sha256, e)))
        return -1;
    if (a->batch_stats && (*m)->config.norm != NORM_BATCH)
        return err_set(e, ERR_USAGE, "--bn belongs to models with BatchNorm, and '%s' has GroupNorm", a->model);
    if (cli_load_adapters(loras, &a->loras, *m, a->model, sha256, e) || read_tensors(t, a->input, *m, a, e) ||
        cli_merge_adapters(*m, loras, e))
        return -1;
    o = network(t, a);
    if (model_predict(t->out, *m, t->x, t->t, t->y, &o, t->chunk, e) || save(t, a->output, e))
        return -1;
    if (strcmp(a->output, "-"))
        printf("%s\n", a->output);
    return 0;
}

int cmd_predict(int argc, char **argv)
{
    PredictArgs args = {.model = DEFAULT_MODEL};
    Tensors t = {0};
    Model *m = NULL;
    AdapterSet loras = {0};
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    cli_default_model(&args.model, &given, args.quiet);
    status = predict(&args, &t, &m, &loras, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    cli_free_adapters(&loras);
    model_free(m);
    mem_free(t.x);
    mem_free(t.out);
    mem_free(t.t);
    mem_free(t.y);
    return status;
}
