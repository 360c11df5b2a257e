/* z = softmax_t(q k^T / sqrt(Dq)) v, pixels as queries over the tokens of the class. In: q, k, v; aux[0]: the
 * probabilities p (N,HW,T). Backward with g = dz v^T: dv = p^T dz, ds = p (g - sum_t p g) / sqrt(Dq), dq = ds k, dk = ds^T q. */
#include "sdlora/ops.h"

static size_t attention_scratch(const Node *n, const Graph *g)
{
    return n->needs_grad ? g->be->attn_bwd_scratch(n->attr.attn) : 0;
}

static void attention_fwd(Node *n, const Graph *g)
{
    g->be->attn_fwd(n->val.data, n->aux[0], node_val(n, 0), node_val(n, 1), node_val(n, 2), n->attr.attn);
}

static real attn_beta(const Node *n, int i, const Graph *g)
{
    return node_wants(n, i) ? node_beta(n, i, g) : 0;
}

static void attention_bwd(Node *n, const Graph *g)
{
    g->be->attn_bwd(node_grad(n, 0), node_grad(n, 1), node_grad(n, 2), n->grad.data, n->aux[0], node_val(n, 0),
                    node_val(n, 1), node_val(n, 2), n->attr.attn, attn_beta(n, 0, g), attn_beta(n, 1, g),
                    attn_beta(n, 2, g), g->scratch);
}

static double attention_flops(const Node *n)
{
    AttnShape s = n->attr.attn;
    return 2.0 * s.n * s.p * s.t * (s.dq + s.dv);
}

static const OpDef op_attention_def = {
    .name = "attention",
    .scratch = attention_scratch,
    .fwd = attention_fwd,
    .bwd = attention_bwd,
    .flops = attention_flops,
};

Node *op_attention(Graph *g, Node *q, Node *k, Node *v)
{
    Node *n;
    Shape qs, ks, vs;
    AttnShape s;

    if (!q || !k || !v)
        return NULL;
    qs = q->val.shape;
    ks = k->val.shape;
    vs = v->val.shape;
    if (qs.nd != 4 || ks.nd != 3 || vs.nd != 3)
        return graph_fail(g, "attention: wants q (N,H,W,D), k (N,T,D), v (N,T,E)");
    if (qs.d[3] != ks.d[2] || ks.d[1] != vs.d[1] || qs.d[0] != ks.d[0] || qs.d[0] != vs.d[0])
        return graph_fail(g, "attention: queries %d wide, keys %d wide; %d keys, %d values; images %d, %d, %d", qs.d[3],
                          ks.d[2], ks.d[1], vs.d[1], qs.d[0], ks.d[0], vs.d[0]);
    n = graph_add(g, &op_attention_def, shape4(qs.d[0], qs.d[1], qs.d[2], vs.d[2]), (Node *[]){q, k, v}, 3);
    if (!n)
        return NULL;
    s = (AttnShape){qs.d[0], qs.d[1] * qs.d[2], ks.d[1], qs.d[3], vs.d[2]};
    n->attr.attn = s;
    n->saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2);
    n->aux_bytes[0] = (size_t)s.n * (size_t)s.p * (size_t)s.t * sizeof(real);
    return n;
}
