/* The operations. Each returns a new node of the graph, or NULL after a mistake (graph.h). Images are (N,H,W,C).
 * Arguments marked ? may be NULL. */
#ifndef SDLORA_OPS_H
#define SDLORA_OPS_H

#include "sdlora/graph.h"

/* Leaves: data set by the caller in node->val.data, any shape; a parameter. */
Node *op_input(Graph *g, Shape shape);
Node *op_param(Graph *g, Param *p);

/* x (N,H,W,Ci), w (3,3,Ci,Co), b? (Co) -> (N,H,W,Co). Stride 1, zero padding 1. */
Node *op_conv3x3(Graph *g, Node *x, Node *w, Node *b, ConvAlgo algo);

/* x (N,H,W,Ci), w (Ci,2,2,Co), b? (Co) -> (N,2H,2W,Co). Stride 2. */
Node *op_conv_transpose2x2(Graph *g, Node *x, Node *w, Node *b);

/* x (N,..,I), w (O,I), b? (O), res? (N,..,O) -> res + x w^T + b, (N,..,O). The first dimension counts images. A 1x1
 * convolution is this. */
Node *op_linear(Graph *g, Node *x, Node *w, Node *b, Node *res);

/* act(normalised x * gamma + beta) + temb + res: x (N,H,W,C), gamma, beta (C), temb? (N,C), res? (N,H,W,C). Wu & He
 * 2018. Variance is the biased one. */
Node *op_group_norm(Graph *g, Node *x, Node *gamma, Node *beta, Node *temb, Node *res, int groups, Act act, real eps);

/* The same with statistics per channel over the batch (Ioffe & Szegedy 2015). In training (g->train) the statistics are
 * the batch's and the running ones move by momentum (unbiased variance, as PyTorch does), *batches counts; otherwise
 * the running ones are used, or the batch's where g->batch_stats. */
Node *op_batch_norm(Graph *g, Node *x, Node *gamma, Node *beta, Node *temb, Node *res, Param *running_mean,
                    Param *running_var, Param *batches, real momentum, Act act, real eps);

/* A residual sublayer of a transformer block (backend.h has the formulas): x (N,H,W,C), gamma, beta (C) of the layer
 * normalisation (Ba, Kiros & Hinton 2016), b2 (C). Feed-forward: w1 (F,C), b1 (F), w2 (C,F), with act between them.
 * Attention over T tokens (w1 has three dimensions): w1 (N,T,C), b1 (N,T,1), w2 (N,T,C); nn_attention makes them. */
Node *op_sublayer(Graph *g, Node *x, Node *gamma, Node *beta, Node *w1, Node *b1, Node *w2, Node *b2, Act act,
                  bool pre_norm, real eps);

Node *op_act(Graph *g, Node *x, Act act);
Node *op_scale(Graph *g, Node *x, real a);
Node *op_add(Graph *g, Node *a, Node *b);
Node *op_reshape(Graph *g, Node *x, Shape shape); /* the same numbers in the same order */
Node *op_transpose(Graph *g, Node *x);            /* (A,B) -> (B,A) */
Node *op_maxpool2(Graph *g, Node *x);             /* (N,H,W,C) -> (N,H/2,W/2,C), H and W even */
Node *op_concat(Graph *g, Node *a, Node *b);      /* over channels */

/* table (V,T*D), ids: N ints in 0..V-1 that stay where they are -> (N,T,D) */
Node *op_embedding(Graph *g, Node *table, const int *ids, int n, int tokens);
/* Between two rows: row i of the embedding becomes (1 - part[i]) table[ids[i]] + part[i] table[to[i]]. Both (n),
 * borrowed, and may change. Not for training. */
void op_embedding_mix(Node *embedding, const int *to, const float *part);

/* scale * sum |pred-target| or scale * sum (pred-target)^2 -> scalar; the value is graph->loss_value. */
Node *op_loss(Graph *g, Node *pred, Node *target, bool l1, double scale);

/* logits (N,K), labels: N ints in 0..K-1 that stay where they are -> scalar, scale * sum of the rows' cross entropies,
 * -log softmax(logits)[label]; the value is graph->loss_value. Any other label makes it NaN, and the row's gradient. */
Node *op_cross_entropy(Graph *g, Node *logits, const int *labels, double scale);

#endif
