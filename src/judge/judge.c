/* Training the judge, and looking through its eyes: see judge.h. One network takes the whole batch, with all threads in
 * each of its kernels, whose results are the same bytes at any number of them. */
#include "sdlora/judge.h"

#include <assert.h>
#include <string.h>

#include "judge_private.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

enum { BATCH = 128, LOOK = 64 };
static const double RATE = 4e-3, DECAY = 5e-2, WARM = 0.2; /* the largest learning rate, where its cycle is there */

/* An image shifted by (dy,dx) into place i of the network. Outside of it lies what lies at its edge. */
static void place(const JudgeNet *net, int i, const Judge *j, const uint8_t *px, int dy, int dx)
{
    const int *d = net->x->val.shape.d, top = (d[1] - j->h) / 2 + dy, left = (d[2] - j->w) / 2 + dx;
    real *out = net->x->val.data + (size_t)i * net->x->val.numel / (size_t)d[0];

    for (int y = 0; y < d[1]; y++)
        for (int x = 0; x < d[2]; x++)
            for (int c = 0; c < j->channels; c++) {
                const int sy = y - top < 0 ? 0 : y - top >= j->h ? j->h - 1 : y - top;
                const int sx = x - left < 0 ? 0 : x - left >= j->w ? j->w - 1 : x - left;
                *out++ = (real)image_to_real(px[((size_t)c * (size_t)j->h + (size_t)sy) * (size_t)j->w + (size_t)sx]);
            }
}

static const uint8_t *pixels(const ImageSet *s, int i)
{
    return s->d->images + image_set_row(s, i) * dataset_image_bytes(s->d);
}

/* ---- training ---- */

typedef struct Training {
    Judge *j;
    JudgeNet net;
    const ImageSet *set;
    int batch;
    int64_t step, steps;
    uint32_t *order; /* (set->n), of the epoch */
    real *m, *v;     /* Adam's */
} Training;

int judge_batch(int images)
{
    return images < BATCH ? images : BATCH;
}

int64_t judge_steps(int images, int epochs)
{
    return (int64_t)epochs * (images / judge_batch(images));
}

int judge_epochs(int images)
{
    const int each = images / judge_batch(images), some = (JUDGE_STEPS + each - 1) / each;
    return some > JUDGE_EPOCHS ? some : JUDGE_EPOCHS;
}

static int shift(Rng *r, int side)
{
    const int most = (side + 27) / 28;
    return (int)rng_below(r, (uint32_t)(2 * most + 1)) - most;
}

static void fill_image(const void *training, int i, int thread)
{
    const Training *t = training;
    const int image = (int)t->order[t->step % (t->set->n / t->batch) * t->batch + i];
    Rng r = rng_make(0, rng_stream("judge", (uint64_t)(t->step * t->batch + i)));
    const int dy = shift(&r, t->j->h), dx = shift(&r, t->j->w);

    (void)thread;
    place(&t->net, i, t->j, pixels(t->set, image), dy, dx);
    t->net.labels[i] = t->set->d->labels[image_set_row(t->set, image)];
}

static void fill_batch(Training *t)
{
    const int64_t per_epoch = t->set->n / t->batch, first = t->step % per_epoch * t->batch;

    if (first == 0) {
        Rng r = rng_make(0, rng_stream("judge order", (uint64_t)(t->step / per_epoch)));
        rng_permutation(&r, t->order, (uint32_t)t->set->n);
    }
    threads_each(t->batch, fill_image, t);
}

/* Up in the first part of the steps and down to nothing in the rest, both linearly. */
static double rate(const Training *t)
{
    const double at = ((double)t->step + 1) / (double)(t->steps + 1);
    return RATE * (at < WARM ? at / WARM : (1 - at) / (1 - WARM));
}

static int train_step(Training *t, Err *e)
{
    const double k = (double)(t->step + 1), beta1 = 0.9, beta2 = 0.99;
    ParamStore *p = t->j->params;
    const AdamStep s = {.lr = rate(t),
                        .beta1 = beta1,
                        .beta2 = beta2,
                        .eps = 1e-8,
                        .weight_decay = DECAY,
                        .bias1 = 1 - pow(beta1, k),
                        .bias2 = 1 - pow(beta2, k),
                        .grad_scale = 1};

    fill_batch(t);
    graph_forward(t->net.g);
    graph_backward(t->net.g);
    if (!isfinite(t->net.g->loss_value))
        return err_set(e, ERR_DIVERGED, "the loss of the judge is not finite at step %lld", (long long)t->step + 1);
    backend_get()->adam(p->values, t->m, t->v, NULL, p->grads, p->n_weights, s);
    graph_weights_changed(t->net.g);
    t->step++;
    return 0;
}

static int check_labels(const ImageSet *s, int classes, Err *e)
{
    for (int i = 0; i < s->n; i++)
        if (s->d->labels[image_set_row(s, i)] >= classes)
            return dataset_check_labels(s->d, classes, e);
    return 0;
}

/* Names and shapes, and weights from the seed (or zeros). */
static int make_params(Judge *j, bool blank, Err *e)
{
    JudgeNet first;
    int rc = (j->params = param_store_new(true, e)) ? judge_net_build(&first, j, 1, false, e) : -1;

    if (j->params)
        graph_free(first.g);
    if (rc)
        return -1;
    return blank ? param_seal_blank(j->params, e) : param_seal(j->params, 0, e);
}

Judge *judge_new(const Dataset *d, int classes, bool blank, Err *e)
{
    Judge *j = mem_alloc(1, sizeof *j, "the judge", e);

    if (!j)
        return NULL;
    *j = (Judge){.channels = d->channels, .h = d->h, .w = d->w, .classes = classes, .accuracy = (double)NAN};
    if (!make_params(j, blank, e))
        return j;
    judge_free(j);
    return NULL;
}

void judge_free(Judge *j)
{
    if (j)
        param_store_free(j->params);
    mem_free(j);
}

static int train(Training *t, const JudgeTraining *how, Err *e)
{
    const size_t weights = t->j->params->n_weights;
    int rc = 0;

    t->order = mem_alloc((size_t)t->set->n, sizeof *t->order, "the judge", e);
    t->m = mem_alloc(weights, sizeof *t->m, "the judge", e);
    t->v = mem_alloc(weights, sizeof *t->v, "the judge", e);
    if (!t->order || !t->m || !t->v || judge_net_build(&t->net, t->j, t->batch, true, e))
        return -1;
    while (!rc && t->step < t->steps)
        if (!(rc = train_step(t, e)) && how->progress &&
            how->progress(how->ctx, t->step, t->steps, t->net.g->loss_value))
            rc = err_set(e, ERR_NONE, "stopped");
    return rc;
}

Judge *judge_train(const ImageSet *s, int classes, const JudgeTraining *how, Err *e)
{
    Training t = {.set = s, .batch = judge_batch(s->n), .steps = how->steps};
    int rc;

    if (s->n < 1) {
        err_set(e, ERR_INPUT, "there are no images to train a judge on");
        return NULL;
    }
    if (check_labels(s, classes, e) || !(t.j = judge_new(s->d, classes, false, e)))
        return NULL;
    rc = train(&t, how, e);
    graph_free(t.net.g);
    mem_free(t.order);
    mem_free(t.m);
    mem_free(t.v);
    t.j->steps = t.steps;
    if (!rc)
        return t.j;
    judge_free(t.j);
    return NULL;
}

/* ---- looking ---- */

static void softmax(float *out, const real *x, int n)
{
    double most = (double)x[0], sum = 0;

    for (int k = 1; k < n; k++)
        most = (double)x[k] > most ? (double)x[k] : most;
    for (int k = 0; k < n; k++)
        sum += exp((double)x[k] - most);
    for (int k = 0; k < n; k++)
        out[k] = (float)(exp((double)x[k] - most) / sum);
}

static void look(Seen *out, const JudgeNet *net, const Judge *j, const ImageSet *s)
{
    for (int first = 0; first < s->n; first += LOOK) {
        const int n = s->n - first < LOOK ? s->n - first : LOOK;
        for (int i = 0; i < LOOK; i++) /* the last batch is filled with the last image */
            place(net, i, j, pixels(s, first + (i < n ? i : n - 1)), 0, 0);
        graph_forward(net->g);
        for (int i = 0; i < n; i++) {
            const real *f = net->features->val.data + (size_t)i * JUDGE_FEATURES;
            const size_t at = (size_t)(first + i);
            for (int k = 0; k < JUDGE_FEATURES; k++)
                out->features[at * JUDGE_FEATURES + (size_t)k] = (float)f[k];
            softmax(out->probability + at * (size_t)j->classes, net->logits->val.data + (size_t)i * (size_t)j->classes,
                    j->classes);
        }
    }
}

int judge_look(Seen *out, const Judge *j, const ImageSet *s, Err *e)
{
    JudgeNet net = {.g = NULL};
    int rc = -1;

    assert(s->d->channels == j->channels && s->d->h == j->h && s->d->w == j->w);
    *out = (Seen){.n = s->n, .classes = j->classes};
    out->features = mem_alloc((size_t)s->n, JUDGE_FEATURES * sizeof(float), "the features", e);
    out->probability = mem_alloc((size_t)s->n, (size_t)j->classes * sizeof(float), "the features", e);
    if (out->features && out->probability && !judge_net_build(&net, j, LOOK, false, e)) {
        look(out, &net, j, s);
        rc = 0;
    } else {
        seen_free(out);
    }
    graph_free(net.g);
    return rc;
}

void seen_free(Seen *s)
{
    mem_free(s->features);
    mem_free(s->probability);
    *s = (Seen){.n = 0};
}

int seen_class(const Seen *s, int i)
{
    const float *p = s->probability + (size_t)i * (size_t)s->classes;
    int best = 0;

    for (int k = 1; k < s->classes; k++)
        if (p[k] > p[best])
            best = k;
    return best;
}

double seen_accuracy(const Seen *s, const ImageSet *of)
{
    int right = 0;

    for (int i = 0; i < s->n; i++)
        right += seen_class(s, i) == of->d->labels[image_set_row(of, i)];
    return (double)right / s->n;
}
