/* 3x3 convolution and 2x2 transposed convolution. Formulas and layouts: backend.h.
 * Backward of y = conv(x, w) + b:  dx = conv of dy with the filter turned by 180 degrees and its channels exchanged,
 * dw[a,c,k,o] = sum over n,i,j of x[n,i+a-1,j+c-1,k] dy[n,i,j,o],  db = sum of dy. */
#include "sdlora/ops.h"

/* What a convolution of either kind needs for the passes that it will run. */
static size_t scratch_of(size_t (*scratch)(ConvShape s, ConvPass pass, int threads), const Node *n, const Graph *g)
{
    const bool runs[] = {[CONV_FWD] = true,
                         [CONV_BWD_DATA] = node_trains(n, 0),
                         [CONV_BWD_WEIGHT] = node_trains(n, 1) || node_trains(n, 2)};
    size_t most = 0;

    for (int pass = CONV_FWD; pass <= CONV_BWD_WEIGHT; pass++) {
        const size_t bytes = runs[pass] ? scratch(n->attr.conv, (ConvPass)pass, g->threads) : 0;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* ---- conv3x3: in x, w, b? ---- */

static size_t conv3x3_scratch(const Node *n, const Graph *g)
{
    return scratch_of(g->be->conv3_scratch, n, g);
}

static void conv3x3_prepare(Node *n, const Graph *g)
{
    if (n->prep[0])
        g->be->conv3_prep(n->prep[0], node_val(n, 1), n->attr.conv, CONV_FWD);
    if (n->prep[1])
        g->be->conv3_prep(n->prep[1], node_val(n, 1), n->attr.conv, CONV_BWD_DATA);
}

static void conv3x3_fwd(Node *n, const Graph *g)
{
    g->be->conv3_fwd(n->val.data, node_val(n, 0), node_val(n, 1), n->prep[0], node_val(n, 2), n->attr.conv, g->scratch);
}

static void conv3x3_bwd(Node *n, const Graph *g)
{
    const real *dy = n->grad.data;

    if (node_wants(n, 1) || node_wants(n, 2))
        g->be->conv3_bwd_weight(node_grad(n, 1), node_grad(n, 2), node_val(n, 0), dy, n->attr.conv, g->scratch);
    if (node_wants(n, 0))
        g->be->conv3_bwd_data(node_grad(n, 0), dy, node_val(n, 1), n->prep[1], n->attr.conv, g->scratch);
}

static double conv3x3_flops(const Node *n)
{
    ConvShape s = n->attr.conv;
    return 2.0 * s.n * s.h * s.w * 9.0 * s.ci * s.co;
}

static const OpDef op_conv3x3_def = {
    .name = "conv3x3",
    .scratch = conv3x3_scratch,
    .prepare = conv3x3_prepare,
    .fwd = conv3x3_fwd,
    .bwd = conv3x3_bwd,
    .flops = conv3x3_flops,
};

Node *op_conv3x3(Graph *g, Node *x, Node *w, Node *b, ConvAlgo algo)
{
    Node *n;
    Shape xs, ws;
    ConvShape s;

    if (!x || !w)
        return NULL;
    xs = x->val.shape;
    ws = w->val.shape;
    if (xs.nd != 4 || ws.nd != 4 || ws.d[0] != 3 || ws.d[1] != 3)
        return graph_fail(g, "conv3x3: wants x (N,H,W,C) and w (3,3,C,K)");
    if (xs.d[3] != ws.d[2])
        return graph_fail(g, "conv3x3: in %d != filter %d", xs.d[3], ws.d[2]);
    if (b && b->val.numel != (size_t)ws.d[3])
        return graph_fail(g, "conv3x3: bias %zu != out %d", b->val.numel, ws.d[3]);
    n = graph_add(g, &op_conv3x3_def, shape4(xs.d[0], xs.d[1], xs.d[2], ws.d[3]), (Node *[]){x, w, b}, 3);
    if (!n)
        return NULL;
    s = (ConvShape){xs.d[0], xs.d[1], xs.d[2], ws.d[2], ws.d[3], algo};
    n->attr.conv = s;
    n->saves = w->needs_grad ? SAVE_IN(0) : 0;
    n->prep_bytes[0] = g->be->conv3_prep_size(s, CONV_FWD) * sizeof(real);
    if (x->needs_grad)
        n->prep_bytes[1] = g->be->conv3_prep_size(s, CONV_BWD_DATA) * sizeof(real);
    return n;
}

/* ---- conv_transpose2x2: in x, w, b? ---- */

static size_t convt_scratch(const Node *n, const Graph *g)
{
    return scratch_of(g->be->convt2_scratch, n, g);
}

static void convt_fwd(Node *n, const Graph *g)
{
    g->be->convt2_fwd(n->val.data, n->val.row, node_val(n, 0), node_val(n, 1), node_val(n, 2), n->attr.conv,
                      g->scratch);
}

static void convt_bwd(Node *n, const Graph *g)
{
    const real *dy = n->grad.data;

    if (node_wants(n, 1) || node_wants(n, 2))
        g->be->convt2_bwd_weight(node_grad(n, 1), node_grad(n, 2), node_val(n, 0), dy, n->attr.conv, g->scratch);
    if (node_wants(n, 0))
        g->be->convt2_bwd_data(node_grad(n, 0), dy, node_val(n, 1), n->attr.conv, g->scratch);
}

static double convt_flops(const Node *n)
{
    ConvShape s = n->attr.conv;
    return 2.0 * s.n * s.h * s.w * 4.0 * s.ci * s.co;
}

static const OpDef op_conv_transpose2x2_def = {
    .name = "conv_transpose2x2",
    .heeds_row = SAVE_OUT,
    .scratch = convt_scratch,
    .fwd = convt_fwd,
    .bwd = convt_bwd,
    .flops = convt_flops,
};

Node *op_conv_transpose2x2(Graph *g, Node *x, Node *w, Node *b)
{
    Node *n;
    Shape xs, ws;

    if (!x || !w)
        return NULL;
    xs = x->val.shape;
    ws = w->val.shape;
    if (xs.nd != 4 || ws.nd != 4 || ws.d[1] != 2 || ws.d[2] != 2)
        return graph_fail(g, "conv_transpose2x2: wants x (N,H,W,C) and w (C,2,2,K)");
    if (xs.d[3] != ws.d[0])
        return graph_fail(g, "conv_transpose2x2: in %d != filter %d", xs.d[3], ws.d[0]);
    if (b && b->val.numel != (size_t)ws.d[3])
        return graph_fail(g, "conv_transpose2x2: bias %zu != out %d", b->val.numel, ws.d[3]);
    n = graph_add(g, &op_conv_transpose2x2_def, shape4(xs.d[0], 2 * xs.d[1], 2 * xs.d[2], ws.d[3]), (Node *[]){x, w, b},
                  3);
    if (!n)
        return NULL;
    n->attr.conv = (ConvShape){xs.d[0], xs.d[1], xs.d[2], ws.d[0], ws.d[3], CONV_AUTO};
    n->saves = w->needs_grad ? SAVE_IN(0) : 0;
    return n;
}
