/* Every operation, forward and backward, against PyTorch (tests/golden/ops.safetensors), with every backend.
 * Images are turned from NCHW to NHWC here; filters go through param_import and param_export. */
#include "golden_util.h"

#include "sdlora/ops.h"

static const double tol = 1e-5; /* of the largest value: sums of up to 250 terms in float, Winograd included */

/* ---- <y, dy>, so that dy enters backward as it is ---- */

static void dot_fwd(Node *n, const Graph *g)
{
    double sum = 0;
    (void)g;
    for (size_t i = 0; i < n->in[0]->val.numel; i++)
        sum += (double)n->in[0]->val.data[i] * (double)n->in[1]->val.data[i];
    *(double *)n->aux[0] = sum;
}

static void dot_bwd(Node *n, const Graph *g)
{
    (void)g;
    memcpy(n->in[0]->grad.data, n->in[1]->val.data, n->in[0]->val.numel * sizeof(real));
}

static const OpDef op_dot_def = {.name = "dot", .fwd = dot_fwd, .bwd = dot_bwd};

static Node *op_dot(Graph *g, Node *y, Node *dy)
{
    Node *n = graph_add(g, &op_dot_def, shape1(1), (Node *[]){y, dy}, 2);
    if (n) {
        n->saves = SAVE_IN(1);
        n->aux_bytes[0] = sizeof(double);
    }
    return n;
}

/* ---- one case: an op of the file, its inputs as parameters of a store ---- */

typedef struct Case {
    StFile *f;
    const char *op;
    ParamStore *s;
    Graph *g;
    Err err;
    bool image[16]; /* of parameter i: NCHW in the file */
} Case;

static Case case_new(const char *op, const Backend *be)
{
    Case c = {.op = op};

    c.f = golden_open("ops");
    c.s = param_store_new(true, &c.err);
    check_ptr(c.s, c.err);
    c.g = graph_new(be, true, &c.err);
    check_ptr(c.g, c.err);
    return c;
}

static char *key(const Case *c, const char *leaf)
{
    static char name[2 * PARAM_NAME_MAX];
    snprintf(name, sizeof name, "%s.%s", c->op, leaf);
    return name;
}

static Node *leaf_of(Case *c, const char *leaf, ParamLayout layout, Shape shape, bool image)
{
    Param want = {.kind = PARAM_WEIGHT, .layout = layout, .file_shape = shape}, *p;

    snprintf(want.name, sizeof want.name, "%s", leaf);
    p = param_get(c->s, &want, &c->err);
    check_ptr(p, c->err);
    c->image[c->s->count - 1] = image;
    return op_param(c->g, p);
}

static Node *plain(Case *c, const char *leaf)
{
    return leaf_of(c, leaf, LAYOUT_PLAIN, golden_shape(golden_tensor(c->f, key(c, leaf))), false);
}

static Node *filter(Case *c, const char *leaf, ParamLayout layout)
{
    return leaf_of(c, leaf, layout, golden_shape(golden_tensor(c->f, key(c, leaf))), false);
}

static Node *image(Case *c, const char *leaf)
{
    Shape s = golden_shape(golden_tensor(c->f, key(c, leaf)));
    return leaf_of(c, leaf, LAYOUT_PLAIN, shape4(s.d[0], s.d[2], s.d[3], s.d[1]), true);
}

/* The tensor OP.leaf, as NHWC where it is an image like s. */
static float *wanted(const Case *c, const char *leaf, Shape s, bool turn)
{
    float *x = golden_f32(c->f, key(c, leaf));
    if (turn)
        swap_layout(x, s.d[0], s.d[3], s.d[1] * s.d[2]);
    return x;
}

static void fill(Case *c)
{
    for (int i = 0; i < c->s->count; i++) {
        const Param *p = c->s->items[i];
        float *x;
        if (p->kind != PARAM_WEIGHT)
            continue;
        x = wanted(c, p->name, p->shape, c->image[i]);
        param_import(c->s->values, p, x);
        free(x);
    }
}

static void check_grads(const Case *c)
{
    for (int i = 0; i < c->s->count; i++) {
        const Param *p = c->s->items[i];
        char leaf[PARAM_NAME_MAX + 8];
        float *want, *got;
        if (p->kind != PARAM_WEIGHT)
            continue;
        snprintf(leaf, sizeof leaf, "d%s", p->name);
        want = wanted(c, leaf, p->shape, c->image[i]);
        got = calloc(p->numel, sizeof *got);
        param_export(got, p, c->s->grads);
        check_array(got, want, p->numel, 0, tol, key(c, leaf));
        free(want);
        free(got);
    }
}

static void case_free(Case *c)
{
    graph_free(c->g);
    param_store_free(c->s);
    st_close(c->f);
}

/* Plan; fill; `setup` the buffers; compare y and the gradients. Does not free. */
static void run(Case *c, Node *y, void (*setup)(Case *))
{
    Node *dy = y ? op_input(c->g, y->val.shape) : NULL;
    bool turn = y && y->val.shape.nd == 4 && golden_tensor(c->f, key(c, "y"))->nd == 4;
    float *want;

    graph_keep(y);
    check_ok(param_seal(c->s, 1, &c->err), c->err);
    check_ok(graph_plan(c->g, op_dot(c->g, y, dy), 0, false, &c->err), c->err);
    c->g->poison = true;
    fill(c);
    if (setup)
        setup(c);
    want = wanted(c, "dy", y->val.shape, turn);
    memcpy(dy->val.data, want, dy->val.numel * sizeof(float));
    free(want);
    graph_forward(c->g);
    want = wanted(c, "y", y->val.shape, turn);
    check_array(y->val.data, want, y->val.numel, 0, tol, key(c, "y"));
    free(want);
    graph_backward(c->g);
    check_grads(c);
}

static void finish(Case *c, Node *y)
{
    run(c, y, NULL);
    case_free(c);
}

/* The backends that this CPU can run, the reference among them; NULL after the last. */
static const Backend *const *backends(void)
{
    static const Backend *list[8];
    int n = 0;

    while (n < 7 && (list[n] = backend_at(PRECISION_FP32, n)))
        n++;
    assert_true(n > 1);
    assert_string_equal(list[n - 1]->name, "ref");
    return list;
}

static void test_conv3x3(void **state)
{
    static const char *const names[] = {"conv3x3", "conv3x3_c1", "conv3x3_12", "conv3x3_6", "conv3x3_3"};
    (void)state;
    for (const Backend *const *be = backends(); *be; be++)
        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
            for (int algo = CONV_AUTO; algo <= CONV_WINOGRAD; algo++) {
                Case c = case_new(names[i], *be);
                Node *x = image(&c, "x"), *w = filter(&c, "w", LAYOUT_CONV);
                finish(&c, op_conv3x3(c.g, x, w, plain(&c, "b"), (ConvAlgo)algo));
            }
}

static void test_linear_layers(void **state)
{
    (void)state;
    for (const Backend *const *be = backends(); *be; be++) {
        Case c = case_new("conv1x1", *be);
        Node *x = image(&c, "x"), *w = filter(&c, "w", LAYOUT_CONV1);
        finish(&c, op_linear(c.g, x, w, plain(&c, "b"), NULL));

        c = case_new("convt2x2", *be);
        x = image(&c, "x");
        w = filter(&c, "w", LAYOUT_CONVT2);
        finish(&c, op_conv_transpose2x2(c.g, x, w, plain(&c, "b")));

        c = case_new("linear", *be); /* seven images of one row, then one of seven */
        x = plain(&c, "x");
        w = plain(&c, "w");
        finish(&c, op_linear(c.g, x, w, plain(&c, "b"), NULL));
        c = case_new("linear", *be);
        x = leaf_of(&c, "x", LAYOUT_PLAIN, shape3(1, 7, 5), false);
        w = plain(&c, "w");
        finish(&c, op_linear(c.g, x, w, plain(&c, "b"), NULL));
    }
}

static void test_group_norm(void **state)
{
    static const char *const names[] = {"group_norm", "group_norm_silu", "group_norm_fused"};
    (void)state;
    for (const Backend *const *be = backends(); *be; be++)
        for (int i = 0; i < 3; i++) {
            Case c = case_new(names[i], *be);
            Node *x = image(&c, "x"), *gamma = plain(&c, "gamma"), *beta = plain(&c, "beta");
            Node *temb = i == 2 ? plain(&c, "temb") : NULL, *res = i == 2 ? image(&c, "res") : NULL;
            finish(&c, op_group_norm(c.g, x, gamma, beta, temb, res, 4, i ? ACT_SILU : ACT_NONE, (real)1e-5));
        }
}

/* "batch_norm" of "batch_norm.train" */
static char *statistic(const Case *c, const char *leaf)
{
    static char name[128];
    snprintf(name, sizeof name, "%.*s.%s", (int)strcspn(c->op, "."), c->op, leaf);
    return name;
}

static void set_statistics(Case *c)
{
    static const char *const names[] = {"running_mean", "running_var"};
    for (int i = 0; i < 2; i++) {
        float *x = golden_f32(c->f, statistic(c, names[i]));
        param_import(c->s->values, param_find(c->s, names[i]), x);
        free(x);
    }
}

static void batch_norm_case(const char *op, const Backend *be, bool train, Act act)
{
    static const char *const after[2][2] = {{"running_mean", "running_var"}, {"new_running_mean", "new_running_var"}};
    Case c = case_new(op, be);
    Node *x = image(&c, "x"), *gamma = plain(&c, "gamma"), *beta = plain(&c, "beta");
    Param want = {.name = "running_mean", .kind = PARAM_BUFFER, .file_shape = shape1(4)}, *mean, *var, *batches;

    mean = param_get(c.s, &want, &c.err);
    strcpy(want.name, "running_var");
    var = param_get(c.s, &want, &c.err);
    want = (Param){.name = "batches", .kind = PARAM_COUNTER, .file_shape = shape_make(0, NULL)};
    batches = param_get(c.s, &want, &c.err);
    c.g->frozen_stats = !train;
    run(&c, op_batch_norm(c.g, x, gamma, beta, NULL, NULL, mean, var, batches, (real)0.1, act, (real)1e-5),
        set_statistics);
    for (int i = 0; i < 2; i++) {
        float *stat = golden_f32(c.f, statistic(&c, after[train][i]));
        check_array((i ? var : mean)->value, stat, 4, 0, tol, after[train][i]);
        free(stat);
    }
    assert_int_equal(batches->counter, train);
    case_free(&c);
}

static void test_batch_norm(void **state)
{
    (void)state;
    for (const Backend *const *be = backends(); *be; be++) {
        batch_norm_case("batch_norm.train", *be, true, ACT_NONE);
        batch_norm_case("batch_norm.eval", *be, false, ACT_NONE);
        batch_norm_case("batch_norm_relu.train", *be, true, ACT_RELU);
        batch_norm_case("batch_norm_relu.eval", *be, false, ACT_RELU);
    }
}

static void sublayer_case(const char *op, const Backend *be, bool attention, Act act, bool pre_norm)
{
    Case c = case_new(op, be);
    Node *x = image(&c, "x"), *gamma = plain(&c, "gamma"), *beta = plain(&c, "beta");
    Node *w1 = plain(&c, "w1"), *b1 = plain(&c, "b1"), *w2 = plain(&c, "w2"), *b2 = plain(&c, "b2");
    if (attention) { /* from the weights of queries and output, as nn_attention does */
        Node *k = op_scale(c.g, plain(&c, "k"), 1 / (real)sqrt(5)), *v = plain(&c, "v");
        w1 = op_linear(c.g, k, op_transpose(c.g, w1), NULL, NULL);
        b1 = op_linear(c.g, k, op_reshape(c.g, b1, shape2(1, 5)), NULL, NULL);
        w2 = op_linear(c.g, v, w2, NULL, NULL);
    }
    finish(&c, op_sublayer(c.g, x, gamma, beta, w1, b1, w2, b2, act, pre_norm, (real)1e-5));
}

static void test_sublayer(void **state)
{
    (void)state;
    for (const Backend *const *be = backends(); *be; be++) {
        sublayer_case("attention_pre", *be, true, ACT_NONE, true);
        sublayer_case("attention_post", *be, true, ACT_NONE, false);
        sublayer_case("feed_forward_silu_pre", *be, false, ACT_SILU, true);
        sublayer_case("feed_forward_silu_post", *be, false, ACT_SILU, false);
        sublayer_case("feed_forward_relu_pre", *be, false, ACT_RELU, true);
        sublayer_case("feed_forward_relu_post", *be, false, ACT_RELU, false);
    }
}

static void test_maxpool_and_activations(void **state)
{
    (void)state;
    for (const Backend *const *be = backends(); *be; be++) {
        Case c = case_new("maxpool", *be);
        finish(&c, op_maxpool2(c.g, image(&c, "x")));
        c = case_new("silu", *be);
        finish(&c, op_act(c.g, plain(&c, "x"), ACT_SILU));
        c = case_new("relu", *be);
        finish(&c, op_act(c.g, plain(&c, "x"), ACT_RELU));
    }
}

static void loss_case(const char *op, const Backend *be, bool l1)
{
    Case c = case_new(op, be);
    Node *x = plain(&c, "x"), *target = op_input(c.g, x->val.shape);
    double numel = (double)x->val.numel;
    float *t = golden_f32(c.f, key(&c, "target"));

    check_ok(param_seal(c.s, 1, &c.err), c.err);
    check_ok(graph_plan(c.g, op_loss(c.g, x, target, l1, 1 / numel), 0, false, &c.err), c.err);
    fill(&c);
    memcpy(target->val.data, t, target->val.numel * sizeof *t);
    graph_forward(c.g);
    check_close(c.g->loss_value, golden_f64(c.f, key(&c, "loss"), 0), 0, 1e-6, op);
    graph_backward(c.g);
    check_grads(&c);
    free(t);
    case_free(&c);
}

static void test_losses(void **state)
{
    (void)state;
    for (const Backend *const *be = backends(); *be; be++) {
        loss_case("l1", *be, true);
        loss_case("l2", *be, false);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv3x3),    cmocka_unit_test(test_linear_layers),
        cmocka_unit_test(test_group_norm), cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_sublayer),   cmocka_unit_test(test_maxpool_and_activations),
        cmocka_unit_test(test_losses),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
