/* The tables of fields: one range and one set of names, whether a value comes as text (an option), as JSON or in a
 * struct. */
#include "check.h"
#include "io_util.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

typedef struct Table {
    const Field *fields;
    size_t size; /* of the struct */
} Table;

static const Table tables[] = {
    {MODEL_FIELDS, sizeof(ModelConfig)}, {TRAIN_FIELDS, sizeof(TrainConfig)}, {ADAPTER_FIELDS, sizeof(AdapterConfig)}};

/* What holds a value: a configuration in which all others are as they should be. */
typedef union Config {
    ModelConfig model;
    TrainConfig train;
    AdapterConfig adapter;
} Config;

static Config good(const Table *t)
{
    Config c;

    memset(&c, 0, sizeof c);
    if (t->fields == MODEL_FIELDS) {
        c.model = model_preset(PRESET_MNIST);
        c.model.levels = 1; /* with which every image size is possible */
    } else if (t->fields == TRAIN_FIELDS) {
        c.train = train_preset(PRESET_MNIST);
    } else {
        c.adapter = (AdapterConfig){.rank = 8, .alpha = 8};
    }
    return c;
}

static int check_config(const Config *c, const Table *t, Err *e)
{
    if (t->fields == MODEL_FIELDS)
        return model_config_check(&c->model, e);
    return t->fields == TRAIN_FIELDS ? train_config_check(&c->train, e) : fields_check(c, ADAPTER_FIELDS, e);
}

/* The value as an option, in the struct and, for a model, as JSON: accepted or refused by all of them, with the
 * field's own words. */
static void try_value(const Table *t, const char *name, const char *text, bool accepted)
{
    const Field *f = field_find(t->fields, name);
    Config c = good(t), d = c;
    Err e = {ERR_NONE, ""};
    double number = strtod(text, NULL);
    char json[128];

    if (accepted != (field_read(&c, f, "option '--x'", text, &e) == 0))
        fail_msg("option %s = %s: %s", name, text, accepted ? e.msg : "accepted");
    if (!accepted) {
        assert_int_equal(e.code, ERR_USAGE);
        assert_says(e, "option '--x'");
        assert_memory_equal(&c, &d, t->size);
    }
    if (f->type == FIELD_REAL)
        memcpy((char *)&d + f->offset, &number, sizeof number);
    else
        field_set_int(&d, &(Field){.offset = f->offset, .size = f->type == FIELD_INTS ? sizeof(int) : f->size},
                      (int64_t)number);
    if (accepted != (check_config(&d, t, &e) == 0))
        fail_msg("library: %s = %s: %s", name, text, accepted ? e.msg : "accepted");
    if (!accepted)
        assert_says(e, f->what);
    if (accepted)
        assert_memory_equal(&c, &d, t->size);
    if (t->fields == MODEL_FIELDS) {
        c = good(t);
        snprintf(json, sizeof json, f->type == FIELD_INTS ? "{\"%s\":[%s]}" : "{\"%s\":%s}", name, text);
        if (accepted != (model_config_from_json(&c.model, json, "here", &e) == 0))
            fail_msg("JSON %s: %s", json, accepted ? e.msg : "accepted");
        if (!accepted)
            assert_says(e, f->what);
    }
}

typedef struct Range {
    int table;
    const char *name;
    size_t offset;
    double low, high;
    double grain; /* between neighbours of a number that is whole; 0: real */
} Range;

#define M(member) 0, #member, offsetof(ModelConfig, member)

static const Range ranges[] = {
    {M(channels), 1, 16384, 1},
    {M(image_size), 1, 1024, 1},
    {M(in_channels), 1, 64, 1},
    {M(time_dim), 4, 4096, 2},
    {M(qsize), 1, 4096, 1},
    {M(vsize), 1, 4096, 1},
    {M(fsize), 1, 65536, 1},
    {M(context_tokens), 1, 256, 1},
    {M(context_dim), 1, 4096, 1},
    {M(classes), 1, 256, 1},
    {M(groups), 1, 65536, 1},
    {M(timesteps), 2, 100000, 1},
    {1, "epochs", offsetof(TrainConfig, epochs), 1, 1e6, 1},
    {1, "steps", offsetof(TrainConfig, steps), 0, 1e12, 1},
    {1, "batch_size", offsetof(TrainConfig, batch), 1, 1e6, 1},
    {1, "micro_batch", offsetof(TrainConfig, micro_batch), 0, 1e6, 1},
    {1, "lr", offsetof(TrainConfig, lr), 1e-30, 1e30, 0},
    {1, "lr_end", offsetof(TrainConfig, lr_end), 0, 1, 0},
    {1, "warmup", offsetof(TrainConfig, warmup), 0, 1e9, 1},
    {1, "cond_drop", offsetof(TrainConfig, cond_drop), 0, 1, 0},
    {1, "beta1", offsetof(TrainConfig, beta1), 0, 0.9999999, 0},
    {1, "beta2", offsetof(TrainConfig, beta2), 0, 0.9999999, 0},
    {1, "adam_eps", offsetof(TrainConfig, adam_eps), 1e-30, 1, 0},
    {1, "weight_decay", offsetof(TrainConfig, weight_decay), 0, 1000, 0},
    {1, "grad_clip", offsetof(TrainConfig, clip), 0, 1e30, 0},
    {1, "ema", offsetof(TrainConfig, ema), 0, 0.9999999, 0},
    {1, "val_images", offsetof(TrainConfig, val_images), 0, 1e9, 1},
    {2, "rank", offsetof(AdapterConfig, rank), 1, 65536, 1},
    {2, "alpha", offsetof(AdapterConfig, alpha), 1e-6, 1e6, 0},
    {2, "dropout", offsetof(AdapterConfig, dropout), 0, 0.95, 0},
};

static void try_number(const Range *r, double value, bool accepted)
{
    char text[40];

    snprintf(text, sizeof text, "%.17g", value);
    try_value(&tables[r->table], r->name, text, accepted);
}

static void test_ends_of_ranges(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const Range *r = &ranges[i];
        try_number(r, r->low, true);
        try_number(r, r->high, true);
        try_number(r, r->grain > 0 ? r->low - 1 : nextafter(r->low, -1), false);
        try_number(r, r->grain > 0 ? r->high + 1 : nextafter(r->high, 2 * r->high), false);
        if (r->grain > 1) { /* odd */
            Config c = good(&tables[r->table]);
            Err e;
            c.model.time_dim = (int)r->low + 1;
            assert_int_equal(model_config_check(&c.model, &e), -1);
            assert_says(e, "even");
        }
    }
}

/* No number is without a row above, and each row's member is the one that the field changes. */
static void test_every_number_has_a_range(void **state)
{
    size_t numbers = 0;

    (void)state;
    for (size_t t = 0; t < 3; t++)
        for (const Field *f = tables[t].fields; f->type != FIELD_END; f++)
            numbers += f->type == FIELD_INT || f->type == FIELD_REAL || f->type == FIELD_INTS;
    assert_int_equal(numbers, sizeof ranges / sizeof *ranges);
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        const Field *f = field_find(tables[ranges[i].table].fields, ranges[i].name);
        assert_non_null(f);
        if (f->offset != ranges[i].offset)
            fail_msg("'%s' sets another member", f->name);
    }
}

static void test_no_number(void **state)
{
    static const char *const bad[] = {"nan", "inf", "-inf", "", " 1", "1 ", "1x", "0x", "1,5", "1e999"};
    TrainConfig c = train_preset(PRESET_MNIST);
    Err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(field_read(&c, &TRAIN_FIELDS[TRAIN_LR], "lr", bad[i], &e), -1);
        assert_int_equal(field_read(&c, &TRAIN_FIELDS[TRAIN_STEPS], "steps", bad[i], &e), -1);
        assert_int_equal(field_read(&c, &TRAIN_FIELDS[TRAIN_SEED], "seed", bad[i], &e), -1);
    }
    c.lr = NAN;
    assert_int_equal(train_config_check(&c, &e), -1);
    assert_says(e, "the learning rate must be 1e-30 to 1e+30, not nan");
}

/* ---- names ---- */

typedef struct Name {
    int table;
    const char *field;
    size_t offset;
    const char *text;
    int value;
} Name;

static const Name names[] = {
    {M(norm), "group", NORM_GROUP},
    {M(norm), "batch", NORM_BATCH},
    {M(act), "relu", ACT_RELU},
    {M(act), "silu", ACT_SILU},
    {M(pre_norm), "pre", true},
    {M(pre_norm), "post", false},
    {M(schedule), "linear", SCHEDULE_LINEAR},
    {M(schedule), "cosine", SCHEDULE_COSINE},
    {M(predict), "eps", PREDICT_EPS},
    {M(predict), "v", PREDICT_V},
    {M(predict), "x0", PREDICT_X0},
    {M(clip), "x0", CLIP_X0},
    {M(clip), "xt", CLIP_XT},
    {M(clip), "none", CLIP_NONE},
    {1, "loss", offsetof(TrainConfig, l1), "l1", true},
    {1, "loss", offsetof(TrainConfig, l1), "l2", false},
    {1, "optimizer", offsetof(TrainConfig, optimizer), "adam", OPTIMIZER_ADAM},
    {1, "optimizer", offsetof(TrainConfig, optimizer), "muon", OPTIMIZER_MUON},
    {1, "timestep_sampling", offsetof(TrainConfig, timestep_sampling), "uniform", TIMESTEPS_UNIFORM},
    {1, "timestep_sampling", offsetof(TrainConfig, timestep_sampling), "alphas", TIMESTEPS_ALPHAS},
    {1, "lr_schedule", offsetof(TrainConfig, schedule), "constant", LR_CONSTANT},
    {1, "lr_schedule", offsetof(TrainConfig, schedule), "cosine", LR_COSINE},
    {1, "lr_schedule", offsetof(TrainConfig, schedule), "linear", LR_LINEAR},
    {1, "conv", offsetof(TrainConfig, conv), "auto", CONV_AUTO},
    {1, "conv", offsetof(TrainConfig, conv), "im2col", CONV_IM2COL},
    {1, "conv", offsetof(TrainConfig, conv), "winograd", CONV_WINOGRAD},
    {1, "precision", offsetof(TrainConfig, precision), "fp32", PRECISION_FP32},
    {1, "precision", offsetof(TrainConfig, precision), "bf16", PRECISION_BF16},
    {1, "precision", offsetof(TrainConfig, precision), "auto", PRECISION_AUTO},
    {1, "augment", offsetof(TrainConfig, augment), "flip", AUGMENT_FLIP},
    {1, "augment", offsetof(TrainConfig, augment), "shift", AUGMENT_SHIFT},
    {1, "augment", offsetof(TrainConfig, augment), "rotate", AUGMENT_ROTATE},
    {1, "augment", offsetof(TrainConfig, augment), "colour", AUGMENT_COLOUR},
    {2, "init", offsetof(AdapterConfig, init), "default", ADAPTER_INIT_DEFAULT},
    {2, "init", offsetof(AdapterConfig, init), "gaussian", ADAPTER_INIT_GAUSSIAN},
    {2, "init", offsetof(AdapterConfig, init), "pissa", ADAPTER_INIT_PISSA},
    {2, "train_bias", offsetof(AdapterConfig, bias), "none", ADAPTER_BIAS_NONE},
    {2, "train_bias", offsetof(AdapterConfig, bias), "lora_only", ADAPTER_BIAS_LORA_ONLY},
    {2, "train_bias", offsetof(AdapterConfig, bias), "all", ADAPTER_BIAS_ALL},
};
enum { N_NAMES = sizeof names / sizeof *names };

static void test_names(void **state)
{
    size_t expected = 0;

    (void)state;
    for (int i = 0; i < N_NAMES; i++) {
        const Table *t = &tables[names[i].table];
        const Field *f = field_find(t->fields, names[i].field);
        Config c = good(t);
        char text[32], json[64];
        Err e;

        check_ok(field_read(&c, f, "x", names[i].text, &e), e);
        assert_int_equal(f->offset, names[i].offset);
        assert_int_equal(field_int(&c, f), names[i].value);
        assert_string_equal(field_text(text, sizeof text, f, &c), names[i].text);
        if (names[i].table == 0 && f->type == FIELD_ENUM) {
            snprintf(json, sizeof json, "{\"%s\":\"%s\"}", f->name, names[i].text);
            field_set_int(&c, f, field_int(&c, f) ? 0 : 1);
            check_ok(model_config_from_json(&c.model, json, "here", &e), e);
            assert_int_equal(field_int(&c, f), names[i].value);
        }
    }
    for (int t = 0; t < 3; t++)
        for (const Field *f = tables[t].fields; f->type != FIELD_END; f++)
            for (int k = f->names ? (int)f->min : 0; f->names && f->names[k]; k++)
                expected++;
    assert_int_equal(expected, N_NAMES);
    assert_string_equal(PRESET_NAMES[PRESET_MNIST], "mnist");
    assert_string_equal(PRESET_NAMES[PRESET_TINY], "tiny");
    assert_string_equal(PRESET_NAMES[PRESET_SEED], "seed");
}

/* What is no name, or a number of no name: refused wherever it comes from. */
static void test_no_name(void **state)
{
    (void)state;
    for (int t = 0; t < 2; t++)
        for (const Field *f = tables[t].fields; f->type != FIELD_END; f++) {
            Config c = good(&tables[t]);
            char list[128], json[64];
            int n = 0;
            Err e;
            if (f->type != FIELD_ENUM)
                continue;
            assert_int_equal(field_read(&c, f, "option '--x'", "other", &e), -1);
            assert_says(e, field_names(list, sizeof list, f, ", "));
            while (f->names[n])
                n++;
            for (int k = (int)f->min - 1; k <= n; k += n - (int)f->min + 1) {
                field_set_int(&c, f, k);
                assert_int_equal(check_config(&c, &tables[t], &e), -1);
                assert_says(e, f->what);
            }
            snprintf(json, sizeof json, "{\"%s\":\"%s\"}", f->name, f->min > 0 ? f->names[0] : "other");
            c = good(&tables[t]);
            if (t == 0)
                assert_int_equal(model_config_from_json(&c.model, json, "here", &e), -1);
        }
}

/* Several names, or none. */
static void test_sets(void **state)
{
    static const struct {
        const char *text;
        int value;
        const char *back;
    } good_ones[] = {{"none", 0, "none"},
                     {"colour,flip", AUGMENT_COLOUR | AUGMENT_FLIP, "flip,colour"},
                     {"shift,shift", AUGMENT_SHIFT, "shift"},
                     {"flip,shift,rotate,colour", 15, "flip,shift,rotate,colour"}};
    static const char *const bad[] = {
        "",           ",",         "flip,",
        ",flip",      "flip,none", "Flip",
        "flip shift", "3",         "a name that is longer than any of those that there are"};
    const Field *f = &TRAIN_FIELDS[TRAIN_AUGMENT];
    TrainConfig c = train_preset(PRESET_MNIST);
    char text[64];
    Err e;

    (void)state;
    for (size_t i = 0; i < sizeof good_ones / sizeof *good_ones; i++) {
        check_ok(field_read(&c, f, "x", good_ones[i].text, &e), e);
        assert_int_equal(c.augment, good_ones[i].value);
        assert_string_equal(field_text(text, sizeof text, f, &c), good_ones[i].back);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(field_read(&c, f, "option '--augment'", bad[i], &e), -1);
        assert_says(e, "option '--augment' must be none or, separated by commas, some of flip, shift, rotate, colour");
        assert_int_equal(c.augment, 15);
    }
    for (c.augment = -1; c.augment <= 16; c.augment += 17) {
        assert_int_equal(train_config_check(&c, &e), -1);
        assert_says(e, "the augmentation must be none or some of flip, shift, rotate, colour, not number ");
    }
}

/* ---- all of them ---- */

static void test_complete(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++)
        for (const Field *f = tables[t].fields; f->type != FIELD_END; f++) {
            assert_true(f->name && f->what && f->help && f->size > 0);
            assert_ptr_equal(field_find(tables[t].fields, f->name), f);
            for (const Field *g = f + 1; g->type != FIELD_END; g++) {
                assert_string_not_equal(f->what, g->what);
                assert_true(f->offset + f->size <= g->offset || g->offset + g->size <= f->offset);
            }
        }
    assert_null(field_find(MODEL_FIELDS, "batch_size"));
}

static void test_presets_are_possible(void **state)
{
    Err e;

    (void)state;
    for (int p = 0; PRESET_NAMES[p]; p++) {
        ModelConfig m = model_preset((Preset)p);
        TrainConfig t = train_preset((Preset)p), f = finetune_preset((Preset)p);
        check_ok(model_config_check(&m, &e), e);
        check_ok(train_config_check(&t, &e), e);
        check_ok(train_config_check(&f, &e), e);
    }
}

static void test_tiny_is_a_narrow_mnist(void **state)
{
    ModelConfig m = model_preset(PRESET_MNIST), tiny = model_preset(PRESET_TINY);
    TrainConfig t = train_preset(PRESET_MNIST), fast = train_preset(PRESET_TINY);
    char list[300];

    (void)state;
    assert_int_equal(fields_diff(list, sizeof list, MODEL_FIELDS, &m, &tiny), 1);
    assert_string_equal(list, "channels: 32,64,128 and 16,32,64");
    assert_int_equal(fields_diff(list, sizeof list, TRAIN_FIELDS, &t, &fast), 3);
    assert_string_equal(list, "steps: 0 and 2400; batch_size: 128 and 32; lr: 0.003 and 0.004");
}

/* From one preset to the other, field by field: what differs is listed with both values, and is gone when text took
 * it over. */
static void test_differences(void **state)
{
    ModelConfig a = model_preset(PRESET_MNIST), b = model_preset(PRESET_SEED);
    char list[800], text[256], want[300];
    int n = fields_diff(list, sizeof list, MODEL_FIELDS, &a, &b);
    Err e;

    (void)state;
    assert_non_null(strstr(list, "channels: 32,64,128 and 64,128,256,512,1024; image_size: 28 and 48; "));
    assert_non_null(strstr(list, "null_class: yes and no; norm: group and batch; "));
    assert_non_null(strstr(list, "pre_norm: pre and post; "));
    assert_int_equal(n, 13);
    for (const Field *f = MODEL_FIELDS; f->type != FIELD_END; f++) {
        int before = fields_diff(list, sizeof list, MODEL_FIELDS, &a, &b);
        snprintf(want, sizeof want, "%s: ", f->name);
        n -= strncmp(list, want, strlen(want)) == 0;
        check_ok(field_read(&a, f, f->name, field_text(text, sizeof text, f, &b), &e), e);
        assert_int_equal(fields_diff(list, sizeof list, MODEL_FIELDS, &a, &b), n);
        assert_true(before >= n);
    }
    assert_int_equal(n, 0);
    assert_string_equal(list, "");
}

/* A list that does not fit is cut, and counted whole. */
static void test_differences_cut(void **state)
{
    ModelConfig a = model_preset(PRESET_MNIST), b = model_preset(PRESET_SEED);

    (void)state;
    for (size_t cap = 1; cap < 40; cap++) {
        char list[40] = "";
        memset(list + cap, 'x', sizeof list - cap);
        assert_int_equal(fields_diff(list, cap, MODEL_FIELDS, &a, &b), 13);
        assert_true(strlen(list) < cap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends_of_ranges),
        cmocka_unit_test(test_every_number_has_a_range),
        cmocka_unit_test(test_no_number),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_no_name),
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_complete),
        cmocka_unit_test(test_presets_are_possible),
        cmocka_unit_test(test_tiny_is_a_narrow_mnist),
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_differences_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
