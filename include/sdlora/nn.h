/* Layers: a weight is declared where it is used. nn_linear(c, "w_q", x, 16) finds or declares the parameters
 * SCOPE.w_q.weight and SCOPE.w_q.bias and returns the node. Names and shapes in files are PyTorch's. Initialisation is
 * PyTorch's default: U(-1/sqrt(fan_in), 1/sqrt(fan_in)) for weights and biases of linear and convolution layers, 1 and
 * 0 for norms, N(0,1) for embeddings. Adapters are put on from outside (adapter.h): layers do not know of them. */
#ifndef SDLORA_NN_H
#define SDLORA_NN_H

#include "sdlora/ops.h"

typedef enum NormKind { NORM_GROUP, NORM_BATCH } NormKind;
extern const char *const NORM_NAMES[];

typedef struct Nn {
    Graph *g;
    ParamStore *params;
    ConvAlgo conv;
    char scope[PARAM_NAME_MAX];
} Nn;

Nn nn_context(Graph *g, ParamStore *params, ConvAlgo conv);

/* Enter SCOPE.name ("encoder_convs.%d"); nn_leave takes the value that nn_enter returned. */
size_t nn_enter(Nn *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void nn_leave(Nn *c, size_t mark);

Node *nn_linear(Nn *c, const char *name, Node *x, int out); /* x (N,..,I) */
Node *nn_conv1x1(Nn *c, const char *name, Node *x, int out);
Node *nn_conv3x3(Nn *c, const char *name, Node *x, int out);
Node *nn_conv_transpose2x2(Nn *c, const char *name, Node *x, int out);
/* act(norm(x)) + temb? + res?; groups is used by NORM_GROUP, and lowered to a divisor of the channels */
Node *nn_norm(Nn *c, const char *name, NormKind kind, int groups, Node *x, Node *temb, Node *res, Act act);
/* Residual sublayers with their layer normalisation, before (pre_norm: y = x + f(LN x)) or after (LN(x + f(x))) them;
 * x (N,H,W,C), k (N,T,F1), v (N,T,F2). The names are those of the normalisation and of the two linear layers. */
Node *nn_attention(Nn *c, const char *norm, const char *query, const char *out, Node *x, Node *k, Node *v,
                   bool pre_norm);
Node *nn_feed_forward(Nn *c, const char *norm, const char *first, const char *last, Node *x, int width, Act act,
                      bool pre_norm);
Node *nn_embedding(Nn *c, const char *name, int vocab, int tokens, int dim, const int *ids, int n);
/* A buffer of the state_dict, e.g. frequencies; the values are the caller's to set after param_seal. */
Param *nn_buffer(Nn *c, const char *layer, const char *name, int numel);

#endif
