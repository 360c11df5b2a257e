/* Gradient checks for the double build: the gradients of 0.5 sum (out - target)^2 with respect to every parameter,
 * against central differences. The target is random, so that the gradient that enters the op is random too (a plain sum
 * of outputs would be blind: for a softmax or a LayerNorm its gradient is zero). */
#ifndef TESTS_GRADCHECK_H
#define TESTS_GRADCHECK_H

#include <fnmatch.h>

#include "check.h"
#include "sdlora/adapter.h"
#include "sdlora/ops.h"
#include "sdlora/threads.h"

typedef struct Fixture {
    ParamStore *store;
    Graph *g;
    Err err;
} Fixture;

static inline Fixture fixture_new(void)
{
    Fixture f = {0};
    threads_init(2);
    backend_init();
    f.store = param_store_new(true, &f.err);
    f.g = graph_new(backend_get(), true, &f.err);
    return f;
}

static inline Node *leaf(Fixture *f, const char *name, Shape s)
{
    Param want = {.kind = PARAM_WEIGHT, .init = INIT_NORMAL, .init_arg = 1, .file_shape = s};
    Param *p;
    snprintf(want.name, sizeof want.name, "%s", name);
    p = param_get(f->store, &want, &f->err);
    check_ptr(p, f->err);
    return op_param(f->g, p);
}

/* One that is not trained. */
static inline Node *frozen(Fixture *f, const char *name, Shape s)
{
    Param want = {.kind = PARAM_BUFFER, .init = INIT_NORMAL, .init_arg = 1, .file_shape = s};
    Param *p;
    snprintf(want.name, sizeof want.name, "%s", name);
    p = param_get(f->store, &want, &f->err);
    check_ptr(p, f->err);
    return op_param(f->g, p);
}

/* All that a pass computes begins as NaN, so that nothing can rely on cleared memory. To be called before inputs are
 * filled. */
static inline void begin_with_nan(const Graph *g, const ParamStore *s)
{
    memset(g->slab, 0xff, g->slab_bytes);
    memset(g->scratch, 0xff, g->scratch_bytes);
    memset(g->prep_slab, 0xff, g->prep_bytes);
    memset(s->grads, 0xff, s->n_weights * sizeof(real));
}

/* What is differentiated: a graph, and where the parameters are an adapter's, what makes its weights out of them, in
 * this step of a run. */
typedef struct Checked {
    Graph *g;
    Adapter *a; /* NULL: none */
    int64_t step;
} Checked;

static inline double loss_now(const Checked *c)
{
    if (c->a)
        adapter_apply(c->a, 11, c->step);
    graph_weights_changed(c->g);
    graph_forward(c->g);
    return c->g->loss_value;
}

static inline void gradient_now(const Checked *c)
{
    loss_now(c);
    graph_backward(c->g);
    if (c->a)
        adapter_backward(c->a, c->a->params->grads, c->a->model->grads, 0, 11, c->step);
}

/* Every parameter's gradient, at up to `samples` places each; its largest must not be zero unless the pattern `zero`
 * names it. A second pass, which meets what the first left, gives the same bytes. */
static inline void check_gradients(const Checked *c, const ParamStore *s, int samples, double h, double rtol,
                                   const char *zero)
{
    real *grads = calloc(s->n_weights, sizeof(real));

    gradient_now(c);
    memcpy(grads, s->grads, s->n_weights * sizeof(real));
    gradient_now(c);
    for (int i = 0; i < s->count; i++)
        if (s->items[i]->grad &&
            memcmp(s->items[i]->grad, grads + s->items[i]->offset, s->items[i]->numel * sizeof(real)))
            fail_msg("gradient of %s: the second pass differs from the first", s->items[i]->name);
    for (int i = 0; i < s->count; i++) {
        const Param *p = s->items[i];
        double most = 0;
        size_t step;
        if (p->kind != PARAM_WEIGHT)
            continue;
        for (size_t k = 0; k < p->numel; k++)
            most = fmax(most, fabs((double)grads[p->offset + k]));
        if (zero && !fnmatch(zero, p->name, 0)) {
            if (!(most <= 1e-9))
                fail_msg("gradient of %s should be zero, is %g", p->name, most);
            continue;
        }
        if (!(most > 0))
            fail_msg("gradient of %s is zero everywhere, or not a number", p->name);
        step = p->numel / (size_t)samples + 1;
        for (size_t k = step / 2; k < p->numel; k += step) {
            real *v = p->value + k, was = *v;
            double up, down;
            *v = was + (real)h;
            up = loss_now(c);
            *v = was - (real)h;
            down = loss_now(c);
            *v = was;
            if (!(fabs((up - down) / (2 * h) - (double)grads[p->offset + k]) <= rtol * fmax(most, 1e-3)))
                fail_msg("gradient of %s[%zu]: %.10g, by differences %.10g", p->name, k, (double)grads[p->offset + k],
                         (up - down) / (2 * h));
        }
    }
    free(grads);
}

/* Close the graph with the loss, plan it, check, free everything. */
static inline void finish(Fixture *f, Node *out, const char *zero)
{
    Node *target = out ? op_input(f->g, out->val.shape) : NULL;
    Node *loss = op_loss(f->g, out, target, false, 0.5);
    check_ok(param_seal(f->store, 7, &f->err), f->err);
    check_ok(graph_plan(f->g, loss, 0, false, &f->err), f->err);
    begin_with_nan(f->g, f->store);
    f->g->poison = true;
    fill_random(target->val.data, target->val.numel, 99, 1);
    check_gradients(&(Checked){.g = f->g}, f->store, 40, 1e-5, 2e-7, zero);
    graph_free(f->g);
    param_store_free(f->store);
}

#endif
