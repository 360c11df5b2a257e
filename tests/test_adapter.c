/* adapter.h: which layers are named, how an adapter begins, that merging is a sum, and models that learn new classes.
 * (What kinds of adapters do to a weight: test_adapter_golden; gradients: grad_unet.) */
#include "train_util.h"

static Model *model_of(Preset p)
{
    ModelConfig mc = tiny_model(p);
    Err err;
    Model *m = model_new(&mc, false, 1, &err);

    check_ptr(m, err);
    return m;
}

static const Param *weight_of(const Model *m, const char *layer)
{
    char name[2 * PARAM_NAME_MAX];
    const Param *p;

    snprintf(name, sizeof name, "%s.weight", layer);
    p = param_find(m->params, name);
    assert_non_null(p);
    return p;
}

/* ---- names ---- */

static const char *const LAYERS[] = {"encoder_convs.0.cross_attention.w_q",
                                     "encoder_convs.1.cross_attention.w_k",
                                     "decoder_convs.0.cross_attention.w_v",
                                     "encoder_convs.0.cross_attention.z_linear",
                                     "encoder_convs.0.cross_attention.feed_forward.0",
                                     "decoder_convs.0.time_embedding_linear",
                                     "time_embedding.1",
                                     "encoder_convs.0.seq1.0",
                                     "decoder_convs.0.seq2.0",
                                     "encoder_convs.0.skip",
                                     "output",
                                     "deconvs.0",
                                     "class_embedding"};
enum { N_LAYERS = sizeof LAYERS / sizeof *LAYERS };

typedef struct Naming {
    const char *targets;
    const char *which; /* a letter a layer of LAYERS: '.' not named, '0' the defaults, else the rank */
} Naming;

static const Naming namings[] = {
    {"w_q", "0............"},
    {"w_q,w_k,w_v", "000.........."},
    {"attention", "0000........."},
    {"all-linear", "0000000......"},
    {"conv", ".......0000.."},
    {"all", "0000000000000"},
    {"seq1.0", ".......0....."},
    {"feed_forward.0", "....0........"},
    {"encoder_convs.0.cross_attention.w_q", "0............"},
    {"encoder_convs.*", "00.00..0.0..."},
    {"*.w_?", "000.........."},
    {"seq[12].0", ".......00...."},
    {"decoder_convs.0.*,output", "..0..0..0.0.."},
    {"w_q=3", "3............"},
    {"w_q,w_k,w_v=8,conv=4:8", "888....4444.."},
    {"w_q=2,w_k", "20..........."},
    {"all=2,seq1.0=7", "2222222722222"},
    {"conv=4,all", "0000000000000"},
    {"class_embedding,deconvs.0=5", "...........55"},
};

static void test_names(void **state)
{
    Model *m = model_of(PRESET_MNIST);
    Err err;

    (void)state;
    for (size_t i = 0; i < sizeof namings / sizeof *namings; i++) {
        char got[N_LAYERS + 1] = "";
        check_ok(adapter_check_targets(namings[i].targets, m->params, &err), err);
        for (int k = 0; k < N_LAYERS; k++) {
            int rank = -1;
            double alpha = -1;
            bool named = adapter_target(&rank, &alpha, namings[i].targets, 9, 18, weight_of(m, LAYERS[k]));
            got[k] = (char)(!named ? '.' : rank == 9 ? '0' : '0' + rank);
            if (named && !strstr(namings[i].targets, ":")) /* by the root of the rank, 18 at rank 9 */
                check_close(alpha, 18 * sqrt(rank / 9.0), 0, 1e-12, "alpha");
        }
        if (strcmp(got, namings[i].which) != 0)
            fail_msg("'%s' names %s, not %s", namings[i].targets, got, namings[i].which);
    }
    model_free(m);
}

static void test_alpha_of_names(void **state)
{
    Model *m = model_of(PRESET_MNIST);
    int rank;
    double alpha;

    (void)state;
    assert_true(adapter_target(&rank, &alpha, "w_q=8,conv=4:6.5", 16, 4, weight_of(m, "output")));
    assert_true(rank == 4 && alpha == 6.5);
    assert_true(adapter_target(&rank, &alpha, "w_q=4,conv=4:6.5", 16, 4, weight_of(m, LAYERS[0])));
    assert_true(rank == 4 && alpha == 2);
    model_free(m);
}

static void test_names_that_are_none(void **state)
{
    static const char *const bad[][2] = {
        {"", "no layer to adapt"},        {"w_x", "no layer is called 'w_x'; the model has "},
        {"w_q,,w_k", "begins with none"}, {"w_q,", "end with a comma"},
        {"w_q=", "rank of 'w_q'"},        {"w_q=0", "rank of 'w_q'"},
        {"w_q=65537", "rank of 'w_q'"},   {"w_q=99999999999999999999", "rank of 'w_q'"},
        {"w_q=4x", "no =RANK"},           {"w_q=4:", "alpha of 'w_q'"},
        {"w_q=4:0", "alpha of 'w_q'"},    {"w_q=4:nan", "alpha of 'w_q'"},
        {"w_q=4:2x", "no =RANK"},         {"seq1.1", "no layer is called 'seq1.1'"}, /* a norm */
        {"_q", "no layer is called '_q'"}};
    Model *m = model_of(PRESET_MNIST);
    char names[400], few[12];
    Err err;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (!adapter_check_targets(bad[i][0], m->params, &err))
            fail_msg("'%s' passes", bad[i][0]);
        assert_int_equal(err.code, ERR_USAGE);
        assert_says(err, bad[i][1]);
    }
    adapter_target_names(names, sizeof names, m->params);
    assert_string_equal(names, "'time_embedding.1', 'class_embedding', 'time_embedding_linear', 'skip', 'seq1.0', "
                               "'seq2.0', 'w_k', 'w_v', 'w_q', 'z_linear', 'feed_forward.0', 'feed_forward.2', "
                               "'deconvs.0', 'output'; groups: 'attention', 'all-linear', 'conv', 'all'");
    adapter_target_names(few, sizeof few, m->params);
    assert_true(strlen(few) < sizeof few);
    model_free(m);
}

/* ---- how it begins ---- */

static Adapter *begin(const Model *m, AdapterConfig c, const char *targets, uint64_t seed)
{
    Err err;
    Adapter *a;

    snprintf(c.targets, sizeof c.targets, "%s", targets);
    a = adapter_new(m->params, &c, seed, &err);
    check_ptr(a, err);
    return a;
}

/* Whatever it is made of, a fresh adapter changes nothing, whichever ranks sit out: exactly, or (magnitudes, singular
 * values) up to rounding. */
static void test_begins_with_no_change(void **state)
{
    const AdapterConfig configs[] = {{.rank = 3, .alpha = 6},
                                     {.rank = 3, .alpha = 6, .init = ADAPTER_INIT_GAUSSIAN},
                                     {.rank = 3, .alpha = 6, .rslora = true, .bias = ADAPTER_BIAS_ALL},
                                     {.rank = 3, .alpha = 6, .dora = true},
                                     {.rank = 3, .alpha = 6, .init = ADAPTER_INIT_PISSA},
                                     {.rank = 3, .alpha = 6, .init = ADAPTER_INIT_PISSA, .dropout = 0.5},
                                     {.rank = 9, .alpha = 6, .init = ADAPTER_INIT_PISSA, .dropout = 0.5, .dora = true}};
    (void)state;
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
        Model *m = model_of(PRESET_MNIST), *same = model_of(PRESET_MNIST);
        Adapter *a = begin(m, configs[i], "all", 5);
        const double tol = configs[i].dora || configs[i].init == ADAPTER_INIT_PISSA ? 2e-6 : 0;
        Err err;

        check_ok(adapter_attach(a, &err), err);
        for (int step = -1; step < 4; step++) {
            adapter_apply(a, 5, step);
            for (size_t k = 0; k < m->params->n_values; k++)
                check_close((double)m->params->values[k], (double)same->params->values[k], tol, 0, "a weight");
        }
        adapter_free(a);
        model_free(m);
        model_free(same);
    }
}

/* A channel that is zero has no direction for a magnitude: it stays zero, and gives none of its parts a gradient. */
static void test_magnitude_of_nothing(void **state)
{
    Model *m = model_of(PRESET_MNIST);
    Param *w = param_find(m->params, "encoder_convs.0.cross_attention.w_q.weight");
    const size_t in = (size_t)w->file_shape.d[1];
    const AdapterLayer *l;
    Adapter *a;
    Err err;

    (void)state;
    memset(w->value, 0, in * sizeof *w->value);
    a = begin(m, (AdapterConfig){.rank = 2, .alpha = 2, .dora = true}, "encoder_convs.0.cross_attention.w_q", 5);
    check_ok(adapter_attach(a, &err), err);
    adapter_apply(a, 5, 0);
    for (size_t i = 0; i < in; i++)
        assert_true(w->value[i] == 0);
    fill_random(w->grad, w->numel, 6, 1);
    adapter_backward(a, a->params->grads, m->params->grads, 0, 5, 0);
    l = adapter_layer_of(a, w);
    assert_true(l->part[PART_MAGNITUDE]->grad[0] == 0 && l->part[PART_MAGNITUDE]->grad[1] != 0);
    for (size_t i = 0; i < l->part[PART_B]->numel; i++)
        assert_true(isfinite(l->part[PART_B]->grad[i]));
    adapter_free(a);
    model_free(m);
}

/* Who works beside others uses memory of its own. */
static void test_rooms(void **state)
{
    Model *m = model_of(PRESET_MNIST);
    char *before;
    Adapter *a;
    Err err;

    (void)state;
    threads_init(2);
    a = begin(m, (AdapterConfig){.rank = 2, .alpha = 2, .dora = true, .dropout = 0.5}, "w_q,seq2.0", 5);
    check_ok(adapter_attach(a, &err), err);
    threads_init(1);
    fill_random(a->params->values, a->params->n_weights, 7, 1);
    fill_random(m->params->grads, m->params->n_grads, 6, 1);
    before = malloc(a->scratch_bytes);
    memset(a->scratch, 0x5a, 2 * a->scratch_bytes);
    memcpy(before, a->scratch, a->scratch_bytes);
    adapter_backward(a, a->params->grads, m->params->grads, 1, 5, 0);
    assert_memory_equal(a->scratch, before, a->scratch_bytes);
    assert_true(memcmp((char *)a->scratch + a->scratch_bytes, before, a->scratch_bytes) != 0);
    free(before);
    adapter_free(a);
    model_free(m);
}

/* A's bounds are PyTorch's for a layer of its shape: kaiming_uniform with a = sqrt(5), 1/sqrt(fan in). */
static void test_initial_a(void **state)
{
    static const struct {
        const char *layer, *part;
        int fan_in;
    } cases[] = {{"encoder_convs.0.cross_attention.w_q", "lora_A.weight", 8},
                 {"encoder_convs.1.seq2.0", "lora_A.weight", 9 * 12},
                 {"encoder_convs.1.skip", "lora_A.weight", 8},
                 {"deconvs.0", "lora_A.weight", 12}};
    Model *m = model_of(PRESET_MNIST);
    Adapter *a = begin(m, (AdapterConfig){.rank = 64, .alpha = 1}, "all", 5);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[2 * PARAM_NAME_MAX];
        const double bound = 1 / sqrt((double)cases[i].fan_in);
        const Param *p;
        double most = 0, square = 0;
        snprintf(name, sizeof name, "%s.%s", cases[i].layer, cases[i].part);
        p = param_find(a->params, name);
        assert_non_null(p);
        for (size_t k = 0; k < p->numel; k++) {
            most = fmax(most, fabs((double)p->value[k]));
            square += (double)p->value[k] * (double)p->value[k];
        }
        assert_true(most <= bound && most > 0.97 * bound);
        check_close(square / (double)p->numel, bound * bound / 3, 0, 0.15, "variance of A");
    }
    adapter_free(a);
    model_free(m);
}

static void test_biases_and_embedding(void **state)
{
    Model *m = model_of(PRESET_MNIST);
    AdapterConfig c = {.rank = 2, .alpha = 2, .bias = ADAPTER_BIAS_LORA_ONLY};
    Adapter *a = begin(m, c, "w_q", 5);
    int all = 0;

    (void)state;
    assert_int_equal(a->n, 2 * 3);
    assert_non_null(adapter_layer_of(a, param_find(m->params, "encoder_convs.0.cross_attention.w_q.bias")));
    assert_null(adapter_layer_of(a, param_find(m->params, "encoder_convs.0.cross_attention.w_k.bias")));
    adapter_free(a);
    c.bias = ADAPTER_BIAS_ALL;
    c.embedding = true;
    a = begin(m, c, "w_q", 5);
    for (int i = 0; i < m->params->count; i++) {
        const char *dot = strrchr(m->params->items[i]->name, '.');
        all += !strcmp(dot, ".bias");
    }
    assert_int_equal(a->n, 3 + all + 1);
    adapter_free(a);
    model_free(m);
}

static void test_embedding_adapted_or_whole(void **state)
{
    Model *m = model_of(PRESET_MNIST);
    AdapterConfig c = {.rank = 2, .alpha = 2, .embedding = true};
    Adapter *a = begin(m, c, "all", 1);
    const Param *table = param_find(m->params, "class_embedding.weight");
    int times = 0;

    (void)state;
    for (int i = 0; i < a->n; i++)
        times += a->layers[i].weight == table;
    assert_int_equal(times, 1);
    assert_int_equal(adapter_layer_of(a, table)->kind, ADAPTER_FULL);
    adapter_free(a);
    model_free(m);
}

/* ---- merging ---- */

static Adapter *random_adapter(const Model *m, const char *targets, uint64_t seed)
{
    Adapter *a = begin(m, (AdapterConfig){.rank = 3, .alpha = 6, .dora = true}, targets, seed);

    fill_random(a->params->values, a->params->n_weights, seed, 0.3);
    return a;
}

/* The order of adapters is no part of it, and a scale of 0 is none; two of the same are twice one. */
static void test_merging_is_a_sum(void **state)
{
    Model *base = model_of(PRESET_MNIST);
    Adapter *a = random_adapter(base, "attention,conv", 3), *b = random_adapter(base, "all-linear,seq1.0", 4);
    const Adapter *const ab[] = {a, b}, *const ba[] = {b, a}, *const aa[] = {a, a};
    const struct {
        const Adapter *const *list;
        double scale[2];
        int n;
    } cases[] = {{ab, {0.7, -0.4}, 2}, {ba, {-0.4, 0.7}, 2}, {aa, {0.5, 0.5}, 2}, {aa, {1}, 1}, {ab, {0, 0}, 2}};
    real *values[5];
    const size_t n = base->params->n_values;
    Err err;

    (void)state;
    for (int i = 0; i < 5; i++) {
        real *was = malloc(n * sizeof *was);
        memcpy(was, base->params->values, n * sizeof *was);
        check_ok(adapter_merge(base->params, cases[i].list, cases[i].scale, cases[i].n, &err), err);
        values[i] = malloc(n * sizeof **values);
        memcpy(values[i], base->params->values, n * sizeof **values);
        memcpy(base->params->values, was, n * sizeof *was);
        free(was);
    }
    for (size_t k = 0; k < n; k++) {
        check_close((double)values[0][k], (double)values[1][k], 1e-6, 1e-6, "two orders");
        check_close((double)values[2][k], (double)values[3][k], 1e-6, 1e-6, "twice a half");
        assert_true(values[4][k] == base->params->values[k]);
    }
    assert_true(memcmp(values[0], base->params->values, n * sizeof **values) != 0);
    for (int i = 0; i < 5; i++)
        free(values[i]);
    adapter_free(a);
    adapter_free(b);
    model_free(base);
}

/* The weights of training are those that merging gives. */
static void test_attached_is_merged(void **state)
{
    Model *m = model_of(PRESET_MNIST), *other = model_of(PRESET_MNIST);
    Adapter *a = random_adapter(m, "attention,conv", 3), *b = random_adapter(other, "attention,conv", 3);
    Err err;

    (void)state;
    check_ok(adapter_attach(a, &err), err);
    adapter_apply(a, 1, -1);
    check_ok(adapter_merge(other->params, (const Adapter *const[]){b}, (const double[]){1}, 1, &err), err);
    for (size_t k = 0; k < m->params->n_values; k++)
        check_close((double)m->params->values[k], (double)other->params->values[k], 1e-7, 1e-6, "a weight");
    adapter_free(a);
    adapter_free(b);
    model_free(m);
    model_free(other);
}

/* ---- dropout ---- */

/* Of one layer, B A with rank 1: a step has it with 1/(1-p), or not at all; over many steps in the right proportion. */
static void test_dropout(void **state)
{
    enum { STEPS = 400 };
    Model *m = model_of(PRESET_MNIST);
    Adapter *a = begin(m, (AdapterConfig){.rank = 1, .alpha = 1, .dropout = 0.25}, "encoder_convs.0.seq1.0", 3);
    Param *w = param_find(m->params, "encoder_convs.0.seq1.0.weight");
    real *base = malloc(w->numel * sizeof *base), whole, first = 0;
    int there = 0;
    Err err;

    (void)state;
    fill_random(a->params->values, a->params->n_weights, 7, 1);
    memcpy(base, w->value, w->numel * sizeof *base);
    check_ok(adapter_attach(a, &err), err);
    adapter_apply(a, 9, -1);
    whole = w->value[0] - base[0];
    for (int step = 0; step < STEPS; step++) {
        real change;
        adapter_apply(a, 9, step);
        change = w->value[0] - base[0];
        there += change != 0;
        if (change != 0)
            check_close((double)change, (double)whole / 0.75, 0, 1e-4, "a rank that takes part");
        if (step == 17)
            first = change;
    }
    assert_true(there > STEPS * 0.68 && there < STEPS * 0.82);
    adapter_apply(a, 9, 17); /* a step is a function of the seed and its number */
    assert_true(w->value[0] - base[0] == first);
    adapter_apply(a, 9, -1);
    assert_true(w->value[0] - base[0] == whole);
    free(base);
    adapter_free(a);
    model_free(m);
}

/* ---- new classes ---- */

static void test_model_grows(void **state)
{
    Model *m = model_of(PRESET_MNIST), *same = model_of(PRESET_MNIST);
    const Param *was = param_find(same->params, "class_embedding.weight"), *now;
    const size_t row = was->numel / (CLASSES + 1);
    AdapterConfig c = {.rank = 2, .alpha = 2, .embedding = true, .known_classes = CLASSES, .classes = CLASSES + 2};
    Adapter *a;
    const real *v;
    Err err;

    (void)state;
    check_ok(model_grow_classes(m, CLASSES + 2, &err), err);
    assert_int_equal(m->config.classes, CLASSES + 2);
    now = param_find(m->params, "class_embedding.weight");
    assert_int_equal(now->shape.d[0], CLASSES + 3);
    assert_memory_equal(now->value, was->value, CLASSES * row * sizeof(real));
    for (size_t k = 0; k < 2 * row; k++)
        assert_true(now->value[CLASSES * row + k] == 0);
    assert_memory_equal(now->value + (CLASSES + 2) * row, was->value + CLASSES * row, row * sizeof(real)); /* null */
    for (int i = 0; i < m->params->count; i++)
        if (m->params->items[i] != now && m->params->items[i]->kind != PARAM_COUNTER)
            assert_memory_equal(m->params->items[i]->value, same->params->items[i]->value,
                                m->params->items[i]->numel * sizeof(real));
    a = begin(m, c, "w_v", 6);
    v = adapter_layer_of(a, now)->part[PART_VALUE]->value;
    assert_memory_equal(v, now->value, CLASSES * row * sizeof(real));
    for (size_t k = 1; k < 2 * row; k++) /* drawn, each on its own */
        assert_true(v[CLASSES * row + k] != 0 && v[CLASSES * row + k] != v[CLASSES * row]);
    assert_memory_equal(v + (CLASSES + 2) * row, was->value + CLASSES * row, row * sizeof(real));
    adapter_free(a);
    model_free(m);
    model_free(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_alpha_of_names),
        cmocka_unit_test(test_names_that_are_none),
        cmocka_unit_test(test_begins_with_no_change),
        cmocka_unit_test(test_magnitude_of_nothing),
        cmocka_unit_test(test_rooms),
        cmocka_unit_test(test_initial_a),
        cmocka_unit_test(test_biases_and_embedding),
        cmocka_unit_test(test_embedding_adapted_or_whole),
        cmocka_unit_test(test_merging_is_a_sum),
        cmocka_unit_test(test_attached_is_merged),
        cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_model_grows),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
