/* Chunks of images side by side: each is worked off once, what they give is added up along the tree that model.h
 * defines, and neither the number of threads nor who works one off has an influence on a bit of the result. Nodes that
 * are computed once. */
#include "train_util.h"
#include "../src/model/tree_sum.h"

#include <sched.h>
#include <stdatomic.h>

enum { IMAGES_MAX = 23, WORKERS_MAX = 5, PIXELS = SIDE * SIDE };

static Model *make_model(bool trainable)
{
    ModelConfig c = tiny_model(PRESET_MNIST);
    Err err;
    Model *m = model_new(&c, trainable, 3, &err);

    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

/* ---- who ---- */

typedef struct Trace {
    atomic_int worked[IMAGES_MAX]; /* times per image */
    atomic_int busy[WORKERS_MAX];  /* calls of a worker that have not ended */
    int late;                      /* the first chunk waits for this many others */
    atomic_int done;               /* chunks worked off */
    atomic_bool failed;
} Trace;

static void wait_for_others(atomic_int *done, int others)
{
    for (int i = 0, n = 0; n < others && i < 10000000; i++) {
        sched_yield();
        n = atomic_load(done);
    }
}

static double value_of(int first)
{
    return 1.0 / (first + 3);
}

static double note_work(void *ctx, Unet *u, int first, int worker)
{
    Trace *t = ctx;

    if (atomic_fetch_add(&t->busy[worker], 1) != 0)
        t->failed = true;
    for (int i = 0; i < u->n; i++)
        atomic_fetch_add(&t->worked[first + i], 1);
    wait_for_others(&t->done, first == 0 ? t->late : 0);
    if (first == 0 && t->done < t->late)
        t->failed = true;
    atomic_fetch_sub(&t->busy[worker], 1);
    atomic_fetch_add(&t->done, 1);
    return value_of(first);
}

static void test_each_once(void **state)
{
    static const int sizes[][2] = {{1, 8}, {8, 8}, {9, 3}, {10, 3}, {12, 4}, {23, 4}, {23, 1}};
    Model *m = make_model(false);
    Err err;

    (void)state;
    for (int threads = 1; threads <= WORKERS_MAX; threads++) {
        threads_init(threads);
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            int n = sizes[k][0], chunk = sizes[k][1], chunks = (n + chunk - 1) / chunk;
            UnetOptions o = {.n = n, .h = SIDE, .w = SIDE};
            double want[IMAGES_MAX];
            UnetChunks c;

            for (int i = 0; i < chunks; i++)
                want[i] = value_of(i * (chunk < n ? chunk : n));
            for (int w = 1; w < chunks; w *= 2)
                for (int i = 0; i + w < chunks; i += 2 * w)
                    want[i] += want[i + w];
            check_ok(unet_chunks_build(&c, m, &o, chunk, &err), err);
            assert_in_range(c.n_workers, 1, threads);
            /* side by side, as soon as whole chunks are for more than half of the threads */
            if (2 * (n / chunk) > threads)
                assert_int_equal(c.n_workers, chunks < threads ? chunks : threads);
            else
                assert_int_equal(c.n_workers, 1);
            for (int again = 0; again < 2; again++) {
                Trace t = {.late = c.n_workers > 1 ? 1 : 0};
                assert_true(unet_chunks_run(&c, note_work, &t) == want[0]);
                assert_false(t.failed);
                assert_int_equal(t.done, chunks);
                for (int i = 0; i < n; i++)
                    assert_int_equal(t.worked[i], 1);
            }
            unet_chunks_free(&c);
        }
    }
    threads_init(1);
    model_free(m);
}

/* ---- the sum ---- */

typedef struct Late {
    int chunk, others; /* this chunk's first image waits for so many other chunks */
    atomic_int done;
    bool in_vain;
} Late;

static double learn(void *ctx, Unet *u, int first, int worker)
{
    Late *late = ctx;
    int t[256];

    (void)worker;
    for (int i = 0; i < u->n; i++) {
        fill_random(u->x->val.data + i * PIXELS, PIXELS, 100 + first + i, 1);
        fill_random(u->target->val.data + i * PIXELS, PIXELS, 1000 + first + i, 1);
        u->y[i] = (first + i) % CLASSES;
        t[i] = (first + i) * 7 % 1000;
    }
    unet_set_time(u, t);
    graph_forward(u->g);
    graph_backward(u->g);
    if (first == late->chunk) {
        wait_for_others(&late->done, late->others);
        late->in_vain = atomic_load(&late->done) < late->others;
    }
    atomic_fetch_add(&late->done, 1);
    return u->g->loss_value;
}

/* Each chunk by a network that knows of no other; their gradients added up as the definition says. */
static double plain_sum(real *sum, Model *m, const UnetOptions *o, int chunk)
{
    const int n = o->n, chunks = (n + chunk - 1) / chunk;
    const size_t weights = m->params->n_weights;
    real *s = malloc((size_t)chunks * weights * sizeof *s);
    double *loss = malloc((size_t)chunks * sizeof *loss), all;
    Late none = {.chunk = -1};
    Err err;

    for (int i = 0; i < chunks; i++) {
        UnetOptions part = *o;
        Unet u;
        part.n = n - i * chunk < chunk ? n - i * chunk : chunk;
        check_ok(unet_build(&u, m, &part, &err), err);
        loss[i] = learn(&none, &u, i * chunk, 0);
        memcpy(s + (size_t)i * weights, m->params->grads, weights * sizeof *s);
        unet_free(&u);
    }
    for (int w = 1; w < chunks; w *= 2)
        for (int i = 0; i + w < chunks; i += 2 * w) {
            loss[i] += loss[i + w];
            for (size_t k = 0; k < weights; k++)
                s[(size_t)i * weights + k] += s[(size_t)(i + w) * weights + k];
        }
    memcpy(sum, s, weights * sizeof *s);
    all = loss[0];
    free(s);
    free(loss);
    return all;
}

static void sum_case(Model *m, int n, int chunk, int late, int others)
{
    static const int threads[] = {1, 2, 3, 5, 8};
    UnetOptions o = {.n = n, .h = SIDE, .w = SIDE, .train = true, .loss_scale = 1.0 / (n * PIXELS)};
    const size_t bytes = m->params->n_weights * sizeof(real);
    real *want = malloc(bytes);
    double loss;
    Err err;

    threads_init(1);
    loss = plain_sum(want, m, &o, chunk < n ? chunk : n);
    for (size_t k = 0; k < sizeof threads / sizeof *threads; k++) {
        UnetChunks c;
        threads_init(threads[k]);
        check_ok(unet_chunks_build(&c, m, &o, chunk, &err), err);
        for (int again = 0; again < 2; again++) {
            const int side_by_side = c.n / c.chunk / c.n_workers * c.n_workers - 1; /* the rest comes after them */
            Late l = {.chunk = c.n_workers > 1 ? late : -1, .others = others < side_by_side ? others : side_by_side};
            memset(m->params->grads, 0xff, bytes);
            assert_true(unet_chunks_run(&c, learn, &l) == loss);
            assert_false(l.in_vain);
            if (memcmp(want, m->params->grads, bytes))
                fail_msg("%d images by %d, %d threads: not the sum that is defined", n, chunk, threads[k]);
        }
        unet_chunks_free(&c);
    }
    threads_init(1);
    free(want);
}

static void test_gradients_are_added_along_the_tree(void **state)
{
    static const int sizes[][2] = {{1, 8},   {7, 8},   {7, 1},     {100, 8}, {100, 32},
                                   {129, 8}, {129, 1}, {129, 129}, {128, 8}};
    Model *m = make_model(true);

    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
        sum_case(m, sizes[k][0], sizes[k][1], -1, 0);
    model_free(m);
}

/* A chunk that comes late holds up none of the others, until they have no slab left: of 16 chunks by 2 threads the
 * store's and 5 more, which suffice for all others while the first one is not done, its neighbour among them. */
static void test_a_late_chunk(void **state)
{
    Model *m = make_model(true);

    (void)state;
    sum_case(m, 16, 1, 0, 4);
    sum_case(m, 16, 1, 0, 10);
    sum_case(m, 16, 1, 0, 15);
    sum_case(m, 16, 1, 5, 9);
    sum_case(m, 31, 2, 8, 6);
    model_free(m);
}

static void fill_slab(TreeTurn t, size_t n, real value)
{
    for (size_t i = 0; i < n; i++)
        t.slab[i] = t.add ? t.slab[i] + value : value;
}

static TreeTurn turn(TreeSum *s, int worker, int chunk, bool add)
{
    const TreeTurn t = tree_sum_next(s, worker, 4);

    assert_int_equal(t.chunk, chunk);
    assert_int_equal(t.add, add);
    return t;
}

/* Four chunks and two workers, in two orders: the second neighbour is for who has nothing to do, but once the first is
 * done it is its worker's. */
static void test_seconds(void **state)
{
    Model *m = make_model(true);
    const size_t n = m->params->n_grads;
    Err err;
    TreeSum *s = tree_sum_new(m->params, (TreeSpan){4, 0, 4}, NULL, (TreeWorkers){2, true}, &err);

    (void)state;
    check_ptr(s, err);
    for (int taken = 0; taken < 2; taken++) {
        TreeTurn first, other, last;

        tree_sum_start(s);
        first = turn(s, 0, 0, false);
        other = turn(s, 1, 2, false);
        fill_slab(other, n, 2);
        tree_sum_add(s, 1, other);
        other = turn(s, 1, 3, true);
        fill_slab(first, n, 1);
        if (!taken)
            tree_sum_add(s, 0, first);
        fill_slab(other, n, 3);
        tree_sum_add(s, 1, other);
        last = turn(s, 1, taken ? 1 : 4, false);
        if (taken) {
            tree_sum_add(s, 0, first);
            turn(s, 0, 4, false);
        } else {
            last = turn(s, 0, 1, true);
        }
        fill_slab(last, n, 4);
        tree_sum_add(s, taken ? 1 : 0, last);
        tree_sum_finish(s);
        for (size_t i = 0; i < n; i++)
            assert_true(m->params->grads[i] == 10);
    }
    tree_sum_free(s);
    model_free(m);
}

/* More slabs than one for each thread and binary digit of the number of chunks there need not be. */
static void test_slabs_are_few(void **state)
{
    Model *m = make_model(true);
    const size_t slab = m->params->n_weights * sizeof(real);
    Err err;

    (void)state;
    for (int threads = 1; threads <= 4; threads++)
        for (int n = 1; n <= 40; n++) {
            UnetOptions o = {.n = n, .h = SIDE, .w = SIDE, .train = true, .loss_scale = 1}, eval = o;
            UnetChunks c;
            size_t graphs;
            int digits = 0;
            threads_init(threads);
            check_ok(unet_chunks_build(&c, m, &o, 1, &err), err);
            graphs = 0;
            for (int i = 0; i < c.n_workers; i++)
                graphs += graph_bytes(c.workers[i].g);
            while ((n - 1) >> digits)
                digits++;
            assert_true(unet_chunks_bytes(&c) - graphs <= (size_t)(digits + threads - 1) * slab);
            assert_true(unet_chunks_bytes(&c) - graphs <= (size_t)(n - 1) * slab);
            unet_chunks_free(&c);
            eval.train = false;
            check_ok(unet_chunks_build(&c, m, &eval, 1, &err), err);
            assert_int_equal(c.sum_bytes, 0);
            unet_chunks_free(&c);
        }
    threads_init(1);
    model_free(m);
}

static void test_measured_before_built(void **state)
{
    Model *m = make_model(true);
    Err err;

    (void)state;
    for (int threads = 1; threads <= 3; threads++)
        for (int n = 5; n <= 17; n += 3) {
            UnetOptions o = {.n = n, .h = SIDE, .w = SIDE, .train = true, .loss_scale = 1};
            UnetChunks c;
            size_t bytes;

            threads_init(threads);
            check_ok(unet_chunks_measure(&bytes, NULL, m, &o, 4, &err), err);
            check_ok(unet_chunks_build(&c, m, &o, 4, &err), err);
            assert_int_equal(bytes, unet_chunks_bytes(&c));
            unet_chunks_free(&c);
        }
    threads_init(1);
    model_free(m);
}

/* ---- the same bits ---- */

static void test_training_does_not_depend_on_threads(void **state)
{
    static const int batches[] = {8, 13, 20, 39}, counts[] = {1, 2, 3, 4, 5, 32};
    Dataset d = bars(40, 7);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();

    (void)state;
    c.micro_batch = 4;
    c.val_images = 11;
    for (int lora = 0; lora < 2; lora++)
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            real *first = NULL;
            double loss = 0, val = 0;

            c.batch = batches[b];
            c.optimizer = b % 2 ? OPTIMIZER_MUON : OPTIMIZER_ADAM;
            for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
                Job j;
                StepReport r;
                ParamStore *s;
                double v;

                threads_init(counts[k]);
                j = job_new(&mc, lora ? "w_q,w_v" : NULL, &c, &d, &d, 1);
                r = job_steps(&j, 3);
                check_ok(trainer_validate(j.t, &v, &j.err), j.err);
                s = job_store(&j);
                if (!first) {
                    first = malloc(s->n_weights * sizeof *first);
                    memcpy(first, s->values, s->n_weights * sizeof *first);
                    loss = r.loss;
                    val = v;
                }
                assert_memory_equal(first, s->values, s->n_weights * sizeof *first);
                assert_true(r.loss == loss);
                assert_true(v == val);
                job_free(&j);
            }
            free(first);
        }
    threads_init(1);
    dataset_free(&d);
}

/* Passes over parts of a batch are the batch: gradients add up to the same, but for rounding. */
static void test_gradients_add_up(void **state)
{
    Dataset d = bars(40, 7);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    StepReport whole = {0}, parts;

    (void)state;
    c.batch = 12;
    for (int micro = 12; micro >= 3; micro -= 3) {
        Job j;

        threads_init(micro == 6 ? 2 : 1);
        c.micro_batch = micro;
        j = job_new(&mc, NULL, &c, &d, NULL, 1);
        parts = job_steps(&j, 1);
        if (micro == 12)
            whole = parts;
        assert_true(fabs(parts.loss - whole.loss) <= 1e-6 * whole.loss);
        assert_true(fabs(parts.grad_norm - whole.grad_norm) <= 1e-5 * whole.grad_norm);
        job_free(&j);
    }
    threads_init(1);
    dataset_free(&d);
}

/* ---- computed once ---- */

static void answer(real *out, Unet *u, const int *y)
{
    fill_random(u->x->val.data, (size_t)u->n * PIXELS, 5, 1);
    memcpy(u->y, y, (size_t)u->n * sizeof *y);
    graph_forward(u->g);
    memcpy(out, u->out->val.data, (size_t)u->n * PIXELS * sizeof *out);
}

static void test_times_are_embedded_once(void **state)
{
    enum { N = 3, TIMES = 4 };
    static const int times[TIMES] = {990, 400, 30, 0}, y[N] = {0, 2, 1};
    Model *m = make_model(false);
    UnetOptions o = {.n = N, .h = SIDE, .w = SIDE}, some = {.n = N, .h = SIDE, .w = SIDE, .times = TIMES};
    real want[N * PIXELS], got[N * PIXELS];
    Param *weight = param_find(m->params, "time_embedding.1.weight");
    Unet each, table;
    Err err;

    (void)state;
    check_ok(unet_build(&each, m, &o, &err), err);
    check_ok(unet_build(&table, m, &some, &err), err);
    unet_set_time(&table, times);
    table.g->poison = true;
    for (int changed = 0; changed < 2; changed++) {
        for (int s = 0; s < TIMES; s++) { /* image i is at step (s+i) mod TIMES */
            int t[N];
            for (int i = 0; i < N; i++)
                t[i] = times[table.step[i] = (s + i) % TIMES];
            unet_set_time(&each, t);
            answer(want, &each, y);
            answer(got, &table, y);
            assert_memory_equal(want, got, sizeof want);
        }
        weight->value[3] += 1;
        answer(got, &table, y);
        assert_memory_equal(want, got, sizeof want); /* nobody said that a weight changed */
        graph_weights_changed(table.g);
        answer(got, &table, y);
        assert_memory_not_equal(want, got, sizeof want);
    }
    unet_free(&each);
    unet_free(&table);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_once),
        cmocka_unit_test(test_gradients_are_added_along_the_tree),
        cmocka_unit_test(test_a_late_chunk),
        cmocka_unit_test(test_seconds),
        cmocka_unit_test(test_slabs_are_few),
        cmocka_unit_test(test_measured_before_built),
        cmocka_unit_test(test_training_does_not_depend_on_threads),
        cmocka_unit_test(test_gradients_add_up),
        cmocka_unit_test(test_times_are_embedded_once),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
