/* A residual sublayer of a transformer block, as one operation: see backend.h. In: SUB_*. */
#include "sdlora/ops.h"

#include "sdlora/mem.h"

static size_t sublayer_scratch(const Node *n, const Graph *g)
{
    size_t fwd = g->be->sublayer_fwd_scratch(n->attr.sublayer, g->threads);
    size_t bwd = n->needs_grad ? g->be->sublayer_bwd_scratch(n->attr.sublayer, g->threads) : 0;
    return mem_max(fwd, bwd);
}

static void inputs_of(const real *in[SUB_INPUTS], const Node *n)
{
    for (int i = 0; i < SUB_INPUTS; i++)
        in[i] = node_val(n, i);
}

static void sublayer_fwd(Node *n, const Graph *g)
{
    const real *in[SUB_INPUTS];
    inputs_of(in, n);
    g->be->sublayer_fwd(n->val.data, n->val.row, in, n->attr.sublayer, g->scratch);
}

static void sublayer_bwd(Node *n, const Graph *g)
{
    const real *in[SUB_INPUTS];
    Grad d[SUB_INPUTS];

    inputs_of(in, n);
    for (int i = 0; i < SUB_INPUTS; i++)
        d[i] = node_grad(n, i);
    g->be->sublayer_bwd(d, n->grad.data, in, n->attr.sublayer, g->scratch);
}

static double sublayer_flops(const Node *n)
{
    SublayerShape s = n->attr.sublayer;
    return 4.0 * s.n * s.p * (double)s.c * s.f;
}

static const OpDef op_sublayer_def = {
    .name = "sublayer",
    .inplace = 1,
    .grad_over = 1,
    .heeds_row = SAVE_OUT,
    .scratch = sublayer_scratch,
    .fwd = sublayer_fwd,
    .bwd = sublayer_bwd,
    .again = sublayer_fwd,
    .flops = sublayer_flops,
};

static bool fits(const Node *n, Shape shape)
{
    return shape_equal(n->val.shape, shape);
}

Node *op_sublayer(Graph *g, Node *x, Node *gamma, Node *beta, Node *w1, Node *b1, Node *w2, Node *b2, Act act,
                  bool pre_norm, real eps)
{
    Node *n;
    Shape xs;
    SublayerShape s;
    bool own;

    if (!x || !gamma || !beta || !w1 || !b1 || !w2 || !b2)
        return NULL;
    xs = x->val.shape;
    if (xs.nd != 4 || w1->val.shape.nd < 2)
        return graph_fail(g, "sublayer: wants x (N,H,W,C) and w1 (F,C) or (N,T,C)");
    own = w1->val.shape.nd == 3;
    s = (SublayerShape){xs.d[0], xs.d[1] * xs.d[2], xs.d[3], w1->val.shape.d[own], own, act, pre_norm, eps};
    if (!fits(gamma, shape1(s.c)) || !fits(beta, shape1(s.c)) || !fits(b2, shape1(s.c)))
        return graph_fail(g, "sublayer: gamma, beta or b2 do not fit %d channels", s.c);
    if (own ? !fits(w1, shape3(s.n, s.f, s.c)) || !fits(b1, shape3(s.n, s.f, 1)) || !fits(w2, shape3(s.n, s.f, s.c))
            : !fits(w1, shape2(s.f, s.c)) || !fits(b1, shape1(s.f)) || !fits(w2, shape2(s.c, s.f)))
        return graph_fail(g, "sublayer: w1, b1, w2 do not fit %d images of %d channels, %d wide", s.n, s.c, s.f);
    n = graph_add(g, &op_sublayer_def, xs, (Node *[]){x, gamma, beta, w1, b1, w2, b2}, SUB_INPUTS);
    if (!n)
        return NULL;
    n->attr.sublayer = s;
    n->saves = SAVE_OUT - 1; /* all inputs */
    return n;
}
