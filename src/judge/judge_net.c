/* The judge's network: convolutions, each with max-pooling until images are at most 8 pixels wide and high, and with
 * BatchNorm; a linear layer makes the features, another one the classes. 28x28: 16 channels, 14x14: 64, 7x7: 128. */
#include "judge_private.h"
#include "sdlora/mem.h"
#include "sdlora/nn.h"

enum { STAGES = 3, SMALL = 8 };                  /* stages at least */
static const int WIDTHS[STAGES] = {16, 64, 128}; /* of later ones the last */

/* How often images are halved. */
static int halvings(const Judge *j)
{
    const int side = j->h > j->w ? j->h : j->w;
    int n = 0;

    while ((side + (1 << n) - 1) >> n > SMALL)
        n++;
    return n;
}

static int round_up(int side, int halved)
{
    return (side + (1 << halved) - 1) >> halved << halved;
}

static Node *body(Nn *c, Node *x, int halved)
{
    for (int i = 0; i < STAGES || i < halved + 1; i++) {
        size_t mark = nn_enter(c, "stages.%d", i);
        x = nn_conv3x3(c, "conv", x, WIDTHS[i < STAGES ? i : STAGES - 1]);
        if (i < halved) /* first, as less is left to do then */
            x = op_maxpool2(c->g, x);
        x = nn_norm(c, "norm", NORM_BATCH, 0, x, NULL, NULL, ACT_RELU);
        nn_leave(c, mark);
    }
    return x;
}

int judge_net_build(JudgeNet *net, const Judge *j, int n, bool train, Err *e)
{
    const int halved = halvings(j), h = round_up(j->h, halved), w = round_up(j->w, halved);
    Graph *g = graph_new(backend_get(), train, e);
    Node *x, *loss = NULL;
    Nn c;

    *net = (JudgeNet){.g = g};
    if (!g)
        return -1;
    c = nn_context(g, j->params, CONV_AUTO);
    net->x = op_input(g, shape4(n, h, w, j->channels));
    x = body(&c, net->x, halved);
    if (x)
        x = op_reshape(g, x, shape2(n, (int)(x->val.numel / (size_t)n)));
    net->features = op_act(g, nn_linear(&c, "features", x, JUDGE_FEATURES), ACT_RELU);
    net->logits = nn_linear(&c, "classes", net->features, j->classes);
    if (train) {
        net->labels = graph_ints(g, n);
        loss = op_cross_entropy(g, net->logits, net->labels, 1.0 / n);
    } else if (net->logits) {
        graph_keep(net->features);
        graph_keep(net->logits);
    }
    return !j->params->sealed && !g->err.code ? 0 : graph_plan(g, loss, mem_bound(0), false, e);
}
