/* Inputs of a concat that are computed inside it (graph.h, Concat): which ones the plan puts there, and that it changes
 * no byte of values and gradients beside a plain plan. */
#include "gradcheck.h"

enum { N = 2, SIDE = 4, CA = 3, CB = 5, OUT = N * SIDE * SIDE * 2 };

/* a: a sublayer, which is pooled as well; b: a transposed convolution; both are joined. And what may stand in the way.
 */
typedef enum Kind {
    AS_IN_UNET,
    A_KEPT,          /* a reader from outside wants its rows one after the other */
    A_READ_BY_OTHER, /* so does an op that does not heed rows */
    B_IN_PLACE,      /* b's maker does not heed rows; it takes the place of the convolution's output */
    B_INPUT,         /* nor do leaves: they have no maker */
    A_TWICE,         /* both halves are a */
    TWO_CONCATS,     /* a and b in another order once more: they lie in the first */
    NESTED,          /* the concat is joined with b again */
    OVERWRITTEN,     /* the joined value is changed in place */
    KINDS
} Kind;

static const struct {
    bool a, b; /* inside? */
} inside[KINDS] = {[AS_IN_UNET] = {true, true},  [A_KEPT] = {false, true},  [A_READ_BY_OTHER] = {false, true},
                   [B_IN_PLACE] = {true, false}, [B_INPUT] = {true, false}, [A_TWICE] = {false, false},
                   [TWO_CONCATS] = {true, true}, [NESTED] = {true, true},   [OVERWRITTEN] = {true, true}};

typedef struct Net {
    Fixture f;
    Node *a, *b, *joined, *out, *x, *input, *target;
} Net;

static Node *sublayer(Net *net, Node *x, const char *name, int c)
{
    static const char *const parts[] = {"gamma", "beta", "w1", "b1", "w2", "b2"};
    const Shape shapes[] = {shape1(c), shape1(c), shape2(4, c), shape1(4), shape2(c, 4), shape1(c)};
    Node *w[6];
    for (int i = 0; i < 6; i++) {
        char full[32];
        snprintf(full, sizeof full, "%s.%s", name, parts[i]);
        w[i] = leaf(&net->f, full, shapes[i]);
    }
    return op_sublayer(net->f.g, x, w[0], w[1], w[2], w[3], w[4], w[5], ACT_SILU, true, (real)1e-5);
}

static Net build(Kind kind, bool train)
{
    Net net = {.f = fixture_new()};
    Graph *g = net.f.g;
    Shape image = shape4(N, SIDE, SIDE, CA);
    Node *x, *conv, *y;

    g->train = train;
    x = net.x = train ? leaf(&net.f, "x", image) : op_input(g, image); /* outside training parameters would be fixed */
    net.a = sublayer(&net, op_act(g, sublayer(&net, x, "first", CA), ACT_SILU), "second", CA);
    y = op_maxpool2(g, net.a);
    conv = net.b = op_conv_transpose2x2(g, y, leaf(&net.f, "wt", shape4(CA, 2, 2, CB)), leaf(&net.f, "bt", shape1(CB)));
    if (kind == B_IN_PLACE)
        net.b = op_act(g, net.b, ACT_SILU);
    if (kind == B_INPUT)
        net.b = net.input = op_input(g, shape4(N, SIDE, SIDE, CB));
    if (kind == A_KEPT)
        graph_keep(net.a);
    y = net.joined = op_concat(g, net.a, kind == A_TWICE ? net.a : net.b);
    if (kind == B_INPUT || kind == A_TWICE) /* the convolution is to be of use */
        y = op_concat(g, y, conv);
    if (kind == TWO_CONCATS)
        y = op_concat(g, y, op_scale(g, op_concat(g, net.b, net.a), (real)0.4));
    if (kind == A_READ_BY_OTHER)
        y = op_concat(g, y, op_scale(g, net.a, 2));
    if (kind == NESTED)
        y = op_concat(g, y, net.b);
    if (kind == OVERWRITTEN)
        y = op_act(g, y, ACT_SILU);
    net.out = op_linear(g, y, leaf(&net.f, "w", shape2(2, y ? y->val.shape.d[3] : 0)), NULL, NULL);
    graph_keep(net.out);
    net.target = train ? op_input(g, shape4(N, SIDE, SIDE, 2)) : NULL;
    check_ok(param_seal(net.f.store, 7, &net.f.err), net.f.err);
    return net;
}

static void check_place(const Net *net, const Node *n, bool wanted, size_t channels_before)
{
    const size_t width = (size_t)n->val.shape.d[3], all = (size_t)net->joined->val.shape.d[3];
    assert_int_equal(n->val.data == net->joined->val.data + channels_before, wanted);
    assert_int_equal(n->val.row, wanted ? all : width);
    assert_int_equal(net->joined->val.row, all);
}

/* What came out, then all gradients: two passes, so that the second meets what the first left. */
static real *run(Kind kind, bool train, bool plain, bool poison, size_t *slab, size_t *len)
{
    Net net = build(kind, train);
    Graph *g = net.f.g;
    ParamStore *s = net.f.store;
    Node *loss = train ? op_loss(g, net.out, net.target, false, 0.5) : NULL;
    real *result;

    check_ok(graph_plan(g, loss, 0, plain, &net.f.err), net.f.err);
    g->poison = poison;
    check_place(&net, net.a, inside[kind].a && !plain, 0);
    if (kind != A_TWICE)
        check_place(&net, net.b, inside[kind].b && !plain, CA);
    if (train) {
        fill_random(net.target->val.data, net.target->val.numel, 9, 1);
        memset(s->grads, 0xff, s->n_weights * sizeof(real));
    }
    if (!train)
        fill_random(net.x->val.data, net.x->val.numel, 8, 1);
    if (net.input)
        fill_random(net.input->val.data, net.input->val.numel, 10, 1);
    for (int pass = 0; pass < 2; pass++) {
        graph_forward(g);
        if (train)
            graph_backward(g);
    }
    *slab = g->slab_bytes;
    *len = OUT + (train ? s->n_weights : 0);
    result = malloc(*len * sizeof(real));
    memcpy(result, net.out->val.data, OUT * sizeof(real));
    if (train)
        memcpy(result + OUT, s->grads, s->n_weights * sizeof(real));
    graph_free(g);
    param_store_free(s);
    return result;
}

static void all_kinds(bool train)
{
    for (Kind kind = 0; kind < KINDS; kind++) {
        size_t slab, plain_slab, other, len;
        real *want = run(kind, train, true, false, &plain_slab, &len);
        for (size_t i = 0; i < len; i++)
            if (!isfinite((double)want[i]))
                fail_msg("kind %d: number %zu is %g", (int)kind, i, (double)want[i]);
        for (int poison = 0; poison < 2; poison++) {
            real *got = run(kind, train, false, poison, &slab, &other);
            assert_int_equal(other, len);
            if (memcmp(got, want, len * sizeof(real)) != 0)
                fail_msg("kind %d: not the bytes of a plain plan%s", (int)kind, poison ? ", poisoned" : "");
            assert_true(slab < plain_slab);
            free(got);
        }
        free(want);
    }
}

static void test_inference(void **state)
{
    (void)state;
    all_kinds(false);
}

static void test_training(void **state)
{
    (void)state;
    all_kinds(true);
}

/* The joined value alone holds all three: one place, alive from the first input on. */
static void test_one_place(void **state)
{
    Net net = build(AS_IN_UNET, false);
    Graph *g = net.f.g;
    int found = 0;

    (void)state;
    check_ok(graph_plan(g, NULL, 0, false, &net.f.err), net.f.err);
    for (int i = 0; i < g->n_items; i++) {
        const PlanItem *it = &g->items[i];
        if ((const char *)g->slab + it->offset != (const char *)net.joined->val.data || it->start > net.joined->index ||
            it->end < net.joined->index)
            continue;
        found++;
        assert_int_equal(it->start, net.a->index);
        assert_int_equal(it->end, net.out->index);
    }
    assert_int_equal(found, 1);
    graph_free(g);
    param_store_free(net.f.store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inference),
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_one_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
