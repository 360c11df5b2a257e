/* The UNet with cross-attention, after the reference: every encoder level is a block followed by max-pooling, every
 * decoder level a transposed convolution, the concatenation with the encoder's output, and a block.
 *
 *   block(x):  h = act(norm(conv3x3 x)) + T(t)          T(t) = Linear(t), with act around it where time_act
 *              h = act(norm(conv3x3 h)) [+ skip(x)]     skip: x itself, or a 1x1 convolution where channels change
 *              cross_attention(h, context)
 *   cross_attention(x): pixels are queries, the class is key and value,
 *              Z(u) = z_linear(attention(w_q u, w_k ctx, w_v ctx))
 *              post-norm: u = norm1(x + Z(x)), norm2(u + FF(u));  pre-norm: u = x + Z(norm1 x), u + FF(norm2 u)
 *
 * Names are those of the reference's state_dict. Activations are (N,H,W,C). */
#include "sdlora/model.h"

#include <math.h>
#include <string.h>

#include "sdlora/mem.h"

static Node *cross_attention(Nn *c, const ModelConfig *m, Node *x, Node *context)
{
    size_t mark = nn_enter(c, "cross_attention");
    Node *k = nn_linear(c, "w_k", context, m->qsize), *v = nn_linear(c, "w_v", context, m->vsize);

    x = nn_attention(c, "norm1", "w_q", "z_linear", x, k, v, m->pre_norm);
    x = nn_feed_forward(c, "norm2", "feed_forward.0", "feed_forward.2", x, m->fsize, m->act, m->pre_norm);
    nn_leave(c, mark);
    return x;
}

/* What a block gets of the time: (n,channels). step: which row of `time` each image has; NULL: its own */
static Node *block_time(Nn *c, const ModelConfig *m, Node *time, int channels, const int *step, int n)
{
    Node *t = nn_linear(c, "time_embedding_linear", time, channels);

    if (m->time_act)
        t = op_act(c->g, t, m->act);
    return step ? op_reshape(c->g, op_embedding(c->g, t, step, n, 1), shape2(n, channels)) : t;
}

static Node *block(Nn *c, const ModelConfig *m, Node *x, int channels, Node *t, Node *context)
{
    Node *h, *skip = NULL;

    if (m->skip)
        skip = x && x->val.shape.d[3] == channels ? x : nn_conv1x1(c, "skip", x, channels);
    h = nn_conv3x3(c, "seq1.0", x, channels);
    h = nn_norm(c, "seq1.1", m->norm, m->groups, h, t, NULL, m->act);
    h = nn_conv3x3(c, "seq2.0", h, channels);
    h = nn_norm(c, "seq2.1", m->norm, m->groups, h, NULL, skip, m->act);
    return cross_attention(c, m, h, context);
}

static Node *build(Nn *c, const Unet *u)
{
    const ModelConfig *m = &u->model->config;
    const int *step = u->step, n = u->n;
    Node *time, *t, *context, *residual[MODEL_MAX_LEVELS] = {NULL};
    Node *x = u->x;
    int levels = m->levels;

    nn_buffer(c, "time_embedding.0", "half_embedding", m->time_dim / 2);
    time = op_act(c->g, nn_linear(c, "time_embedding.1", u->time, m->time_dim), m->act);
    context =
        nn_embedding(c, "class_embedding", m->classes + m->null_class, m->context_tokens, m->context_dim, u->y, n);
    op_embedding_mix(context, u->to, u->part);

    for (int i = 0; i < levels; i++) {
        size_t mark = nn_enter(c, "encoder_convs.%d", i);
        t = block_time(c, m, time, m->channels[i], step, n);
        x = residual[i] = block(c, m, x, m->channels[i], t, context);
        nn_leave(c, mark);
        if (i < levels - 1)
            x = op_maxpool2(c->g, x);
    }
    for (int i = 0; i < levels - 1; i++) {
        int level = levels - 2 - i;
        size_t mark = nn_enter(c, "deconvs");
        char name[16] = {(char)('0' + i), '\0'};
        x = nn_conv_transpose2x2(c, name, x, m->channels[level]);
        nn_leave(c, mark);
        mark = nn_enter(c, "decoder_convs.%d", i);
        t = block_time(c, m, time, m->channels[level], step, n);
        x = block(c, m, op_concat(c->g, residual[level], x), m->channels[level], t, context);
        nn_leave(c, mark);
    }
    return nn_conv1x1(c, "output", x, m->in_channels);
}

int unet_declare(Unet *u, Model *m, const UnetOptions *o, Err *e)
{
    Nn c;

    *u = (Unet){.model = m, .n = o->n, .h = o->h, .w = o->w};
    u->g = graph_new(backend_of(o->precision), o->train, e);
    if (!u->g)
        return -1;
    u->g->twin = o->twin ? o->twin->g : NULL;
    u->g->batch_stats = o->batch_stats;
    u->g->frozen_stats = !m->params->trainable;
    u->g->adds = o->adds;
    /* whole batches are large; and validation, which shares the filters */
    u->g->lean = o->twin ? o->twin->g->lean : o->train && m->config.norm == NORM_BATCH && m->params->trainable;
    c = nn_context(u->g, m->params, o->conv);
    u->x = op_input(u->g, shape4(o->n, o->h, o->w, m->config.in_channels));
    u->time = op_input(u->g, shape2(o->times ? o->times : o->n, m->config.time_dim));
    if (o->times) {
        graph_fix(u->time);
        u->step = graph_ints(u->g, o->n);
    }
    u->y = graph_ints(u->g, o->n);
    if (o->mixed) {
        u->to = graph_ints(u->g, o->n);
        u->part = graph_floats(u->g, o->n);
    }
    u->out = build(&c, u);
    graph_keep(u->out);
    if (u->g->err.code) {
        if (e)
            *e = u->g->err;
        unet_free(u);
        return -1;
    }
    return 0;
}

int unet_build(Unet *u, Model *m, const UnetOptions *o, Err *e)
{
    Node *loss = NULL;

    if (unet_declare(u, m, o, e))
        return -1;
    if (o->train) {
        u->target = op_input(u->g, u->out->val.shape);
        loss = op_loss(u->g, u->out, u->target, o->l1, o->loss_scale);
    }
    if (graph_plan(u->g, loss, o->max_bytes, o->plain, e)) {
        unet_free(u);
        return -1;
    }
    return 0;
}

void unet_free(Unet *u)
{
    graph_free(u->g);
    u->g = NULL;
}

int unet_diverged(Unet *u, const char *what, Err *e)
{
    const Node *n = graph_find_not_finite(u->g);

    if (!n)
        return 0;
    return err_set(e, ERR_DIVERGED,
                   "%s is not finite, which begins at '%s' (%s); lower the adapter's scale or look for large "
                   "weights",
                   what, n == u->time ? "time_embedding.0" : n->scope, n->op->name);
}

static Param *frequencies(const Model *m)
{
    return param_find(m->params, "time_embedding.0.half_embedding");
}

void unet_set_frequencies(Model *m)
{
    Param *f = frequencies(m);
    int half = m->config.time_dim / 2;
    float step = (float)(-log(10000.0) / (half - 1)); /* in float, as the reference's tensor arithmetic is */

    for (int i = 0; i < half; i++)
        f->value[i] = (real)expf((float)i * step);
}

void unet_set_time(Unet *u, const int *t)
{
    const Param *f = frequencies(u->model);
    int half = u->model->config.time_dim / 2;

    if (u->time->fixed)
        graph_weights_changed(u->g);
    for (int i = 0; i < u->time->val.shape.d[0]; i++) {
        real *row = u->time->val.data + (size_t)i * 2 * (size_t)half;
        if (i > 0 && t[i] == t[i - 1]) {
            memcpy(row, row - 2 * half, 2 * (size_t)half * sizeof *row);
            continue;
        }
        for (int k = 0; k < half; k++) {
            real angle = f->value[k] * (real)t[i];
            row[k] = (real)sin((double)angle);
            row[half + k] = (real)cos((double)angle);
        }
    }
}
