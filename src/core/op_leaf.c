/* Leaves: inputs and parameters. They have no forward; their gradients are written by those who use them. */
#include "sdlora/ops.h"

static const OpDef op_input_def = {.name = "input"};
static const OpDef op_param_def = {.name = "param"};

Node *op_input(Graph *g, Shape shape)
{
    return graph_add(g, &op_input_def, shape, NULL, 0);
}

Node *op_param(Graph *g, Param *p)
{
    Node *n;

    if (!p)
        return NULL;
    for (int i = 0; i < g->count; i++) /* one node a parameter, so that its gradient has one first writer */
        if (g->nodes[i]->param == p)
            return g->nodes[i];
    n = graph_add(g, &op_param_def, p->shape, NULL, 0);
    if (n) {
        n->param = p;
        n->needs_grad = g->train && p->trainable;
    }
    return n;
}
