/* sdlora sample: images from noise. Image i of the grid (rows first) depends on the seed and i only. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/idx.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/train.h"

#include "sample_args.h"

enum { PAD = 2, COMPARE_GAP = 8, TEXTS = 24, TEXT_CAP = 512 };

#define IMAGES_SUFFIX "-images-idx3-ubyte.gz"
#define LABELS_SUFFIX "-labels-idx1-ubyte.gz"

typedef struct Job {
    const SampleArgs *args;
    Model *model;
    LoraSet loras;
    Plan plan;
    uint8_t *px[2]; /* (n,hw), or with --trajectory (n,K,hw); [1] with --compare: the adapted ones */
    Progress progress;
    uint8_t *capture;   /* where moments go during a trajectory */
    int64_t steps_done; /* times images */
} Job;

static size_t image_values(const Job *j)
{
    return (size_t)j->model->config.image_size * (size_t)j->model->config.image_size;
}

static void to_pixels(uint8_t *px, const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        px[i] = image_from_real(x[i]);
}

/* Column k of a trajectory shows the image after this many steps: 1 .. steps, evenly. */
static int moment(int k, int columns, int steps)
{
    return 1 + (int)(((int64_t)k * (steps - 1) + (columns - 1) / 2) / (columns - 1));
}

static int on_step(void *ctx, int first, int n, int step, int steps, const float *x)
{
    Job *j = ctx;
    size_t hw = image_values(j);
    int columns = j->args->trajectory;
    for (int k = 0; k < columns; k++)
        for (int i = 0; i < n && moment(k, columns, steps) == step; i++)
            to_pixels(j->capture + ((size_t)(first + i) * (size_t)columns + (size_t)k) * hw, x + (size_t)i * hw, hw);
    j->steps_done += n;
    progress_update(&j->progress, j->steps_done, "", "", false);
    return 0;
}

static int draw(Job *j, int pass, Err *e)
{
    size_t hw = image_values(j), n = (size_t)j->plan.n;
    int columns = j->args->trajectory ? j->args->trajectory : 1;
    float *x = mem_alloc(n, hw * sizeof *x, "the images", e);
    int rc = -1;
    j->px[pass] = mem_alloc(n * (size_t)columns, hw, "the pictures", e);
    j->capture = j->px[pass];
    if (x && j->px[pass])
        rc = sample_images(x, j->model, j->plan.classes, j->plan.n, &j->args->config, on_step, j, e);
    if (!rc && !j->args->trajectory)
        to_pixels(j->px[pass], x, n * hw);
    mem_free(x);
    return rc;
}

static int draw_all(Job *j, Err *e)
{
    const SampleArgs *a = j->args;
    int passes = a->compare ? 2 : 1, rc = 0;
    progress_begin(&j->progress, a->progress, a->quiet, "images", 0, (int64_t)j->plan.n * a->config.steps * passes,
                   1.0 / a->config.steps);
    if (j->progress.mode == PROGRESS_PLAIN)
        j->progress.total++; /* short runs say nothing: the last line is not special */
    if (a->compare)
        rc = draw(j, 0, e);
    if (!rc)
        rc = cli_merge_loras(j->model, &j->loras, e);
    if (!rc)
        rc = draw(j, passes - 1, e);
    progress_end(&j->progress);
    return rc;
}

/* ---- files ---- */

static int grid_of(Image *out, const Job *j, int pass, Err *e)
{
    int size = j->model->config.image_size, n = j->plan.n * (j->args->trajectory ? j->args->trajectory : 1);
    return image_grid(out, j->px[pass], n, size, size, j->plan.cols, j->args->scale, PAD, 0, e);
}

static void blit(Image *to, const Image *from, int x, int y)
{
    for (int r = 0; r < from->h; r++)
        memcpy(to->px + (size_t)(y + r) * (size_t)to->w + (size_t)x, from->px + (size_t)r * (size_t)from->w,
               (size_t)from->w);
}

/* Side by side, or one above the other when they are wide; a white line between them. */
static int compare_image(Image *out, const Job *j, Err *e)
{
    Image a = {0}, b = {0};
    bool beside;
    size_t size;
    int rc = -1;
    if (grid_of(&a, j, 0, e) || grid_of(&b, j, 1, e))
        goto done;
    beside = a.w <= 2 * a.h;
    out->w = beside ? 2 * a.w + COMPARE_GAP : a.w;
    out->h = beside ? a.h : 2 * a.h + COMPARE_GAP;
    if (!mem_mul(&size, (size_t)out->w, (size_t)out->h))
        goto done;
    out->px = mem_alloc(size, 1, "the picture", e);
    if (!out->px)
        goto done;
    memset(out->px, 255, size);
    blit(out, &a, 0, 0);
    blit(out, &b, beside ? a.w + COMPARE_GAP : 0, beside ? 0 : a.h + COMPARE_GAP);
    rc = 0;
done:
    image_free(&a);
    image_free(&b);
    return rc;
}

typedef struct Texts { /* key, value, ..., NULL for the PNG */
    const char *item[TEXTS + 1];
    char value[TEXTS / 2][TEXT_CAP];
    int n;
} Texts;

static void add_text(Texts *t, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void add_text(Texts *t, const char *key, const char *fmt, ...)
{
    va_list ap;
    if (2 * t->n + 2 > TEXTS)
        return;
    va_start(ap, fmt);
    vsnprintf(t->value[t->n], TEXT_CAP, fmt, ap);
    va_end(ap);
    t->item[2 * t->n] = key;
    t->item[2 * t->n + 1] = t->value[t->n];
    t->n++;
    t->item[2 * t->n] = NULL;
}

/* How the picture can be made again. */
static void describe(Texts *t, const Job *j)
{
    const SampleArgs *a = j->args;
    const SampleConfig *c = &a->config;
    char loras[TEXT_CAP] = "";
    size_t used = 0;
    memset(t, 0, sizeof *t);
    for (int i = 0; i < a->loras.n && used < sizeof loras; i++)
        used += (size_t)snprintf(loras + used, sizeof loras - used, "%s%s", i ? " " : "",
                                 a->loras.item[i][0] ? a->loras.item[i] : "(beside the model)");
    add_text(t, "Software", "sdlora %s", SDLORA_VERSION);
    add_text(t, "model", "%s", a->model);
    add_text(t, "classes", "%s", a->digit);
    add_text(t, "seed", "%" PRIu64, c->seed);
    add_text(t, "sampler", "%s", c->sampler == SAMPLER_DDPM ? "ddpm" : "ddim");
    add_text(t, "steps", "%d", c->steps);
    if (c->sampler == SAMPLER_DDIM)
        add_text(t, "eta", "%g", c->eta);
    add_text(t, "cfg-scale", "%g", c->cfg_scale);
    add_text(t, "clip", "%s", c->clip == CLIP_X0 ? "x0" : c->clip == CLIP_XT ? "xt" : "none");
    if (a->loras.n)
        add_text(t, "lora", "%s%s", loras, a->compare ? " (left or top: without)" : "");
}

static int write_png(const char *path, const Job *j, Err *e)
{
    Image im = {0};
    Texts texts;
    int rc = j->args->compare ? compare_image(&im, j, e) : grid_of(&im, j, 0, e);
    describe(&texts, j);
    if (!rc)
        rc = image_write_png(path, &im, texts.item, e);
    if (!rc && j->args->show) {
        char *text = image_half_blocks(&im, term_columns() - 1, e);
        rc = text ? 0 : -1;
        if (text)
            fputs(text, stderr);
        mem_free(text);
    }
    image_free(&im);
    if (!rc && strcmp(path, "-"))
        printf("%s\n", path);
    return rc;
}

static int write_idx(const char *prefix, const Job *j, Err *e)
{
    uint32_t n = (uint32_t)j->plan.n, size = (uint32_t)j->model->config.image_size;
    Idx images = {.nd = 3, .d = {n, size, size}, .data = j->px[0]};
    Idx labels = {.nd = 1, .d = {n}, .data = mem_alloc(n, 1, "the labels", e)};
    char path[2][CLI_PATH_MAX];
    int rc = -1;
    if (!labels.data)
        return -1;
    for (uint32_t i = 0; i < n; i++)
        labels.data[i] = (uint8_t)j->plan.classes[i];
    if (snprintf(path[0], sizeof path[0], "%s" IMAGES_SUFFIX, prefix) >= (int)sizeof path[0] ||
        snprintf(path[1], sizeof path[1], "%s" LABELS_SUFFIX, prefix) >= (int)sizeof path[1])
        err_set(e, ERR_USAGE, "the path '%.60s...' is too long", prefix);
    else if (!idx_write_gz(path[0], &images, e) && !idx_write_gz(path[1], &labels, e))
        rc = printf("%s\n%s\n", path[0], path[1]) < 0 ? -1 : 0;
    mem_free(labels.data);
    return rc;
}

/* sample.png, sample-5.png, sample-none-lora.png, trajectory.png, ... */
static void default_output(char *out, size_t cap, const Job *j)
{
    const SampleArgs *a = j->args;
    char kind[16] = "";
    if (j->plan.kinds == 1 && j->plan.first_class == j->model->config.classes)
        snprintf(kind, sizeof kind, "-none");
    else if (j->plan.kinds == 1)
        snprintf(kind, sizeof kind, "-%d", j->plan.first_class);
    snprintf(out, cap, "%s%s%s%s", a->trajectory ? "trajectory" : "sample", kind,
             a->compare   ? "-compare"
             : a->loras.n ? "-lora"
                          : "",
             a->format == FORMAT_PNG ? ".png" : "");
}

static int sample(Job *j, SampleArgs *a, const Given *g, Err *e)
{
    char name[64], first[CLI_PATH_MAX];
    const char *output = name;
    double begin;
    cli_threads(a->threads);
    if (sample_args_check(a, g, e) || !(j->model = cli_load_model(a->model, NULL, e)) ||
        sample_args_settle(a, g, &j->model->config, e) || sample_plan(&j->plan, a, &j->model->config, e) ||
        cli_load_loras(&j->loras, &a->loras, j->model, a->model, e))
        return -1;
    default_output(name, sizeof name, j);
    if (a->output)
        output = a->output;
    if (a->format == FORMAT_IDX && snprintf(first, sizeof first, "%s" IMAGES_SUFFIX, output) >= (int)sizeof first)
        return err_set(e, ERR_USAGE, "the path '%.60s...' is too long", output);
    if (cli_check_output(a->format == FORMAT_IDX ? first : output, e))
        return -1;
    if (!a->quiet)
        fprintf(stderr, "%d image%s, %s in %d steps, seed %" PRIu64 "\n", j->plan.n, j->plan.n == 1 ? "" : "s",
                a->config.sampler == SAMPLER_DDPM ? "ddpm" : "ddim", a->config.steps, a->config.seed);
    begin = term_seconds();
    if (draw_all(j, e))
        return -1;
    if (!a->quiet)
        fprintf(stderr, "drawn in %.4g s\n", term_seconds() - begin);
    return a->format == FORMAT_PNG ? write_png(output, j, e) : write_idx(output, j, e);
}

int cmd_sample(int argc, char **argv)
{
    SampleArgs args = sample_args_default();
    Job job = {.args = &args};
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &SAMPLE_TABLE, &args, argc, argv, &status))
        return status;
    status = sample(&job, &args, &given, &e) ? cli_fail(&e, "sample") : 0;
    options_free(&given);
    cli_free_loras(&job.loras);
    model_free(job.model);
    mem_free(job.plan.classes);
    mem_free(job.px[0]);
    mem_free(job.px[1]);
    return status;
}
