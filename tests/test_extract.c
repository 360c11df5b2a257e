/* The difference of two models as an adapter: what it keeps and loses is what the singular values say. */
#include "reduce_util.h"

static Adapter *extract(Model *base, const Model *tuned, const ExtractConfig *c, AdapterLoss *loss, int *n)
{
    Err err;
    Adapter *a = adapter_extract(base->params, tuned->params, c, loss, n, &err);

    check_ptr(a, err);
    return a;
}

static void test_extract_all(void **state)
{
    const ExtractConfig c = {.targets = "all", .rank = {RANK_FIXED, 0, KNOWN}};
    Model *base = adapter_base(), *tuned = with_known(base);
    AdapterLoss loss[512];
    int n, uses = 0;
    Adapter *a = extract(base, tuned, &c, loss, &n);

    (void)state;
    assert_int_equal(a->n, n);
    for (int i = 0; i < n; i++) {
        const double known = squares_from(0, known_rank(loss[i].weight));
        uses |= 1 << loss[i].weight->use;
        assert_true(!loss[i].left_out && loss[i].after >= known_rank(loss[i].weight) && loss[i].after <= KNOWN);
        check_close(loss[i].change, known, 1e-6, 1e-4, loss[i].weight->name);
        check_close(loss[i].lost, 0, 1e-10, 0, loss[i].weight->name);
    }
    assert_int_equal(uses, 1 << USE_LINEAR | 1 << USE_CONV1 | 1 << USE_CONV3 | 1 << USE_CONVT2 | 1 << USE_TABLE);
    merge_one(base, a);
    for (int i = 0; i < base->params->count; i++)
        if (base->params->items[i]->value)
            check_close(largest_difference(base->params->items[i], tuned->params->items[i]), 0, 1e-6, 0,
                        base->params->items[i]->name);
    adapter_free(a);
    model_free(base);
    model_free(tuned);
}

/* At a rank, and at a share of the squares that this rank just has. */
static void check_extracted(RankChoice choice, int rank)
{
    const ExtractConfig c = {.targets = "all", .rank = choice};
    Model *base = adapter_base(), *tuned = with_known(base);
    AdapterLoss loss[512];
    int n;
    Adapter *a = extract(base, tuned, &c, loss, &n);

    for (int i = 0; i < n; i++) {
        const AdapterLayer *l = adapter_layer_of(a, loss[i].weight);
        const int has = known_rank(loss[i].weight);
        if (has < KNOWN)
            continue;
        assert_int_equal(l->rank, rank);
        assert_int_equal(loss[i].after, rank);
        check_close(l->scale, 1, 0, 0, "the scale");
        check_close(loss[i].lost, squares_from(rank, has), 1e-7, 1e-3, loss[i].weight->name);
    }
    adapter_free(a);
    model_free(base);
    model_free(tuned);
}

static void test_extract_rank(void **state)
{
    const double all = squares_from(0, KNOWN);

    (void)state;
    check_extracted((RankChoice){RANK_FIXED, 0, 1}, 1);
    check_extracted((RankChoice){RANK_FIXED, 0, 2}, 2);
    check_extracted((RankChoice){RANK_SQUARES, 0.99 * (all - squares_from(2, KNOWN)) / all, 100}, 2);
    check_extracted((RankChoice){RANK_SQUARES, 1.01 * (all - squares_from(2, KNOWN)) / all, 100}, 3);
    check_extracted((RankChoice){RANK_SQUARES, 1.01 * (all - squares_from(2, KNOWN)) / all, 2}, 2);
}

/* Ranks and alphas by target; what is not named is left out, or whole. */
static void test_extract_targets(void **state)
{
    Model *base = adapter_base(), *tuned = with_known(base);
    ExtractConfig c = {.targets = "w_q=1,w_v=2:3", .rank = {RANK_FIXED, 0, 8}};
    AdapterLoss loss[512];
    int n;
    Adapter *a = extract(base, tuned, &c, loss, &n);

    (void)state;
    for (int i = 0; i < n; i++) {
        const AdapterLayer *l = adapter_layer_of(a, loss[i].weight);
        const bool q = strstr(loss[i].weight->name, ".w_q."), v = strstr(loss[i].weight->name, ".w_v.");
        assert_int_equal(loss[i].left_out, !q && !v);
        assert_int_equal(l != NULL, q || v);
        assert_int_equal(loss[i].after, q ? 1 : v ? 2 : 0);
        if (loss[i].left_out)
            check_close(loss[i].lost, loss[i].change, 0, 0, loss[i].weight->name);
        if (v)
            check_close(l->scale, 1.5, 0, 0, "alpha/rank");
    }
    adapter_free(a);
    c.whole = true;
    a = extract(base, tuned, &c, loss, &n);
    assert_int_equal(a->n, n);
    for (int i = 0; i < n; i++)
        if (a->layers[i].kind == ADAPTER_FULL)
            check_close(loss[i].lost, 0, 0, 0, loss[i].weight->name);
    adapter_free(a);
    c.whole = false;
    c.embedding = true;
    a = extract(base, tuned, &c, loss, &n);
    assert_int_equal(a->layers[0].weight->use, USE_TABLE);
    assert_int_equal(a->layers[0].kind, ADAPTER_FULL);
    adapter_free(a);
    model_free(base);
    model_free(tuned);
}

static void test_extract_refused(void **state)
{
    ExtractConfig c = {.targets = "all", .rank = {RANK_FIXED, 0, 8}};
    Model *base = adapter_base(), *same = adapter_base();
    AdapterLoss loss[512];
    Err err;
    int n;

    (void)state;
    assert_null(adapter_extract(base->params, same->params, &c, loss, &n, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_says(err, "the two models are the same");
    param_find(same->params, "output.bias")->value[0] += 1;
    assert_null(adapter_extract(base->params, same->params, &c, loss, &n, &err));
    assert_says(err, "none is a layer to adapt");
    c.targets = "w_z";
    assert_null(adapter_extract(base->params, same->params, &c, loss, &n, &err));
    assert_int_equal(err.code, ERR_USAGE);
    c.targets = "all";
    for (int k = 0; k < 2; k++) {
        param_find(same->params, "output.weight")->value[0] = k ? INFINITY : NAN;
        assert_null(adapter_extract(base->params, same->params, &c, loss, &n, &err));
        assert_int_equal(err.code, ERR_DIVERGED);
        assert_says(err, "'output.weight' by what is not finite");
    }
    check_ok(model_grow_classes(same, same->config.classes + 1, &err), err);
    assert_null(adapter_extract(base->params, same->params, &c, loss, &n, &err));
    assert_says(err, "different shapes: 'class_embedding.weight'");
    model_free(base);
    model_free(same);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_extract_all),
        cmocka_unit_test(test_extract_rank),
        cmocka_unit_test(test_extract_targets),
        cmocka_unit_test(test_extract_refused),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
