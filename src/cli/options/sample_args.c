/* The options of `sample`: see sample_args.h. */
#include "sample_args.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"

#include "../classes.h"

enum { IMAGES_MAX = 10000000 };

const char *const OF_INIT[] = {"mask", "strength", "fit", "background", NULL};
static const char *const FORMAT_NAMES[] = {"png", "idx", "npy", NULL};

#define OWN(kind, member, ...) OPTION_OWN(SampleArgs, kind, member, __VA_ARGS__)

/* clang-format off */
static const Option OPTIONS[] = {
    {.heading = "What to draw"},
    OPTION_MODEL(SampleArgs),
    {.name = "class", .alias = "digit", .letter = 'd', .flags = OPT_DRAWN, .arg = "C,C,...|all|none",
     OWN(FIELD_TEXT, classes, .help = "classes, one row each, by name or number; none: no class (models with a null class). "
                                      "A comma in a name is written \\,")},
    {.name = "count", .alias = "n", .letter = 'n', .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_INT, n, .min = 1, .max = IMAGES_MAX,
         .help = "images of each class [64 of one class, 10 each of several]")},
    {.name = "rows", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_INT, rows, .min = 1, .max = 100000, .help = "rows of the grid")},
    {.name = "cols", .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_INT, cols, .min = 1, .max = 100000, .help = "columns of the grid")},
    OPTION_LORAS(SampleArgs),
    {.name = "compare", .flags = OPT_DRAWN,
     OWN(FIELD_BOOL, compare, .help = "with --lora: one picture of the model without an adapter, then with each --lora on its own "
                                     "(they are not added up), the same noise in all")},
    {.name = "no-captions", .flags = OPT_DRAWN,
     OWN(FIELD_BOOL, no_captions, .help = "leave out the names of classes beside rows, and with --compare what stands above the blocks")},
    {.name = "trajectory", .flags = OPT_NO_DEFAULT | OPT_DRAWN, .arg = "K",
     OWN(FIELD_INT, trajectory, .min = 2, .max = 1000,
         .help = "draw K moments from noise to image, one row per class")},
    {.heading = "From a picture"},
    {.name = "init-image", .flags = OPT_DRAWN, .arg = "FILE",
     OWN(FIELD_TEXT, init, .help = "begin with this PNG, JPEG, BMP or GIF, with noise on it")},
    {.name = "strength", .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_REAL, config.strength, .max = 1,
         .help = "how much of it becomes new: 0 nothing, 1 all, from pure noise [0.6; 1 with --mask]")},
    {.name = "mask", .flags = OPT_DRAWN, .arg = "FILE",
     OWN(FIELD_TEXT, mask, .help = "a picture of the same size: what is white is painted, what is black stays")},
    {.name = "fit", .flags = OPT_DRAWN,
     OWN(FIELD_ENUM, fit, .names = FIT_NAMES, .help = "how a picture that is not square becomes one")},
    {.name = "background", .flags = OPT_DRAWN, .arg = "#RRGGBB",
     OWN(FIELD_TEXT, background, .help = "what transparent pixels show, also white or black")},
    {.heading = "How to draw"},
    {.name = "sampler", .flags = OPT_NO_DEFAULT | OPT_DRAWN}, /* these three: sample_table */
    {.name = "steps", .flags = OPT_DRAWN},
    {.name = "eta", .flags = OPT_DRAWN},
    {.name = "cfg-scale", .alias = "guidance", .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_REAL, config.cfg_scale, .min = -100, .max = 100, .what = "the scale of guidance",
         .help = "classifier-free guidance: out_u + s (out_c - out_u) [1.2; 1 for models without a null class]")},
    {.name = "clip", .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_ENUM, config.clip, .names = CLIP_NAMES,
         .help = "clamp to [-1,1] the predicted image, x_t, nothing [the model's]")},
    OPTION_BN(SampleArgs, config.batch_stats),
    {.name = "seed", .letter = 's', .flags = OPT_DRAWN,
     OWN(FIELD_SEED, config.seed, .help = "image i depends on the seed and i only")},
    {.heading = "Where to"},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "FILE",
     OWN(FIELD_TEXT, output,
         .help = "the PNG file, - for standard output; with other formats a prefix [sample-CLASS.png, sample.png]")},
    {.name = "format",
     OWN(FIELD_ENUM, format, .names = FORMAT_NAMES,
         .help = "single images and labels: idx: OUTPUT-images-idx3-ubyte.gz and OUTPUT-labels-idx1-ubyte.gz, as MNIST; "
                 "npy: OUTPUT_images.npy and OUTPUT_labels.npy, grey or in colour")},
    {.name = "scale", .flags = OPT_DRAWN, OWN(FIELD_INT, scale, .min = 1, .max = 64, .help = "magnification")},
    {.name = "stretch", .flags = OPT_DRAWN,
     OWN(FIELD_BOOL, stretch, .help = "each image from its own darkest to its own brightest value, as matplotlib's imshow")},
    {.name = "show", OWN(FIELD_BOOL, show, .help = "show the picture in the terminal too")},
    {.heading = "Machine"},
    {.name = "batch-size", .alias = "batch",
     OWN(FIELD_INT, config.batch, .max = 100000, .help = "images at once, 0: chosen; does not change them")},
    OPTION_CONV(SampleArgs, config.conv),
    OPTION_MEM(SampleArgs, config.max_bytes),
    OPTION_THREADS(SampleArgs),
    OPTION_PROGRESS(SampleArgs),
    OPTION_QUIET(SampleArgs),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "sample",
    .summary = "draw images",
    .text = "Prints the path of what it wrote.\n\n"
            "  sdlora sample                                  a grid, one row per class\n"
            "  sdlora sample --class 5                        a grid of fives\n"
            "  sdlora sample --class cat,dog                  where classes have names\n"
            "  sdlora sample --class 5 --lora                 the same noise, with the adapter\n"
            "  sdlora sample --lora a/lora:0.7 --lora b/lora:-0.3      both at once\n"
            "  sdlora sample --compare --lora a/lora --lora a/lora:0.5  without; with it; with half of it\n"
            "  sdlora sample --trajectory 12 --sampler ddpm\n"
            "  sdlora sample --init-image sketch.png --strength 0.6     variations of a picture\n"
            "  sdlora sample --init-image photo.png --mask hole.png    fill in what the mask has white\n"
            "  sdlora sample -n 500 --format idx -o fake      5,000 images that any MNIST reader takes\n"
            "  sdlora sample -n 500 --format npy -o fake/train         the same for NumPy, also in colour\n",
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

/* The row of SAMPLERS that stands at this place of the table's names. */
static const SamplerDef *sampler_at(int place)
{
    int rows = 0;
    while (SAMPLERS[rows].name)
        rows++;
    if (place < rows)
        return &SAMPLERS[place];
    for (const SamplerDef *d = SAMPLERS;; d++)
        if (d->alias && place-- == rows)
            return d;
}

static void set_field(Option *options, const char *name, const Field *f)
{
    while (!options->name || strcmp(options->name, name))
        options++;
    options->field = f;
}

void sample_table(SampleTable *t)
{
    char names[SAMPLE_TEXT_MAX], all[SAMPLE_TEXT_MAX];
    int n = 0;
    memset(t, 0, sizeof *t);
    for (const SamplerDef *d = SAMPLERS; d->name && n + 1 < SAMPLE_NAMES_MAX; d++)
        t->names[n++] = d->name;
    for (const SamplerDef *d = SAMPLERS; d->name && n + 1 < SAMPLE_NAMES_MAX; d++)
        if (d->alias)
            t->names[n++] = d->alias;
    snprintf(t->steps_help, sizeof t->steps_help, "steps of %.60s; %.60s takes all the model's",
             names_of(names, takes_steps), names_of(all, takes_all));
    snprintf(t->eta_help, sizeof t->eta_help, "noise of %.60s: 0 none, 1 as much as ddpm", names_of(names, takes_eta));
    t->sampler = (Field){.type = FIELD_ENUM,
                         FIELD(SampleArgs, sampler),
                         .names = t->names,
                         .help = "reverse process [ddim; ddpm for models that clip x_t, as preset seed]"};
    t->steps = (Field){.type = FIELD_INT,
                       FIELD(SampleArgs, config.steps),
                       .min = 1,
                       .max = TIMESTEPS_MAX,
                       .what = "the number of steps",
                       .help = t->steps_help};
    t->eta = (Field){.type = FIELD_REAL, FIELD(SampleArgs, config.eta), .max = 1, .help = t->eta_help};
    _Static_assert(sizeof OPTIONS / sizeof *OPTIONS <= SAMPLE_OPTIONS_MAX, "there is room for all options");
    memcpy(t->options, OPTIONS, sizeof OPTIONS);
    set_field(t->options, "sampler", &t->sampler);
    set_field(t->options, "steps", &t->steps);
    set_field(t->options, "eta", &t->eta);
    t->table = TABLE;
    t->table.options = t->options;
}

/* ---- checks ---- */

SampleArgs sample_args_default(void)
{
    SampleArgs a = {.model = DEFAULT_MODEL, .classes = "all", .background = "white", .scale = 2};
    ModelConfig m = model_preset(PRESET_MNIST);
    a.config = sample_config_default(&m);
    return a;
}

int sample_args_check(const SampleArgs *a, const Given *g, Err *e)
{
    if (a->compare && !a->loras.n)
        return err_set(e, ERR_USAGE, "--compare needs an adapter: add --lora");
    for (const char *const *of = OF_INIT; *of && !a->init; of++)
        if (options_given(g, *of))
            return err_set(e, ERR_USAGE, "--%s belongs to --init-image", *of);
    if (a->trajectory && (a->compare || a->rows || a->cols))
        return err_set(e, ERR_USAGE, "--trajectory has its own grid; leave out %s",
                       a->compare ? "--compare" : "--rows and --cols");
    if (a->format != FORMAT_PNG) {
        const char *name = FORMAT_NAMES[a->format];
        if (a->trajectory || a->compare || a->rows || a->cols || options_given(g, "scale") || a->show)
            return err_set(e, ERR_USAGE,
                           "--format %s writes single images: leave out --trajectory, --compare, --rows, "
                           "--cols, --scale and --show",
                           name);
        if (a->output && !strcmp(a->output, "-"))
            return err_set(e, ERR_USAGE, "--format %s writes two files and cannot go to standard output", name);
    }
    if (options_given(g, "sampler")) {
        const SamplerDef *d = sampler_at(a->sampler);
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
    c->sampler = options_given(g, "sampler") ? sampler_at(a->sampler) : choose_sampler(d.sampler, g);
    if (!options_given(g, "steps"))
        c->steps = d.steps;
    if (!options_given(g, "clip"))
        c->clip = d.clip;
    if (!options_given(g, "strength"))
        c->strength = a->mask ? 1 : 0.6;
    if (!options_given(g, "cfg-scale"))
        c->cfg_scale = d.cfg_scale;
    if (c->sampler->all_steps)
        c->steps = m->timesteps;
    if (c->steps > m->timesteps)
        return err_set(e, ERR_USAGE, "--steps must lie in 1..%d, the model's timesteps, got '%d'", m->timesteps,
                       c->steps);
    if (m->in_channels != 1 && m->in_channels != 3)
        return err_set(e, ERR_USAGE, "'%s' makes images of %d channels; only grey ones and those of 3 can be shown",
                       a->model, m->in_channels);
    if (m->in_channels != 1 && a->format == FORMAT_IDX)
        return err_set(e, ERR_USAGE,
                       "--format idx is for grey images, and '%s' makes images in colour; use --format npy", a->model);
    if (c->batch_stats && m->norm != NORM_BATCH)
        return err_set(e, ERR_USAGE, "--bn belongs to models with BatchNorm, and '%s' has GroupNorm", a->model);
    if (c->cfg_scale != 1.0 && !m->null_class)
        return err_set(e, ERR_USAGE, "--cfg-scale needs a null class, and '%s' was trained without --cond-drop",
                       a->model);
    if (a->trajectory > sample_steps_taken(c, m))
        return err_set(e, ERR_USAGE, "--trajectory %d has more moments than the %d steps taken", a->trajectory,
                       sample_steps_taken(c, m));
    return 0;
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

int sample_plan(Plan *p, const SampleArgs *a, const Model *m, Err *e)
{
    int ids[CLASS_LIST_MAX] = {0}, each;
    memset(p, 0, sizeof *p);
    p->kinds = classes_parse(ids, a->classes, m, a->model, e);
    if (p->kinds < 1 || layout(&each, &p->cols, p->kinds, a, e))
        return -1;
    p->first_class = ids[0];
    p->n = each * p->kinds;
    p->classes = mem_alloc((size_t)p->n, sizeof *p->classes, "the classes", e);
    for (int i = 0; p->classes && i < p->n; i++)
        p->classes[i] = ids[i / each];
    p->text = strcmp(a->classes, "all") ? classes_text(ids, p->kinds, m, e) : mem_strdup("all", e);
    return p->classes && p->text ? 0 : -1;
}
