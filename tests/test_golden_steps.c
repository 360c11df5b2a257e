/* Five optimiser steps against PyTorch (tests/golden/unet_*_steps.safetensors): Adam, AdamW, Adam with clipping and a
 * moving average, with the same calls that the trainer makes. With the default backend, and with the reference. */
#include "golden_util.h"

typedef struct Run {
    const char *net, *name;
    double weight_decay, clip, ema;
} Run;

enum { STEPS = 5 };

typedef struct Slabs {
    real *m, *v, *ema;
    void *scratch;
} Slabs;

static Slabs slabs_new(const ParamStore *s)
{
    size_t n = s->n_weights;
    Slabs b = {calloc(n, sizeof(real)), calloc(n, sizeof(real)), calloc(n, sizeof(real)),
               aligned_alloc(64, (backend_get()->sumsq_scratch(n, 1) + 63) / 64 * 64)};

    memcpy(b.ema, s->values, n * sizeof(real));
    return b;
}

static void slabs_free(Slabs *b)
{
    free(b->m);
    free(b->v);
    free(b->ema);
    free(b->scratch);
}

/* Step k = 1..; PyTorch: clip_grad_norm_ scales by clip / (norm + 1e-6) where that is less than 1. */
static double step(const Run *run, const ParamStore *s, Slabs *b, int k)
{
    const Backend *be = backend_get();
    double norm = sqrt(be->sumsq(s->grads, s->n_weights, b->scratch));
    AdamStep a = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = run->weight_decay};

    a.bias1 = 1 - pow(0.9, k);
    a.bias2 = 1 - pow(0.999, k);
    a.grad_scale = run->clip > 0 ? fmin(1, run->clip / (norm + 1e-6)) : 1;
    a.ema_decay = fmin(run->ema, (1.0 + k) / (10.0 + k));
    be->adam(s->values, b->m, b->v, run->ema > 0 ? b->ema : NULL, s->grads, s->n_weights, a);
    return norm;
}

/* Where a gradient is zero by mathematics, Adam makes steps of up to lr out of its rounding noise; through a
 * convolution's bias that also moves the mean that BatchNorm tracks. Everywhere else the weights agree, but for the few
 * whose gradient is nearly zero: a tight bound on the mean difference (PyTorch's own float32: 6e-9), a loose one on the
 * largest. */
static void check_weights(const Param *p, const real *slab, const StFile *f, const char *prefix)
{
    char name[2 * PARAM_NAME_MAX];
    bool noise = meta_lists(f, "zero_grad", p->name) || strstr(p->name, "running_mean");
    float *got = calloc(p->numel, sizeof *got), *want;
    double mean = 0, most;

    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    want = golden_f32(f, name);
    param_export(got, p, slab);
    for (size_t i = 0; i < p->numel; i++)
        mean += fabs((double)got[i] - (double)want[i]) / (double)p->numel;
    most = max_diff(got, want, p->numel);
    if (!(most <= (noise ? 2 * STEPS * 1e-3 : 2e-4)) || !(noise || mean <= 5e-7 + 1e-6 * largest(want, p->numel)))
        fail_msg("%s: off by %.3g, on average by %.3g", name, most, mean);
    free(got);
    free(want);
}

static void check_state(const ParamStore *s, const real *slab, const StFile *f, const char *prefix)
{
    for (int i = 0; i < s->count; i++) {
        const Param *p = s->items[i];
        if (p->kind == PARAM_WEIGHT || (slab == s->values && strstr(p->name, "running_")))
            check_weights(p, slab, f, prefix);
    }
}

static void follow(const Run *run)
{
    char name[64];
    StFile *io, *f;
    Model *m = golden_model(run->net, true);
    Slabs b = slabs_new(m->params);
    Unet u;

    snprintf(name, sizeof name, "%s_io", run->net);
    io = golden_open(name);
    snprintf(name, sizeof name, "%s_steps", run->net);
    f = golden_open(name);
    u = golden_unet(m, io, true);
    for (int k = 1; k <= STEPS + 1; k++) {
        double norm;

        graph_forward(u.g);
        snprintf(name, sizeof name, "%s.losses", run->name);
        check_close(u.g->loss_value, golden_f64(f, name, (size_t)k - 1), 0, 2e-6, name);
        if (k > STEPS)
            break;
        graph_backward(u.g);
        norm = step(run, m->params, &b, k);
        graph_weights_changed(u.g);
        snprintf(name, sizeof name, "%s.grad_norms", run->name);
        check_close(norm, golden_f64(f, name, (size_t)k - 1), 0, 5e-6, name);
        if (k < STEPS)
            continue;
        snprintf(name, sizeof name, "%s.", run->name);
        check_state(m->params, m->params->values, f, name);
        if (run->ema > 0)
            check_state(m->params, b.ema, f, "ema.");
    }
    unet_free(&u);
    slabs_free(&b);
    model_free(m);
    st_close(io);
    st_close(f);
}

static void test_adam(void **state)
{
    (void)state;
    follow(&(Run){.net = "unet_mnist", .name = "adam"});
}

static void test_adamw(void **state)
{
    (void)state;
    follow(&(Run){.net = "unet_mnist", .name = "adamw", .weight_decay = 0.05});
}

static void test_clipped_with_moving_average(void **state)
{
    (void)state;
    follow(&(Run){.net = "unet_mnist", .name = "clip", .clip = 1, .ema = 0.999});
}

static void test_adam_with_batch_norm(void **state)
{
    (void)state;
    follow(&(Run){.net = "unet_seed", .name = "adam"});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_adamw),
        cmocka_unit_test(test_clipped_with_moving_average),
        cmocka_unit_test(test_adam_with_batch_norm),
    };
    return run_on_both(tests, start);
}
