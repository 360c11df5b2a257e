/* loss = scale * sum |pred - target| or scale * sum (pred - target)^2. d pred = scale * sign, or 2 scale (pred -
 * target). Cross entropy: d logits = scale (softmax - one-hot). The value is kept in double in aux[0], from where the
 * graph takes it. */
#include "sdlora/ops.h"

/* ---- of two tensors ---- */

static size_t loss_scratch(const Node *n, const Graph *g)
{
    return g->be->loss_scratch(n->in[0]->val.numel, g->threads);
}

static void loss_fwd(Node *n, const Graph *g)
{
    double *value = n->aux[0];
    *value = g->be->loss((Grad){NULL, 0}, node_val(n, 0), node_val(n, 1), n->in[0]->val.numel, n->attr.loss.l1,
                         n->attr.loss.scale, g->scratch);
    n->val.data[0] = (real)*value;
}

static void loss_bwd(Node *n, const Graph *g)
{
    g->be->loss(node_grad(n, 0), node_val(n, 0), node_val(n, 1), n->in[0]->val.numel, n->attr.loss.l1,
                n->attr.loss.scale, g->scratch);
}

static const OpDef op_loss_def = {.name = "loss", .scratch = loss_scratch, .fwd = loss_fwd, .bwd = loss_bwd};

Node *op_loss(Graph *g, Node *pred, Node *target, bool l1, double scale)
{
    Node *n;

    if (!pred || !target)
        return NULL;
    if (!shape_equal(pred->val.shape, target->val.shape))
        return graph_fail(g, "loss: prediction and target differ in shape");
    if (target->needs_grad)
        return graph_fail(g, "loss: the target depends on parameters that are trained");
    n = graph_add(g, &op_loss_def, shape1(1), (Node *[]){pred, target}, 2);
    if (!n)
        return NULL;
    n->attr.loss.l1 = l1;
    n->attr.loss.scale = scale;
    n->saves = SAVE_IN(0) | SAVE_IN(1);
    n->aux_bytes[0] = sizeof(double);
    return n;
}

/* ---- cross entropy: of logits and labels ---- */

static void cross_entropy_fwd(Node *n, const Graph *g)
{
    const int *d = n->in[0]->val.shape.d;
    double *value = n->aux[0];
    *value =
        g->be->cross_entropy((Grad){NULL, 0}, node_val(n, 0), n->attr.cross.label, d[0], d[1], n->attr.cross.scale);
    n->val.data[0] = (real)*value;
}

static void cross_entropy_bwd(Node *n, const Graph *g)
{
    const int *d = n->in[0]->val.shape.d;
    g->be->cross_entropy(node_grad(n, 0), node_val(n, 0), n->attr.cross.label, d[0], d[1], n->attr.cross.scale);
}

static const OpDef op_cross_entropy_def = {.name = "cross_entropy", .fwd = cross_entropy_fwd, .bwd = cross_entropy_bwd};

Node *op_cross_entropy(Graph *g, Node *logits, const int *labels, double scale)
{
    Node *n;

    if (!logits || !labels)
        return NULL;
    if (logits->val.shape.nd != 2)
        return graph_fail(g, "cross entropy: wants logits (N,K)");
    n = graph_add(g, &op_cross_entropy_def, shape1(1), &logits, 1);
    if (!n)
        return NULL;
    n->attr.cross.label = labels;
    n->attr.cross.scale = scale;
    n->fixed = false; /* the labels may change */
    n->saves = SAVE_IN(0);
    n->aux_bytes[0] = sizeof(double);
    return n;
}
