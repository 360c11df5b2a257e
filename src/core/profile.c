/* Time per node: see graph.h. */
#include "graph_private.h"
#include "sdlora/clock.h"
#include "sdlora/mem.h"

#include <assert.h>

typedef struct GraphProfile {
    double *fwd, *bwd; /* seconds, per node */
    long calls;
} GraphProfile;

int graph_profile(Graph *g, Err *e)
{
    GraphProfile *p = mem_alloc(1, sizeof *p, "the profile", e);

    if (!p)
        return -1;
    p->fwd = mem_alloc((size_t)g->count, sizeof(double), "the profile", e);
    p->bwd = mem_alloc((size_t)g->count, sizeof(double), "the profile", e);
    if (!p->fwd || !p->bwd) {
        profile_free(p);
        return -1;
    }
    profile_free(g->profile);
    g->profile = p;
    return 0;
}

void profile_free(GraphProfile *p)
{
    if (!p)
        return;
    mem_free(p->fwd);
    mem_free(p->bwd);
    mem_free(p);
}

void profile_note(Graph *g, int node, bool backward, double since)
{
    GraphProfile *p = g->profile;
    assert(node >= 0 && node < g->count);
    (backward ? p->bwd : p->fwd)[node] += clock_seconds() - since;
    if (node == 0 && !backward)
        p->calls++;
}

int graph_profile_rows(const Graph *g, ProfileRow *rows, int max)
{
    const GraphProfile *p = g->profile;
    int n = 0;

    for (int i = 0; p && i < g->count && n < max; i++) {
        const Node *node = g->nodes[i];
        double flops = node->op->flops ? node->op->flops(node) * (double)p->calls : 0;
        int passes = node->reached && node->needs_grad ? node_wants(node, 0) + node_wants(node, 1) : 0;
        ProfileRow *r = &rows[n++];

        r->op = node->op->name;
        r->scope = node->scope;
        r->fwd_s += p->fwd[i];
        r->bwd_s += p->bwd[i];
        r->fwd_flops += flops;
        r->bwd_flops += flops * passes;
        r->calls += p->calls;
    }
    return n;
}
