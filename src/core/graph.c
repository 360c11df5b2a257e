/* Building and running a graph: see graph.h. Planning is in plan.c and pack.c, profiling in profile.c. */
#include "sdlora/graph.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph_private.h"
#include "sdlora/clock.h"
#include "sdlora/mem.h"
#include "sdlora/ops.h"
#include "sdlora/threads.h"

Graph *graph_new(const Backend *be, bool train, Err *e)
{
    Graph *g = mem_alloc(1, sizeof *g, "a graph", e);
    if (!g)
        return NULL;
    g->be = be;
    g->train = train;
    g->scope = "";
    return g;
}

void graph_free(Graph *g)
{
    if (!g)
        return;
    for (int i = 0; i < g->n_blocks; i++)
        mem_free(g->blocks[i]);
    mem_free(g->blocks);
    mem_free(g->nodes);
    mem_free(g->items);
    mem_free(g->slab);
    if (!g->borrows)
        mem_free(g->scratch);
    if (!g->twin)
        mem_free(g->prep_slab);
    profile_free(g->profile);
    mem_free(g);
}

/* Make room for one more in an array of pointers. */
static int grow(void ***array, int count, int *cap, Err *e)
{
    int bigger = *cap ? 2 * *cap : 64;
    void **p;

    if (count < *cap)
        return 0;
    p = mem_alloc((size_t)bigger, sizeof *p, "a graph", e);
    if (!p)
        return -1;
    if (count)
        memcpy(p, *array, (size_t)count * sizeof *p);
    mem_free(*array);
    *array = p;
    *cap = bigger;
    return 0;
}

void *graph_block(Graph *g, size_t count, size_t size)
{
    void *p;

    if (g->err.code || grow(&g->blocks, g->n_blocks, &g->cap_blocks, &g->err))
        return NULL;
    p = mem_alloc(count, size, "a graph", &g->err);
    if (p)
        g->blocks[g->n_blocks++] = p;
    return p;
}

int *graph_ints(Graph *g, int n)
{
    return graph_block(g, (size_t)n, sizeof(int));
}

float *graph_floats(Graph *g, int n)
{
    return graph_block(g, (size_t)n, sizeof(float));
}

void graph_scope(Graph *g, const char *scope)
{
    size_t bytes = strlen(scope) + 1;
    char *copy;

    if (!strcmp(scope, g->scope))
        return;
    copy = graph_block(g, bytes, 1);
    if (copy)
        g->scope = memcpy(copy, scope, bytes);
}

Node *graph_fail(Graph *g, const char *fmt, ...)
{
    va_list ap;
    char text[512];

    if (g->err.code)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    err_set(&g->err, ERR_USAGE, "%s at '%s'", text, g->scope);
    return NULL;
}

/* Input i, or a copy of it where it is an earlier input too: two gradients, written in whatever order, have two
 * places. */
static Node *own_input(Graph *g, Node *const *in, int i)
{
    for (int k = 0; in[i] && in[i]->needs_grad && k < i; k++)
        if (in[k] == in[i])
            return op_reshape(g, in[i], in[i]->val.shape);
    return in[i];
}

Node *graph_add(Graph *g, const OpDef *op, Shape out, Node *const *in, int n_in)
{
    Node *n, *own[NODE_MAX_IN] = {NULL};
    char text[64];

    assert(n_in <= NODE_MAX_IN);
    assert(op && op->name && op->inplace <= NODE_MAX_IN && op->grad_alias <= NODE_MAX_IN);
    for (int i = 0; i < n_in; i++)
        own[i] = own_input(g, in, i);
    if (g->err.code)
        return NULL;
    if (shape_numel(out) == 0 || shape_numel(out) > SIZE_MAX / sizeof(real) / 4)
        return graph_fail(g, "%s: impossible output shape %s", op->name, shape_text(out, text));
    n = graph_block(g, 1, sizeof *n);
    if (!n || grow((void ***)&g->nodes, g->count, &g->cap, &g->err))
        return NULL;
    n->op = op;
    n->scope = g->scope;
    n->index = g->count;
    n->val.shape = n->grad.shape = out;
    n->val.numel = n->grad.numel = shape_numel(out);
    n->val.row = n->grad.row = (size_t)shape_width(out);
    n->n_in = n_in;
    for (int i = 0; i < n_in; i++) {
        assert(!own[i] || (own[i]->index < g->count && g->nodes[own[i]->index] == own[i])); /* of this graph */
        n->in[i] = own[i];
        n->needs_grad |= node_trains(n, i);
    }
    n->fixed = !g->train && n_in > 0;
    for (int i = 0; i < n_in; i++)
        n->fixed &= !own[i] || own[i]->param || own[i]->fixed;
    g->nodes[g->count++] = n;
    return n;
}

void graph_fix(Node *input)
{
    if (input)
        input->fixed = true;
}

void graph_keep(Node *n)
{
    if (n)
        n->keep = true;
}

void graph_grads_to(Graph *g, real *slab, bool add)
{
    assert(g->adds || !add);
    g->sums = add ? slab : NULL;
    for (int i = 0; i < g->count; i++) {
        Node *n = g->nodes[i];
        if (n->param && n->grad.data)
            n->grad.data = add ? n->stage : slab + n->param->grad_offset;
    }
}

void graph_weights_changed(Graph *g)
{
    g->stale = STALE_ALL;
}

void graph_trained_weights_changed(Graph *g)
{
    if (g->stale == STALE_NOTHING)
        g->stale = STALE_TRAINED;
}

/* What its `prepare` reads: does it follow from a weight that is trained? (A computed input is another one at every
 * forward, or follows from what is fixed; graph_weights_changed speaks of those.) */
static bool reads_trained(const Node *n)
{
    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] && (n->in[i]->param ? n->in[i]->param->trainable : n->in[i]->fixed))
            return true;
    return false;
}

/* Each run begins with this: scratch holds as much as so many threads need. */
static void check_threads(const Graph *g)
{
    assert(g->slab && "the graph is planned");
    assert(threads_count() <= g->threads);
    (void)g;
}

void graph_prepare(Graph *g)
{
    if (g->twin)
        graph_prepare(g->twin);
    if (g->stale == STALE_NOTHING) /* others may be reading what is prepared */
        return;
    check_threads(g);
    for (int i = 0; i < g->count; i++) {
        Node *n = g->nodes[i];
        if (n->op->prepare && !g->twin && (g->stale == STALE_ALL || reads_trained(n)))
            n->op->prepare(n, g);
        if (n->fixed && n->op->fwd)
            n->op->fwd(n, g);
    }
    g->stale = STALE_NOTHING;
}

size_t graph_bytes(const Graph *g)
{
    return g->slab_bytes + (g->borrows ? 0 : g->scratch_bytes) + (g->twin ? 0 : g->prep_bytes);
}

/* Fill what dies at this step with NaN (all bits set is a quiet NaN, in float and in double). */
static void poison(const Graph *g, int step)
{
    for (int i = 0; i < g->n_items; i++)
        if (g->items[i].end == step)
            memset((char *)g->slab + g->items[i].offset, 0xff, g->items[i].bytes);
}

static void move_to(Node *n, const struct NodePlace *p)
{
    n->val.data = p->data;
    n->val.row = p->row;
}

/* What the step reads of values that died after forward */
static void compute_again(Graph *g, int step)
{
    for (int i = 0; g->lean && i < g->count; i++) {
        Node *n = g->nodes[i];
        double t = g->profile ? clock_seconds() : 0;
        if (n->again[0] != step && n->again[1] != step)
            continue;
        move_to(n, &n->place[n->again[0] == step ? 1 : 2]);
        n->op->again(n, g);
        if (g->profile)
            profile_note(g, i, true, t);
    }
}

void graph_forward(Graph *g)
{
    check_threads(g);
    graph_prepare(g);
    for (int i = 0; i < g->count; i++) {
        Node *n = g->nodes[i];
        double t = g->profile ? clock_seconds() : 0;
        if (n->again[0])
            move_to(n, &n->place[0]);
        if (n->op->fwd && !n->fixed)
            n->op->fwd(n, g);
        if (g->profile)
            profile_note(g, i, false, t);
        if (g->poison)
            poison(g, i);
    }
    if (g->loss)
        g->loss_value = *(const double *)g->loss->aux[0];
}

static bool is_finite(const Tensor *t)
{
    const size_t width = (size_t)shape_width(t->shape);

    for (size_t row = 0; row < t->numel / width; row++)
        for (size_t i = 0; i < width; i++)
            if (!isfinite(t->data[row * t->row + i]))
                return false;
    return true;
}

const Node *graph_find_not_finite(Graph *g)
{
    assert(!g->train); /* running statistics would move once more */
    check_threads(g);
    graph_prepare(g);
    for (int i = 0; i < g->count; i++) {
        Node *n = g->nodes[i];
        if (n->op->fwd && !n->fixed)
            n->op->fwd(n, g);
        if (!is_finite(&n->val))
            return n;
        if (g->poison)
            poison(g, i);
    }
    return NULL;
}

/* The gradients of the weights that are whole with the backward of node n */
static void add_whole(const Graph *g, const Node *n)
{
    for (int k = 0; k < n->n_in; k++) {
        const Node *w = n->in[k];
        if (node_wants(n, k) && w->param && w->whole_after == n->index)
            g->be->axpby(g->sums + w->param->grad_offset, w->stage, w->grad.numel, 1, 1);
    }
}

void graph_backward(Graph *g)
{
    assert(g->loss);
    check_threads(g);
    for (int i = g->count - 1; i >= 0; i--) {
        Node *n = g->nodes[i];
        double t;
        compute_again(g, 2 * g->count - 1 - i);
        t = g->profile ? clock_seconds() : 0;
        if (n->reached && n->needs_grad && n->op->bwd)
            n->op->bwd(n, g);
        if (g->sums)
            add_whole(g, n);
        if (g->profile)
            profile_note(g, i, true, t);
        if (g->poison)
            poison(g, 2 * g->count - 1 - i);
    }
}
