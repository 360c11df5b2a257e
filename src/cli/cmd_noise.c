/* sdlora noise: the forward process. Rows are images, columns moments; a row keeps its noise, so that only t changes:
 * x_t = sqrt(ac_t) x_0 + sqrt(1-ac_t) eps (Ho, Jain & Abbeel 2020, eq. 4). */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/data.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/model.h"
#include "sdlora/rng.h"

#include "cli.h"
#include "options/picture_args.h"

enum { PAD = 2 };

typedef struct NoiseArgs {
    const char *data, *output;
    int rows, cols, scale;
    Preset preset;
    ModelConfig model; /* of which schedule, timesteps and image size count, and the data's channels */
    uint64_t seed;
    bool quiet;
} NoiseArgs;

#define OWN(kind, member, ...) OPTION_OWN(NoiseArgs, kind, member, __VA_ARGS__)
#define MODEL(f)               .field = &MODEL_FIELDS[MODEL_##f], .at = offsetof(NoiseArgs, model)

/* clang-format off */
static const Option OPTIONS[] = {
    {.name = "data", .arg = "DIR", OWN(FIELD_TEXT, data, .help = DATA_HELP)},
    OPTION_PRESET(NoiseArgs, "whose schedule, timesteps and image size; other options override"),
    {.name = "schedule", MODEL(SCHEDULE)},
    {.name = "timesteps", MODEL(TIMESTEPS)},
    {.name = "image-size", MODEL(IMAGE_SIZE)},
    {.name = "rows", .alias = "n", .letter = 'n', .flags = OPT_NO_DEFAULT,
     OWN(FIELD_INT, rows, .min = 1, .max = 1000, .help = "images, one of each class in turn [one per class]")},
    {.name = "cols", OWN(FIELD_INT, cols, .min = 2, .max = 1000, .help = "moments, from t = 0 to the last")},
    {.name = "seed", .letter = 's', OWN(FIELD_SEED, seed, .help = "of the noise and of the images chosen")},
    {.name = "scale", OWN(FIELD_INT, scale, .min = 1, .max = 64, .help = "magnification")},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "FILE",
     OWN(FIELD_TEXT, output, .help = "the PNG file, - for standard output")},
    OPTION_QUIET(NoiseArgs),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "noise",
    .summary = "draw how images dissolve into noise",
    .text = "Rows are images, columns moments of the forward process, the first one clean. Prints the path written.\n\n"
            "  sdlora noise --cols 12 --schedule linear -o figure/noise.png\n",
    .options = OPTIONS,
};

/* A random image of the class, by looking on from a random place; -1 when there is none. */
static int find_image(const Dataset *d, int class_id, Rng *r)
{
    int at = (int)rng_below(r, (uint32_t)d->n);
    for (int i = 0; i < d->n; i++)
        if (d->labels[(at + i) % d->n] == class_id)
            return (at + i) % d->n;
    return -1;
}

static int draw_row(uint8_t *px, const Dataset *d, int row, const Diffusion *diff, const NoiseArgs *a, Err *e)
{
    const size_t values = model_image_values(&a->model), hw = values / (size_t)a->model.in_channels;
    Rng r = rng_make(a->seed, rng_stream("forward", (uint64_t)row));
    int at = find_image(d, row % d->classes, &r);
    float *x0 = mem_alloc(2 * values, sizeof *x0, "an image", e), *eps = x0 ? x0 + values : NULL;
    const uint8_t *image;
    real *xt = mem_alloc(values, sizeof *xt, "an image", e);
    int rc = -1;
    if (!x0 || !xt)
        goto done;
    image = d->images + (size_t)(at < 0 ? 0 : at) * dataset_image_bytes(d);
    for (int c = 0; c < d->channels; c++)
        if (resize_bilinear(px + (size_t)c * hw, a->model.image_size, a->model.image_size,
                            image + (size_t)c * (size_t)d->h * (size_t)d->w, d->h, d->w, e))
            goto done;
    for (size_t i = 0; i < values; i++)
        x0[i] = image_to_real(px[i]);
    rng_normal(&r, eps, values);
    for (int k = 1; k < a->cols; k++) { /* column 0 stays clean */
        int t = (int)((int64_t)k * (a->model.timesteps - 1) / (a->cols - 1));
        diffusion_noise(xt, NULL, x0, eps, t, values, diff);
        for (size_t i = 0; i < values; i++)
            px[(size_t)k * values + i] = image_from_real(xt[i]);
    }
    rc = 0;
done:
    mem_free(x0);
    mem_free(xt);
    return rc;
}

static int rows_of(const NoiseArgs *a, const Dataset *d)
{
    return a->rows ? a->rows : d->classes;
}

static int draw(const NoiseArgs *a, const Dataset *d, const Diffusion *diff, Err *e)
{
    int rows = rows_of(a, d);
    size_t row = (size_t)a->cols * model_image_values(&a->model);
    uint8_t *px = mem_alloc((size_t)rows, row, "the picture", e);
    const char *text[] = {"Software", "sdlora " SDLORA_VERSION, NULL};
    Image im;
    int rc = px ? 0 : -1;
    for (int i = 0; i < rows && !rc; i++)
        rc = draw_row(px + (size_t)i * row, d, i, diff, a, e);
    if (!rc)
        rc = image_grid(&im, px, rows * a->cols, a->model.in_channels, a->model.image_size, a->model.image_size,
                        a->cols, a->scale, PAD, 0, e);
    mem_free(px);
    if (rc)
        return -1;
    rc = image_write_png(a->output, &im, text, e);
    image_free(&im);
    if (!rc && strcmp(a->output, "-"))
        printf("%s\n", a->output);
    return rc;
}

/* The test split is not read, but nobody wants to lose it either. */
static int check_output(const NoiseArgs *a, bool chosen, Err *e)
{
    for (int s = 0; s < DATA_SPLITS; s++) {
        DataFiles inputs;
        int rc = 0;
        if (dataset_files(&inputs, a->data, (DataSplit)s, NULL)) /* told when it is read */
            continue;
        for (int i = 0; i < inputs.n && !rc; i++)
            rc = cli_check_apart(a->output, inputs.path[i], e);
        data_files_free(&inputs);
        if (rc)
            return -1;
    }
    if (picture_args_check_output(a->output, a->data, e))
        return -1;
    return (!chosen && cli_check_default(a->output, true, e)) || cli_check_output(a->output, e) ? -1 : 0;
}

static int noise(NoiseArgs *a, bool chosen, Err *e)
{
    Dataset d;
    Diffusion diff;
    Image size;
    int rc;
    const PictureArgs pictures = PICTURE_ARGS_DEFAULT;
    DataConfig c;
    if (check_output(a, chosen, e) || picture_args_config(&c, &pictures, a->model.image_size, 0, e) ||
        picture_args_read(&d, a->data, DATA_TRAIN, &c, &pictures, PROGRESS_AUTO, a->quiet, e))
        return -1;
    if (!a->quiet)
        picture_args_say(&d, &c);
    a->model.in_channels = d.channels;
    rc = image_grid_size(&size, rows_of(a, &d) * a->cols, d.channels, a->model.image_size, a->model.image_size, a->cols,
                         a->scale, PAD, e);
    if (!rc)
        rc = diffusion_init(&diff, a->model.schedule, a->model.timesteps, PREDICT_EPS, e);
    if (!rc) {
        rc = draw(a, &d, &diff, e);
        diffusion_free(&diff);
    }
    dataset_free(&d);
    return rc;
}

int cmd_noise(int argc, char **argv)
{
    NoiseArgs args = {
        .data = DEFAULT_DATA, .output = "noise.png", .cols = 12, .scale = 2, .model = model_preset(PRESET_MNIST)};
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    args.model = model_preset(args.preset);
    status = options_apply(&given, &args, &e) || noise(&args, options_given(&given, "output") != NULL, &e)
                 ? cli_fail(&e, &TABLE)
                 : 0;
    options_free(&given);
    return status;
}
