/* sdlora eval: how good images are, by a judge that learned from real ones. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/text.h"

#include "eval.h"

#define OWN(kind, member, ...) OPTION_OWN(EvalArgs, kind, member, __VA_ARGS__)

/* clang-format off */
static const Option OPTIONS[] = {
    {.heading = "What is scored"},
    {.name = "data", .arg = "DIR", OWN(FIELD_TEXT, data, .help = DATA_HELP)},
    {.name = "count", .alias = "n", .letter = 'n', .flags = OPT_NO_DEFAULT,
     OWN(FIELD_INT, sample.n, .min = 1, .max = 10000000, .what = "the number of images",
         .help = "images in all, of all classes alike [10000 of a model, all that files hold]")},
    {.name = "lora"}, /* these are sample's: eval_table */
    {.name = "sampler"}, {.name = "steps"}, {.name = "eta"}, {.name = "cfg-scale"}, {.name = "clip"}, {.name = "bn"},
    {.name = "seed"},
    {.heading = "How"},
    {.name = "cas",
     OWN(FIELD_BOOL, cas, .help = "also train a judge on these images only, and test it on real ones; and one on as many "
                                  "real ones")},
    {.name = "neighbours", .alias = "neighbors",
     OWN(FIELD_INT, neighbours, .max = 1000000,
         .help = "of so many images, evenly spread, search the nearest training images; 0: of none")},
    {.name = "judge-epochs",
     OWN(FIELD_INT, judge_epochs, .max = 1000, .what = "the judge's epochs",
         .help = "passes of the judge over its training images; 0: 6, and more where images are few")},
    {.heading = "Data that are folders of pictures"},
    OPTIONS_CHANNELS(EvalArgs, pictures),
    OPTIONS_PICTURES(EvalArgs, pictures),
    {.heading = "Where to"},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "DIR",
     OWN(FIELD_TEXT, sample.output,
         .help = "also write eval.json there, what --json prints, and draw confusion.png, worst.png and neighbours.png; "
                 "'sdlora report RUN' shows them if DIR is RUN/eval")},
    {.name = "json", OWN(FIELD_BOOL, json, .help = "one JSON object")},
    {.heading = "Machine"},
    {.name = "batch-size"}, {.name = "conv"}, {.name = "precision"}, {.name = "mem"}, {.name = "mixed-machines"},
    {.name = "threads"}, {.name = "progress"},
    {.name = "quiet"},
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "eval",
    .summary = "score a model, or images, against real ones",
    .operand = "[MODEL|IMAGES]",
    .text =
        "MODEL is a file or the directory of a run. IMAGES are what anything has drawn: PREFIX of "
        "PREFIX-images-idx3-ubyte.gz\n"
        "and PREFIX-labels-idx1-ubyte.gz, as sample --format idx writes them; a directory of a data set; one file of "
        "images\n"
        "(IDX or NumPy) without labels. They are compared with the test images of --data by a small network, the "
        "judge,\n"
        "that is trained on five sixths of its training images, once: it is kept in ~/.cache/sdlora (--no-cache: "
        "not).\n"
        "Beside each figure stands the same for as many of the other training images, which is what real ones get.\n\n"
        "  sdlora eval                                    the model of the last run, 10,000 images\n"
        "  sdlora eval runs/mnist -n 2000 --steps 20\n"
        "  sdlora eval fake --data data/mnist -o report   fake-images-idx3-ubyte.gz, with pictures\n"
        "  sdlora eval runs/mnist -o runs/mnist/eval      for 'sdlora report runs/mnist'\n",
    .options = OPTIONS,
};

/* ---- options ---- */

typedef struct EvalTable {
    SampleTable sample;
    Option options[sizeof OPTIONS / sizeof *OPTIONS];
    OptionTable table;
} EvalTable;

/* Where a row has a name only, the option is sample's; its struct is the first in ours. */
static void eval_table(EvalTable *t)
{
    sample_table(&t->sample);
    memcpy(t->options, OPTIONS, sizeof OPTIONS);
    for (Option *o = t->options; !option_ends(o); o++)
        if (o->name && !o->field)
            *o = *options_find(&t->sample.table, o->name);
    t->table = TABLE;
    t->table.options = t->options;
}

_Static_assert(offsetof(EvalArgs, sample) == 0, "sample's options count from there");

/* ---- the work ---- */

static int read_split(Dataset *d, const EvalJob *j, DataSplit split, const DataConfig *c, Err *e)
{
    const EvalArgs *a = j->args;
    return picture_args_read(d, a->data, split, c, &a->pictures, a->sample.progress, a->sample.quiet, e);
}

/* Labels of other numbers are other data. */
static void sum_up(Dataset *d)
{
    const FileSpan span[] = {{d->images, (size_t)d->n * dataset_image_bytes(d)}, {d->labels, (size_t)d->n}};
    if (d->class_name)
        file_sha256_spans(d->sha256, span, 2);
}

/* Labels become the numbers of the model's classes, where both have names. */
static int match_classes(EvalJob *j, Err *e)
{
    const Model *m = j->model;
    j->classes = m ? m->config.classes : j->train.classes;
    if (m ? names_copy(&j->names, &m->names, e) : j->train.class_name && classes_of(&j->names, &j->train, e))
        return -1;
    if (m && (classes_match(&j->names, &j->classes, &j->train, MATCH_KNOWN, "those that the model draws", e) ||
              classes_match(&j->names, &j->classes, &j->test, MATCH_KNOWN, "those that the model draws", e)))
        return -1;
    if (!m && classes_match(&j->names, &j->classes, &j->test, MATCH_KNOWN, "those of the training images", e))
        return -1;
    sum_up(&j->train);
    sum_up(&j->test);
    return dataset_check_labels(&j->train, j->classes, e) || dataset_check_labels(&j->test, j->classes, e) ? -1 : 0;
}

static int read_data(EvalJob *j, Err *e)
{
    const char *path = j->args->data;
    const ModelConfig *m = j->model ? &j->model->config : NULL;
    DataConfig c;
    if (picture_args_config(&c, &j->args->pictures, m ? m->image_size : 0, m ? m->in_channels : 0, e) ||
        read_split(&j->train, j, DATA_TRAIN, &c, e) || read_split(&j->test, j, DATA_TEST, &c, e))
        return -1;
    if (j->train.channels != j->test.channels || j->train.h != j->test.h || j->train.w != j->test.w)
        return err_set(e, ERR_INPUT, "the training and the test images of '%s' differ in size", path);
    if (j->test.n < 2)
        return err_set(e, ERR_INPUT, "'%s' has fewer than two test images", path);
    if (match_classes(j, e))
        return -1;
    if (scores_split(&j->judged, &j->n_judged, &j->kept, &j->n_kept, &j->train, e))
        return -1;
    if (!j->args->judge_epochs)
        j->args->judge_epochs = judge_epochs(j->n_judged);
    return 0;
}

static void on_search(void *ctx, int more)
{
    EvalJob *j = ctx;
    j->done += more;
    progress_update(&j->progress, j->done, "neighbours", "", false);
}

static int look(EvalJob *j, Err *e)
{
    const ImageSet images = eval_image_set(j);
    j->real = (Real){.train = &j->train, .test = &j->test};
    return real_look(&j->real, j->judge, j->args->neighbours > 0, e) || judge_look(&j->seen, j->judge, &images, e) ? -1
                                                                                                                   : 0;
}

static int score(EvalJob *j, Err *e)
{
    const EvalArgs *a = j->args;
    const ImageSet images = eval_image_set(j), floor = eval_floor_set(j);
    const int searched = images.n < a->neighbours ? images.n : a->neighbours;
    const int searched_floor = floor.n < searched ? floor.n : searched;
    Seen seen;
    int rc;
    if (judge_look(&seen, j->judge, &floor, e))
        return -1;
    if (searched)
        progress_begin(&j->progress, a->sample.progress, a->sample.quiet, "images", 0,
                       2 * (int64_t)searched + 2 * (int64_t)searched_floor, 0.5);
    j->done = 0;
    rc = scores_make(&j->scores, &images, &j->seen, j->labelled, &j->real, searched, false, on_search, j, e) ||
                 scores_make(&j->floor, &floor, &seen, true, &j->real, searched_floor, true, on_search, j, e)
             ? -1
             : 0;
    if (searched)
        progress_end(&j->progress);
    seen_free(&seen);
    if (!rc && a->cas)
        rc = eval_cas(&j->scores.cas, j, &images, "CAS", e) || eval_cas(&j->floor.cas, j, &floor, "CAS, real", e) ? -1
                                                                                                                  : 0;
    return rc;
}

/* As many real images as there are others; of each class as many, where those have classes. */
static void thin_floor(EvalJob *j)
{
    int count[DATA_CLASSES_MAX];
    if (j->labelled) {
        dataset_count(count, &j->images);
        j->n_kept = scores_thin_classes(j->kept, j->n_kept, &j->train, count);
    } else {
        j->n_kept = scores_thin(j->kept, j->n_kept, j->images.n);
    }
}

/* What can be refused is, before anything takes long. Of several processes all draw; the rest is done by the first. */
static int prepare(EvalJob *j, const Given *g, Err *e)
{
    EvalArgs *a = j->args;
    if (!a->source) {
        a->source = DEFAULT_MODEL;
        cli_default_model(&a->source, g, a->sample.quiet);
    }
    if (sample_args_check(&a->sample, g, e) || (ranks_me() == 0 && eval_pictures_check(j, e)) || eval_open(j, g, e))
        return -1;
    if (ranks_me() > 0)
        return 0;
    if (read_data(j, e) || eval_fit(j, e))
        return -1;
    if (a->cas && !j->labelled && j->kind == EVAL_IMAGES)
        return err_set(e, ERR_USAGE, "--cas needs images with labels, and '%s' has none", a->source);
    return eval_judge(j, e);
}

static int eval(EvalJob *j, const Given *g, Err *e)
{
    const EvalArgs *a = j->args;
    cli_threads(a->sample.threads);
    if (ranks_agree(prepare(j, g, e), e) || eval_draw(j, e))
        return -1;
    if (ranks_me() > 0)
        return 0;
    thin_floor(j);
    if (look(j, e) || score(j, e) || (a->sample.output && eval_pictures_write(j, e)))
        return -1;
    return eval_report(j, e);
}

int cmd_eval(int argc, char **argv)
{
    EvalArgs args = {
        .sample = sample_args_default(), .data = DEFAULT_DATA, .neighbours = 2000, .pictures = PICTURE_ARGS_DEFAULT};
    EvalJob job = {.args = &args};
    Err e = {0};
    EvalTable *table = mem_alloc(1, sizeof *table, "the options", &e);
    Given given;
    int status;
    if (!table)
        return cli_fail(&e, NULL);
    eval_table(table);
    if (!cli_options(&given, &table->table, &args, argc, argv, &status)) {
        mem_free(table);
        return status;
    }
    args.source = given.operand;
    status = eval(&job, &given, &e) ? cli_fail(&e, &table->table) : 0;
    options_free(&given);
    mem_free(table);
    scores_free(&job.scores);
    scores_free(&job.floor);
    seen_free(&job.seen);
    real_free(&job.real);
    judge_free(job.judge);
    cli_free_adapters(&job.loras);
    model_free(job.model);
    dataset_free(&job.images);
    dataset_free(&job.train);
    dataset_free(&job.test);
    names_free(&job.names);
    mem_free(job.judged);
    mem_free(job.kept);
    return status;
}
