/* Where ops meet, against central differences, in double, with the default backend and with the
 * reference: weights and biases each of their own, filters and factors that are
 * computed, a node that an op is given twice. */
#include "gradcheck.h"

enum { N = 2, SIDE = 5 };

/* The kinds of layer that have a weight and a bias: x (N,SIDE,SIDE,c) -> k channels. */
typedef enum Layer { CONV3_AUTO, CONV3_IM2COL, CONV3_WINOGRAD, CONV1, CONVT, LAYERS } Layer;

static Shape weight_shape(Layer l, int c, int k)
{
    return l == CONV1 ? shape2(k, c) : l == CONVT ? shape4(c, 2, 2, k) : shape4(3, 3, c, k);
}

static Node *layer(Graph *g, Layer l, Node *x, Node *w, Node *b)
{
    if (l == CONV1)
        return op_linear(g, x, w, b, NULL);
    return l == CONVT ? op_conv_transpose2x2(g, x, w, b) : op_conv3x3(g, x, w, b, (ConvAlgo)(l - CONV3_AUTO));
}

/* Few channels and whole vectors of them; one input channel; images of 3x3 and less take yet another path. */
static const int sizes[][3] = {/* side c k */ {SIDE, 3, 4}, {SIDE, 16, 16}, {SIDE, 1, 8}, {3, 16, 16}};

static void each_layer(void (*test)(Fixture *f, Layer l, Node *x, int c, int k))
{
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const int *s = sizes[i];
            Fixture f = fixture_new();
            test(&f, (Layer)l, leaf(&f, "x", shape4(N, s[0], s[0], s[1])), s[1], s[2]);
        }
}

static void frozen_weight(Fixture *f, Layer l, Node *x, int c, int k)
{
    finish(f, layer(f->g, l, x, frozen(f, "w", weight_shape(l, c, k)), leaf(f, "b", shape1(k))), NULL);
}

static void frozen_bias(Fixture *f, Layer l, Node *x, int c, int k)
{
    finish(f, layer(f->g, l, x, leaf(f, "w", weight_shape(l, c, k)), frozen(f, "b", shape1(k))), NULL);
}

/* Only a bias is trained. */
static void bias_alone(Fixture *f, Layer l, Node *x, int c, int k)
{
    Node *data = op_scale(f->g, frozen(f, "data", x->val.shape), 1);
    finish(f,
           op_add(f->g, layer(f->g, l, data, frozen(f, "w", weight_shape(l, c, k)), leaf(f, "b", shape1(k))),
                  layer(f->g, l, x, frozen(f, "v", weight_shape(l, c, k)), NULL)),
           NULL);
}

/* One weight for two layers with a bias each, and one bias for two layers with a weight each. */
static void shared(Fixture *f, Layer l, Node *x, int c, int k)
{
    Node *w = leaf(f, "w", weight_shape(l, c, k)), *v = leaf(f, "v", weight_shape(l, c, k));
    Node *b = leaf(f, "b", shape1(k)), *d = leaf(f, "d", shape1(k)), *y;
    y = op_act(f->g, layer(f->g, l, x, w, b), ACT_SILU);
    y = op_add(f->g, y, op_act(f->g, layer(f->g, l, op_scale(f->g, x, 2), w, d), ACT_SILU));
    finish(f, op_add(f->g, y, op_act(f->g, layer(f->g, l, x, v, d), ACT_SILU)), NULL);
}

static void test_frozen_weight(void **state)
{
    (void)state;
    each_layer(frozen_weight);
    each_layer(bias_alone);
}

static void test_frozen_bias(void **state)
{
    (void)state;
    each_layer(frozen_bias);
}

static void test_shared(void **state)
{
    (void)state;
    each_layer(shared);
}

/* w = w0 + u v */
static Node *computed(Fixture *f, const char *name, Shape s)
{
    const int width = shape_width(s), rows = (int)shape_numel(s) / width;
    char text[3][32];
    for (int i = 0; i < 3; i++)
        snprintf(text[i], sizeof text[i], "%s.%d", name, i);
    Node *w = op_reshape(f->g, leaf(f, text[0], s), shape2(rows, width));
    w = op_linear(f->g, leaf(f, text[1], shape2(rows, 2)), leaf(f, text[2], shape2(width, 2)), NULL, w);
    return op_reshape(f->g, w, s);
}

static void computed_filter(Fixture *f, Layer l, Node *x, int c, int k)
{
    finish(f, layer(f->g, l, x, computed(f, "w", weight_shape(l, c, k)), computed(f, "b", shape1(k))), NULL);
}

/* Nothing else wants the filter: it must live for the gradient of x alone. */
static void computed_frozen_filter(Fixture *f, Layer l, Node *x, int c, int k)
{
    Node *w = op_scale(f->g, frozen(f, "w", weight_shape(l, c, k)), (real)0.7);
    finish(f, op_act(f->g, layer(f->g, l, op_act(f->g, x, ACT_SILU), w, NULL), ACT_SILU), NULL);
}

static void test_computed_filters(void **state)
{
    (void)state;
    each_layer(computed_filter);
    each_layer(computed_frozen_filter);
}

/* y = factor * want, to the bit: factors are powers of two */
static void check_times(const Node *y, const real *want, double factor)
{
    for (size_t i = 0; i < y->val.numel; i++)
        assert_true((double)y->val.data[i] == factor * (double)want[i]);
}

static void fill_times(Node *to, const Param *p, double factor)
{
    for (size_t i = 0; i < p->numel; i++)
        to->val.data[i] = (real)(factor * (double)p->value[i]);
}

/* Outside training: a filter that is an input may be another one in every forward; one that follows from parameters is
 * made again when they change. */
static void filters_outside_training(Layer l, int side, int c, int k)
{
    Fixture f = fixture_new();
    Graph *g = f.g;
    g->train = false;
    Node *x = op_input(g, shape4(N, side, side, c)), *given = op_input(g, weight_shape(l, c, k));
    Node *w = frozen(&f, "w", weight_shape(l, c, k));
    Node *y = layer(g, l, x, given, NULL), *follows = layer(g, l, x, op_scale(g, w, (real)0.5), NULL);
    graph_keep(y);
    graph_keep(follows);
    check_ok(param_seal(f.store, 7, &f.err), f.err);
    check_ok(graph_plan(g, NULL, 0, false, &f.err), f.err);
    begin_with_nan(g, f.store);
    g->poison = true;
    fill_random(x->val.data, x->val.numel, 3, 1);
    fill_times(given, w->param, 1);
    graph_forward(g);
    real *want = calloc(y->val.numel, sizeof(real));
    memcpy(want, y->val.data, y->val.numel * sizeof(real));
    assert_true(isfinite((double)want[0]) && want[0] != 0);
    check_times(follows, want, 0.5);
    fill_times(given, w->param, 4);
    graph_forward(g);
    check_times(y, want, 4);
    check_times(follows, want, 0.5);
    for (size_t i = 0; i < w->param->numel; i++)
        w->param->value[i] *= 4;
    graph_weights_changed(g);
    graph_forward(g);
    check_times(y, want, 4);
    check_times(follows, want, 2);
    free(want);
    graph_free(g);
    param_store_free(f.store);
}

static void test_filters_outside_training(void **state)
{
    (void)state;
    for (int l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            filters_outside_training((Layer)l, sizes[i][0], sizes[i][1], sizes[i][2]);
}

/* groups 0: batch normalisation */
static Node *norm(Fixture *f, Node *x, Node *gamma, Node *beta, Node *temb, Node *res, int groups)
{
    const Shape c = shape1(shape_width(x->val.shape));
    Param mean = {.name = "mean", .kind = PARAM_BUFFER, .init = INIT_CONST, .file_shape = c};
    Param var = {.name = "var", .kind = PARAM_BUFFER, .init = INIT_CONST, .init_arg = 1.5, .file_shape = c};
    Param count = {.name = "count", .kind = PARAM_COUNTER, .file_shape = shape_make(0, NULL)};

    if (groups)
        return op_group_norm(f->g, x, gamma, beta, temb, res, groups, ACT_SILU, (real)1e-5);
    return op_batch_norm(f->g, x, gamma, beta, temb, res, param_get(f->store, &mean, &f->err),
                         param_get(f->store, &var, &f->err), param_get(f->store, &count, &f->err), (real)0.1, ACT_SILU,
                         (real)1e-5);
}

static void test_norms(void **state)
{
    const Shape s = shape4(3, 3, 4, 6), c = shape1(6);
    (void)state;
    for (int groups = 0; groups <= 2; groups += 2) {
        Fixture f = fixture_new();
        finish(&f, norm(&f, leaf(&f, "x", s), computed(&f, "gamma", c), computed(&f, "beta", c), NULL, NULL, groups),
               NULL);
        f = fixture_new();
        finish(&f,
               norm(&f, leaf(&f, "x", s), op_scale(f.g, frozen(&f, "gamma", c), 2), leaf(&f, "beta", c), NULL, NULL,
                    groups),
               NULL);
        f = fixture_new();
        finish(&f,
               norm(&f, leaf(&f, "x", s), leaf(&f, "gamma", c), op_scale(f.g, frozen(&f, "beta", c), 2), NULL, NULL,
                    groups),
               NULL);
        /* gamma serves twice, each time with another beta */
        f = fixture_new();
        Node *x = leaf(&f, "x", s), *gamma = leaf(&f, "gamma", c), *other = leaf(&f, "other", c);
        finish(&f,
               op_add(f.g, norm(&f, x, gamma, leaf(&f, "beta", c), NULL, NULL, groups),
                      op_group_norm(f.g, x, gamma, other, NULL, NULL, 3, ACT_RELU, (real)1e-5)),
               NULL);
    }
}

static void test_sublayer_frozen(void **state)
{
    static const char *const names[SUB_INPUTS] = {"x", "gamma", "beta", "w1", "b1", "w2", "b2"};
    (void)state;
    for (int trained = 0; trained < SUB_INPUTS; trained++) /* this one alone */
        for (int tokens = 0; tokens <= 3; tokens += 3) {
            const Shape own[] = {shape3(N, 3, 6), shape3(N, 3, 1), shape3(N, 3, 6)};
            const Shape same[] = {shape2(4, 6), shape1(4), shape2(6, 4)}, *w = tokens ? own : same;
            const Shape shapes[] = {shape4(N, 3, 3, 6), shape1(6), shape1(6), w[0], w[1], w[2], shape1(6)};
            Fixture f = fixture_new();
            Node *in[SUB_INPUTS];
            for (int i = 0; i < SUB_INPUTS; i++)
                in[i] =
                    i == trained ? leaf(&f, names[i], shapes[i]) : op_scale(f.g, frozen(&f, names[i], shapes[i]), 1);
            finish(&f, op_sublayer(f.g, in[0], in[1], in[2], in[3], in[4], in[5], in[6], ACT_SILU, true, (real)1e-5),
                   NULL);
        }
}

static void test_given_twice(void **state)
{
    const Shape s = shape4(3, 3, 4, 6);
    (void)state;
    for (int groups = 0; groups <= 2; groups += 2) {
        Fixture f = fixture_new();
        Node *x = leaf(&f, "x", s), *gamma = leaf(&f, "gamma", shape1(6));
        finish(&f, norm(&f, x, gamma, gamma, NULL, x, groups), NULL);
    }
    Fixture f = fixture_new();
    Node *x = leaf(&f, "x", shape2(5, 5));
    finish(&f, op_add(f.g, op_linear(f.g, x, x, NULL, x), op_add(f.g, x, x)), NULL);
    f = fixture_new();
    x = leaf(&f, "x", shape4(2, 4, 4, 3));
    finish(&f, op_concat(f.g, x, x), NULL);
    f = fixture_new();
    x = leaf(&f, "x", shape4(3, 3, 3, 3));
    finish(&f, op_conv3x3(f.g, x, x, NULL, CONV_AUTO), NULL);
}

static void test_target_that_is_trained(void **state)
{
    Fixture f = fixture_new();
    (void)state;
    assert_null(op_loss(f.g, leaf(&f, "x", shape1(3)), leaf(&f, "y", shape1(3)), false, 1));
    assert_int_equal(f.g->err.code, ERR_USAGE);
    graph_free(f.g);
    param_store_free(f.store);
    f = fixture_new();
    assert_null(op_cross_entropy(f.g, leaf(&f, "x", shape3(2, 2, 3)), graph_ints(f.g, 2), 1));
    assert_int_equal(f.g->err.code, ERR_USAGE);
    graph_free(f.g);
    param_store_free(f.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frozen_weight),
        cmocka_unit_test(test_frozen_bias),
        cmocka_unit_test(test_shared),
        cmocka_unit_test(test_computed_filters),
        cmocka_unit_test(test_filters_outside_training),
        cmocka_unit_test(test_norms),
        cmocka_unit_test(test_sublayer_frozen),
        cmocka_unit_test(test_given_twice),
        cmocka_unit_test(test_target_that_is_trained),
    };
    return run_on_both(tests, NULL);
}
