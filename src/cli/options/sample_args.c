/* The options of `sample`: see sample_args.h. */
#include "sample_args.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "../classes.h"

static const char *const OF_GUIDANCE[] = {"cfg-interval", "cfg-rescale", "negative", NULL};
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
     OWN(FIELD_INT, n, .min = 1, .max = SAMPLE_IMAGES_MAX,
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
         .help = "draw K moments from noise to image, one row per class; as an animation, one grid after the other, where "
                 "--output ends with .apng")},
    {.name = "interpolate", .flags = OPT_DRAWN, .arg = "A:B|seed:A:B",
     OWN(FIELD_TEXT, interpolate,
         .help = "rows from class A to class B, or from seed A to seed B: --cols images each [10], -n rows [1, of each class]")},
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
    {.name = "sampler", .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_TEXT, sampler, .help = "reverse process, also by the names of k-diffusion and diffusers (k_euler, HeunDiscreteScheduler) "
                                      "[unipc; ddpm for models that clip x_t, as preset seed]")}, /* this, --steps, --eta, --spacing: sample_table */
    {.name = "steps", .flags = OPT_NO_DEFAULT | OPT_DRAWN},
    {.name = "spacing", .flags = OPT_NO_DEFAULT | OPT_DRAWN},
    {.name = "eta", .flags = OPT_DRAWN},
    {.name = "cfg-scale", .alias = "guidance", .flags = OPT_NO_DEFAULT | OPT_DRAWN,
     OWN(FIELD_REAL, config.cfg_scale, .min = -100, .max = 100, .what = "the scale of guidance",
         .help = "classifier-free guidance: out_u + s (out_c - out_u) [1.5; 1 for models without a null class]")},
    {.name = "cfg-interval", .flags = OPT_NO_DEFAULT | OPT_DRAWN, .arg = "LO:HI",
     OWN(FIELD_TEXT, cfg_interval,
         .help = "guidance only where LO < sigma <= HI, the noise for each unit of picture, sqrt((1-ac)/ac); elsewhere half the time [0.3:5]")},
    {.name = "cfg-rescale", .flags = OPT_DRAWN,
     OWN(FIELD_REAL, config.cfg_rescale, .max = 1, .what = "the rescaling of guidance",
         .help = "bring the spread of a guided answer back to that of its class's: 0 not, 1 all the way")},
    {.name = "negative", .flags = OPT_DRAWN, .arg = "CLASS",
     OWN(FIELD_TEXT, negative, .help = "guide away from this class, not from no class")},
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
    OPTION_PRECISION(SampleArgs, config.precision),
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
            "  sdlora sample --class 5 --trajectory 40 -o five.apng     the same as an animation\n"
            "  sdlora sample --sampler unipc --steps 10       as good in a fifth of the time\n"
            "  sdlora sample --interpolate 3:8 -n 4           four rows from threes to eights\n"
            "  sdlora sample --interpolate seed:1:2           for each class a row from one noise to another\n"
            "  sdlora sample --init-image sketch.png --strength 0.6     variations of a picture\n"
            "  sdlora sample --init-image photo.png --mask hole.png    fill in what the mask has white\n"
            "  sdlora sample -n 500 --format idx -o fake      5,000 images that any MNIST reader takes\n"
            "  sdlora sample -n 500 --format npy -o fake/train         the same for NumPy, also in colour\n",
    .options = OPTIONS,
};

/* ---- what the table of samplers says ---- */

static bool any_sampler(const SamplerDef *d)
{
    return d->name != NULL;
}

static bool takes_all(const SamplerDef *d)
{
    return d->steps == 0;
}

static bool takes_eta(const SamplerDef *d)
{
    return d->uses_eta;
}

static bool spaced_otherwise(const SamplerDef *d)
{
    return d->spacing != SAMPLERS[SAMPLER_UNIPC].spacing;
}

/* The names of such samplers: "ddim, ..." */
static const char *names_of(char out[SAMPLE_TEXT_MAX], bool (*such)(const SamplerDef *), const char *separator)
{
    size_t used = 0;
    out[0] = '\0';
    for (const SamplerDef *d = SAMPLERS; d->name; d++)
        if (such(d) && used < SAMPLE_TEXT_MAX)
            used += (size_t)snprintf(out + used, SAMPLE_TEXT_MAX - used, "%s%s", used ? separator : "", d->name);
    return out;
}

/* How many steps each takes */
static void list_steps(char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "steps from noise to image [");
    for (const SamplerDef *d = SAMPLERS; d->name && used < size; d++)
        used += d->steps ? (size_t)snprintf(out + used, size - used, "; %s: %d", d->name, d->steps)
                         : (size_t)snprintf(out + used, size - used, "%s: all the model's", d->name);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

static Option *option_of(SampleTable *t, const char *name)
{
    Option *o = t->options;
    while (!o->name || strcmp(o->name, name))
        o++;
    return o;
}

void sample_table(SampleTable *t)
{
    char names[SAMPLE_TEXT_MAX];
    memset(t, 0, sizeof *t);
    list_steps(t->steps_help, sizeof t->steps_help);
    snprintf(t->eta_help, sizeof t->eta_help, "noise of %.60s: 0 none, 1 as much as ddpm",
             names_of(names, takes_eta, ", "));
    snprintf(t->spacing_help, sizeof t->spacing_help, "where the steps lie [%s; %s with %.60s]",
             SPACING_NAMES[SAMPLERS[SAMPLER_UNIPC].spacing], SPACING_NAMES[SPACING_KARRAS],
             names_of(names, spaced_otherwise, ", "));
    t->steps = (Field){.type = FIELD_INT,
                       FIELD(SampleArgs, config.steps),
                       .min = 1,
                       .max = TIMESTEPS_MAX,
                       .what = "the number of steps",
                       .help = t->steps_help};
    t->eta = (Field){.type = FIELD_REAL, FIELD(SampleArgs, config.eta), .max = 1, .help = t->eta_help};
    t->spacing =
        (Field){.type = FIELD_ENUM, FIELD(SampleArgs, config.spacing), .names = SPACING_NAMES, .help = t->spacing_help};
    _Static_assert(sizeof OPTIONS / sizeof *OPTIONS <= SAMPLE_OPTIONS_MAX, "there is room for all options");
    memcpy(t->options, OPTIONS, sizeof OPTIONS);
    option_of(t, "sampler")->arg = names_of(t->samplers, any_sampler, "|");
    option_of(t, "steps")->field = &t->steps;
    option_of(t, "eta")->field = &t->eta;
    option_of(t, "spacing")->field = &t->spacing;
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

bool sample_mixes_classes(const SampleArgs *a)
{
    return a->interpolate && strncmp(a->interpolate, SAMPLE_SEED, strlen(SAMPLE_SEED)) != 0;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = text ? strlen(text) : 0, k = strlen(end);
    return n >= k && !strcasecmp(text + n - k, end);
}

bool sample_moves(const SampleArgs *a)
{
    return a->trajectory && ends_with(a->output, ".apng");
}

static int check_interpolation(const SampleArgs *a, const Given *g, Err *e)
{
    if (a->rows || (a->trajectory && a->cols))
        return err_set(e, ERR_USAGE, "--interpolate has rows of its own: -n says how many; leave out %s",
                       a->rows ? "--rows" : "--cols with --trajectory");
    if (a->cols == 1)
        return err_set(e, ERR_USAGE, "--interpolate needs 2 images in a row at least, not --cols 1");
    if (sample_mixes_classes(a) && options_given(g, "class"))
        return err_set(e, ERR_USAGE, "--interpolate %s says the classes; leave out --class", a->interpolate);
    if (a->format != FORMAT_PNG)
        return err_set(e, ERR_USAGE, "--interpolate makes a picture; leave out --format");
    return 0;
}

static int check_sampler(const SampleArgs *a, const Given *g, Err *e)
{
    const SamplerDef *d = a->sampler ? sampler_find(a->sampler) : NULL;
    char names[SAMPLE_TEXT_MAX], word[40];
    if (a->sampler && !d)
        return err_set(e, ERR_USAGE,
                       "'--sampler' must be one of %s, or what k-diffusion or diffusers call one of them, not '%s'",
                       names_of(names, any_sampler, ", "), text_safe(word, sizeof word, a->sampler));
    if (d && options_given(g, "eta") && !takes_eta(d))
        return err_set(e, ERR_USAGE, "--eta belongs to --sampler %s", names_of(names, takes_eta, ", "));
    return 0;
}

int sample_args_check(const SampleArgs *a, const Given *g, Err *e)
{
    if (a->compare && !a->loras.n)
        return err_set(e, ERR_USAGE, "--compare needs an adapter: add --lora");
    for (const char *const *of = OF_INIT; *of && !a->init; of++)
        if (options_given(g, *of))
            return err_set(e, ERR_USAGE, "--%s belongs to --init-image", *of);
    if (a->trajectory && ends_with(a->output, ".gif"))
        return err_set(e, ERR_USAGE, "a trajectory moves as an animated PNG, not as a GIF; call '%s' .apng", a->output);
    if (sample_moves(a) && (a->compare || a->show))
        return err_set(e, ERR_USAGE, "an animation is of one grid, in a file; leave out --compare and --show");
    if (a->interpolate && check_interpolation(a, g, e))
        return -1;
    if (a->trajectory && !sample_moves(a) && (a->compare || a->rows || a->cols))
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
    return check_sampler(a, g, e);
}

/* The model's default, unless something is given that it does not take, or a number of steps where it would take all:
 * then the first that does. */
static const SamplerDef *choose_sampler(const SamplerDef *usual, const Given *g)
{
    const bool steps = options_given(g, "steps"), eta = options_given(g, "eta");
    const SamplerDef *d = usual;
    for (int k = 0; d->name && ((steps && takes_all(d)) || (eta && !takes_eta(d))); k++)
        d = &SAMPLERS[k];
    return d->name ? d : usual;
}

/* "LO:HI" */
static int read_interval(SampleConfig *c, const char *text, Err *e)
{
    static const Field END = {.type = FIELD_REAL, .size = sizeof(double), .max = 1e30};
    const char *colon = strchr(text, ':');
    char low[40];
    if (!colon || colon - text >= (int)sizeof low)
        return err_set(e, ERR_USAGE, "'--cfg-interval' must be LO:HI, two values of sigma, as 0.3:5");
    snprintf(low, sizeof low, "%.*s", (int)(colon - text), text);
    if (field_read(&c->cfg_low, &END, "LO of '--cfg-interval'", low, e) ||
        field_read(&c->cfg_high, &END, "HI of '--cfg-interval'", colon + 1, e))
        return -1;
    return c->cfg_low < c->cfg_high
               ? 0
               : err_set(e, ERR_USAGE, "'--cfg-interval' must end above its beginning, not %s", text);
}

static int settle_guidance(SampleArgs *a, const Given *g, const Model *m, Err *e)
{
    SampleConfig *c = &a->config;
    if (a->negative && classes_one(&c->negative, "--negative", a->negative, m, a->model, e))
        return -1;
    if (c->negative == m->config.classes)
        c->negative = -1;
    if (a->cfg_interval && read_interval(c, a->cfg_interval, e))
        return -1;
    if (c->cfg_scale != 1.0 && c->negative < 0 && !m->config.null_class)
        return err_set(e, ERR_USAGE,
                       "--cfg-scale needs a null class, and '%s' was trained without --cond-drop; or add --negative",
                       a->model);
    for (const char *const *of = OF_GUIDANCE; *of && c->cfg_scale == 1; of++)
        if (options_given(g, *of))
            return err_set(e, ERR_USAGE, "--%s belongs to guidance, and --cfg-scale is 1", *of);
    return 0;
}

int sample_args_settle(SampleArgs *a, const Given *g, const Model *model, Err *e)
{
    const ModelConfig *m = &model->config;
    SampleConfig d = sample_config_default(m), *c = &a->config;
    c->sampler = a->sampler ? sampler_find(a->sampler) : choose_sampler(d.sampler, g);
    if (!options_given(g, "steps"))
        c->steps = sampler_steps(c->sampler, m);
    if (!options_given(g, "spacing"))
        c->spacing = c->sampler->spacing;
    if (!options_given(g, "clip"))
        c->clip = d.clip;
    if (!options_given(g, "strength"))
        c->strength = a->mask ? 1 : 0.6;
    if (!options_given(g, "cfg-scale"))
        c->cfg_scale = d.cfg_scale;
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
    if (a->trajectory > sample_steps_taken(c))
        return err_set(e, ERR_USAGE, "--trajectory %d has more moments than the %d steps taken", a->trajectory,
                       sample_steps_taken(c));
    return settle_guidance(a, g, model, e);
}
