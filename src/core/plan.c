/* Memory planning: see graph.h. Lives are intervals of steps: forward of node i is step i, its backward step 2n-1-i.
 * What is computed again is decided in again.c, where all lie in pack.c. */
#include "plan.h"

#include <assert.h>

#include "sdlora/mem.h"
#include "sdlora/threads.h"

enum { ITEMS_PER_NODE = 4 + NODE_LIVES }; /* value in all its lives, gradient, two of aux */

static int add_item(Plan *p, size_t bytes, int start, int end)
{
    assert(p->n_items < ITEMS_PER_NODE * p->n && start <= end);
    p->g->items[p->n_items] = (PlanItem){mem_align_up(bytes), 0, start, end};
    return p->n_items++;
}

static void live_until(Plan *p, int item, int end)
{
    if (end > p->g->items[item].end)
        p->g->items[item].end = end;
}

static bool is_leaf(const Node *n)
{
    return n->n_in == 0;
}

/* Which nodes the loss depends on, and who writes a gradient first (backward visits nodes from last to first). */
static void mark_gradients(Graph *g, bool *written)
{
    for (int i = 0; i < g->count; i++)
        g->nodes[i]->reached = false;
    if (g->loss)
        g->loss->reached = true;
    for (int i = g->count - 1; i >= 0; i--) {
        Node *n = g->nodes[i];
        if (!n->reached)
            continue;
        for (int k = 0; k < n->n_in; k++) {
            Node *in = n->in[k];
            if (!in)
                continue;
            in->reached = true;
            if (!n->needs_grad || !in->needs_grad)
                continue;
            n->beta[k] = written[in->index] ? 1 : 0;
            written[in->index] = true;
        }
    }
}

/* The last step that reads the value of a node in its first life. */
static int last_reader(const Plan *p, const Node *n)
{
    int end = n->index;

    if (n->keep || n->fixed)
        return 2 * p->n;
    for (int j = n->index + 1; j < p->n; j++)
        if (plan_uses(p->g->nodes[j], n))
            end = j;
    return n->again[0] ? end : max_of(end, plan_last_read(p, n, 2 * p->n));
}

static bool writes_gradient(const Node *user, const Node *n)
{
    for (int k = 0; runs_backward(user) && k < user->n_in; k++)
        if (user->in[k] == n)
            return true;
    return false;
}

static int last_user(const Plan *p, const Node *n) /* the largest node that writes its gradient: the first in time */
{
    for (int j = p->n - 1; j > n->index; j--)
        if (writes_gradient(p->g->nodes[j], n))
            return j;
    return -1;
}

/* Do all who write and read n's value heed the distance of its rows? Who reads a kept value does not. */
static bool may_lie_apart(const Plan *p, const Node *n)
{
    if (p->plain || n->keep || n->fixed || !(n->op->heeds_row & SAVE_OUT))
        return false;
    for (int j = n->index + 1; j < p->n; j++) {
        const Node *user = p->g->nodes[j];
        for (int k = 0; k < user->n_in; k++)
            if (user->in[k] == n && !(user->op->heeds_row & SAVE_IN(k)))
                return false;
    }
    return true;
}

/* The concat inside whose value that of n may lie, or -1. */
int plan_value_home(const Plan *p, const Node *n)
{
    for (int j = n->index + 1; may_lie_apart(p, n) && j < p->n; j++)
        if (p->g->nodes[j]->op->concat && !p->g->nodes[j]->again[0] && plan_uses(p->g->nodes[j], n) == 1)
            return j;
    return -1;
}

static void plan_value(Plan *p, const Node *n)
{
    PlanItem *items = p->g->items;
    int end = last_reader(p, n), k = n->op->inplace - 1, i = n->index, home = plan_value_home(p, n);

    if (home >= 0 && p->val[home] < 0)
        p->val[home] = add_item(p, p->g->nodes[home]->val.numel * sizeof(real), i, end);
    if (home >= 0) {
        p->val[i] = p->val[home];
        p->val_in[i] = home;
    }
    if (p->val[i] >= 0) { /* also a concat where an input lies */
        live_until(p, p->val[i], end);
        return;
    }
    if (!p->plain && k >= 0 && k < n->n_in && n->in[k] && p->val[n->in[k]->index] >= 0 &&
        p->val_in[n->in[k]->index] < 0) {
        int item = p->val[n->in[k]->index];
        if (plan_uses(n, n->in[k]) == 1 && items[item].end == i &&
            items[item].bytes == mem_align_up(n->val.numel * sizeof(real))) {
            items[item].end = end;
            p->val[i] = item;
            return;
        }
    }
    p->val[i] = add_item(p, n->val.numel * sizeof(real), n->fixed ? 0 : i, end);
}

static void plan_gradient(Plan *p, const Node *n)
{
    int user = last_user(p, n), i = n->index;
    const Node *u = user >= 0 ? p->g->nodes[user] : NULL;
    int k = u ? u->op->grad_alias - 1 : -1;

    if (!u)
        return;
    if (!p->plain && k >= 0 && k < u->n_in && u->in[k] == n && u->beta[k] == 0 && p->grad[user] >= 0) {
        int item = p->grad[user];
        if (plan_uses(u, n) == 1 && p->g->items[item].end == bwd_step(p, user) && u->grad.numel == n->grad.numel) {
            p->g->items[item].end = bwd_step(p, i);
            p->grad[i] = item;
            return;
        }
    }
    k = u->op->grad_over - 1;
    if (!p->plain && k >= 0 && k < u->n_in && u->in[k] == n && u->beta[k] == 0 && p->val_in[i] < 0 && !n->keep) {
        int item = p->late[1][i] >= 0 ? p->late[1][i] : p->late[0][i] >= 0 ? p->late[0][i] : p->val[i];
        if (item >= 0 && plan_uses(u, n) == 1 && p->g->items[item].end == bwd_step(p, user) &&
            p->g->items[item].bytes == mem_align_up(n->grad.numel * sizeof(real))) {
            p->g->items[item].end = bwd_step(p, i);
            p->grad[i] = item;
            return;
        }
    }
    p->grad[i] = add_item(p, n->grad.numel * sizeof(real), bwd_step(p, user), bwd_step(p, i));
}

/* From the first who writes it to the last, after whom it is added to another */
static void plan_stage(Plan *p, Node *n)
{
    const int user = last_user(p, n);

    if (user < 0)
        return;
    for (int j = user; j > n->index; j--)
        if (writes_gradient(p->g->nodes[j], n))
            n->whole_after = j;
    p->grad[n->index] = add_item(p, n->grad.numel * sizeof(real), bwd_step(p, user), bwd_step(p, n->whole_after));
}

static void plan_lives(Plan *p)
{
    Graph *g = p->g;

    p->n_items = 0;
    plan_again(p);
    for (int i = 0; i < p->n; i++)
        p->val[i] = p->grad[i] = p->val_in[i] = p->aux[0][i] = p->aux[1][i] = p->late[0][i] = p->late[1][i] = -1;
    for (int i = 0; i < p->n; i++) {
        Node *n = g->nodes[i];
        if (n->param)
            continue;
        if (is_leaf(n)) {
            p->val[i] = add_item(p, n->val.numel * sizeof(real), 0, 2 * p->n);
            continue;
        }
        plan_value(p, n);
        for (int life = 0; life < NODE_LIVES && n->again[life]; life++)
            p->late[life][i] = add_item(p, n->val.numel * sizeof(real), n->again[life],
                                        plan_last_read(p, n, life == 0 && n->again[1] ? n->again[1] : 2 * p->n));
        for (int k = 0; k < 2; k++) {
            if (n->aux_bytes[k])
                p->aux[k][i] = add_item(p, n->aux_bytes[k], i, runs_backward(n) ? bwd_step(p, i) : i);
        }
    }
    for (int i = p->n - 1; i >= 0; i--) {
        Node *n = g->nodes[i];
        if (!n->needs_grad || !n->reached)
            continue;
        if (!n->param)
            plan_gradient(p, n);
        else if (g->adds)
            plan_stage(p, n);
    }
    g->n_items = p->n_items;
}

static void *place(const Graph *g, int item)
{
    if (item < 0)
        return NULL;
    assert(item < g->n_items && g->items[item].offset + g->items[item].bytes <= g->slab_bytes);
    return (char *)g->slab + g->items[item].offset;
}

/* n's value moves from the beginning of the concat's to after the channels of the inputs before it. */
static void lie_inside(Node *n, const Node *concat)
{
    n->val.row = (size_t)shape_width(concat->val.shape);
    for (int k = 0; concat->in[k] != n; k++)
        n->val.data += shape_width(concat->in[k]->val.shape);
}

static void give_places(const Plan *p)
{
    Graph *g = p->g;

    for (int i = 0; i < p->n; i++) {
        Node *n = g->nodes[i];
        if (n->param) {
            n->val.data = n->param->value;
            n->grad.data = n->reached && n->needs_grad ? n->param->grad : NULL;
            n->stage = place(g, p->grad[i]);
        } else {
            n->val.data = place(g, p->val[i]);
            n->grad.data = place(g, p->grad[i]);
        }
        if (p->val_in[i] >= 0)
            lie_inside(n, g->nodes[p->val_in[i]]);
        for (int k = 0; k < 2; k++)
            n->aux[k] = place(g, p->aux[k][i]);
        for (int life = 0; life <= NODE_LIVES; life++)
            n->place[life] = (struct NodePlace){life ? place(g, p->late[life - 1][i]) : n->val.data,
                                                life ? (size_t)shape_width(n->val.shape) : n->val.row};
    }
}

/* Those of forward lie first, so that a graph without backward can have a twin with it. */
static void give_prepared(const Graph *g)
{
    char *prep = g->prep_slab;

    for (int k = 0; k < 2; k++)
        for (int i = 0; i < g->count; i++) {
            Node *n = g->nodes[i];
            n->prep[k] = n->prep_bytes[k] ? prep : NULL;
            prep += mem_align_up(n->prep_bytes[k]);
        }
    assert((size_t)(prep - (char *)g->prep_slab) == g->prep_bytes);
}

static void count_bytes(Graph *g)
{
    g->scratch_bytes = g->prep_bytes = 0;
    for (int i = 0; i < g->count; i++) {
        const Node *n = g->nodes[i];
        if (n->op->scratch)
            g->scratch_bytes = mem_max(g->scratch_bytes, mem_align_up(n->op->scratch(n, g)));
        g->prep_bytes += mem_align_up(n->prep_bytes[0]) + mem_align_up(n->prep_bytes[1]);
    }
    g->borrows = g->twin && g->twin->lean && !g->train && g->twin->scratch_bytes >= g->scratch_bytes;
}

static int allocate(Graph *g, Err *e)
{
    g->slab = mem_alloc(g->slab_bytes, 1, "activations and gradients", e);
    g->scratch = g->borrows ? g->twin->scratch : mem_alloc(g->scratch_bytes, 1, "scratch memory", e);
    g->prep_slab = g->twin ? g->twin->prep_slab : mem_alloc(g->prep_bytes, 1, "transformed filters", e);
    assert(!g->twin || g->twin->prep_bytes >= g->prep_bytes);
    return g->slab && g->scratch && g->prep_slab ? 0 : -1;
}

/* Everything but the memory itself. */
static int lay_out(Plan *p, Graph *g, Node *loss, bool plain, Err *e)
{
    size_t n = (size_t)g->count;
    int *ints = graph_block(g, 7 * n, sizeof(int));
    bool *written = graph_block(g, n, sizeof(bool));

    g->items = g->err.code ? NULL : mem_alloc(ITEMS_PER_NODE * n, sizeof *g->items, "the plan", &g->err);
    if (g->err.code) {
        if (e)
            *e = g->err;
        return -1;
    }
    *p = (Plan){
        g, true, g->count, ints, ints + n, ints + 2 * n, {ints + 3 * n, ints + 4 * n}, {ints + 5 * n, ints + 6 * n}, 0};
    g->loss = g->train ? loss : NULL;
    g->threads = threads_count();
    mark_gradients(g, written);
    plan_lives(p);
    plan_pack(g->items, p->n_items, true, &g->naive_bytes);
    g->slab_bytes = g->naive_bytes;
    if (!plain) {
        p->plain = false;
        plan_lives(p);
        plan_pack(g->items, p->n_items, false, &g->slab_bytes);
    }
    count_bytes(g);
    return 0;
}

int graph_measure(Graph *g, Node *loss, Err *e)
{
    Plan p;
    return lay_out(&p, g, loss, false, e);
}

int graph_plan(Graph *g, Node *loss, size_t max_bytes, bool plain, Err *e)
{
    Plan p;

    if (lay_out(&p, g, loss, plain, e))
        return -1;
    if (max_bytes && graph_bytes(g) > max_bytes)
        return err_set(e, ERR_USAGE, "the plan needs %.1f MB of memory, more than the %.1f MB allowed",
                       (double)graph_bytes(g) / 1e6, (double)max_bytes / 1e6);
    if (allocate(g, e))
        return -1;
    give_places(&p);
    give_prepared(g);
    g->stale = STALE_ALL;
    return 0;
}
