/* Layers: see nn.h. */
#include "sdlora/nn.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *const NORM_NAMES[] = {"group", "batch", NULL};

Nn nn_context(Graph *g, ParamStore *params, ConvAlgo conv)
{
    return (Nn){g, params, conv, ""};
}

size_t nn_enter(Nn *c, const char *fmt, ...)
{
    size_t mark = strlen(c->scope), used = mark;
    va_list ap;

    if (used && used + 1 < sizeof c->scope)
        c->scope[used++] = '.';
    va_start(ap, fmt);
    vsnprintf(c->scope + used, sizeof c->scope - used, fmt, ap);
    va_end(ap);
    graph_scope(c->g, c->scope);
    return mark;
}

void nn_leave(Nn *c, size_t mark)
{
    c->scope[mark] = '\0';
    graph_scope(c->g, c->scope);
}

/* The parameter SCOPE.leaf of the store, or NULL with the graph's error set. */
static Param *find_or_declare(const Nn *c, const char *leaf, Param want)
{
    if (c->g->err.code)
        return NULL;
    if ((size_t)snprintf(want.name, sizeof want.name, "%s.%s", c->scope, leaf) >= sizeof want.name) {
        graph_fail(c->g, "parameter name '%s' is too long", leaf);
        return NULL;
    }
    return param_get(c->params, &want, &c->g->err);
}

static Node *weight(const Nn *c, const char *leaf, ParamUse use, Shape file_shape, ParamLayout layout, ParamInit init,
                    double arg)
{
    Param want = {
        .kind = PARAM_WEIGHT, .use = use, .layout = layout, .init = init, .init_arg = arg, .file_shape = file_shape};
    Param *p = find_or_declare(c, leaf, want);
    return p ? op_param(c->g, p) : NULL;
}

static int last_dim(const Node *x)
{
    return x->val.shape.d[x->val.shape.nd - 1];
}

/* PyTorch's default for linear and convolution layers: kaiming_uniform with a = sqrt(5), which is
 * U(+-1/sqrt(fan_in)). */
static double default_bound(int fan_in)
{
    return 1.0 / sqrt((double)fan_in);
}

static Node *bias(const Nn *c, int out, int fan_in)
{
    return weight(c, "bias", USE_OTHER, shape1(out), LAYOUT_PLAIN, INIT_UNIFORM, default_bound(fan_in));
}

/* The weight and the bias of the linear layer SCOPE.name. */
static void linear_params(Nn *c, const char *name, int in, int out, Node **w, Node **b)
{
    size_t mark = nn_enter(c, "%s", name);
    *w = weight(c, "weight", USE_LINEAR, shape2(out, in), LAYOUT_PLAIN, INIT_UNIFORM, default_bound(in));
    *b = bias(c, out, in);
    nn_leave(c, mark);
}

static void norm_params(Nn *c, const char *name, int channels, Node **gamma, Node **beta)
{
    size_t mark = nn_enter(c, "%s", name);
    *gamma = weight(c, "weight", USE_OTHER, shape1(channels), LAYOUT_PLAIN, INIT_CONST, 1);
    *beta = weight(c, "bias", USE_OTHER, shape1(channels), LAYOUT_PLAIN, INIT_CONST, 0);
    nn_leave(c, mark);
}

Node *nn_linear(Nn *c, const char *name, Node *x, int out)
{
    Node *w, *b, *y;
    size_t mark;

    if (!x)
        return NULL;
    linear_params(c, name, last_dim(x), out, &w, &b);
    mark = nn_enter(c, "%s", name);
    y = op_linear(c->g, x, w, b, NULL);
    nn_leave(c, mark);
    return y;
}

Node *nn_conv1x1(Nn *c, const char *name, Node *x, int out)
{
    size_t mark;
    Node *y, *w, *b;
    int in;

    if (!x)
        return NULL;
    in = last_dim(x);
    mark = nn_enter(c, "%s", name);
    w = weight(c, "weight", USE_CONV1, shape4(out, in, 1, 1), LAYOUT_CONV1, INIT_UNIFORM, default_bound(in));
    b = bias(c, out, in);
    y = op_linear(c->g, x, w, b, NULL);
    nn_leave(c, mark);
    return y;
}

Node *nn_conv3x3(Nn *c, const char *name, Node *x, int out)
{
    size_t mark;
    Node *y, *w, *b;
    int in;

    if (!x)
        return NULL;
    in = last_dim(x);
    mark = nn_enter(c, "%s", name);
    w = weight(c, "weight", USE_CONV3, shape4(out, in, 3, 3), LAYOUT_CONV, INIT_UNIFORM, default_bound(9 * in));
    b = bias(c, out, 9 * in);
    y = op_conv3x3(c->g, x, w, b, c->conv);
    nn_leave(c, mark);
    return y;
}

Node *nn_conv_transpose2x2(Nn *c, const char *name, Node *x, int out)
{
    size_t mark;
    Node *y, *w, *b;
    int in;

    if (!x)
        return NULL;
    in = last_dim(x);
    mark = nn_enter(c, "%s", name);
    /* PyTorch takes fan_in from the second dimension of (I,O,2,2), which is the output's channels here */
    w = weight(c, "weight", USE_CONVT2, shape4(in, out, 2, 2), LAYOUT_CONVT2, INIT_UNIFORM, default_bound(4 * out));
    b = bias(c, out, 4 * out);
    y = op_conv_transpose2x2(c->g, x, w, b);
    nn_leave(c, mark);
    return y;
}

static Param *statistic(Nn *c, const char *name, ParamKind kind, Shape shape, double value)
{
    Param want = {.kind = kind, .init = INIT_CONST, .init_arg = value, .file_shape = shape};
    return find_or_declare(c, name, want);
}

Node *nn_norm(Nn *c, const char *name, NormKind kind, int groups, Node *x, Node *temb, Node *res, Act act)
{
    size_t mark;
    Node *y, *gamma, *beta;
    int ch;

    if (!x)
        return NULL;
    ch = last_dim(x);
    norm_params(c, name, ch, &gamma, &beta);
    mark = nn_enter(c, "%s", name);
    if (kind == NORM_BATCH) {
        Param *mean = statistic(c, "running_mean", PARAM_BUFFER, shape1(ch), 0);
        Param *var = statistic(c, "running_var", PARAM_BUFFER, shape1(ch), 1);
        Param *count = statistic(c, "num_batches_tracked", PARAM_COUNTER, shape_make(0, NULL), 0);
        y = op_batch_norm(c->g, x, gamma, beta, temb, res, mean, var, count, (real)0.1, act, (real)1e-5);
    } else {
        while (ch % groups)
            groups--;
        y = op_group_norm(c->g, x, gamma, beta, temb, res, groups, act, (real)1e-5);
    }
    nn_leave(c, mark);
    return y;
}

Node *nn_attention(Nn *c, const char *norm, const char *query, const char *out, Node *x, Node *k, Node *v,
                   bool pre_norm)
{
    Node *gamma, *beta, *wq, *bq, *wz, *bz, *w1, *b1;
    int channels, width;

    if (!x || !k || !v)
        return NULL;
    channels = last_dim(x);
    width = last_dim(k);
    norm_params(c, norm, channels, &gamma, &beta);
    linear_params(c, query, channels, width, &wq, &bq);
    linear_params(c, out, last_dim(v), channels, &wz, &bz);
    k = op_scale(c->g, k, 1 / (real)sqrt((double)width));
    w1 = op_linear(c->g, k, op_transpose(c->g, wq), NULL, NULL);
    b1 = op_linear(c->g, k, op_reshape(c->g, bq, shape2(1, width)), NULL, NULL);
    return op_sublayer(c->g, x, gamma, beta, w1, b1, op_linear(c->g, v, wz, NULL, NULL), bz, ACT_NONE, pre_norm,
                       (real)1e-5);
}

Node *nn_feed_forward(Nn *c, const char *norm, const char *first, const char *last, Node *x, int width, Act act,
                      bool pre_norm)
{
    Node *gamma, *beta, *w1, *b1, *w2, *b2;
    int channels;

    if (!x)
        return NULL;
    channels = last_dim(x);
    norm_params(c, norm, channels, &gamma, &beta);
    linear_params(c, first, channels, width, &w1, &b1);
    linear_params(c, last, width, channels, &w2, &b2);
    return op_sublayer(c->g, x, gamma, beta, w1, b1, w2, b2, act, pre_norm, (real)1e-5);
}

Node *nn_embedding(Nn *c, const char *name, int vocab, int tokens, int dim, const int *ids, int n)
{
    size_t mark = nn_enter(c, "%s", name);
    Node *table = weight(c, "weight", USE_TABLE, shape2(vocab, tokens * dim), LAYOUT_PLAIN, INIT_NORMAL, 1);
    Node *y = op_embedding(c->g, table, ids, n, tokens);
    nn_leave(c, mark);
    return y;
}

Param *nn_buffer(Nn *c, const char *layer, const char *name, int numel)
{
    size_t mark = nn_enter(c, "%s", layer);
    Param *p = statistic(c, name, PARAM_BUFFER, shape1(numel), 0);
    nn_leave(c, mark);
    return p;
}
