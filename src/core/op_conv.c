/* 3x3 convolution and 2x2 transposed convolution. Formulas and layouts: backend.h.
 * Backward of y = conv(x, w) + b:  dx = conv of dy with the filter turned by 180 degrees and its channels exchanged,
 * dw[a,c,k,o] = sum over n,i,j of x[n,i+a-1,j+c-1,k] dy[n,i,j,o],  db = sum of dy. */
#include "sdlora/ops.h"

#include "sdlora/mem.h"

enum { CHEAP_CHANNELS = 3 };

/* The most that a convolution of either kind needs in one of the passes that it will run. */
static size_t scratch_of(size_t (*needs)(const Node *n, const Graph *g, ConvPass pass), const Node *n, const Graph *g)
{
    const bool runs[] = {[CONV_FWD] = true,
                         [CONV_BWD_DATA] = node_trains(n, 0),
                         [CONV_BWD_WEIGHT] = node_trains(n, 1) || node_trains(n, 2)};
    size_t most = 0;

    for (int pass = CONV_FWD; pass <= CONV_BWD_WEIGHT; pass++) {
        if (runs[pass])
            most = mem_max(most, needs(n, g, (ConvPass)pass));
    }
    return most;
}

/* The filter's gradient is made of x, that of x of the filter. */
static unsigned saves_of(const Node *n)
{
    return (node_trains(n, 1) ? SAVE_IN(0) : 0) | (node_trains(n, 0) ? SAVE_IN(1) : 0);
}

/* ---- conv3x3: in x, w, b?. prep[pass]: the filter as forward and backward-data want it ---- */

/* A parameter, or what follows from parameters alone outside training, is transformed when weights have changed. A
 * filter that is computed is another one in every forward, and so are all where there is one pass a step: they are
 * transformed where they are used, into the first part of scratch. */
static bool prepared_ahead(const Node *w, const Graph *g)
{
    return !g->lean && (w->param || w->fixed);
}

static size_t filter_bytes(const Node *n, const Graph *g, ConvPass pass)
{
    return mem_align_up(g->be->conv3_prep_size(n->attr.conv, pass) * sizeof(real));
}

/* The filter for forward or backward-data, NULL where that takes w itself; *rest is the scratch that remains. */
static const real *filter_of(const Node *n, const Graph *g, ConvPass pass, void **rest)
{
    const size_t bytes = prepared_ahead(n->in[1], g) ? 0 : filter_bytes(n, g, pass);

    *rest = (char *)g->scratch + bytes;
    if (!bytes)
        return n->prep[pass];
    g->be->conv3_prep(g->scratch, node_val(n, 1), n->attr.conv, pass);
    return g->scratch;
}

static size_t conv3x3_needs(const Node *n, const Graph *g, ConvPass pass)
{
    return (prepared_ahead(n->in[1], g) ? 0 : filter_bytes(n, g, pass)) +
           g->be->conv3_scratch(n->attr.conv, pass, g->threads);
}

static size_t conv3x3_scratch(const Node *n, const Graph *g)
{
    return scratch_of(conv3x3_needs, n, g);
}

static void conv3x3_prepare(Node *n, const Graph *g)
{
    for (int pass = CONV_FWD; pass <= CONV_BWD_DATA; pass++)
        if (n->prep[pass])
            g->be->conv3_prep(n->prep[pass], node_val(n, 1), n->attr.conv, (ConvPass)pass);
}

static void conv3x3_fwd(Node *n, const Graph *g)
{
    void *rest;
    const real *u = filter_of(n, g, CONV_FWD, &rest);
    g->be->conv3_fwd(n->val.data, node_val(n, 0), node_val(n, 1), u, node_val(n, 2), n->attr.conv, rest);
}

static void conv3x3_bwd(Node *n, const Graph *g)
{
    const real *dy = n->grad.data;

    if (node_wants(n, 1) || node_wants(n, 2))
        g->be->conv3_bwd_weight(node_grad(n, 1), node_grad(n, 2), node_val(n, 0), dy, n->attr.conv, g->scratch);
    if (node_wants(n, 0)) {
        void *rest;
        const real *u = filter_of(n, g, CONV_BWD_DATA, &rest);
        g->be->conv3_bwd_data(node_grad(n, 0), dy, node_val(n, 1), u, n->attr.conv, rest);
    }
}

/* That of the image is nothing beside the others, and as large. */
static bool conv3x3_cheap(const Node *n)
{
    return n->attr.conv.ci <= CHEAP_CHANNELS;
}

static double conv3x3_flops(const Node *n)
{
    ConvShape s = n->attr.conv;
    return 2.0 * s.n * s.h * s.w * 9.0 * s.ci * s.co;
}

static const OpDef op_conv3x3_def = {
    .name = "conv3x3",
    .grad_over = 1,
    .scratch = conv3x3_scratch,
    .prepare = conv3x3_prepare,
    .fwd = conv3x3_fwd,
    .bwd = conv3x3_bwd,
    .again = conv3x3_fwd,
    .cheap = conv3x3_cheap,
    .flops = conv3x3_flops,
};

Node *op_conv3x3(Graph *g, Node *x, Node *w, Node *b, ConvAlgo algo)
{
    Node *n;
    Shape xs, ws;

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
    n->attr.conv = (ConvShape){xs.d[0], xs.d[1], xs.d[2], ws.d[2], ws.d[3], algo};
    n->saves = saves_of(n);
    for (int pass = CONV_FWD; pass <= CONV_BWD_DATA && prepared_ahead(w, g); pass++)
        if (pass == CONV_FWD || node_trains(n, 0))
            n->prep_bytes[pass] = filter_bytes(n, g, (ConvPass)pass);
    return n;
}

/* ---- conv_transpose2x2: in x, w, b? ---- */

static size_t convt_needs(const Node *n, const Graph *g, ConvPass pass)
{
    return g->be->convt2_scratch(n->attr.conv, pass, g->threads);
}

static size_t convt_scratch(const Node *n, const Graph *g)
{
    return scratch_of(convt_needs, n, g);
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
    .grad_over = 1,
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
    n->saves = saves_of(n);
    return n;
}
