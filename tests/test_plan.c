/* The memory plan: no two lives that meet share bytes, and sharing changes nothing that is computed. */
#include "gradcheck.h"
#include "start_util.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sdlora/mem.h"
#include "sdlora/adapter.h"
#include "sdlora/model.h"
#include "sdlora/threads.h"

static bool both_alive(const PlanItem *a, const PlanItem *b)
{
    return a->start <= b->end && b->start <= a->end;
}

static bool share_bytes(const PlanItem *a, const PlanItem *b)
{
    return a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes;
}

/* The most bytes alive at one step: no plan is smaller. */
static size_t lower_bound(const PlanItem *items, int n, int steps)
{
    size_t most = 0;
    for (int s = 0; s <= steps; s++) {
        size_t now = 0;
        for (int i = 0; i < n; i++)
            now += items[i].start <= s && s <= items[i].end ? items[i].bytes : 0;
        most = now > most ? now : most;
    }
    return most;
}

static void check_plan(const PlanItem *items, int n, size_t total)
{
    for (int i = 0; i < n; i++) {
        assert_int_equal(items[i].offset % MEM_ALIGN, 0);
        assert_true(items[i].offset + items[i].bytes <= total);
        for (int k = 0; k < i; k++)
            if (both_alive(&items[i], &items[k]) && share_bytes(&items[i], &items[k]))
                fail_msg("items %d and %d meet in steps and in bytes", k, i);
    }
}

static void random_case(uint64_t seed, int n, int steps)
{
    PlanItem *items = calloc((size_t)n, sizeof *items);
    size_t shared, plain, bound;
    Rng r = rng_make(seed, 0);

    for (int i = 0; i < n; i++) {
        items[i].bytes = MEM_ALIGN * (1 + rng_below(&r, 1 + rng_below(&r, 64)));
        items[i].start = (int)rng_below(&r, (uint32_t)steps);
        items[i].end = items[i].start + (int)rng_below(&r, (uint32_t)(steps - items[i].start));
    }
    bound = lower_bound(items, n, steps);
    plan_pack(items, n, true, &plain);
    check_plan(items, n, plain);
    plan_pack(items, n, false, &shared);
    check_plan(items, n, shared);
    assert_true(shared <= plain);
    assert_true(shared >= bound);
    if (shared > 2 * bound)
        fail_msg("%zu bytes where %zu are alive at once", shared, bound);
    free(items);
}

static void test_random_lives(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++)
        random_case(seed, 1 + (int)(seed % 97), 2 + (int)(seed % 31));
    random_case(1000, 600, 400);
}

static void test_known_lives(void **state)
{
    /* one after another: one place; all at once: one place each; equal ends and starts meet */
    PlanItem chain[] = {{64, 0, 0, 1}, {64, 0, 2, 3}, {128, 0, 4, 5}},
             at_once[] = {{64, 0, 0, 9}, {128, 0, 3, 4}, {64, 0, 2, 3}};
    PlanItem touching[] = {{64, 0, 0, 1}, {64, 0, 1, 2}};
    size_t total;

    (void)state;
    plan_pack(chain, 3, false, &total);
    assert_int_equal(total, 128);
    plan_pack(chain, 3, true, &total);
    assert_int_equal(total, 256);
    plan_pack(at_once, 3, false, &total);
    assert_int_equal(total, 256);
    plan_pack(touching, 2, false, &total);
    assert_int_equal(total, 128);
    plan_pack(touching, 0, false, &total);
    assert_int_equal(total, 0);
}

/* ---- a whole network ---- */

static ModelConfig small(Preset p)
{
    ModelConfig c = model_preset(p);

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 8, 12}, 3 * sizeof(int));
    c.levels = 3;
    c.image_size = 8;
    c.time_dim = 16;
    c.classes = 3;
    return c;
}

typedef struct Result {
    double loss;
    real *grads, *out;
    size_t slab, naive, prep;
} Result;

enum { IMAGES = 3, PIXELS = IMAGES * 8 * 8 };

/* Of a lean graph those of the image alone are computed again, and no filter is there before it is used. */
static void check_convolutions(const Graph *g)
{
    for (int i = 0; i < g->count; i++) {
        const Node *n = g->nodes[i];
        if (!strcmp(n->op->name, "conv3x3"))
            assert_int_equal(n->again[0] > 0, g->lean && g->slab_bytes < g->naive_bytes && n->attr.conv.ci == 1);
    }
}

/* Two passes (the second meets what the first left), then what came out. */
static Result run(Model *m, Adapter *a, bool plain, bool poison, bool adds)
{
    UnetOptions o = {
        .n = IMAGES, .h = 8, .w = 8, .train = true, .loss_scale = 1.0 / PIXELS, .plain = plain, .adds = adds};
    const ParamStore *s = a ? a->params : m->params;
    Result r;
    Unet u;
    Err err;

    check_ok(unet_build(&u, m, &o, &err), err);
    check_plan(u.g->items, u.g->n_items, u.g->slab_bytes);
    u.g->poison = poison;
    if (a) {
        fill_random(s->values, s->n_weights, 8, 0.3);
        adapter_apply(a, 1, -1);
        memset(m->params->grads, 0xff, m->params->n_grads * sizeof(real));
    }
    memset(s->grads, 0xff, s->n_weights * sizeof(real)); /* NaN: nothing relies on cleared gradients */
    fill_random(u.x->val.data, PIXELS, 1, 1);
    fill_random(u.target->val.data, PIXELS, 2, 1);
    memcpy(u.y, (int[]){2, 0, 1}, sizeof(int[IMAGES]));
    unet_set_time(&u, (int[]){3, 500, 900});
    for (int pass = 0; pass < 2; pass++) {
        if (adds)
            graph_grads_to(u.g, s->grads, pass == 1);
        graph_forward(u.g);
        graph_backward(u.g);
        if (a)
            adapter_backward(a, s->grads, m->params->grads, 0, 1, -1);
    }
    r.loss = u.g->loss_value;
    r.slab = u.g->slab_bytes;
    r.naive = u.g->naive_bytes;
    r.prep = u.g->prep_bytes;
    check_convolutions(u.g);
    r.grads = malloc(s->n_weights * sizeof(real));
    memcpy(r.grads, s->grads, s->n_weights * sizeof(real));
    r.out = malloc(PIXELS * sizeof(real));
    memcpy(r.out, u.out->val.data, PIXELS * sizeof(real)); /* kept after the backward pass */
    unet_free(&u);
    return r;
}

static void same(const Result *a, const Result *b, size_t weights)
{
    assert_true(isfinite(a->loss));
    assert_true(a->loss == b->loss);
    for (size_t i = 0; i < weights; i++)
        assert_true(isfinite((double)a->grads[i]));
    assert_memory_equal(a->grads, b->grads, weights * sizeof(real));
    assert_memory_equal(a->out, b->out, PIXELS * sizeof(real));
}

static void result_free(Result *r)
{
    free(r->grads);
    free(r->out);
}

static void network_case(Preset preset, const char *targets)
{
    ModelConfig c = small(preset);
    AdapterConfig ac = {.rank = 2, .alpha = 3};
    Result planned, plain, poisoned, both;
    Adapter *a = NULL;
    Err err;
    Model *m = model_new(&c, !targets, 4, &err);
    size_t weights;

    check_ptr(m, err);
    if (targets) {
        snprintf(ac.targets, sizeof ac.targets, "%s", targets);
        a = adapter_new(m->params, &ac, 1, &err);
        check_ptr(a, err);
        check_ok(adapter_attach(a, &err), err);
    }
    weights = a ? a->params->n_weights : m->params->n_weights;
    planned = run(m, a, false, false, false);
    plain = run(m, a, true, false, false);
    poisoned = run(m, a, false, true, false);
    both = run(m, a, true, true, false);
    same(&planned, &plain, weights);
    same(&planned, &poisoned, weights);
    same(&planned, &both, weights);
    assert_int_equal(plain.slab, plain.naive);
    assert_int_equal(planned.naive, plain.naive);
    /* a batch that passes whole keeps less: convolutions' outputs, and what is small */
    assert_true(planned.slab < plain.slab * (preset == PRESET_SEED && !targets ? 0.25 : 0.6667));
    assert_int_equal(planned.prep == 0, preset == PRESET_SEED && !targets);
    result_free(&plain);
    result_free(&poisoned);
    result_free(&both);
    if (!a) { /* the second pass's added to the first's */
        Result twice = run(m, NULL, false, true, true);
        for (size_t i = 0; i < weights; i++)
            assert_true(twice.grads[i] == 2 * planned.grads[i]);
        result_free(&twice);
    }
    result_free(&planned);
    adapter_free(a);
    model_free(m);
}

static void test_planned_is_unplanned(void **state)
{
    (void)state;
    network_case(PRESET_MNIST, NULL);
    network_case(PRESET_SEED, NULL);
    network_case(PRESET_MNIST, "w_q,w_k,w_v");
    network_case(PRESET_MNIST, "feed_forward.2");
    network_case(PRESET_SEED, "w_v,time_embedding_linear");
}

/* A weight that two ops read, with an op between them whose gradients may take its place: what is added is the sum of
 * both, rounded before it is. */
static void test_a_gradient_is_whole_before_it_is_added(void **state)
{
    enum { N = 5, C = 16 };
    (void)state;
    for (int plain = 0; plain < 2; plain++) {
        Fixture f = fixture_new();
        Graph *g = f.g;
        real *sum = NULL, *apart = NULL;
        g->adds = true;
        Node *x = op_input(g, shape2(N, C)), *w = leaf(&f, "w", shape2(C, C)), *b = leaf(&f, "b", shape1(C));
        Node *h = op_act(g, op_linear(g, x, w, b, NULL), ACT_SILU);
        Node *y =
            op_linear(g, op_act(g, op_linear(g, h, w, NULL, NULL), ACT_SILU), leaf(&f, "v", shape2(C, C)), b, NULL);
        Node *target = op_input(g, shape2(N, C));
        check_ok(param_seal(f.store, 7, &f.err), f.err);
        check_ok(graph_plan(g, op_loss(g, y, target, false, 0.5), 0, plain, &f.err), f.err);
        g->poison = true;
        const size_t n = f.store->n_grads;
        sum = malloc(n * sizeof *sum);
        apart = malloc(2 * n * sizeof *apart);
        for (int pass = 0; pass < 4; pass++) { /* two with a slab each, then the same two into one */
            fill_random(x->val.data, x->val.numel, (uint64_t)pass % 2, 1);
            fill_random(target->val.data, target->val.numel, 5 + (uint64_t)pass % 2, 1);
            graph_grads_to(g, pass < 2 ? apart + (size_t)pass * n : sum, pass == 3);
            graph_forward(g);
            graph_backward(g);
        }
        for (int i = 0; i < f.store->count; i++)
            for (size_t k = 0; k < f.store->items[i]->numel; k++) {
                const size_t at = f.store->items[i]->grad_offset + k;
                assert_true(sum[at] == apart[at] + apart[n + at]);
            }
        free(sum);
        free(apart);
        graph_free(g);
        param_store_free(f.store);
    }
    threads_init(1);
}

static void test_inference_needs_less(void **state)
{
    ModelConfig c = small(PRESET_MNIST);
    UnetOptions o = {.n = IMAGES, .h = 8, .w = 8};
    real out[2][PIXELS];
    size_t bytes[3];
    Err err;
    Model *m = model_new(&c, true, 4, &err);
    Unet u;

    (void)state;
    check_ptr(m, err);
    for (int plain = 0; plain < 2; plain++) {
        o.plain = plain;
        check_ok(unet_build(&u, m, &o, &err), err);
        check_plan(u.g->items, u.g->n_items, u.g->slab_bytes);
        u.g->poison = true;
        bytes[plain] = u.g->slab_bytes;
        fill_random(u.x->val.data, PIXELS, 1, 1);
        memcpy(u.y, (int[]){2, 3, 1}, sizeof(int[IMAGES]));
        unet_set_time(&u, (int[]){3, 500, 900});
        graph_forward(u.g);
        graph_forward(u.g); /* inputs have lived through the first */
        memcpy(out[plain], u.out->val.data, sizeof out[plain]);
        unet_free(&u);
    }
    o.train = true;
    o.plain = false;
    check_ok(unet_build(&u, m, &o, &err), err);
    bytes[2] = u.g->slab_bytes;
    unet_free(&u);
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    assert_true(isfinite((double)out[0][0]));
    assert_true(bytes[0] < bytes[1] / 3);
    assert_true(bytes[0] < bytes[2] / 2);
    model_free(m);
}

static void test_limit(void **state)
{
    ModelConfig c = small(PRESET_MNIST);
    UnetOptions o = {.n = IMAGES, .h = 8, .w = 8, .train = true, .loss_scale = 1};
    Err err;
    Model *m = model_new(&c, true, 4, &err);
    size_t bytes;
    Unet u;

    (void)state;
    check_ptr(m, err);
    check_ok(unet_build(&u, m, &o, &err), err);
    bytes = graph_bytes(u.g);
    unet_free(&u);
    o.max_bytes = bytes;
    check_ok(unet_build(&u, m, &o, &err), err);
    unet_free(&u);
    o.max_bytes = bytes - 1;
    assert_int_equal(unet_build(&u, m, &o, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    model_free(m);
}

/* Does it die of the assertion, in a process of its own? */
static bool aborts(void (*pass)(Graph *g), Graph *g)
{
    const struct rlimit none = {0, 0};
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        setrlimit(RLIMIT_CORE, &none);
        fclose(stderr);
        signal(SIGABRT, SIG_DFL); /* cmocka catches it */
        pass(g);
        _exit(0);
    }
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

/* More threads than a graph was planned for would run over its scratch. */
static void test_threads(void **state)
{
    ModelConfig c = small(PRESET_MNIST);
    UnetOptions o = {.n = IMAGES, .h = 8, .w = 8, .train = true, .loss_scale = 1};
    Err err;
    Model *m = model_new(&c, true, 4, &err);
    Unet u;

    (void)state;
    check_ptr(m, err);
    check_ok(unet_build(&u, m, &o, &err), err);
    assert_int_equal(u.g->threads, 1);
    graph_forward(u.g);
    graph_backward(u.g);
    threads_init(2);
#ifndef NDEBUG
    u.g->stale = STALE_ALL;
    assert_true(aborts(graph_prepare, u.g));
    u.g->stale = STALE_NOTHING;
    assert_true(aborts(graph_forward, u.g));
    assert_true(aborts(graph_backward, u.g));
#endif
    threads_init(1);
    unet_free(&u);
    model_free(m);
}

/* Of a model with two trained filters, only those are transformed again when trained weights have changed. (Without the
 * first there would be no gradient to pass on through the second.) */
static void test_frozen_filters_stay_prepared(void **state)
{
    ModelConfig c = small(PRESET_MNIST);
    UnetOptions o = {.n = IMAGES, .h = 8, .w = 8, .train = true, .loss_scale = 1, .conv = CONV_WINOGRAD};
    Err err;
    Model *m = model_new(&c, false, 4, &err);
    Param *trained[] = {param_find(m->params, "encoder_convs.0.seq1.0.weight"),
                        param_find(m->params, "decoder_convs.1.seq2.0.weight")};
    size_t frozen = 0, again = 0;
    Unet u;

    (void)state;
    assert_true(trained[0] && trained[1]);
    check_ok(param_want_grads(m->params, trained, 2, &err), err);
    check_ok(unet_build(&u, m, &o, &err), err);
    graph_prepare(u.g);
    memset(u.g->prep_slab, 0xff, u.g->prep_bytes);
    graph_trained_weights_changed(u.g);
    graph_prepare(u.g);
    for (int i = 0; i < u.g->count; i++) {
        const Node *n = u.g->nodes[i];
        for (int pass = 0; pass < 2; pass++) {
            const bool filled = n->prep[pass] && ((const unsigned char *)n->prep[pass])[3] != 0xff;
            if (n->prep[pass] && (n->in[1]->param == trained[0] || n->in[1]->param == trained[1]))
                again += filled;
            else
                frozen += filled;
        }
    }
    assert_true(again > 0 && frozen == 0);
    graph_weights_changed(u.g); /* all of them */
    graph_prepare(u.g);
    for (int i = 0; i < u.g->count; i++)
        for (int pass = 0; pass < 2; pass++)
            frozen += u.g->nodes[i]->prep[pass] && ((const unsigned char *)u.g->nodes[i]->prep[pass])[3] != 0xff;
    assert_true(frozen > again);
    unet_free(&u);
    model_free(m);
}

/* A network beside a lean one: outside training it has the other's scratch memory, if that is enough, and then runs
 * alone. */
static void test_lean_twins(void **state)
{
    ModelConfig c = small(PRESET_SEED);
    UnetOptions o = {.n = IMAGES, .h = 8, .w = 8, .train = true, .loss_scale = 1};
    Err err;
    Model *m = model_new(&c, true, 4, &err);
    Unet lean, twin;

    (void)state;
    check_ptr(m, err);
    check_ok(unet_build(&lean, m, &o, &err), err);
    assert_true(lean.g->lean);
    o.twin = &lean;
    o.n = 2;
    for (int i = 0; i < 3; i++) { /* in training, in validation, and where the other had less */
        o.train = i == 0;
        if (i == 2)
            lean.g->scratch_bytes = 1;
        check_ok(unet_build(&twin, m, &o, &err), err);
        assert_true(twin.g->lean && twin.g->scratch_bytes > 1);
        assert_int_equal(twin.g->scratch == lean.g->scratch, i == 1);
        assert_int_equal(graph_bytes(twin.g), twin.g->slab_bytes + (i == 1 ? 0 : twin.g->scratch_bytes));
        unet_free(&twin);
    }
    threads_init(4);
    o.n = 8;
    assert_int_equal(unet_chunks_workers(&o, 2), 1);
    o.twin = NULL;
    assert_int_equal(unet_chunks_workers(&o, 2), 4);
    threads_init(1);
    unet_free(&lean);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_lives),
        cmocka_unit_test(test_random_lives),
        cmocka_unit_test(test_planned_is_unplanned),
        cmocka_unit_test(test_a_gradient_is_whole_before_it_is_added),
        cmocka_unit_test(test_inference_needs_less),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_frozen_filters_stay_prepared),
        cmocka_unit_test(test_lean_twins),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
