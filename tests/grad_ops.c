/* Every op against central differences, in double: with the default backend, and with the reference. */
#include "gradcheck.h"

static void test_conv3x3(void **state)
{
    static const int shapes[][5] = {/* n h w ci co */ {2, 5, 7, 3, 4},
                                    {1, 6, 6, 16, 16},
                                    {3, 3, 3, 8, 8},
                                    {2, 8, 8, 1, 8},
                                    {2, 13, 9, 32, 16},
                                    {9, 4, 4, 16, 32},
                                    {1, 1, 1, 2, 2},
                                    {2, 14, 14, 16, 16}};
    const int last = strcmp(backend_get()->name, "ref") ? CONV_WINOGRAD : CONV_AUTO; /* the reference has one path */
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int algo = CONV_AUTO; algo <= last; algo++) {
            const int *s = shapes[i];
            Fixture f = fixture_new();
            Node *x = leaf(&f, "x", shape4(s[0], s[1], s[2], s[3]));
            Node *w = leaf(&f, "w", shape4(3, 3, s[3], s[4]));
            Node *b = leaf(&f, "b", shape1(s[4]));
            finish(&f, op_conv3x3(f.g, x, w, b, (ConvAlgo)algo), NULL);
        }
}

static void test_conv_transpose2x2(void **state)
{
    Fixture f = fixture_new();
    (void)state;
    finish(&f,
           op_conv_transpose2x2(f.g, leaf(&f, "x", shape4(3, 5, 7, 6)), leaf(&f, "w", shape4(6, 2, 2, 5)),
                                leaf(&f, "b", shape1(5))),
           NULL);
}

static void test_linear(void **state)
{
    static const int rows[] = {1, 3, 49, 200};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        Fixture f = fixture_new();
        Node *x = leaf(&f, "x", shape3(3, rows[i], 5)), *w = leaf(&f, "w", shape2(7, 5));
        finish(&f, op_linear(f.g, x, w, leaf(&f, "b", shape1(7)), leaf(&f, "res", shape3(3, rows[i], 7))), NULL);
    }
}

static void test_linear_chain_accumulates(void **state)
{
    /* the residual's gradient shares a place with the output's, and x is read three times */
    Fixture f = fixture_new();
    Node *x = leaf(&f, "x", shape3(2, 9, 6)), *w = leaf(&f, "w", shape2(6, 6)), *y;
    (void)state;
    y = op_linear(f.g, x, w, NULL, NULL);
    y = op_linear(f.g, op_act(f.g, y, ACT_SILU), w, leaf(&f, "b", shape1(6)), y);
    y = op_add(f.g, y, op_linear(f.g, x, leaf(&f, "w2", shape2(6, 6)), NULL, x));
    y = op_linear(f.g, y, w, NULL, y);
    finish(&f, op_scale(f.g, y, (real)0.3), NULL);
}

static void group_norm_case(int c, int groups, Act act)
{
    Fixture f = fixture_new();
    Shape s = shape4(2, 3, 4, c);
    Node *x = leaf(&f, "x", s), *gamma = leaf(&f, "gamma", shape1(c)), *beta = leaf(&f, "beta", shape1(c));
    Node *temb = leaf(&f, "temb", shape2(2, c)), *res = leaf(&f, "res", s);
    finish(&f, op_group_norm(f.g, x, gamma, beta, temb, res, groups, act, (real)1e-5), NULL);
}

static void test_group_norm(void **state)
{
    (void)state;
    group_norm_case(8, 2, ACT_NONE);
    group_norm_case(24, 8, ACT_SILU);
    group_norm_case(5, 1, ACT_SILU);
    group_norm_case(6, 6, ACT_RELU);
}

static void batch_norm_case(bool frozen, Act act)
{
    Fixture f = fixture_new();
    Shape s = shape4(3, 3, 4, 5);
    Node *x = leaf(&f, "x", s), *gamma = leaf(&f, "gamma", shape1(5)), *beta = leaf(&f, "beta", shape1(5));
    Node *temb = leaf(&f, "temb", shape2(3, 5)), *res = leaf(&f, "res", s);
    Param mean = {.name = "mean", .kind = PARAM_BUFFER, .init = INIT_CONST, .file_shape = shape1(5)};
    Param var = {.name = "var", .kind = PARAM_BUFFER, .init = INIT_CONST, .init_arg = 1.5, .file_shape = shape1(5)};
    Param count = {.name = "count", .kind = PARAM_COUNTER, .file_shape = shape_make(0, NULL)};

    f.g->frozen_stats = frozen;
    finish(&f,
           op_batch_norm(f.g, x, gamma, beta, temb, res, param_get(f.store, &mean, &f.err),
                         param_get(f.store, &var, &f.err), param_get(f.store, &count, &f.err), (real)0.1, act,
                         (real)1e-5),
           NULL);
}

static void test_batch_norm(void **state)
{
    (void)state;
    batch_norm_case(false, ACT_NONE);
    batch_norm_case(false, ACT_RELU);
    batch_norm_case(false, ACT_SILU);
    batch_norm_case(true, ACT_SILU);
}

/* tokens 0: feed-forward of width f */
static void sublayer_case(int c, int pixels, int f, int tokens, Act act, bool pre_norm)
{
    Fixture fixture = fixture_new(), *to = &fixture;
    /* over one token the softmax is 1: what leads to it (the reference's w_q and w_k) learns nothing */
    const bool one = tokens == 1;
    Node *x = leaf(to, "x", shape4(3, 1, pixels, c));
    Node *gamma = leaf(to, one && pre_norm ? "zero_gamma" : "gamma", shape1(c));
    Node *beta = leaf(to, one && pre_norm ? "zero_beta" : "beta", shape1(c)), *b2 = leaf(to, "b2", shape1(c));
    Node *w1 = leaf(to, one ? "zero_w1" : "w1", tokens ? shape3(3, tokens, c) : shape2(f, c));
    Node *b1 = leaf(to, one ? "zero_b1" : "b1", tokens ? shape3(3, tokens, 1) : shape1(f));
    Node *w2 = leaf(to, "w2", tokens ? shape3(3, tokens, c) : shape2(c, f));
    finish(to, op_sublayer(to->g, x, gamma, beta, w1, b1, w2, b2, act, pre_norm, (real)1e-5), one ? "zero_*" : NULL);
}

static void test_sublayer(void **state)
{
    static const int shapes[][4] = {/* c pixels f tokens */ {6, 20, 0, 4},
                                    {16, 70, 0, 2},
                                    {19, 3, 0, 7},
                                    {8, 33, 0, 1},
                                    {130, 9, 0, 3},
                                    {7, 20, 9, 0},
                                    {16, 64, 32, 0},
                                    {33, 100, 3, 0}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int pre = 0; pre < 2; pre++) {
            const int *s = shapes[i];
            sublayer_case(s[0], s[1], s[2], s[3], ACT_SILU, pre);
            if (!s[3])
                sublayer_case(s[0], s[1], s[2], s[3], ACT_RELU, pre);
        }
}

static void test_attention(void **state)
{
    /* x is used twice, so its gradient is added to; keys, values and weights come together as in nn_attention */
    Fixture f = fixture_new();
    Node *x = leaf(&f, "x", shape4(2, 3, 4, 6)), *g = leaf(&f, "gamma", shape1(6)), *b = leaf(&f, "beta", shape1(6));
    Node *k = op_scale(f.g, leaf(&f, "k", shape3(2, 3, 5)), (real)0.4), *v = leaf(&f, "v", shape3(2, 3, 4)), *y;
    Node *w1 = op_linear(f.g, k, op_transpose(f.g, leaf(&f, "wq", shape2(5, 6))), NULL, NULL);
    Node *b1 = op_linear(f.g, k, op_reshape(f.g, leaf(&f, "bq", shape1(5)), shape2(1, 5)), NULL, NULL);
    Node *w2 = op_linear(f.g, v, leaf(&f, "wz", shape2(6, 4)), NULL, NULL);
    (void)state;
    y = op_sublayer(f.g, x, g, b, w1, b1, w2, leaf(&f, "bz", shape1(6)), ACT_NONE, true, (real)1e-5);
    y = op_sublayer(f.g, y, g, b, leaf(&f, "v1", shape2(3, 6)), leaf(&f, "c1", shape1(3)), leaf(&f, "v2", shape2(6, 3)),
                    leaf(&f, "c2", shape1(6)), ACT_SILU, true, (real)1e-5);
    finish(&f, op_add(f.g, y, op_scale(f.g, x, (real)0.7)), NULL);
}

static void test_act(void **state)
{
    (void)state;
    for (int act = ACT_RELU; act <= ACT_SILU; act++) {
        Fixture f = fixture_new();
        finish(&f, op_act(f.g, leaf(&f, "x", shape2(7, 13)), (Act)act), NULL);
    }
}

static void test_pool_concat_embedding(void **state)
{
    Fixture f = fixture_new();
    Node *a = leaf(&f, "a", shape4(2, 4, 6, 3)), *b = leaf(&f, "b", shape4(2, 2, 3, 5)), *y, *rows;
    int *ids = graph_ints(f.g, 4);

    (void)state;
    y = op_concat(f.g, op_maxpool2(f.g, a), b);
    finish(&f, op_add(f.g, y, op_scale(f.g, op_concat(f.g, op_maxpool2(f.g, a), b), 2)), NULL);

    f = fixture_new();
    ids = graph_ints(f.g, 4);
    memcpy(ids, (int[]){2, 0, 2, 1}, 4 * sizeof(int));
    rows = op_embedding(f.g, leaf(&f, "table", shape2(3, 8)), ids, 4, 2);
    finish(&f, op_linear(f.g, rows, leaf(&f, "w", shape2(3, 4)), NULL, NULL), NULL);
}

static void test_concat_in_place(void **state)
{
    /* as in a UNet: what is joined is computed inside the concat, and one half is pooled as well */
    Fixture f = fixture_new();
    Node *a = op_sublayer(f.g, leaf(&f, "x", shape4(2, 4, 6, 3)), leaf(&f, "gamma", shape1(3)),
                          leaf(&f, "beta", shape1(3)), leaf(&f, "w1", shape2(5, 3)), leaf(&f, "b1", shape1(5)),
                          leaf(&f, "w2", shape2(3, 5)), leaf(&f, "b2", shape1(3)), ACT_SILU, true, (real)1e-5);
    Node *b =
        op_conv_transpose2x2(f.g, op_maxpool2(f.g, a), leaf(&f, "wt", shape4(3, 2, 2, 4)), leaf(&f, "bt", shape1(4)));
    (void)state;
    finish(&f, op_linear(f.g, op_concat(f.g, a, b), leaf(&f, "w", shape2(6, 7)), NULL, NULL), NULL);
}

static void test_l1_loss(void **state)
{
    Fixture f = fixture_new();
    Node *x = leaf(&f, "x", shape2(5, 9)), *target = op_input(f.g, shape2(5, 9));
    Node *loss = op_loss(f.g, op_linear(f.g, x, leaf(&f, "w", shape2(9, 9)), NULL, NULL), target, true, 0.7);

    (void)state;
    check_ok(param_seal(f.store, 7, &f.err), f.err);
    check_ok(graph_plan(f.g, loss, 0, false, &f.err), f.err);
    begin_with_nan(f.g, f.store);
    fill_random(target->val.data, target->val.numel, 3, 1);
    check_gradients(&(Checked){.g = f.g}, f.store, 40, 1e-6, 1e-6, NULL);
    graph_free(f.g);
    param_store_free(f.store);
}

static void test_cross_entropy(void **state)
{
    Fixture f = fixture_new();
    Node *x = leaf(&f, "x", shape2(6, 9));
    int *labels = graph_ints(f.g, 6);
    Node *logits = op_linear(f.g, x, leaf(&f, "w", shape2(5, 9)), leaf(&f, "b", shape1(5)), NULL);
    Node *loss = op_cross_entropy(f.g, logits, labels, 0.7);

    (void)state;
    for (int i = 0; i < 6; i++)
        labels[i] = (i * 3) % 5;
    check_ok(param_seal(f.store, 7, &f.err), f.err);
    check_ok(graph_plan(f.g, loss, 0, false, &f.err), f.err);
    begin_with_nan(f.g, f.store);
    f.g->poison = true;
    check_gradients(&(Checked){.g = f.g}, f.store, 40, 1e-6, 1e-6, NULL);
    labels[0] = labels[1]; /* they are read anew each time */
    check_gradients(&(Checked){.g = f.g}, f.store, 40, 1e-6, 1e-6, NULL);
    labels[2] = 5;
    graph_forward(f.g);
    assert_true(isnan(f.g->loss_value));
    graph_free(f.g);
    param_store_free(f.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv3x3),
        cmocka_unit_test(test_conv_transpose2x2),
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_linear_chain_accumulates),
        cmocka_unit_test(test_group_norm),
        cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_sublayer),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_pool_concat_embedding),
        cmocka_unit_test(test_concat_in_place),
        cmocka_unit_test(test_l1_loss),
        cmocka_unit_test(test_cross_entropy),
    };
    return run_on_both(tests, NULL);
}
