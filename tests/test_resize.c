/* An adapter at lower ranks: what it keeps and loses is what the singular values say. */
#include "reduce_util.h"

/* ---- how many ---- */

static void test_choose(void **state)
{
    static const double s[] = {4, 2, 1, 1}, zero[] = {0, 0};
    static const struct {
        RankChoice c;
        int rank;
    } cases[] = {
        {{RANK_FIXED, 0, 3}, 3},
        {{RANK_FIXED, 0, 9}, 4},
        {{RANK_SQUARES, 16.0 / 22, 9}, 1},
        {{RANK_SQUARES, 16.1 / 22, 9}, 2},
        {{RANK_SQUARES, 1, 9}, 4},
        {{RANK_SQUARES, 1, 2}, 2},
        {{RANK_SQUARES, 0, 9}, 1},
        {{RANK_RATIO, 1, 9}, 1},
        {{RANK_RATIO, 2, 9}, 1}, /* larger than, not equal */
        {{RANK_RATIO, 2.01, 9}, 2},
        {{RANK_RATIO, 4, 9}, 2},
        {{RANK_RATIO, 4.01, 9}, 4},
        {{RANK_RATIO, 4.01, 3}, 3},
        {{RANK_SUM, 0.5, 9}, 1},
        {{RANK_SUM, 0.51, 9}, 2},
        {{RANK_SUM, 0.75, 9}, 2},
        {{RANK_SUM, 0.76, 9}, 3},
        {{RANK_SUM, 1, 9}, 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (adapter_choose_rank(s, 4, &cases[i].c) != cases[i].rank)
            fail_msg("case %zu: %d", i, adapter_choose_rank(s, 4, &cases[i].c));
    for (int rule = RANK_SQUARES; rule <= RANK_SUM; rule++)
        assert_int_equal(adapter_choose_rank(zero, 2, &(RankChoice){(RankRule)rule, 1, 2}), 1);
}

/* ---- resize ---- */

/* A and B in the order of files so that B A = sum of VALUES[k] u_k v_k^T: not these themselves, which would be found
 * without looking, but mixed: A_0 + A_1, B_1 - B_0. */
static void set_known(const Adapter *a, const AdapterLayer *l)
{
    const Param *w = l->weight;
    const bool a_rows = w->use == USE_CONVT2 || w->use == USE_TABLE; /* A leads to the rows of the file's matrix */
    const int na = a_rows ? rows_of(w) : cols_of(w), nb = a_rows ? cols_of(w) : rows_of(w), r = l->rank;
    const int has = known_rank(w) < r ? known_rank(w) : r;
    const bool mix = has > 1;
    float *fa = calloc(l->part[PART_A]->numel, sizeof *fa), *fb = calloc(l->part[PART_B]->numel, sizeof *fb);

    assert_true(fa && fb);
    for (int k = 0; k < has; k++) {
        for (int i = 0; i < na; i++)
            fa[k * na + i] =
                (float)(VALUES[k] * vector(k + 1, i, na) + (k == 0 && mix ? VALUES[1] * vector(2, i, na) : 0));
        for (int i = 0; i < nb; i++)
            fb[w->use == USE_CONVT2 ? k * nb + i : i * r + k] =
                (float)(vector(k + 1, i, nb) - (k == 1 ? vector(1, i, nb) : 0));
    }
    param_import(a->params->values, l->part[PART_A], fa);
    param_import(a->params->values, l->part[PART_B], fb);
    free(fa);
    free(fb);
}

/* On all layers, rank 3, scale 2. */
static Adapter *known_adapter(Model *base, bool dora)
{
    const AdapterConfig c = {
        .targets = "all", .rank = KNOWN, .alpha = 2 * KNOWN, .dora = dora, .bias = ADAPTER_BIAS_ALL};
    Err err;
    Adapter *a = adapter_new(base->params, &c, 1, &err);

    check_ptr(a, err);
    for (int i = 0; i < a->n; i++) {
        if (a->layers[i].kind == ADAPTER_LORA)
            set_known(a, &a->layers[i]);
        else
            a->layers[i].part[PART_VALUE]->value[0] += (real)0.5;
    }
    return a;
}

static Adapter *resize(const Adapter *a, RankChoice c, AdapterLoss *loss)
{
    Err err;
    Adapter *to = adapter_resize(a, &c, loss, &err);

    check_ptr(to, err);
    assert_int_equal(to->n, a->n);
    return to;
}

static void test_resize_same(void **state)
{
    Model *base = adapter_base();
    Adapter *a = known_adapter(base, true);
    AdapterLoss loss[512];

    (void)state;
    for (int most = KNOWN; most < 100; most += 50) {
        Adapter *to = resize(a, (RankChoice){RANK_FIXED, 0, most}, loss);
        for (int i = 0; i < a->n; i++) {
            assert_true(loss[i].lost == 0 && loss[i].after == a->layers[i].rank &&
                        to->layers[i].scale == a->layers[i].scale);
            for (int part = 0; part < ADAPTER_PARTS; part++) {
                const Param *p = a->layers[i].part[part], *q = to->layers[i].part[part];
                assert_true(!p == !q);
                if (p)
                    assert_memory_equal(p->value, q->value, p->numel * sizeof(real));
            }
        }
        adapter_free(to);
    }
    adapter_free(a);
    model_free(base);
}

static void check_resized(RankChoice choice, int rank)
{
    Model *base = adapter_base();
    Adapter *a = known_adapter(base, false), *to;
    AdapterLoss loss[512];

    to = resize(a, choice, loss);
    for (int i = 0; i < a->n; i++) {
        const AdapterLayer *l = &to->layers[i];
        const int has = known_rank(l->weight);
        if (l->kind == ADAPTER_FULL) {
            assert_true(loss[i].lost == 0 && loss[i].before == 0 && loss[i].after == 0 && loss[i].change > 0);
            continue;
        }
        assert_int_equal(loss[i].before, KNOWN);
        if (has < KNOWN)
            continue;
        assert_int_equal(loss[i].after, rank);
        assert_int_equal(l->rank, rank);
        check_close(l->scale, 2, 0, 1e-12, "the scale stays");
        check_close(loss[i].change, 4 * squares_from(0, has), 0, 1e-5, l->weight->name);
        check_close(loss[i].lost, 4 * squares_from(rank, has), 1e-9, 1e-5, l->weight->name);
    }
    adapter_free(to);
    adapter_free(a);
    model_free(base);
}

static void test_resize_rank(void **state)
{
    (void)state;
    check_resized((RankChoice){RANK_FIXED, 0, 1}, 1);
    check_resized((RankChoice){RANK_FIXED, 0, 2}, 2);
    check_resized((RankChoice){RANK_RATIO, 2.1, 100}, 2);
    check_resized((RankChoice){RANK_RATIO, 1.9, 100}, 1);
    check_resized((RankChoice){RANK_SUM, 0.74 / 0.875, 100}, 2);
    check_resized((RankChoice){RANK_SUM, 0.76 / 0.875, 100}, 3);
    check_resized((RankChoice){RANK_SQUARES, 0.3124 / 0.328125, 100}, 2);
    check_resized((RankChoice){RANK_SQUARES, 0.3126 / 0.328125, 100}, 3);
}

/* With magnitudes the change is another; what is lost is that between the weights that come out. */
static void test_resize_dora(void **state)
{
    Model *base = adapter_base(), *before = adapter_base(), *after = adapter_base();
    Adapter *a = known_adapter(base, true), *to;
    AdapterLoss loss[512];
    int magnitudes = 0;

    (void)state;
    to = resize(a, (RankChoice){RANK_FIXED, 0, 1}, loss);
    for (int i = 0; i < a->n; i++) {
        const Param *w = a->layers[i].weight;
        const size_t at = w->offset;
        double change = 0, lost = 0;
        Adapter one = *a, other = *to; /* of this layer only */
        one.layers = &a->layers[i];
        other.layers = &to->layers[i];
        one.n = other.n = 1;
        memcpy(before->params->values, base->params->values, base->params->n_values * sizeof(real));
        merge_one(base, &one);
        memcpy(after->params->values, base->params->values, base->params->n_values * sizeof(real));
        memcpy(base->params->values, before->params->values, base->params->n_values * sizeof(real));
        merge_one(base, &other);
        for (size_t k = 0; k < w->numel; k++) {
            change += pow((double)after->params->values[at + k] - (double)before->params->values[at + k], 2);
            lost += pow((double)after->params->values[at + k] - (double)w->value[k], 2);
        }
        memcpy(base->params->values, before->params->values, base->params->n_values * sizeof(real));
        check_close(loss[i].change, change, 1e-6, 1e-4, w->name);
        check_close(loss[i].lost, lost, 1e-6, 1e-4, w->name);
        magnitudes += a->layers[i].part[PART_MAGNITUDE] && lost > 1e-3;
    }
    assert_true(magnitudes > 10);
    adapter_free(to);
    adapter_free(a);
    model_free(base);
    model_free(before);
    model_free(after);
}

/* A negative scale, and none: the sign goes into the numbers. */
static void test_resize_scales(void **state)
{
    static const double scales[] = {-2, 0};
    AdapterLoss loss[512];

    (void)state;
    for (int k = 0; k < 2; k++) {
        Model *base = adapter_base();
        Adapter *a = known_adapter(base, false), *to;
        for (int i = 0; i < a->n; i++)
            a->layers[i].scale = scales[k];
        to = resize(a, (RankChoice){RANK_FIXED, 0, 2}, loss);
        for (int i = 0; i < a->n; i++)
            if (a->layers[i].kind == ADAPTER_LORA && known_rank(a->layers[i].weight) == KNOWN) {
                check_close(loss[i].lost, scales[k] * scales[k] * squares_from(2, KNOWN), 1e-9, 1e-5,
                            a->layers[i].weight->name);
                assert_true(to->layers[i].scale > 0);
            }
        adapter_free(to);
        adapter_free(a);
        model_free(base);
    }
}

/* B A - B0 A0 is one product of up to twice the rank. */
static void test_resize_pissa(void **state)
{
    const AdapterConfig c = {.targets = "all-linear", .rank = 2, .alpha = 2, .init = ADAPTER_INIT_PISSA};
    Model *base = adapter_base();
    AdapterLoss loss[512];
    Adapter *a, *to;
    int more = 0;
    Err err;

    (void)state;
    check_ptr(a = adapter_new(base->params, &c, 1, &err), err);
    for (int i = 0; i < a->n; i++)
        for (int part = PART_A; part <= PART_B; part++)
            fill_random(a->layers[i].part[part]->value, a->layers[i].part[part]->numel, (uint64_t)(2 * i + part), 1);
    to = resize(a, (RankChoice){RANK_SQUARES, 1, 100}, loss);
    for (int i = 0; i < a->n; i++) {
        assert_true(to->layers[i].rank <= 4 && !to->layers[i].part[PART_A0]);
        check_close(loss[i].lost, 0, 1e-10 * (1 + loss[i].change), 0, a->layers[i].weight->name);
        more += to->layers[i].rank > 2;
    }
    assert_true(more > 5);
    adapter_free(to);
    adapter_free(a);
    model_free(base);
}

/* A product that overflows. */
static void test_resize_huge(void **state)
{
    const RankChoice c = {RANK_FIXED, 0, 1};
    Model *base = adapter_base();
    Adapter *a = known_adapter(base, false);
    AdapterLoss loss[512];
    Err err;

    (void)state;
    for (size_t i = 0; i < a->params->n_weights; i++)
        a->params->values[i] = (real)1e30;
    assert_null(adapter_resize(a, &c, loss, &err));
    assert_int_equal(err.code, ERR_DIVERGED);
    assert_says(err, "is not finite");
    adapter_free(a);
    model_free(base);
}

/* Adapters of every kind that others made are the same as LoRA of full rank: their outputs are those computed there. */
static void test_resize_kinds(void **state)
{
    FILE *f = fopen(ADAPTERS_DIR "/verdicts.tsv", "r");
    StFile *io = adapter_io();
    int kinds = 0;
    Verdict v;
    Err err;

    (void)state;
    assert_non_null(f);
    while (next_verdict(&v, f)) {
        Model *m = adapter_model(v.path);
        Adapter *a = adapter_load(v.path, m, &err), *to;
        AdapterLoss loss[512];
        if (a) {
            to = resize(a, (RankChoice){RANK_SQUARES, 1, ADAPTER_RANK_MAX}, loss);
            for (int i = 0; i < a->n; i++) {
                kinds |= 1 << a->layers[i].kind;
                assert_true(to->layers[i].kind == (a->layers[i].kind == ADAPTER_FULL ? ADAPTER_FULL : ADAPTER_LORA));
                check_close(loss[i].lost, 0, 1e-10 * (1 + loss[i].change), 0, v.kind);
                assert_int_equal(to->layers[i].part[PART_MAGNITUDE] != NULL, a->layers[i].part[PART_MAGNITUDE] != NULL);
            }
            check_close(adapter_difference(to, m, io, v.kind), 0, v.tolerance + 5e-5, 0, v.kind);
            adapter_free(to);
        }
        adapter_free(a);
        model_free(m);
    }
    assert_int_equal(kinds, 15);
    fclose(f);
    st_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choose),      cmocka_unit_test(test_resize_same),   cmocka_unit_test(test_resize_rank),
        cmocka_unit_test(test_resize_dora), cmocka_unit_test(test_resize_scales), cmocka_unit_test(test_resize_pissa),
        cmocka_unit_test(test_resize_huge), cmocka_unit_test(test_resize_kinds),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
