/* w' = w + s B A. Backward: dB = s dw' A^T, dA = s B^T dw', dw = dw'. In: w (O,I), A (R,I), B (O,R). The products are those of
 * a linear layer with the rows of B as its rows. */
#include "sdlora/ops.h"

#include "sdlora/mem.h"

/* Scratch: s dw', then the linear kernel's own. */
static size_t scaled_bytes(const Node *n)
{
    return mem_align_up(n->val.numel * sizeof(real));
}

static size_t lora_scratch(const Node *n, const Graph *g)
{
    int out = n->val.shape.d[0], in = n->val.shape.d[1], rank = n->attr.lora.rank;
    size_t a = g->be->linear_bwd_weight_scratch(1, out, in, rank, g->threads);
    size_t b = g->be->linear_fwd_scratch(out, in, rank, g->threads);

    return n->needs_grad ? scaled_bytes(n) + mem_max(a, b) : 0;
}

static void lora_fwd(Node *n, const Graph *g)
{
    int out = n->val.shape.d[0], in = n->val.shape.d[1];
    g->be->linear_bwd_data((Grad){n->val.data, 0}, node_val(n, 2), node_val(n, 1), 1, out, in, n->attr.lora.rank);
    g->be->axpby(n->val.data, node_val(n, 0), n->val.numel, 1, n->attr.lora.scale);
}

static void lora_bwd(Node *n, const Graph *g)
{
    int out = n->val.shape.d[0], in = n->val.shape.d[1], rank = n->attr.lora.rank;
    const Grad dw = node_grad(n, 0), db = node_grad(n, 2);
    real *scaled = g->scratch;
    void *rest = (char *)g->scratch + scaled_bytes(n);

    g->be->axpby(scaled, n->grad.data, n->grad.numel, n->attr.lora.scale, 0);
    if (node_wants(n, 1))
        g->be->linear_bwd_weight(node_grad(n, 1), (Grad){NULL, 0}, scaled, node_val(n, 2), 1, out, in, rank, rest);
    if (db.p)
        g->be->linear_fwd(db.p, scaled, node_val(n, 1), NULL, db.beta != 0 ? db.p : NULL, 1, out, in, rank, rest);
    if (dw.p)
        g->be->axpby(dw.p, n->grad.data, n->grad.numel, 1, dw.beta);
}

static const OpDef op_lora_def = {.name = "lora", .scratch = lora_scratch, .fwd = lora_fwd, .bwd = lora_bwd};

Node *op_lora(Graph *g, Node *w, Node *a, Node *b, real scale)
{
    Node *n;
    Shape ws, as, bs;

    if (!w || !a || !b)
        return NULL;
    ws = w->val.shape;
    as = a->val.shape;
    bs = b->val.shape;
    if (ws.nd != 2 || as.nd != 2 || bs.nd != 2 || as.d[1] != ws.d[1] || bs.d[0] != ws.d[0] || as.d[0] != bs.d[1])
        return graph_fail(g, "lora: A and B do not fit the weight");
    n = graph_add(g, &op_lora_def, ws, (Node *[]){w, a, b}, 3);
    if (!n)
        return NULL;
    n->attr.lora.rank = as.d[0];
    n->attr.lora.scale = scale;
    n->saves = SAVE_IN(1) | SAVE_IN(2);
    return n;
}
