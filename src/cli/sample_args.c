/* The options of `sample`: see sample_args.h. */
#include "sample_args.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"

#define F(field) OPTION_FIELD(SampleArgs, field)
#define HEADING(text)                                                                                                  \
    {                                                                                                                  \
        .type = OPT_HEADING, .help = text                                                                              \
    }

enum { CLASSES_MAX = 1024, NONE = -1, IMAGES_MAX = 10000000 };

static const Choice FORMATS[] = {{"png", FORMAT_PNG}, {"idx", FORMAT_IDX}, {NULL, 0}};

/* clang-format off */
static const Option OPTIONS[] = {
    HEADING("What to draw"),
    {.name = "model", .letter = 'm', .type = OPT_TEXT, F(model), .arg = "FILE", .help = "model"},
    {.name = "digit", .alias = "class", .letter = 'd', .type = OPT_TEXT, F(digit), .arg = "D,D,...|all|none",
     .help = "classes, one row each; none: no class (models with a null class)"},
    {.name = "count", .alias = "n", .letter = 'n', .type = OPT_INT, F(n), .flags = OPT_NO_DEFAULT, .min = 1,
     .max = IMAGES_MAX, .help = "images of each class [64 of one class, 10 each of several]"},
    {.name = "rows", .type = OPT_INT, F(rows), .flags = OPT_NO_DEFAULT, .min = 1, .max = 100000,
     .help = "rows of the grid"},
    {.name = "cols", .type = OPT_INT, F(cols), .flags = OPT_NO_DEFAULT, .min = 1, .max = 100000,
     .help = "columns of the grid"},
    {.name = "lora", .alias = "adapter", .type = OPT_TEXTS, F(loras), .flags = OPT_OPTIONAL, .fallback = "",
     .arg = "PATH[:SCALE]", .help = "add an adapter; without PATH the one in lora/ beside the model. Repeatable"},
    {.name = "compare", .type = OPT_BOOL, F(compare),
     .help = "with --lora: both in one picture, without the adapter left or above"},
    {.name = "trajectory", .type = OPT_INT, F(trajectory), .flags = OPT_NO_DEFAULT, .arg = "K", .min = 2, .max = 1000,
     .help = "draw K moments from noise to image, one row per class"},
    HEADING("How to draw"),
    {.name = "sampler", .type = OPT_CHOICE, F(sampler), .flags = OPT_NO_DEFAULT,
     .help = "reverse process [ddim; ddpm for models that clip x_t, as preset seed]"},
    {.name = "steps", .type = OPT_INT, F(config.steps), .min = 1, .max = 100000},
    {.name = "eta", .type = OPT_REAL, F(config.eta), .min = 0, .max = 1},
    {.name = "cfg-scale", .alias = "guidance", .type = OPT_REAL, F(config.cfg_scale), .flags = OPT_NO_DEFAULT,
     .min = -100, .max = 100,
     .help = "classifier-free guidance: out_u + s (out_c - out_u) [1.2; 1 for models without a null class]"},
    {.name = "clip", .type = OPT_CHOICE, F(config.clip), .flags = OPT_NO_DEFAULT, .choices = CHOICES_CLIP,
     .help = "clamp to [-1,1] the predicted image, x_t, nothing [the model's]"},
    {.name = "bn", .type = OPT_CHOICE, F(config.batch_stats), .choices = CHOICES_BN, .help = "statistics of BatchNorm"},
    {.name = "seed", .letter = 's', .type = OPT_SEED, F(config.seed), .help = "image i depends on the seed and i only"},
    HEADING("Where to"),
    {.name = "output", .alias = "out", .letter = 'o', .type = OPT_TEXT, F(output), .arg = "FILE",
     .help = "the PNG file, - for standard output; with --format idx a prefix [sample-CLASS.png, sample.png]"},
    {.name = "format", .type = OPT_CHOICE, F(format), .choices = FORMATS,
     .help = "idx: OUTPUT-images-idx3-ubyte.gz and OUTPUT-labels-idx1-ubyte.gz, as MNIST"},
    {.name = "scale", .type = OPT_INT, F(scale), .min = 1, .max = 64, .help = "magnification"},
    {.name = "show", .type = OPT_BOOL, F(show), .help = "show the picture in the terminal too"},
    HEADING("Machine"),
    {.name = "batch-size", .alias = "batch", .type = OPT_INT, F(config.batch), .min = 0, .max = 100000,
     .help = "images at once, 0: chosen; does not change them"},
    {.name = "conv", .type = OPT_CHOICE, F(config.conv), .choices = CHOICES_CONV,
     .help = "how convolutions are computed"},
    {.name = "mem", .type = OPT_BYTES, F(config.max_bytes), .help = MEM_HELP},
    {.name = "threads", .type = OPT_INT, F(threads), .min = 0, .max = 1024, .help = "threads; 0: one per processor"},
    {.name = "progress", .type = OPT_CHOICE, F(progress), .choices = CHOICES_PROGRESS, .help = "how progress is shown"},
    {.name = "quiet", .letter = 'q', .type = OPT_BOOL, F(quiet), .help = "errors only"},
    {.type = OPT_END},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "sample",
    .summary = "draw images",
    .text = "Prints the path of what it wrote.\n\n"
            "  sdlora sample                                  a grid, one row per class\n"
            "  sdlora sample --digit 5                        a grid of fives\n"
            "  sdlora sample --digit 5 --lora                 the same noise, with the adapter\n"
            "  sdlora sample --lora a/lora:0.7 --lora b/lora:-0.3\n"
            "  sdlora sample --trajectory 12 --sampler ddpm\n"
            "  sdlora sample -n 500 --format idx -o fake      5,000 images that any MNIST reader takes\n",
    .options = OPTIONS,
};

/* ---- what the table of samplers says ---- */

static bool takes_steps(const SamplerDef *d)
{
    return !d->all_steps;
}

static bool takes_all(const SamplerDef *d)
{
    return d->all_steps;
}

static bool takes_eta(const SamplerDef *d)
{
    return d->uses_eta;
}

/* The names of such samplers: "ddim, ..." */
static const char *names_of(char out[SAMPLE_TEXT_MAX], bool (*such)(const SamplerDef *))
{
    size_t used = 0;
    out[0] = '\0';
    for (const SamplerDef *d = SAMPLERS; d->name; d++)
        if (such(d) && used < SAMPLE_TEXT_MAX)
            used += (size_t)snprintf(out + used, SAMPLE_TEXT_MAX - used, "%s%s", used ? ", " : "", d->name);
    return out;
}

void sample_table(SampleTable *t)
{
    char names[SAMPLE_TEXT_MAX], all[SAMPLE_TEXT_MAX];
    int n = 0;
    memset(t, 0, sizeof *t);
    for (const SamplerDef *d = SAMPLERS; d->name && n + 2 < SAMPLE_CHOICES_MAX; d++) {
        t->samplers[n++] = (Choice){d->name, (int)(d - SAMPLERS)};
        if (d->alias)
            t->samplers[n++] = (Choice){d->alias, (int)(d - SAMPLERS)};
    }
    snprintf(t->steps_help, sizeof t->steps_help, "steps of %.60s; %.60s takes all the model's",
             names_of(names, takes_steps), names_of(all, takes_all));
    snprintf(t->eta_help, sizeof t->eta_help, "noise of %.60s: 0 none, 1 as much as ddpm", names_of(names, takes_eta));
    _Static_assert(sizeof OPTIONS / sizeof *OPTIONS <= SAMPLE_OPTIONS_MAX, "there is room for all options");
    memcpy(t->options, OPTIONS, sizeof OPTIONS);
    for (Option *o = t->options; o->type != OPT_END; o++) {
        if (o->name && !strcmp(o->name, "sampler"))
            o->choices = t->samplers;
        if (o->name && !strcmp(o->name, "steps"))
            o->help = t->steps_help;
        if (o->name && !strcmp(o->name, "eta"))
            o->help = t->eta_help;
    }
    t->table = TABLE;
    t->table.options = t->options;
}

/* ---- checks ---- */

SampleArgs sample_args_default(void)
{
    SampleArgs a = {.model = DEFAULT_MODEL, .digit = "all", .scale = 2};
    ModelConfig m = model_preset(PRESET_MNIST);
    a.config = sample_config_default(&m);
    return a;
}

int sample_args_check(const SampleArgs *a, const Given *g, Err *e)
{
    if (a->compare && !a->loras.n)
        return err_set(e, ERR_USAGE, "--compare needs an adapter: add --lora");
    if (a->trajectory && (a->compare || a->rows || a->cols))
        return err_set(e, ERR_USAGE, "--trajectory has its own grid; leave out %s",
                       a->compare ? "--compare" : "--rows and --cols");
    if (a->format == FORMAT_IDX) {
        if (a->trajectory || a->compare || a->rows || a->cols || options_given(g, "scale") || a->show)
            return err_set(e, ERR_USAGE,
                           "--format idx writes single images: leave out --trajectory, --compare, --rows, "
                           "--cols, --scale and --show");
        if (a->output && !strcmp(a->output, "-"))
            return err_set(e, ERR_USAGE, "--format idx writes two files and cannot go to standard output");
    }
    if (options_given(g, "sampler")) {
        const SamplerDef *d = &SAMPLERS[a->sampler];
        char names[SAMPLE_TEXT_MAX];
        if (options_given(g, "steps") && !takes_steps(d))
            return err_set(e, ERR_USAGE, "--sampler %s takes all steps of the model; --steps belongs to %s", d->name,
                           names_of(names, takes_steps));
        if (options_given(g, "eta") && !takes_eta(d))
            return err_set(e, ERR_USAGE, "--eta belongs to --sampler %s", names_of(names, takes_eta));
    }
    return 0;
}

/* The model's default, unless something is given that it does not take: then the first that does. */
static const SamplerDef *choose_sampler(const SamplerDef *usual, const Given *g)
{
    const bool steps = options_given(g, "steps"), eta = options_given(g, "eta");
    const SamplerDef *d = usual;
    for (int k = 0; d->name && ((steps && !takes_steps(d)) || (eta && !takes_eta(d))); k++)
        d = &SAMPLERS[k];
    return d->name ? d : usual;
}

int sample_args_settle(SampleArgs *a, const Given *g, const ModelConfig *m, Err *e)
{
    SampleConfig d = sample_config_default(m), *c = &a->config;
    c->sampler = options_given(g, "sampler") ? &SAMPLERS[a->sampler] : choose_sampler(d.sampler, g);
    if (!options_given(g, "steps"))
        c->steps = d.steps;
    if (!options_given(g, "clip"))
        c->clip = d.clip;
    if (!options_given(g, "cfg-scale"))
        c->cfg_scale = d.cfg_scale;
    if (c->sampler->all_steps)
        c->steps = m->timesteps;
    if (c->steps > m->timesteps)
        return err_set(e, ERR_USAGE, "--steps must lie in 1..%d, the model's timesteps, got '%d'", m->timesteps,
                       c->steps);
    if (m->in_channels != 1)
        return err_set(e, ERR_USAGE, "'%s' makes images of %d channels, and pictures are drawn of one", a->model,
                       m->in_channels);
    if (c->batch_stats && m->norm != NORM_BATCH)
        return err_set(e, ERR_USAGE, "--bn belongs to models with BatchNorm, and '%s' has GroupNorm", a->model);
    if (c->cfg_scale != 1.0 && !m->null_class)
        return err_set(e, ERR_USAGE, "--cfg-scale needs a null class, and '%s' was trained without --cond-drop",
                       a->model);
    if (a->trajectory > c->steps)
        return err_set(e, ERR_USAGE, "--trajectory %d has more moments than the %d steps taken", a->trajectory,
                       c->steps);
    return 0;
}

/* "5", "0,3,none", "all" into ids; the number of them, or -1. */
static int parse_classes(int ids[CLASSES_MAX], const SampleArgs *a, const ModelConfig *m, Err *e)
{
    int n = 0;
    if (!strcmp(a->digit, "all")) {
        for (n = 0; n < m->classes && n < CLASSES_MAX; n++)
            ids[n] = n;
        return n;
    }
    for (const char *p = a->digit;; p++) {
        char item[24], *end;
        size_t len = strcspn(p, ",");
        long v;
        snprintf(item, sizeof item, "%.*s", (int)len, p);
        errno = 0;
        v = strtol(item, &end, 10);
        if (!strcmp(item, "none")) {
            if (!m->null_class)
                return err_set(e, ERR_USAGE,
                               "--digit none needs a null class, and '%s' was trained without --cond-drop", a->model);
            v = m->classes;
        } else if (!len || len >= sizeof item || *end || item[0] < '0' || item[0] > '9' || errno) {
            return err_set(e, ERR_USAGE, "--digit takes classes as 5 or 0,1,2, 'all' or 'none', got '%s'", a->digit);
        } else if (v >= m->classes) {
            return err_set(e, ERR_USAGE, "there is no class %s: the model '%s' knows 0 to %d", item, a->model,
                           m->classes - 1);
        }
        if (n == CLASSES_MAX)
            return err_set(e, ERR_USAGE, "--digit takes %d classes at most", CLASSES_MAX);
        ids[n++] = (int)v;
        p += len;
        if (!*p)
            return n;
    }
}

/* Images per class, and columns. A grid has room for all of them, or it is refused. */
static int layout(int *each, int *cols, int kinds, const SampleArgs *a, Err *e)
{
    int64_t room = (int64_t)a->rows * a->cols, total;
    *each = a->n ? a->n : kinds == 1 ? 64 : 10;
    *cols = a->cols;
    if (a->trajectory) {
        *each = a->n ? a->n : 1;
        *cols = a->trajectory;
    } else if (!a->n && room) {
        if (room % kinds)
            return err_set(e, ERR_USAGE, "%d rows of %d images cannot be shared by %d classes; give -n", a->rows,
                           a->cols, kinds);
        *each = (int)(room / kinds < INT_MAX ? room / kinds : INT_MAX);
    } else if (!a->n && a->cols) {
        *each = kinds == 1 ? a->cols * 8 : a->cols;
    } else if (!a->n && a->rows && kinds == 1) {
        *each = a->rows * 8;
    }
    total = (int64_t)*each * kinds;
    if (total > IMAGES_MAX)
        return err_set(e, ERR_USAGE, "%lld images are too many for one command; %d is the limit", (long long)total,
                       IMAGES_MAX);
    if (room && room < total)
        return err_set(e, ERR_USAGE, "%d rows of %d images have no room for %lld", a->rows, a->cols, (long long)total);
    if (!*cols && a->rows)
        *cols = (int)((total + a->rows - 1) / a->rows);
    if (!*cols)
        *cols = kinds > 1 && *each <= 100 ? *each : 8;
    if (!a->cols && !a->rows && kinds == 1 && !a->trajectory && *each > 64)
        for (*cols = 8; (int64_t)*cols * *cols < total && *cols < 100;)
            ++*cols;
    if (!a->cols && !a->rows && !a->trajectory && total < *cols)
        *cols = (int)total;
    return 0;
}

int sample_plan(Plan *p, const SampleArgs *a, const ModelConfig *m, Err *e)
{
    int ids[CLASSES_MAX] = {0}, each;
    memset(p, 0, sizeof *p);
    p->kinds = parse_classes(ids, a, m, e);
    if (p->kinds < 1 || layout(&each, &p->cols, p->kinds, a, e))
        return -1;
    p->first_class = ids[0];
    p->n = each * p->kinds;
    p->classes = mem_alloc((size_t)p->n, sizeof *p->classes, "the classes", e);
    for (int i = 0; p->classes && i < p->n; i++)
        p->classes[i] = ids[i / each];
    return p->classes ? 0 : -1;
}
