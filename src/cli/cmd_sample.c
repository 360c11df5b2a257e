/* sdlora sample: images from noise. Image i of the grid (rows first) depends on the seed and i only. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/clock.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/train.h"

#include "drawn_ranks.h"
#include "sample_init.h"

typedef struct Drawing {
    SampleJob *job;
    Progress progress;
    uint8_t *capture;   /* where moments go during a trajectory */
    int64_t steps_done; /* times images */
} Drawing;

static size_t image_values(const SampleJob *j)
{
    return model_image_values(&j->model->config);
}

static size_t columns_of(const SampleJob *j)
{
    return j->args->trajectory ? (size_t)j->args->trajectory : 1;
}

/* n images. */
static void to_pixels(uint8_t *px, const float *x, size_t n, const SampleJob *j)
{
    const size_t values = image_values(j);
    const int channels = j->model->config.in_channels;
    for (size_t i = 0; i < n; i++, px += values, x += values)
        (j->args->stretch ? image_stretch : image_planes)(px, x, values / (size_t)channels, channels);
}

/* Column k of a trajectory shows the image after this many steps: 1 .. steps, evenly. */
static int moment(int k, int columns, int steps)
{
    return 1 + (int)(((int64_t)k * (steps - 1) + (columns - 1) / 2) / (columns - 1));
}

static int on_step(void *ctx, int first, int n, int step, int steps, const float *x)
{
    Drawing *d = ctx;
    size_t hw = image_values(d->job);
    int columns = d->job->args->trajectory;
    for (int k = 0; k < columns; k++)
        for (int i = 0; i < n && moment(k, columns, steps) == step; i++)
            to_pixels(d->capture + ((size_t)(first + i) * (size_t)columns + (size_t)k) * hw, x + (size_t)i * hw, 1,
                      d->job);
    d->steps_done += n;
    progress_update(&d->progress, d->steps_done, "", "", false);
    return 0;
}

/* This process's share of them */
static int draw_share(Drawing *d, int block, const DrawnShare *s, Err *e)
{
    SampleJob *j = d->job;
    size_t hw = image_values(j), n = (size_t)j->plan.n, own = (size_t)s->n;
    float *x = mem_alloc(own, hw * sizeof *x, "the images", e);
    int rc = -1;
    j->px[block] = mem_alloc(n * columns_of(j), hw, "the pictures", e);
    if (x && j->px[block]) {
        d->capture = j->px[block] + (size_t)s->first * columns_of(j) * hw;
        rc = s->n ? sample_images(x, j->model, j->plan.classes + s->first, s->n, &s->config, on_step, d, e) : 0;
    }
    if (!rc && !j->args->trajectory)
        to_pixels(d->capture, x, own, j);
    mem_free(x);
    return rc;
}

static int draw(Drawing *d, int block, Err *e)
{
    const SampleJob *j = d->job;
    DrawnShare s;
    if (drawn_share(&s, j->model, &j->args->config, j->plan.n, j->args->mixed_machines, e) ||
        ranks_agree(draw_share(d, block, &s, e), e))
        return -1;
    ranks_gather(j->px[block], columns_of(j) * image_values(j), j->plan.n);
    return 0;
}

/* Without an adapter, then with each of them on its own. */
static int draw_compared(Drawing *d, Err *e)
{
    SampleJob *j = d->job;
    ParamStore *s = j->model->params;
    const AdapterSet *loras = &j->loras;
    real *kept = mem_alloc(s->n_values, sizeof *kept, "the model's values", e);
    int rc = kept ? draw(d, 0, e) : -1;
    if (kept)
        memcpy(kept, s->values, s->n_values * sizeof *kept);
    for (int i = 0; i < loras->n && !rc; i++) {
        AdapterSet one = {.item = {loras->item[i]}, .scale = {loras->scale[i]}, .n = 1};
        memcpy(s->values, kept, s->n_values * sizeof *kept);
        rc = cli_merge_adapters(j->model, &one, e) || draw(d, i + 1, e) ? -1 : 0;
    }
    mem_free(kept);
    return rc;
}

static int draw_all(SampleJob *j, Err *e)
{
    const SampleArgs *a = j->args;
    const int steps = sample_steps_taken(&a->config);
    int rc;
    Drawing d = {.job = j};
    progress_begin(&d.progress, a->progress, a->quiet, "images", 0, (int64_t)j->plan.n * steps * sample_blocks(j),
                   steps ? 1.0 / steps : 1);
    if (d.progress.mode == PROGRESS_PLAIN)
        d.progress.total++; /* short runs say nothing: the last line is not special */
    rc = a->compare ? draw_compared(&d, e) : cli_merge_adapters(j->model, &j->loras, e) || draw(&d, 0, e) ? -1 : 0;
    progress_end(&d.progress);
    return rc;
}

/* Nothing is drawn that could not be kept or written. */
static int measure(SamplePlan *p, const SampleJob *j, SampleConfig *c, Err *e)
{
    const size_t n = (size_t)j->plan.n, hw = image_values(j);
    const size_t values = j->model->params->n_values * sizeof(real) * (j->args->compare ? 2 : 1);
    size_t kept = values + n * sizeof *j->plan.classes, pixels, file;
    if (sample_files_measure(&file, j, e))
        return -1;
    pixels = n * columns_of(j) * hw * (size_t)sample_blocks(j);
    if (kept + pixels + file > mem_bound(c->max_bytes))
        return err_set(
            e, ERR_USAGE,
            "a picture of %d images needs %.1f MB of memory, more than the %.1f MB %s; ask for fewer images, or "
            "a smaller --scale",
            j->plan.n, (double)(kept + pixels + file) / 1e6, (double)mem_bound(c->max_bytes) / 1e6,
            c->max_bytes ? "allowed" : "of this machine");
    c->other_bytes = kept + pixels + n * hw * sizeof(float);
    if (sample_measure(p, j->model, j->plan.classes, j->plan.n, c, e))
        return -1;
    if (p->bytes < kept + pixels + file)
        p->bytes = kept + pixels + file;
    return 0;
}

static void describe(const SampleJob *j, const SamplePlan *p)
{
    const SampleConfig *c = &j->args->config;
    const int taken = sample_steps_taken(c);
    char last[32] = "";
    if (taken < c->steps)
        snprintf(last, sizeof last, "the last %d of ", taken);
    fprintf(stderr, "%d image%s, %s in %s%d steps, seed %" PRIu64 "; memory: %.1f MB, %d image%s a pass\n", j->plan.n,
            j->plan.n == 1 ? "" : "s", c->sampler->name, last, c->steps, c->seed, (double)p->bytes / 1e6, p->batch,
            p->batch == 1 ? "" : "s");
}

static int prepare(SampleJob *j, SampleArgs *a, const Given *g, Err *e)
{
    SamplePlan plan;
    char sha256[65];
    cli_default_model(&a->model, g, a->quiet);
    if (sample_args_check(a, g, e) || cli_model_file(a->model_file, a->model, e))
        return -1;
    a->model = a->model_file;
    /* adapters come first: they may bring classes that are asked for */
    if ((a->output && sample_files_name(j, e)) || !(j->model = cli_load_model(a->model, sha256, e)) ||
        cli_load_adapters(&j->loras, &a->loras, j->model, a->model, sha256, e) || sample_init_read(j, a, e) ||
        sample_args_settle(a, g, j->model, e) || sample_plan(&j->plan, a, j->model, e) ||
        (!a->output && sample_files_name(j, e)) || recipe_make(&j->recipe, a, &j->plan, &j->loras, sha256, e) ||
        measure(&plan, j, &a->config, e))
        return -1;
    if (!a->quiet)
        describe(j, &plan);
    return 0;
}

static int sample(SampleJob *j, SampleArgs *a, const Given *g, Err *e)
{
    double begin;
    cli_threads(a->threads);
    if (ranks_agree(prepare(j, a, g, e), e))
        return -1;
    begin = clock_seconds();
    if (draw_all(j, e))
        return -1;
    if (!a->quiet)
        fprintf(stderr, "drawn in %.4g s\n", clock_seconds() - begin);
    return ranks_agree(ranks_me() == 0 ? sample_files_write(j, e) : 0, e);
}

int cmd_sample(int argc, char **argv)
{
    SampleArgs args = sample_args_default();
    SampleTable table;
    SampleJob job = {.args = &args};
    Given given;
    Err e = {0};
    int status;
    sample_table(&table);
    if (!cli_options(&given, &table.table, &args, argc, argv, &status))
        return status;
    status = sample(&job, &args, &given, &e) ? cli_fail(&e, &table.table) : 0;
    options_free(&given);
    cli_free_adapters(&job.loras);
    model_free(job.model);
    sample_plan_free(&job.plan);
    recipe_free(&job.recipe);
    mem_free(job.init);
    mem_free(job.paint);
    for (int i = 0; i < 1 + TEXT_LIST_MAX; i++)
        mem_free(job.px[i]);
    for (int i = 0; i < 2; i++)
        mem_free(job.path[i]);
    return status;
}
