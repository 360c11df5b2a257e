/* What a safetensors file is, a model above all: see info.h. */
#include "info.h"

#include <string.h>
#include <sys/stat.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "classes.h"
#include "cli.h"

#define STATE_KEY "sdlora.checkpoint" /* src/train/checkpoint.c */

static const char *kind_of(const StFile *f)
{
    if (st_meta(f, STATE_KEY))
        return "state";
    if (st_meta(f, MODEL_CONFIG_KEY))
        return "model";
    if (adapter_is_in(f))
        return "adapter";
    return st_find(f, "time_embedding.0.half_embedding") ? "state_dict" : "tensors";
}

/* The preset whose network this is, for any number of classes; NULL: none. */
static const char *preset_of(const ModelConfig *c)
{
    char diff[64];
    for (int p = 0; PRESET_NAMES[p]; p++) {
        ModelConfig preset = model_preset((Preset)p);
        preset.classes = c->classes;
        preset.null_class = c->null_class;
        if (!fields_diff(diff, sizeof diff, MODEL_FIELDS, &preset, c))
            return PRESET_NAMES[p];
    }
    return NULL;
}

static void print_fields(Report *r, const ModelConfig *c)
{
    char value[256];
    fprintf(r->text, "\nconfiguration:\n");
    for (const Field *f = MODEL_FIELDS; f->type != FIELD_END; f++)
        fprintf(r->text, "  %-15s %-16s %s\n", f->name, field_words(value, sizeof value, f, c), f->what);
}

void info_names(Report *r, const ClassNames *names)
{
    char *words = classes_words(names, 0, CLASS_COLUMNS);
    report_text(r, "", words ? words : "", 0);
    report_set(r, "class_names", json_names(names));
    mem_free(words);
}

static void model_rows(Report *r, const ModelConfig *c, const ClassNames *names, int64_t weights, double bytes)
{
    const char *preset = preset_of(c);
    char channels[128], predicts[32], schedule[32], n[32], size[32];
    field_words(channels, sizeof channels, &MODEL_FIELDS[MODEL_CHANNELS], c);
    field_words(predicts, sizeof predicts, &MODEL_FIELDS[MODEL_PREDICT], c);
    field_words(schedule, sizeof schedule, &MODEL_FIELDS[MODEL_SCHEDULE], c);
    if (c->in_channels == 1)
        report_row(r, "images", "%dx%d, grey", c->image_size, c->image_size);
    else
        report_row(r, "images", "%dx%d, %d channels", c->image_size, c->image_size, c->in_channels);
    report_row(r, "classes", "%d%s", c->classes, c->null_class ? ", and a null class" : "");
    if (names->n == c->classes)
        info_names(r, names);
    report_row(r, "network", "channels %s%s%s", channels, preset ? ", preset " : "", preset ? preset : "");
    report_row(r, "parameters", "%s, %s", text_count(n, weights), report_bytes(size, bytes));
    report_row(r, "predicts", "%s, over %s timesteps, %s schedule", predicts, text_count(n, c->timesteps), schedule);
    if (preset)
        report_set(r, "preset", json_string(preset));
    report_set(r, "parameters", json_integer(weights));
    report_set(r, "bytes", json_integer((json_int_t)bytes));
    report_set(r, "image_size", json_integer(c->image_size));
    report_set(r, "image_channels", json_integer(c->in_channels));
    report_set(r, "classes", json_integer(c->classes));
    report_set(r, "null_class", json_boolean(c->null_class));
    report_set(r, "channels", report_string(channels));
    report_set(r, "predict", report_string(predicts));
}

static void state_rows(Report *r, const StFile *f)
{
    const char *text = st_meta(f, STATE_KEY);
    json_t *state = json_read_text(text, strlen(text), STATE_KEY, NULL);
    const json_t *step = json_object_get(state, "step");
    char n[32];
    if (json_is_integer(step)) {
        report_row(r, "step", "%s", text_count(n, json_integer_value(step)));
        report_set(r, "step", json_incref((json_t *)step));
    }
    report_row(r, "holds", "weights, optimiser and counters: what --resume goes on from");
    json_decref(state);
}

static void put_sum(Report *r, const StFile *f)
{
    char hex[65];
    st_sha256(hex, f);
    report_row(r, "SHA-256", "%.12s", hex);
    report_set(r, "sha256", json_string(hex));
}

/* Of the file; of a pipe, the tensors alone. */
static double size_of(const StFile *f, const char *path)
{
    struct stat st;
    double bytes = 0;
    if (!stat(path, &st) && S_ISREG(st.st_mode))
        return (double)st.st_size;
    for (int i = 0; i < st_count(f); i++)
        bytes += (double)st_at(f, i)->bytes;
    return bytes;
}

static const char *words_of(const char *kind)
{
    static const char *const WORDS[][2] = {{"model", "model"},
                                           {"state_dict", "model"},
                                           {"state", "state of a checkpoint"},
                                           {"adapter", "adapter"},
                                           {NULL, "safetensors"}};
    int i = 0;
    while (WORDS[i][0] && strcmp(WORDS[i][0], kind) != 0)
        i++;
    return WORDS[i][1];
}

/* A file that calls itself a model and is none is still shown: what is wrong with it is asked here. */
static int describe(Report *r, const StFile *f, const char *path, const char *kind, const RunInfo *run, int64_t step,
                    Err *e)
{
    bool model = !strcmp(kind, "model") || !strcmp(kind, "state_dict");
    ModelConfig c;
    int64_t weights;
    Err why = {0};
    Facts facts;
    ClassNames names;
    int rc;
    if (facts_read(&facts, &names, f, e)) {
        names_free(&names);
        return -1;
    }
    report_title(r, kind, words_of(kind), path);
    report_set(r, "format", json_string("safetensors"));
    if (model && model_describe(&c, &weights, f, &why)) {
        report_text(r, "damaged", why.msg, 0);
        report_set(r, "damaged", report_string(why.msg));
        model = false;
    }
    if (model)
        model_rows(r, &c, &names, weights, size_of(f, path));
    if (!strcmp(kind, "adapter"))
        info_adapter(r, f, path, size_of(f, path), &facts, &names, run);
    if (!strcmp(kind, "state"))
        state_rows(r, f);
    put_sum(r, f);
    info_training(r, run, step, &facts);
    if (model && r->tensors)
        print_fields(r, &c);
    rc = info_tensors(r, f, e);
    names_free(&names);
    return rc;
}

int info_safetensors(Report *r, const char *path, Err *e)
{
    StFile *f = st_open(path, e);
    RunInfo *run = f ? mem_alloc(1, sizeof *run, "a run", e) : NULL;
    int rc = run ? 0 : -1;
    if (!rc) {
        const char *kind = kind_of(f);
        int64_t step = -1;
        bool known = strcmp(kind, "tensors") != 0 && info_run_of(run, &step, path);
        rc = describe(r, f, path, kind, known ? run : NULL, step, e);
        runinfo_free(run);
    }
    mem_free(run);
    st_close(f);
    return rc;
}
