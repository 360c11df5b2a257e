/* y = res + x w^T + b. Backward: dx = dy w, dw = dy^T x, db = sum of dy, dres = dy. In: x, w, b?, res?. */
#include "sdlora/ops.h"

#include "sdlora/mem.h"

static size_t linear_scratch(const Node *n, const Graph *g)
{
    int rows = n->attr.linear.rows, in = n->attr.linear.in, out = n->attr.linear.out;
    size_t fwd = g->be->linear_fwd_scratch(rows, in, out, g->threads), bwd = 0;

    if (node_trains(n, 1) || node_trains(n, 2))
        bwd = g->be->linear_bwd_weight_scratch(n->attr.linear.n, rows, in, out, g->threads);
    if (node_trains(n, 0))
        bwd = mem_max(bwd, g->be->linear_bwd_data_scratch(rows, in, out, g->threads));
    return mem_max(fwd, bwd);
}

static void linear_fwd(Node *n, const Graph *g)
{
    g->be->linear_fwd(n->val.data, node_val(n, 0), node_val(n, 1), node_val(n, 2), node_val(n, 3), n->attr.linear.n,
                      n->attr.linear.rows, n->attr.linear.in, n->attr.linear.out, g->scratch);
}

static void linear_bwd(Node *n, const Graph *g)
{
    const real *dy = n->grad.data;
    const Grad dres = node_grad(n, 3);
    int images = n->attr.linear.n, rows = n->attr.linear.rows, in = n->attr.linear.in, out = n->attr.linear.out;

    if (node_wants(n, 1) || node_wants(n, 2))
        g->be->linear_bwd_weight(node_grad(n, 1), node_grad(n, 2), node_val(n, 0), dy, images, rows, in, out,
                                 g->scratch);
    if (node_wants(n, 0))
        g->be->linear_bwd_data(node_grad(n, 0), dy, node_val(n, 1), images, rows, in, out, g->scratch);
    if (dres.p && dres.p != dy)
        g->be->axpby(dres.p, dy, n->grad.numel, 1, dres.beta);
}

static double linear_flops(const Node *n)
{
    return 2.0 * n->attr.linear.n * n->attr.linear.rows * n->attr.linear.in * n->attr.linear.out;
}

static const OpDef op_linear_def = {
    .name = "linear",
    .inplace = 4,
    .grad_over = 1,
    .grad_alias = 4,
    .scratch = linear_scratch,
    .fwd = linear_fwd,
    .bwd = linear_bwd,
    .flops = linear_flops,
};

Node *op_linear(Graph *g, Node *x, Node *w, Node *b, Node *res)
{
    Node *n;
    Shape xs, ws, out;
    int in, rows = 1;

    if (!x || !w)
        return NULL;
    xs = x->val.shape;
    ws = w->val.shape;
    if (xs.nd < 2 || ws.nd != 2)
        return graph_fail(g, "linear: wants x (N,..,I) and w (O,I)");
    in = xs.d[xs.nd - 1];
    if (in != ws.d[1])
        return graph_fail(g, "linear: in %d != weight %d", in, ws.d[1]);
    if (b && b->val.numel != (size_t)ws.d[0])
        return graph_fail(g, "linear: bias %zu != out %d", b->val.numel, ws.d[0]);
    out = xs;
    out.d[xs.nd - 1] = ws.d[0];
    if (res && !shape_equal(res->val.shape, out))
        return graph_fail(g, "linear: the residual's shape is not the output's");
    for (int i = 1; i < xs.nd - 1; i++)
        rows *= xs.d[i];
    n = graph_add(g, &op_linear_def, out, (Node *[]){x, w, b, res}, 4);
    if (!n)
        return NULL;
    n->attr.linear.n = xs.d[0];
    n->attr.linear.rows = rows;
    n->attr.linear.in = in;
    n->attr.linear.out = ws.d[0];
    n->saves = (w->needs_grad ? SAVE_IN(0) : 0) | (x->needs_grad ? SAVE_IN(1) : 0);
    return n;
}
