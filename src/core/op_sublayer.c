/* A residual sublayer of a transformer block, as one operation: see backend.h. In: SUB_*. aux[0]: what forward keeps
 * for backward. */
#include "sdlora/ops.h"

static size_t sublayer_scratch(const Node *n, const Graph *g)
{
    size_t fwd = g->be->sublayer_fwd_scratch(n->attr.sublayer);
    size_t bwd = n->needs_grad ? g->be->sublayer_bwd_scratch(n->attr.sublayer) : 0;
    return fwd > bwd ? fwd : bwd;
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
    g->be->sublayer_fwd(n->val.data, n->aux[0], in, n->attr.sublayer, g->scratch);
}

static void sublayer_bwd(Node *n, const Graph *g)
{
    const real *in[SUB_INPUTS];
    real *d[SUB_INPUTS], betas[SUB_INPUTS];

    inputs_of(in, n);
    for (int i = 0; i < SUB_INPUTS; i++) {
        d[i] = node_grad(n, i);
        betas[i] = d[i] ? node_beta(n, i, g) : 0;
    }
    g->be->sublayer_bwd(d, betas, n->grad.data, n->aux[0], in, n->attr.sublayer, g->scratch);
}

static double sublayer_flops(const Node *n)
{
    SublayerShape s = n->attr.sublayer;
    return 2.0 * s.n * s.p * ((double)s.c + s.tokens) * (s.f1 + s.f2);
}

static const OpDef op_sublayer_def = {
    .name = "sublayer",
    .inplace = 1,
    .scratch = sublayer_scratch,
    .fwd = sublayer_fwd,
    .bwd = sublayer_bwd,
    .flops = sublayer_flops,
};

static bool is_vector(const Node *n, int len)
{
    return n->val.numel == (size_t)len;
}

static bool is_matrix(const Node *n, int rows, int cols)
{
    return n->val.shape.nd == 2 && n->val.shape.d[0] == rows && n->val.shape.d[1] == cols;
}

Node *op_sublayer(Graph *g, Node *x, Node *gamma, Node *beta, Node *w1, Node *b1, Node *w2, Node *b2, Node *k, Node *v,
                  Act act, bool pre_norm, real eps)
{
    Node *n;
    Shape xs;
    SublayerShape s;

    if (!x || !gamma || !beta || !w1 || !b1 || !w2 || !b2 || !k != !v)
        return NULL;
    xs = x->val.shape;
    if (xs.nd != 4 || w1->val.shape.nd != 2 || w2->val.shape.nd != 2)
        return graph_fail(g, "sublayer: wants x (N,H,W,C), w1 (F,C), w2 (C,F)");
    s = (SublayerShape){.n = xs.d[0],
                        .p = xs.d[1] * xs.d[2],
                        .c = xs.d[3],
                        .f1 = w1->val.shape.d[0],
                        .f2 = w2->val.shape.d[1],
                        .tokens = k ? k->val.shape.d[1] : 0,
                        .act = act,
                        .pre_norm = pre_norm,
                        .eps = eps};
    if (!is_vector(gamma, s.c) || !is_vector(beta, s.c) || !is_vector(b1, s.f1) || !is_vector(b2, s.c) ||
        !is_matrix(w1, s.f1, s.c) || !is_matrix(w2, s.c, s.f2))
        return graph_fail(g, "sublayer: gamma, beta, w1, b1, w2, b2 do not fit %d channels", s.c);
    if (k ? !shape_equal(k->val.shape, shape3(s.n, s.tokens, s.f1)) ||
                !shape_equal(v->val.shape, shape3(s.n, s.tokens, s.f2))
          : s.f1 != s.f2)
        return graph_fail(g, "sublayer: %d images, queries %d wide, values %d wide do not fit the keys and values", s.n,
                          s.f1, s.f2);
    n = graph_add(g, &op_sublayer_def, xs, (Node *[]){x, gamma, beta, w1, b1, w2, b2, k, v}, SUB_INPUTS);
    if (!n)
        return NULL;
    n->attr.sublayer = s;
    n->saves = SAVE_OUT - 1; /* all inputs */
    if (g->train && n->needs_grad)
        n->aux_bytes[0] = g->be->sublayer_kept(s) * sizeof(real);
    return n;
}
