/* Shared by plan.c and again.c. */
#ifndef CORE_PLAN_H
#define CORE_PLAN_H

#include "sdlora/graph.h"

typedef struct Plan {
    Graph *g;
    bool plain;
    int n;           /* nodes */
    int *val, *grad; /* item of each node's value and gradient, or -1 */
    int *val_in;     /* the concat inside whose value it lies, or -1 */
    int *aux[2];
    int *late[NODE_LIVES]; /* items of each value's other lives, or -1 */
    int n_items;
} Plan;

static inline int bwd_step(const Plan *p, int i)
{
    return 2 * p->n - 1 - i;
}

static inline bool runs_backward(const Node *n)
{
    return n->reached && n->needs_grad && n->op->bwd;
}

static inline int max_of(int a, int b)
{
    return a > b ? a : b;
}

/* Fills Node.again of all, where the graph wants it. */
void plan_again(Plan *p);
/* The last step of backward before `to` that reads the value of node n, 0: none. */
int plan_last_read(const Plan *p, const Node *n, int to);
int plan_uses(const Node *user, const Node *n); /* how many of user's inputs n is */
int plan_value_home(const Plan *p, const Node *n);

#endif
