/* sdlora bench: what this machine reaches, and where. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

#include "bench.h"
#include "cli.h"

typedef struct BenchArgs {
    Preset preset;
    int batch, micro, eval, runs, threads;
    ConvAlgo conv;
    Precision precision;
    bool json, quiet;
} BenchArgs;

#define OWN(kind, member, ...) OPTION_OWN(BenchArgs, kind, member, __VA_ARGS__)

/* clang-format off */
static const Option OPTIONS[] = {
    OPTION_PRESET(BenchArgs, "the model"),
    {.name = "batch-size", .alias = "batch", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_INT, batch, .min = 1, .max = 1e5, .help = "images of a training step [128; 16 for preset seed]")},
    {.name = "micro-batch", OWN(FIELD_INT, micro, .max = 1e5, .help = "images a pass; 0: chosen")},
    {.name = "eval-size", OWN(FIELD_INT, eval, .min = 1, .max = 1e5, .help = "images of a sampling step")},
    {.name = "runs", OWN(FIELD_INT, runs, .min = 1, .max = 64, .help = "runs of which the median counts")},
    OPTION_CONV(BenchArgs, conv),
    OPTION_PRECISION(BenchArgs, precision),
    OPTION_THREADS(BenchArgs),
    {.name = "json", OWN(FIELD_BOOL, json, .help = "one JSON object")},
    {.name = "quiet", .letter = 'q', OWN(FIELD_BOOL, quiet, .help = "results and errors only")},
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "bench",
    .summary = "measure this machine",
    .text = "Times multiply-adds in registers (the peak that shares refer to), a large matrix product, each 3x3\n"
            "convolution of the preset in its three passes, a training step and a sampling step. Flops are those of "
            "the\n"
            "direct algorithms, so that a faster one can pass the peak.\n",
    .options = OPTIONS,
};

typedef struct Bench {
    const BenchArgs *args;
    double floats, peak, gemm; /* GFLOP/s: of multiply-adds in fp32; of the products asked for */
    BenchConv convs[BENCH_CONVS_MAX];
    int n_convs, micro;
    BenchPass train, eval, single;
} Bench;

static const Backend *backend(const Bench *b)
{
    return backend_of(b->args->precision);
}

static bool is_bf16(const Bench *b)
{
    return backend(b)->precision == PRECISION_BF16;
}

static double gflops(double flops, double seconds)
{
    return seconds > 0 ? flops / seconds * 1e-9 : 0;
}

/* ---- measuring ---- */

static int make_data(Dataset *d, int n, const ModelConfig *m, Err *e)
{
    const int size = m->image_size, classes = m->classes;
    size_t bytes = (size_t)n * model_image_values(m);
    Rng r = rng_make(1, rng_stream("bench", 0));
    *d = (Dataset){.n = n, .channels = m->in_channels, .h = size, .w = size, .classes = classes};
    d->images = mem_alloc(bytes, 1, "the images", e);
    d->labels = mem_alloc((size_t)n, 1, "the labels", e);
    if (!d->images || !d->labels)
        return -1;
    for (size_t i = 0; i < bytes; i++)
        d->images[i] = (uint8_t)rng_u32(&r);
    for (int i = 0; i < n; i++)
        d->labels[i] = (uint8_t)(i % classes);
    return 0;
}

static void say(const BenchArgs *a, const char *what)
{
    if (!a->quiet)
        fprintf(stderr, "measuring %s\n", what);
}

static int measure_training(Bench *b, Model *m, const TrainConfig *c, Err *e)
{
    const BenchArgs *a = b->args;
    Dataset d;
    Trainer *t = NULL;
    int rc = make_data(&d, 2 * c->batch, &m->config, e);
    if (!rc && !(t = trainer_new(m, NULL, c, &d, NULL, e)))
        rc = -1;
    if (!rc) {
        b->micro = trainer_micro_batch(t);
        say(a, "convolutions");
        b->n_convs = bench_convs(b->convs, trainer_graph(t), a->runs, e);
        say(a, "a training step");
        rc = b->n_convs < 0 || bench_train(&b->train, t, c, a->runs, e) ? -1 : 0;
    }
    trainer_free(t);
    mem_free(d.images);
    mem_free(d.labels);
    return rc;
}

static int measure_all(Bench *b, Err *e)
{
    const BenchArgs *a = b->args;
    ModelConfig config = model_preset(a->preset);
    TrainConfig c = train_preset(a->preset);
    Model *m;
    int rc;
    c.batch = a->batch ? a->batch : a->preset == PRESET_SEED ? 16 : 128;
    c.micro_batch = a->micro;
    c.conv = a->conv;
    c.precision = a->precision;
    c.val_images = 0;
    c.steps = 1000000;
    m = model_new(&config, true, 1, e);
    if (!m)
        return -1;
    say(a, "the peak and a matrix product");
    b->floats = bench_peak(PRECISION_FP32, a->runs);
    b->peak = is_bf16(b) ? bench_peak(PRECISION_BF16, a->runs) : b->floats;
    rc = bench_gemm(&b->gemm, a->precision, a->runs, e);
    if (!rc)
        rc = measure_training(b, m, &c, e);
    model_free(m);
    if (rc || !(m = model_new(&config, false, 1, e)))
        return -1;
    say(a, "a sampling step");
    rc = bench_draw(&b->eval, m, a->eval, a->conv, a->precision, a->runs, e) ||
                 bench_draw(&b->single, m, 1, a->conv, a->precision, a->runs, e)
             ? -1
             : 0;
    model_free(m);
    return rc;
}

/* ---- results ---- */

static const char *const PASSES[] = {"forward", "backward_data", "backward_weights"};

static json_t *pass_json(const BenchPass *p, double peak)
{
    double rate = gflops(p->flops, p->seconds), convs = gflops(p->conv_flops, p->seconds * p->conv_share);
    return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "images", p->images, "seconds", p->seconds,
                     "images_per_s", p->images / p->seconds, "gflops", rate, "share_of_peak", rate / peak,
                     "conv_gflops", convs, "conv_share_of_peak", convs / peak, "conv_share_of_time", p->conv_share,
                     "memory_mb", p->bytes / 1e6);
}

static int print_json(const Bench *b, Err *e)
{
    json_t *convs = json_array(), *root;
    char *text;
    for (int i = 0; i < b->n_convs; i++) {
        const BenchConv *c = &b->convs[i];
        json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:i, s:i}", "images", c->shape.n, "height", c->shape.h, "width",
                              c->shape.w, "in", c->shape.ci, "out", c->shape.co, "layers", c->count);
        for (int p = 0; p < 3; p++)
            if (c->wanted[p])
                json_object_set_new(o, PASSES[p],
                                    json_pack("{s:s, s:f, s:f, s:f}", "algorithm", c->algo[p], "seconds", c->seconds[p],
                                              "gflops", gflops(c->flops, c->seconds[p]), "share_of_peak",
                                              gflops(c->flops, c->seconds[p]) / b->peak));
        json_array_append_new(convs, o);
    }
    root =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:f, s:f, s:f, s:o, s:o, s:o, s:o}", "version", SDLORA_VERSION,
                  "preset", PRESET_NAMES[b->args->preset], "precision", PRECISION_NAMES[backend(b)->precision], "simd",
                  backend(b)->simd, "openblas_core", backend_blas_core(), "threads", threads_count(), "micro_batch",
                  b->micro, "fp32_peak_gflops", b->floats, "peak_gflops", b->peak, "gemm_gflops", b->gemm,
                  "convolutions", convs, "train_step", pass_json(&b->train, b->peak), "sample_step",
                  pass_json(&b->eval, b->peak), "single_image_step", pass_json(&b->single, b->peak));
    text = json_text(root, JSON_INDENT(2), "the measurements", e);
    json_decref(root);
    if (!text)
        return -1;
    printf("%s\n", text);
    mem_free(text);
    return 0;
}

static void print_pass(const char *what, const BenchPass *p, double peak)
{
    double rate = gflops(p->flops, p->seconds), convs = gflops(p->conv_flops, p->seconds * p->conv_share);
    char label[48];
    snprintf(label, sizeof label, "%s, %d image%s", what, p->images, p->images == 1 ? "" : "s");
    printf("%-27s %9.2f ms %9.1f images/s %8.1f GFLOP/s %4.0f%% %8.1f GFLOP/s %4.0f%% %4.0f%% of it %8.1f MB\n", label,
           1e3 * p->seconds, p->images / p->seconds, rate, 100 * rate / peak, convs, 100 * convs / peak,
           100 * p->conv_share, p->bytes / 1e6);
}

static void print_text(const Bench *b)
{
    printf("sdlora %s, preset %s, %s, SIMD %s, OpenBLAS core %s, %d thread%s, median of %d\n", SDLORA_VERSION,
           PRESET_NAMES[b->args->preset], PRECISION_NAMES[backend(b)->precision], backend(b)->simd, backend_blas_core(),
           threads_count(), threads_count() == 1 ? "" : "s", b->args->runs);
    if (is_bf16(b))
        printf("peak of multiply-adds in fp32: %.1f GFLOP/s (%.0f%%)\npeak of products in bf16", b->floats,
               100 * b->floats / b->peak);
    else
        printf("peak of multiply-adds");
    printf(": %.1f GFLOP/s (100%%); matrix product: %.1f GFLOP/s (%.0f%%)\n\n", b->peak, b->gemm,
           100 * b->gemm / b->peak);
    printf("3x3 convolutions of %d images; GFLOP/s of the direct algorithm, share of the peak\n", b->micro);
    printf("%-22s %6s  %-28s  %-28s  %-28s\n", "shape", "layers", "forward", "backward, data", "backward, weights");
    for (int i = 0; i < b->n_convs; i++) {
        const BenchConv *c = &b->convs[i];
        char shape[48];
        snprintf(shape, sizeof shape, "%dx%d  %d -> %d", c->shape.h, c->shape.w, c->shape.ci, c->shape.co);
        printf("%-22s %6d", shape, c->count);
        for (int p = 0; p < 3; p++)
            if (!c->wanted[p])
                printf("  %-28s", "not needed");
            else
                printf("  %-13s %7.1f %4.0f%% ", c->algo[p], gflops(c->flops, c->seconds[p]),
                       100 * gflops(c->flops, c->seconds[p]) / b->peak);
        printf("\n");
    }
    printf("\n%-27s %12s %18s %22s %22s %11s %8s\n", "whole passes", "time", "", "everything", "3x3 convolutions",
           "time", "memory");
    print_pass("training step", &b->train, b->peak);
    print_pass("sampling step", &b->eval, b->peak);
    print_pass("sampling step", &b->single, b->peak);
}

int cmd_bench(int argc, char **argv)
{
    BenchArgs args = {.preset = PRESET_MNIST, .eval = 100, .runs = 5};
    Bench b = {.args = &args};
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    options_free(&given);
    cli_threads(args.threads);
    if (measure_all(&b, &e))
        return cli_fail(&e, &TABLE);
    if (!args.json)
        print_text(&b);
    else if (print_json(&b, &e))
        return cli_fail(&e, &TABLE);
    return 0;
}
