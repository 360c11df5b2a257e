/* Values that backward computes again: see graph.h. */
#include "plan.h"

enum { LONG = 8 }; /* a value that nobody reads for this part of a pass had better die */

int plan_uses(const Node *user, const Node *n)
{
    int uses = 0;
    for (int k = 0; k < user->n_in; k++)
        uses += user->in[k] == n;
    return uses;
}

static void sooner(int *next, int step, int from)
{
    if (step >= from && (*next == 0 || step < *next))
        *next = step;
}

/* The first step of backward from `from` on that reads the value of node n, 0: none. What is computed again reads its
 * inputs then, and wants those that are so too one step before: one after the other, not all at once. */
static int next_read(const Plan *p, const Node *n, int from)
{
    int next = 0;

    if (runs_backward(n) && (n->saves & SAVE_OUT))
        sooner(&next, bwd_step(p, n->index), from);
    for (int j = n->index + 1; j < p->n; j++) {
        const Node *user = p->g->nodes[j];
        for (int k = 0; k < user->n_in; k++) {
            if (user->in[k] != n)
                continue;
            if (runs_backward(user) && (user->saves & SAVE_IN(k)))
                sooner(&next, bwd_step(p, j), from);
            for (int life = 0; life < NODE_LIVES && user->again[life]; life++) {
                sooner(&next, max_of(user->again[life] - 1, p->n), from);
                sooner(&next, user->again[life], from);
            }
        }
    }
    return next;
}

int plan_last_read(const Plan *p, const Node *n, int to)
{
    int last = 0;

    for (int s; (s = next_read(p, n, last + 1)) && s < to;)
        last = s;
    return last;
}

static bool is_cheap(const Node *n)
{
    return n->op->again && (!n->op->cheap || n->op->cheap(n));
}

/* Whose values are computed again, from the last node to the first: what they are computed from is then read again too.
 * What follows the last filters is what backward begins with, so that all of it would be there again at once where
 * memory is fullest; but for those filters' own reader. */
void plan_again(Plan *p)
{
    int last = -1;

    for (int i = 0; i < p->n; i++) {
        p->g->nodes[i]->again[0] = p->g->nodes[i]->again[1] = 0;
        if (p->g->nodes[i]->op->prepare)
            last = i;
    }
    for (int i = p->n - 1; p->g->lean && !p->plain && i >= 0; i--) {
        Node *n = p->g->nodes[i];
        int widest = p->n / LONG;
        if (!is_cheap(n) || n->keep || n->fixed || plan_value_home(p, n) >= 0 || (i > last && n->in[0]->index != last))
            continue;
        n->again[0] = next_read(p, n, 1);
        for (int s = n->again[0], next; s && (next = next_read(p, n, s + 1)); s = next)
            if (next - s > widest) {
                widest = next - s;
                n->again[1] = next;
            }
    }
}
