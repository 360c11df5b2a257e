/* Chunks of images side by side: each is worked off once, they are collected in order, and neither the number of threads nor
 * who works one off has an influence on a bit of the result. Nodes that are computed once. */
#include "train_util.h"

#include <sched.h>

enum { IMAGES_MAX = 23, THREADS_MAX = 5, PIXELS = SIDE * SIDE };

static Model *make_model(bool trainable)
{
    ModelConfig c = tiny_model(PRESET_MNIST);
    Err err;
    Model *m = model_new(&c, trainable, 3, &err);

    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

/* ---- who, and in which order ---- */

typedef struct Trace {
    int worked[IMAGES_MAX];    /* times per image */
    int collected[IMAGES_MAX]; /* first images, in their order */
    int calls;
    int busy[THREADS_MAX]; /* calls of a worker that have not ended */
    int late;              /* the first chunk waits for this many others */
    int done;              /* chunks worked off */
    bool failed;
} Trace;

static void note_work(void *ctx, Unet *u, int first, int worker)
{
    Trace *t = ctx;
    int busy, done = 0;

#pragma omp atomic capture
    busy = t->busy[worker]++;
    t->failed |= busy != 0;
    for (int i = 0; i < u->n; i++)
#pragma omp atomic
        t->worked[first + i]++;
    for (int i = 0; first == 0 && done < t->late && i < 10000000; i++) {
        sched_yield();
#pragma omp atomic read
        done = t->done;
    }
#pragma omp atomic
    t->busy[worker]--;
#pragma omp atomic
    t->done++;
}

static void note_collected(void *ctx, Unet *u, int first, int worker)
{
    Trace *t = ctx;

    (void)worker;
    t->failed |= t->calls > 0 && first <= t->collected[t->calls - 1];
    t->failed |= first + u->n > IMAGES_MAX;
    t->collected[t->calls++] = first;
}

static void test_each_once_in_order(void **state)
{
    static const int sizes[][2] = {{1, 8}, {8, 8}, {9, 3}, {10, 3}, {12, 4}, {23, 4}, {23, 1}};
    Model *m = make_model(false);
    Err err;

    (void)state;
    for (int threads = 1; threads <= THREADS_MAX; threads++) {
        threads_init(threads);
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            int n = sizes[k][0], chunk = sizes[k][1], chunks = (n + chunk - 1) / chunk;
            UnetOptions o = {.n = n, .h = SIDE, .w = SIDE};
            Trace t = {.late = threads > 1 && n / chunk >= threads ? 1 : 0};
            UnetChunks c;

            check_ok(unet_chunks_build(&c, m, &o, chunk, &err), err);
            assert_in_range(c.n_workers, 1, threads);
            assert_true(n / chunk < threads || c.n_workers == threads);
            unet_chunks_run(&c, note_work, note_collected, &t);
            assert_false(t.failed);
            assert_int_equal(t.calls, chunks);
            for (int i = 0; i < n; i++)
                assert_int_equal(t.worked[i], 1);
            unet_chunks_free(&c);
        }
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
            check_ok(unet_chunks_measure(&bytes, m, &o, 4, &err), err);
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
    static const int batches[] = {8, 13, 20};
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
            for (int threads = 1; threads <= THREADS_MAX; threads++) {
                Job j;
                StepReport r;
                ParamStore *s;
                double v;

                threads_init(threads);
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
        cmocka_unit_test(test_each_once_in_order),
        cmocka_unit_test(test_measured_before_built),
        cmocka_unit_test(test_training_does_not_depend_on_threads),
        cmocka_unit_test(test_gradients_add_up),
        cmocka_unit_test(test_times_are_embedded_once),
    };
    return cmocka_run_group_tests(tests, train_start, NULL);
}
