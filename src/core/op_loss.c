/* loss = scale * sum |pred - target| or scale * sum (pred - target)^2. d pred = scale * sign, or 2 scale (pred -
 * target). The value is kept in double in aux[0], from where the graph takes it. */
#include "sdlora/ops.h"

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
