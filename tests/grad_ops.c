/* Every op against central differences, in double. */
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
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int algo = CONV_AUTO; algo <= CONV_WINOGRAD; algo++) {
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

static void test_layer_norm(void **state)
{
    Fixture f = fixture_new();
    (void)state;
    finish(&f,
           op_layer_norm(f.g, leaf(&f, "x", shape4(2, 3, 5, 19)), leaf(&f, "gamma", shape1(19)),
                         leaf(&f, "beta", shape1(19)), (real)1e-5),
           NULL);
}

static void test_attention(void **state)
{
    static const int tokens[] = {2, 4, 7};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        Fixture f = fixture_new();
        finish(&f,
               op_attention(f.g, leaf(&f, "q", shape4(3, 4, 5, 6)), leaf(&f, "k", shape3(3, tokens[i], 6)),
                            leaf(&f, "v", shape3(3, tokens[i], 5))),
               NULL);
    }
}

static void test_attention_over_one_token_ignores_queries(void **state)
{
    /* softmax over one key is 1: the reference's w_q and w_k learn nothing */
    Fixture f = fixture_new();
    (void)state;
    finish(&f,
           op_attention(f.g, leaf(&f, "zero_q", shape4(2, 4, 5, 6)), leaf(&f, "zero_k", shape3(2, 1, 6)),
                        leaf(&f, "v", shape3(2, 1, 5))),
           "zero_*");
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

static void test_l1_loss(void **state)
{
    Fixture f = fixture_new();
    Node *x = leaf(&f, "x", shape2(5, 9)), *target = op_input(f.g, shape2(5, 9));
    Node *loss = op_loss(f.g, op_linear(f.g, x, leaf(&f, "w", shape2(9, 9)), NULL, NULL), target, true, 0.7);

    (void)state;
    check_ok(param_seal(f.store, 7, &f.err), f.err);
    check_ok(graph_plan(f.g, loss, 0, false, &f.err), f.err);
    fill_random(target->val.data, target->val.numel, 3, 1);
    check_gradients(f.g, f.store, 40, 1e-6, 1e-6, NULL);
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
        cmocka_unit_test(test_layer_norm),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_over_one_token_ignores_queries),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_pool_concat_embedding),
        cmocka_unit_test(test_l1_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
