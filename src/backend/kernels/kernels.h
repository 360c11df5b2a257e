/* The functions of one instruction set's table (table.c), as include/sdlora/backend.h describes them. */
#ifndef SDLORA_KERNELS_H
#define SDLORA_KERNELS_H

#include "kernel.h"

extern const Backend K(backend_table);

/* ---- peak.c ---- */
double K(peak)(real *out, int64_t rounds);

/* ---- conv*.c ---- */
const char *K(conv3_algo)(ConvShape s, ConvPass pass);
size_t K(conv3_prep_size)(ConvShape s, ConvPass pass);
void K(conv3_prep)(real *u, const real *w, ConvShape s, ConvPass pass);
size_t K(conv3_scratch)(ConvShape s, ConvPass pass);
void K(conv3_fwd)(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s, void *scratch);
void K(conv3_bwd_data)(real *dx, const real *dy, const real *w, const real *u, ConvShape s, real beta, void *scratch);
void K(conv3_bwd_weight)(real *dw, real *db, const real *x, const real *dy, ConvShape s, real beta, void *scratch);

/* ---- convt.c ---- */
size_t K(convt2_scratch)(ConvShape s, ConvPass pass);
void K(convt2_fwd)(real *y, size_t row, const real *x, const real *w, const real *b, ConvShape s, void *scratch);
void K(convt2_bwd_data)(real *dx, const real *dy, const real *w, ConvShape s, real beta, void *scratch);
void K(convt2_bwd_weight)(real *dw, real *db, const real *x, const real *dy, ConvShape s, real beta, void *scratch);

/* ---- linear.c ---- */
void K(linear_fwd)(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                   int out, void *scratch);
size_t K(linear_fwd_scratch)(int rows, int in, int out);
void K(linear_bwd_data)(real *dx, const real *dy, const real *w, int n, int rows, int in, int out, real beta);
size_t K(linear_bwd_weight_scratch)(int n, int rows, int in, int out);
void K(linear_bwd_weight)(real *dw, real *db, const real *x, const real *dy, int n, int rows, int in, int out,
                          real beta, void *scratch);

/* ---- norm.c ---- */
size_t K(norm_scratch)(NormShape s);
void K(group_norm_fwd)(real *y, real *stats, const real *x, const real *gamma, const real *beta, const real *temb,
                       const real *res, NormShape s);
void K(group_norm_bwd)(real *dx, real *dgamma, real *dbeta, real *dtemb, real *dres, const real *dy, const real *x,
                       const real *stats, const real *gamma, const real *beta, NormShape s, real beta_x, real beta_p,
                       real beta_t, real beta_r, void *scratch);
void K(batch_norm_stats)(real *stats, real *var_unbiased, const real *x, NormShape s, void *scratch);
void K(batch_norm_fwd)(real *y, const real *stats, const real *x, const real *gamma, const real *beta, const real *temb,
                       const real *res, NormShape s);
void K(batch_norm_bwd)(real *dx, real *dgamma, real *dbeta, real *dtemb, real *dres, const real *dy, const real *x,
                       const real *stats, const real *gamma, const real *beta, NormShape s, bool batch_stats,
                       real beta_x, real beta_p, real beta_t, real beta_r, void *scratch);

/* ---- sublayer.c ---- */
size_t K(sublayer_kept)(SublayerShape s);
size_t K(sublayer_fwd_scratch)(SublayerShape s);
void K(sublayer_fwd)(real *y, size_t row, real *kept, const real *const in[], SublayerShape s, void *scratch);
size_t K(sublayer_bwd_scratch)(SublayerShape s);
void K(sublayer_bwd)(real *const d[], const real betas[], const real *dy, real *kept, const real *const in[],
                     SublayerShape s, void *scratch);

/* ---- elementwise.c ---- */
void K(act_fwd)(real *y, const real *x, size_t numel, Act act);
void K(act_bwd)(real *dx, const real *dy, const real *x, size_t numel, Act act, real beta);
void K(axpby)(real *y, const real *x, size_t numel, real a, real b);
void K(maxpool2_fwd)(real *y, uint8_t *where, const real *x, size_t row, int n, int h, int w, int c);
void K(maxpool2_bwd)(real *dx, const real *dy, const uint8_t *where, int n, int h, int w, int c, real beta);
void K(copy_rows)(real *y, size_t y_row, const real *x, size_t x_row, size_t rows, int c, real beta);
void K(transpose)(real *y, const real *x, int rows, int cols, real beta);
void K(embed_fwd)(real *y, const real *table, const int *idx, int n, int d);
void K(embed_bwd)(real *dtable, const real *dy, const int *idx, int n, int d, int vocab, real beta);

/* ---- loss.c, optim.c ---- */
size_t K(loss_scratch)(size_t numel);
double K(loss)(real *da, const real *a, const real *b, size_t numel, bool l1, double scale, void *scratch);
size_t K(sumsq_scratch)(size_t numel);
double K(sumsq)(const real *x, size_t numel, void *scratch);
void K(adam)(real *w, real *m, real *v, real *ema, const real *g, size_t numel, AdamStep s);

#endif
