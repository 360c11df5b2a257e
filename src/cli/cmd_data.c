/* sdlora data: what a data set holds; or a copy of it in another style, a second domain without a download. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"

#include "cli.h"
#include "data_about.h"
#include "data_sheet.h"
#include "options/picture_args.h"
#include "report.h"

/* Beside the images: what the directory is, and that this command made it, so that it may be replaced. */
#define ABOUT     "about.json"
#define ABOUT_MAX ((size_t)1 << 16)
#define MADE_BY   "sdlora data"

typedef struct DataArgs {
    const char *source, *output, *sheet;
    Transform transform;
    int limit; /* training images; 0: all */
    int size;  /* of pictures */
    PictureArgs pictures;
    bool force, json;
} DataArgs;

#define OWN(kind, member, ...) OPTION_OWN(DataArgs, kind, member, __VA_ARGS__)

/* clang-format off */
static const Option OPTIONS[] = {
    {.name = "transform", .letter = 't', .flags = OPT_NO_DEFAULT,
     OWN(FIELD_ENUM, transform, .names = TRANSFORM_NAMES, .help = "make a copy in this style")},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "DIR",
     OWN(FIELD_TEXT, output, .help = "the copy's directory: a new one, an empty one, or with --force an earlier copy")},
    {.name = "limit", .letter = 'n',
     OWN(FIELD_INT, limit, .max = INT_MAX, .what = "the limit",
         .help = "copy only N training images, the first of each class, of all alike; 0: all")},
    {.name = "force", OWN(FIELD_BOOL, force, .help = "replace an earlier copy")},
    {.name = "sheet", .arg = "FILE",
     OWN(FIELD_TEXT, sheet, .help = "draw some images of each class, a row for each, as a PNG file")},
    {.name = "json", OWN(FIELD_BOOL, json, .help = "one JSON object")},
    {.heading = "Pictures"},
    {.name = "image-size",
     OWN(FIELD_INT, size, .min = 1, .max = 1024, .what = "the image size", .help = "pixels that pictures become, both ways")},
    OPTIONS_CHANNELS(DataArgs, pictures),
    OPTIONS_PICTURES(DataArgs, pictures),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "data",
    .summary = "say what a data set holds, or make one in another style",
    .operand = "[DIR]",
    .text =
        "DIR, data/mnist if none is named, holds one of these:\n"
        "  pictures  PNG, JPEG, BMP, GIF (its first image), in a folder for each class, which is called as it is; or "
        "in\n"
        "            DIR itself, which then is the only class; or such folders in train/ and in val/ or test/\n"
        "  IDX       train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., also .gz: MNIST; EMNIST by its names\n"
        "  NumPy     train_images.npy (bytes, (n,h,w) or (n,h,w,c)), train_labels.npy (integers, (n)), test_...; or a\n"
        "            .npz with such arrays, which DIR may also be itself: MedMNIST\n"
        "  CIFAR     data_batch_1.bin, ..., test_batch.bin, or train.bin, test.bin: CIFAR-10, CIFAR-100\n"
        "classes.txt beside IDX or NumPy's files names the classes, in order, one on each line.\n"
        "A copy, for --data of the other commands, is IDX files, gzipped, or NumPy's where there is colour. Prints "
        "the\n"
        "path of what it wrote.\n\n"
        "  sdlora data data/fashion-mnist\n"
        "  sdlora data photos --sheet photos.png\n"
        "  sdlora data --transform outline -n 500 -o data/outlines\n"
        "  sdlora finetune --data data/outlines\n\n"
        "outline: largest minus smallest of the 3x3 pixels around; contour: largest minus the pixel, a thinner line;\n"
        "bold: the largest; thin: the smallest; slant: each row 0.3 pixels further than the one below; invert: "
        "the negative.\n",
    .options = OPTIONS,
};

/* ---- where the copy goes ---- */

enum { COPY_NAMES = 12 };

/* All names that a copy may have, into out. */
static void copy_names(const char *out[COPY_NAMES])
{
    int n = 0;
    for (; DATASET_WRITTEN[n]; n++)
        out[n] = DATASET_WRITTEN[n];
    out[n] = ABOUT;
    out[n + 1] = NULL;
}

/* Did this command make the directory, and is there nothing else in it? */
static bool is_copy(const char *dir)
{
    const char *names[COPY_NAMES], *made_by;
    char *path = mem_printf(NULL, "%s/" ABOUT, dir);
    json_t *about = path && file_exists(path) ? json_read_file(path, ABOUT_MAX, NULL) : NULL;
    bool ours;
    copy_names(names);
    made_by = json_string_value(json_object_get(about, "made_by"));
    ours = made_by && !strncmp(made_by, MADE_BY " ", sizeof MADE_BY) && dir_holds_only(dir, names);
    json_decref(about);
    mem_free(path);
    return ours;
}

static int check_output(const DataArgs *a, const char *output, Err *e)
{
    static const char *const NOTHING[] = {NULL};
    struct stat st;
    if (cli_check_apart(output, a->source, e))
        return -1;
    if (lstat(output, &st))
        return errno == ENOENT ? 0 : err_errno(e, ERR_FAILED, "cannot write '%s'", output);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_USAGE, "'%s' is there already, and is no directory; name another with --output", output);
    if (access(output, W_OK))
        return err_errno(e, ERR_FAILED, "cannot write '%s'", output);
    if (dir_holds_only(output, NOTHING))
        return 0;
    if (!is_copy(output))
        return err_set(e, ERR_USAGE,
                       "'%s' holds files that this command did not make; name another directory with --output", output);
    return a->force ? 0 : err_set(e, ERR_USAGE, "'%s' holds an earlier copy; --force replaces it", output);
}

/* ---- the copy ---- */

/* *c is left with what the other splits must be like. */
static int read_to_copy(Dataset *d, const DataArgs *a, DataSplit split, DataConfig *c, Err *e)
{
    if (picture_args_read(d, a->source, split, c, &a->pictures, PROGRESS_AUTO, false, e))
        return -1;
    picture_args_say(d, c);
    c->channels = d->channels;
    return 0;
}

static int copy_split(json_t *sums, const char *to, const DataArgs *a, DataSplit split, DataConfig *c, Err *e)
{
    DataFiles files;
    Dataset d;
    bool there;
    int rc = 0;
    if (dataset_files(&files, a->source, split, e))
        return -1;
    there = files.n > 0;
    data_files_free(&files);
    if (!there && split != DATA_TRAIN) /* there need not be one */
        return 0;
    if (read_to_copy(&d, a, split, c, e))
        return -1;
    if (d.n > 0) {
        json_object_set_new(sums, DATA_SPLIT_NAMES[split], json_string(d.sha256));
        rc = split == DATA_TRAIN && a->limit > 0 ? dataset_balance(&d, a->limit, e) : 0;
        if (!rc)
            rc = dataset_transform(&d, a->transform, e) || dataset_write(to, split, &d, e) ? -1 : 0;
    }
    dataset_free(&d);
    return rc;
}

static int copy_about(const char *to, json_t *sums, const DataArgs *a, Err *e)
{
    json_t *root = json_pack("{s:s, s:s, s:i, s:O}", "made_by", MADE_BY " " SDLORA_VERSION, "transform",
                             TRANSFORM_NAMES[a->transform], "limit", a->limit, "source_sha256", sums);
    char *text = json_text(root, JSON_INDENT(2), ABOUT, e), *path = mem_printf(e, "%s/" ABOUT, to);
    int rc = text && path ? file_save(path, text, strlen(text), e) : -1;
    mem_free(text);
    mem_free(path);
    json_decref(root);
    return rc;
}

static int copy_into(const char *to, const DataArgs *a, Err *e)
{
    json_t *sums = json_object();
    DataConfig c;
    int rc = picture_args_config(&c, &a->pictures, a->size, 0, e);
    for (int s = 0; s < DATA_SPLITS && !rc; s++)
        rc = copy_split(sums, to, a, (DataSplit)s, &c, e);
    if (!rc)
        rc = copy_about(to, sums, a, e);
    json_decref(sums);
    return rc;
}

/* In a directory of a temporary name in `parent`, which then becomes `output` in one step. */
static int copy_in(const char *output, const char *parent, const DataArgs *a, Err *e)
{
    const size_t cap = strlen(parent) + 64;
    char *tmp = mem_alloc(cap, 1, "a path", e);
    const char *names[COPY_NAMES];
    bool removed;
    int held, rc;
    copy_names(names);
    dir_clean(parent, names);
    if (!tmp || dir_make_temporary(tmp, cap, parent, e)) {
        mem_free(tmp);
        return -1;
    }
    held = dir_hold(tmp);
    rc = copy_into(tmp, a, e) || check_output(a, output, e) || dir_replace(output, tmp, names, e) ? -1 : 0;
    if (rc)
        dir_remove(tmp, names, &removed, NULL);
    if (held >= 0)
        close(held);
    mem_free(tmp);
    return rc;
}

static int copy(const DataArgs *a, Err *e)
{
    char *output = mem_strdup(a->output, e), *parent = NULL;
    size_t n = output ? strlen(output) : 0, cap = n + 2;
    int rc = -1;
    while (n > 1 && output[n - 1] == '/')
        output[--n] = '\0';
    if (output)
        parent = mem_alloc(cap, 1, "a path", e);
    if (parent && !check_output(a, output, e) && !file_dir(parent, cap, output, e) && !file_mkdirs(parent, e))
        rc = copy_in(output, parent, a, e);
    if (!rc)
        printf("%s\n", output);
    mem_free(output);
    mem_free(parent);
    return rc;
}

static int describe(const DataArgs *a, Err *e)
{
    DataConfig c;
    json_t *about;
    int rc;
    if (picture_args_config(&c, &a->pictures, a->size, 0, e) || (a->sheet && data_sheet_check(a->sheet, a->source, e)))
        return -1;
    about = data_about(a->source, &c, &a->pictures, a->sheet, e);
    rc = about ? 0 : -1;
    if (!rc && a->json)
        rc = report_print_json(about, e);
    else if (!rc)
        data_about_print(about);
    if (!rc && a->sheet && !a->json)
        printf("\n%s\n", a->sheet);
    json_decref(about);
    return rc;
}

/* An option that would do nothing is a mistake. */
static int check_options(const Given *g, bool copies, Err *e)
{
    static const char *const OF_A_COPY[] = {"output", "limit", "force", NULL};
    if (copies && !options_given(g, "output"))
        return err_set(e, ERR_USAGE, "--transform needs --output DIR");
    if (copies && options_given(g, "json"))
        return err_set(e, ERR_USAGE, "--json says what a data set holds; leave out --transform");
    if (copies && options_given(g, "sheet"))
        return err_set(e, ERR_USAGE, "--sheet draws what a data set holds; leave out --transform");
    for (const char *const *name = OF_A_COPY; !copies && *name; name++)
        if (options_given(g, *name))
            return err_set(e, ERR_USAGE, "--%s belongs to a copy: it needs --transform", *name);
    return 0;
}

int cmd_data(int argc, char **argv)
{
    DataArgs args = {.source = DEFAULT_DATA, .size = DATA_PICTURE_SIZE, .pictures = PICTURE_ARGS_DEFAULT};
    Given given;
    Err e = {0};
    bool copies;
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    copies = options_given(&given, "transform") != NULL;
    args.source = given.operand ? given.operand : args.source;
    status = check_options(&given, copies, &e) || (copies ? copy(&args, &e) : describe(&args, &e))
                 ? cli_fail(&e, &TABLE)
                 : 0;
    options_free(&given);
    return status;
}
