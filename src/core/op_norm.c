/* GroupNorm and BatchNorm, fused with activation, time embedding and residual. Formulas: backend.h. In: x, gamma, beta,
 * temb?, res?. aux[0]: the statistics (mean, 1/sqrt(var + eps)). Backward computes the normalised values and what the
 * activation got from x, gamma and beta again, so the output is not kept. */
#include "sdlora/ops.h"

#include <assert.h>

static size_t norm_scratch(const Node *n, const Graph *g)
{
    return g->be->norm_scratch(n->attr.norm, g->threads);
}

static Node *norm_add(Graph *g, const OpDef *op, Node *const in[5], int groups, Act act, real eps)
{
    Node *n;
    Shape xs;
    size_t c, temb;

    if (!in[0] || !in[1] || !in[2])
        return NULL;
    xs = in[0]->val.shape;
    if (xs.nd != 4)
        return graph_fail(g, "%s: wants x (N,H,W,C)", op->name);
    c = (size_t)xs.d[3];
    temb = c * (size_t)xs.d[0];
    if (in[1]->val.numel != c || in[2]->val.numel != c)
        return graph_fail(g, "%s: gamma %zu or beta %zu != channels %zu", op->name, in[1]->val.numel, in[2]->val.numel,
                          c);
    if (groups < 0 || (groups > 0 && c % (size_t)groups))
        return graph_fail(g, "%s: %zu channels do not fall into %d groups", op->name, c, groups);
    if (in[3] && in[3]->val.numel != temb)
        return graph_fail(g, "%s: time embedding %zu != images times channels %zu", op->name, in[3]->val.numel, temb);
    if (in[4] && !shape_equal(in[4]->val.shape, xs))
        return graph_fail(g, "%s: the residual's shape is not the input's", op->name);
    n = graph_add(g, op, xs, in, 5);
    if (!n)
        return NULL;
    n->attr.norm = (NormShape){xs.d[0], xs.d[1] * xs.d[2], xs.d[3], groups, act, eps};
    n->saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2);
    return n;
}

static NormInputs inputs_of(const Node *n)
{
    return (NormInputs){node_val(n, 0), node_val(n, 1), node_val(n, 2), node_val(n, 3), node_val(n, 4)};
}

static NormGrads grads_of(const Node *n)
{
    NormGrads d = {node_grad(n, 0), node_grad(n, 1), node_grad(n, 2), node_grad(n, 3), node_grad(n, 4)};
    if (d.res.p == n->grad.data) /* it shares the output's place: nothing to write */
        d.res = (Grad){NULL, 0};
    return d;
}

/* ---- group_norm ---- */

static void group_norm_fwd(Node *n, const Graph *g)
{
    const NormInputs in = inputs_of(n);
    g->be->group_norm_fwd(n->val.data, n->aux[0], &in, n->attr.norm);
}

static void group_norm_bwd(Node *n, const Graph *g)
{
    const NormInputs in = inputs_of(n);
    const NormGrads d = grads_of(n);
    g->be->group_norm_bwd(&d, n->grad.data, n->aux[0], &in, n->attr.norm, g->scratch);
}

static const OpDef op_group_norm_def = {
    .name = "group_norm",
    .grad_alias = 5,
    .scratch = norm_scratch,
    .fwd = group_norm_fwd,
    .bwd = group_norm_bwd,
};

Node *op_group_norm(Graph *g, Node *x, Node *gamma, Node *beta, Node *temb, Node *res, int groups, Act act, real eps)
{
    Node *n;

    if (groups < 1)
        return graph_fail(g, "group_norm: wants at least one group");
    n = norm_add(g, &op_group_norm_def, (Node *[]){x, gamma, beta, temb, res}, groups, act, eps);
    if (n)
        n->aux_bytes[0] = (size_t)n->attr.norm.n * (size_t)groups * 2 * sizeof(real);
    return n;
}

/* ---- batch_norm: the running statistics hang on node->extra; aux[1] is the batch's unbiased variance ---- */

typedef struct Running {
    Param *mean, *var, *batches;
    real momentum;
} Running;

static bool uses_batch_stats(const Graph *g)
{
    return (g->train && !g->frozen_stats) || g->batch_stats;
}

static void batch_norm_fwd(Node *n, const Graph *g)
{
    const Running *r = n->extra;
    const NormInputs in = inputs_of(n);
    NormShape s = n->attr.norm;
    real *stats = n->aux[0], *var = n->aux[1];

    if (uses_batch_stats(g))
        g->be->batch_norm_stats(stats, var, in.x, s, g->scratch);
    for (int c = 0; c < s.c; c++) {
        if (!uses_batch_stats(g)) {
            stats[2 * c] = r->mean->value[c];
            stats[2 * c + 1] = 1 / real_sqrt(r->var->value[c] + s.eps);
        } else if (g->train) {
            r->mean->value[c] += r->momentum * (stats[2 * c] - r->mean->value[c]);
            r->var->value[c] += r->momentum * (var[c] - r->var->value[c]);
        }
    }
    if (g->train && uses_batch_stats(g))
        r->batches->counter++;
    g->be->batch_norm_fwd(n->val.data, stats, &in, s);
}

static void batch_norm_again(Node *n, const Graph *g)
{
    const NormInputs in = inputs_of(n);
    g->be->batch_norm_fwd(n->val.data, n->aux[0], &in, n->attr.norm);
}

static void batch_norm_bwd(Node *n, const Graph *g)
{
    const NormInputs in = inputs_of(n);
    const NormGrads d = grads_of(n);
    g->be->batch_norm_bwd(&d, n->grad.data, n->aux[0], &in, n->attr.norm, uses_batch_stats(g), g->scratch);
}

static const OpDef op_batch_norm_def = {
    .name = "batch_norm",
    .grad_alias = 5,
    .scratch = norm_scratch,
    .fwd = batch_norm_fwd,
    .again = batch_norm_again,
    .bwd = batch_norm_bwd,
};

Node *op_batch_norm(Graph *g, Node *x, Node *gamma, Node *beta, Node *temb, Node *res, Param *running_mean,
                    Param *running_var, Param *batches, real momentum, Act act, real eps)
{
    Node *n;
    Running *r;

    if (!running_mean || !running_var || !batches)
        return NULL;
    n = norm_add(g, &op_batch_norm_def, (Node *[]){x, gamma, beta, temb, res}, 0, act, eps);
    assert(!n || (running_mean->numel == gamma->val.numel && running_var->numel == gamma->val.numel));
    r = n ? graph_block(g, 1, sizeof *r) : NULL;
    if (!r)
        return NULL;
    *r = (Running){running_mean, running_var, batches, momentum};
    n->extra = r;
    n->aux_bytes[0] = (size_t)n->attr.norm.c * 2 * sizeof(real);
    n->aux_bytes[1] = (size_t)n->attr.norm.c * sizeof(real);
    return n;
}
