/* Activation, scaling, reshaping, transposition, addition, max-pooling, concatenation, embedding. */
#include "sdlora/ops.h"

static bool same_shape(const Node *a, const Node *b)
{
    return shape_equal(a->val.shape, b->val.shape);
}

/* d in[i] = a * dy, added or written */
static void pass_grad(const Node *n, int i, real a, const Graph *g)
{
    const Grad d = node_grad(n, i);
    if (d.p && d.p != n->grad.data)
        g->be->axpby(d.p, n->grad.data, n->grad.numel, a, d.beta);
}

/* ---- act: y = act(x), dx = dy act'(x) ---- */

static void act_fwd(Node *n, const Graph *g)
{
    g->be->act_fwd(n->val.data, node_val(n, 0), n->val.numel, n->attr.act.act);
}

static void act_bwd(Node *n, const Graph *g)
{
    g->be->act_bwd(node_grad(n, 0), n->grad.data, node_val(n, 0), n->val.numel, n->attr.act.act);
}

static const OpDef op_act_def = {.name = "act", .inplace = 1, .fwd = act_fwd, .bwd = act_bwd};

Node *op_act(Graph *g, Node *x, Act act)
{
    Node *n = x ? graph_add(g, &op_act_def, x->val.shape, &x, 1) : NULL;
    if (n) {
        n->attr.act.act = act;
        n->saves = SAVE_IN(0);
    }
    return n;
}

/* ---- scale: y = a x ---- */

static void scale_fwd(Node *n, const Graph *g)
{
    g->be->axpby(n->val.data, node_val(n, 0), n->val.numel, n->attr.axpby.a, 0);
}

static void scale_bwd(Node *n, const Graph *g)
{
    pass_grad(n, 0, n->attr.axpby.a, g);
}

static const OpDef op_scale_def = {.name = "scale", .fwd = scale_fwd, .bwd = scale_bwd};

Node *op_scale(Graph *g, Node *x, real a)
{
    Node *n = x ? graph_add(g, &op_scale_def, x->val.shape, &x, 1) : NULL;
    if (n)
        n->attr.axpby.a = a;
    return n;
}

/* ---- reshape: y = x in another shape ---- */

static void reshape_fwd(Node *n, const Graph *g)
{
    if (n->val.data != node_val(n, 0))
        g->be->axpby(n->val.data, node_val(n, 0), n->val.numel, 1, 0);
}

static void reshape_bwd(Node *n, const Graph *g)
{
    pass_grad(n, 0, 1, g);
}

static const OpDef op_reshape_def = {
    .name = "reshape", .inplace = 1, .grad_alias = 1, .fwd = reshape_fwd, .bwd = reshape_bwd};

Node *op_reshape(Graph *g, Node *x, Shape shape)
{
    if (x && x->val.numel != shape_numel(shape))
        return graph_fail(g, "reshape: %zu numbers to %zu", x->val.numel, shape_numel(shape));
    return x ? graph_add(g, &op_reshape_def, shape, &x, 1) : NULL;
}

/* ---- transpose: x (A,B) -> (B,A) ---- */

static void transpose_fwd(Node *n, const Graph *g)
{
    g->be->transpose(n->val.data, node_val(n, 0), n->val.shape.d[1], n->val.shape.d[0], 0);
}

static void transpose_bwd(Node *n, const Graph *g)
{
    const Grad d = node_grad(n, 0);
    g->be->transpose(d.p, n->grad.data, n->val.shape.d[0], n->val.shape.d[1], d.beta);
}

static const OpDef op_transpose_def = {.name = "transpose", .fwd = transpose_fwd, .bwd = transpose_bwd};

Node *op_transpose(Graph *g, Node *x)
{
    if (x && x->val.shape.nd != 2)
        return graph_fail(g, "transpose: wants x (A,B)");
    return x ? graph_add(g, &op_transpose_def, shape2(x->val.shape.d[1], x->val.shape.d[0]), &x, 1) : NULL;
}

/* ---- add: y = a + b ---- */

static void add_fwd(Node *n, const Graph *g)
{
    if (n->val.data != node_val(n, 0))
        g->be->axpby(n->val.data, node_val(n, 0), n->val.numel, 1, 0);
    g->be->axpby(n->val.data, node_val(n, 1), n->val.numel, 1, 1);
}

static void add_bwd(Node *n, const Graph *g)
{
    pass_grad(n, 1, 1, g);
    pass_grad(n, 0, 1, g);
}

static const OpDef op_add_def = {.name = "add", .inplace = 1, .grad_alias = 1, .fwd = add_fwd, .bwd = add_bwd};

Node *op_add(Graph *g, Node *a, Node *b)
{
    if (!a || !b)
        return NULL;
    if (!same_shape(a, b))
        return graph_fail(g, "add: shapes differ");
    return graph_add(g, &op_add_def, a->val.shape, (Node *[]){a, b}, 2);
}

/* ---- maxpool2: aux[0] holds which of the four was the largest; its gradient goes there ---- */

static void maxpool_fwd(Node *n, const Graph *g)
{
    const Tensor *x = &n->in[0]->val;
    const int *d = x->shape.d;
    g->be->maxpool2_fwd(n->val.data, n->aux[0], x->data, x->row, d[0], d[1], d[2], d[3]);
}

static void maxpool_bwd(Node *n, const Graph *g)
{
    Shape s = n->in[0]->val.shape;
    g->be->maxpool2_bwd(node_grad(n, 0), n->grad.data, n->aux[0], s.d[0], s.d[1], s.d[2], s.d[3]);
}

static const OpDef op_maxpool2_def = {
    .name = "maxpool2", .heeds_row = SAVE_IN(0), .fwd = maxpool_fwd, .bwd = maxpool_bwd, .again = maxpool_fwd};

Node *op_maxpool2(Graph *g, Node *x)
{
    Node *n;
    Shape s;

    if (!x)
        return NULL;
    s = x->val.shape;
    if (s.nd != 4 || s.d[1] % 2 || s.d[2] % 2)
        return graph_fail(g, "maxpool2: wants x (N,H,W,C) with even H and W");
    n = graph_add(g, &op_maxpool2_def, shape4(s.d[0], s.d[1] / 2, s.d[2] / 2, s.d[3]), &x, 1);
    if (n)
        n->aux_bytes[0] = n->val.numel;
    return n;
}

/* ---- concat over channels: copies the inputs that the plan has not put into the output ---- */

static void concat_fwd(Node *n, const Graph *g)
{
    real *y = n->val.data;

    for (int i = 0; i < n->n_in; i++) {
        const Tensor *x = &n->in[i]->val;
        int c = shape_width(x->shape);
        if (x->data != y)
            g->be->copy_rows(y, n->val.row, x->data, x->row, x->numel / (size_t)c, c, 0);
        y += c;
    }
}

static void concat_bwd(Node *n, const Graph *g)
{
    const real *dy = n->grad.data;

    for (int i = 0; i < n->n_in; i++) {
        const Grad dx = node_grad(n, i);
        const int c = shape_width(n->in[i]->grad.shape);
        if (dx.p)
            g->be->copy_rows(dx.p, (size_t)c, dy, (size_t)shape_width(n->grad.shape), n->in[i]->grad.numel / (size_t)c,
                             c, dx.beta);
        dy += c;
    }
}

static const OpDef op_concat_def = {
    .name = "concat",
    .concat = true,
    .heeds_row = SAVE_IN(0) | SAVE_IN(1),
    .fwd = concat_fwd,
    .bwd = concat_bwd,
    .again = concat_fwd,
};

Node *op_concat(Graph *g, Node *a, Node *b)
{
    Shape s, t;

    if (!a || !b)
        return NULL;
    s = a->val.shape;
    t = b->val.shape;
    if (s.nd != 4 || t.nd != 4 || s.d[0] != t.d[0] || s.d[1] != t.d[1] || s.d[2] != t.d[2])
        return graph_fail(g, "concat: images of %dx%d and %dx%d", s.d[1], s.d[2], t.d[1], t.d[2]);
    return graph_add(g, &op_concat_def, shape4(s.d[0], s.d[1], s.d[2], s.d[3] + t.d[3]), (Node *[]){a, b}, 2);
}

/* ---- embedding: rows of a table ---- */

static void embedding_fwd(Node *n, const Graph *g)
{
    Shape t = n->in[0]->val.shape;
    g->be->embed_fwd(n->val.data, node_val(n, 0), n->attr.embed.ids, n->val.shape.d[0], t.d[1]);
    for (int i = 0; n->attr.embed.to && i < n->val.shape.d[0]; i++) {
        const real part = (real)n->attr.embed.part[i];
        const real *to = node_val(n, 0) + (size_t)n->attr.embed.to[i] * (size_t)t.d[1];
        real *row = n->val.data + (size_t)i * (size_t)t.d[1];
        for (int k = 0; part != 0 && k < t.d[1]; k++)
            row[k] = (1 - part) * row[k] + part * to[k];
    }
}

static void embedding_bwd(Node *n, const Graph *g)
{
    Shape t = n->in[0]->val.shape;
    if (node_wants(n, 0))
        g->be->embed_bwd(node_grad(n, 0), n->grad.data, n->attr.embed.ids, n->val.shape.d[0], t.d[1], t.d[0]);
}

static const OpDef op_embedding_def = {.name = "embedding", .fwd = embedding_fwd, .bwd = embedding_bwd};

Node *op_embedding(Graph *g, Node *table, const int *ids, int n, int tokens)
{
    Node *node;
    Shape t;

    if (!table || !ids)
        return NULL;
    t = table->val.shape;
    if (t.nd != 2 || tokens < 1 || t.d[1] % tokens)
        return graph_fail(g, "embedding: rows of %d are not %d tokens", t.d[1], tokens);
    node = graph_add(g, &op_embedding_def, shape3(n, tokens, t.d[1] / tokens), &table, 1);
    if (node) {
        node->attr.embed.ids = ids;
        node->fixed = false; /* the ids may change */
    }
    return node;
}

void op_embedding_mix(Node *embedding, const int *to, const float *part)
{
    if (embedding) {
        embedding->attr.embed.to = to;
        embedding->attr.embed.part = part;
    }
}
