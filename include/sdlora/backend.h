/* The backend: every loop that touches tensors, in one table of functions. src/core calls these and knows no SIMD
 * and no BLAS. To read first, and to begin another backend with: the reference, the same functions as plain loops
 * (src/backend/ref). Another backend is one more filled table that passes tests/test_kernels_*.c and tests/test_conv.c.
 *
 * Layouts. Activations are NHWC: x (N,H,W,C). Filters lie in the *inner* layout:
 *   3x3 convolution   w (3,3,Ci,Co)     y[n,i,j,o] = b[o] + sum_{a,c,k} x[n,i+a-1,j+c-1,k] w[a,c,k,o]   (zero padding)
 *   2x2 transpose     w (Ci,2,2,Co)     y[n,2i+a,2j+c,o] = b[o] + sum_k x[n,i,j,k] w[k,a,c,o]
 *   linear            w (O,I)           y[r,o] = b[o] + sum_i x[r,i] w[o,i]
 * (param.h converts from and to PyTorch's shapes.)
 *
 * Gradients. Where a gradient goes is a Grad of its own, weight and bias alike: it is overwritten (whatever was there,
 * NaN included) or added to, or not wanted at all, whatever becomes of the others. What only an unwanted gradient would
 * need is not read. Outputs never alias inputs unless a comment says so. A bias or optional input may be NULL where a
 * comment says so, and then costs nothing.
 *
 * Rows. `row` after a pointer is the distance from one pixel's channels to the next pixel's, in reals: the number of
 * channels, or more where the image is a part of a wider one. It changes no bit of what is computed.
 *
 * Bits. A result is the same bits at any number of threads: partial sums are over parts that depend on shapes only, and
 * are added in their order. Blocks of work may be cut by the number of threads where that rounds nothing differently.
 * In *forward* kernels image n's result is the same bits whatever the batch: at any N and at any position that is equal
 * modulo backend_group of h*w. (OpenBLAS rounds a row differently depending on the number of rows and on its place; so
 * each of its products lies within one image, or within a group of images, and has the same shape whatever N is.)
 *
 * Precision. A table computes in fp32, or its products in bfloat16: there both operands of every product of conv3,
 * convt2, linear and sublayer are rounded to bfloat16 (the upper half of a float) first, to nearest, ties to even, NaN
 * stays NaN; products and sums are fp32 as everything else is, and so is all that lies in memory. Left in fp32 are
 * convolutions and linear layers of the image itself or of anything else of fewer than BF16_CHANNELS channels in or
 * out, and linear layers of fewer than BF16_ROWS rows an image (those of the time and of the class).
 *
 * Scratch. `*_scratch` says how many bytes a call needs that is run by `threads` threads or by fewer; the caller passes
 * a MEM_ALIGN-aligned block of that size, and sees to it that threads_count() is not more when the call is made.
 * Kernels never allocate. */
#ifndef SDLORA_BACKEND_H
#define SDLORA_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/tensor.h"

#define BACKEND_GROUP 8 /* images at most that go into one product of a forward kernel */
/* How many do where an image has hw pixels: so many that a product has 64 rows, where BACKEND_GROUP are enough. */
static inline int backend_group(int hw)
{
    int group = 1;
    while (group < BACKEND_GROUP && group * hw < 64)
        group *= 2;
    return group;
}

typedef enum Precision { PRECISION_FP32, PRECISION_BF16, PRECISION_AUTO } Precision; /* AUTO: see backend_of */
extern const char *const PRECISION_NAMES[];
enum { BACKEND_SUM = 8192 }; /* elements of a partial sum of sumsq */
enum { BF16_CHANNELS = 4, BF16_ROWS = 16 };

/* Where a gradient goes: *p = beta * *p + gradient. p NULL: it is not wanted. */
typedef struct Grad {
    real *p;
    real beta; /* 0: overwrites, what was there is not read; 1: adds */
} Grad;

typedef enum ConvAlgo { CONV_AUTO, CONV_IM2COL, CONV_WINOGRAD } ConvAlgo;
extern const char *const CONV_NAMES[]; /* by value, as every table of names here and elsewhere; NULL-terminated */
typedef enum ConvPass { CONV_FWD, CONV_BWD_DATA, CONV_BWD_WEIGHT } ConvPass;

typedef struct ConvShape {
    int n, h, w;   /* images, height, width (of input and output alike) */
    int ci, co;    /* channels in and out */
    ConvAlgo algo; /* AUTO: the backend decides by shape; WINOGRAD: F(4x4,3x3) wherever it can be applied */
} ConvShape;

typedef enum Act { ACT_NONE, ACT_RELU, ACT_SILU } Act;
extern const char *const ACT_NAMES[];

/* One normalisation, fused with what follows it in a UNet block:
 *   y[n,p,c] = act(gamma[c] * (x[n,p,c] - mean) * rstd + beta[c]) + temb[n,c] + res[n,p,c]
 * temb (n,c) and res (n,hw,c) may be NULL. */
typedef struct NormShape {
    int n, hw, c;
    int groups; /* GroupNorm: statistics per (n, group) over hw and the group's channels; BatchNorm: 0 */
    Act act;
    real eps;
} NormShape;

typedef struct NormInputs {
    const real *x, *gamma, *beta, *temb, *res;
} NormInputs;

typedef struct NormGrads {
    Grad x, gamma, beta, temb, res;
} NormGrads;

/* One residual sublayer of a transformer block, the whole of it:
 *   pre_norm: y = x + f(LN x)    else: y = LN(x + f(x))    f(u) = W2 mid(W1 u + b1) + b2
 * Feed-forward: mid is act. Attention: mid is the softmax over f tokens, and W1, b1, W2 are each image's own: the keys
 * times the query's weight and bias, and the values through the output's weight. */
typedef struct SublayerShape {
    int n, p, c, f; /* images, pixels, channels; width of the middle */
    bool attention;
    Act act;
    bool pre_norm;
    real eps;
} SublayerShape;

/* Its inputs: x (n,p,c); LN's gamma and beta (c); W1 (f,c), b1 (f), W2 (c,f), b2 (c); with attention W1 (n,f,c), b1
 * (n,f), W2 (n,f,c). */
enum { SUB_X, SUB_GAMMA, SUB_BETA, SUB_W1, SUB_B1, SUB_W2, SUB_B2, SUB_INPUTS };

typedef struct AdamStep {
    double lr, beta1, beta2, eps; /* double, because 1 - beta2 in float is not what it says */
    double weight_decay;          /* decoupled (AdamW): w -= lr*weight_decay*w */
    double bias1, bias2;          /* 1-beta1^t, 1-beta2^t */
    double grad_scale;            /* the gradient is multiplied by this first (clipping) */
    double ema_decay;             /* ema = d*ema + (1-d)*w, where ema != NULL */
} AdamStep;

typedef struct MuonStep {
    double lr, momentum, weight_decay, grad_scale, ema_decay; /* as AdamStep's */
} MuonStep;

typedef struct MuonMatrix { /* (rows,cols) each: weights, momentum, average or NULL, gradient */
    real *w, *m, *ema;
    const real *g;
    int rows, cols;
} MuonMatrix;

typedef struct Backend {
    const char *name; /* "cpu", or "ref": the reference */
    const char *simd; /* "avx512", "avx2", "neon", "baseline", or "ref"; in bfloat16 also "amx", "avx512bf16" */
    Precision precision;

    /* ---- what the processor could do (peak.c): all threads multiply and add in registers; returns the flops done.
     * *out depends on every one of them ---- */
    double (*peak)(real *out, int64_t rounds);

    /* ---- 3x3 convolution, stride 1, zero padding 1 (conv*.c) ---- */
    /* prep: the filter in the form that fwd (pass CONV_FWD) or bwd_data (CONV_BWD_DATA) wants, e.g.
     * Winograd-transformed; prep_size is its number of reals, 0 where the pass uses w itself. Done once per change of
     * w. `u` below is that filter, or NULL where prep_size is 0; w is read only then. b may be NULL. */
    const char *(*conv3_algo)(ConvShape s, ConvPass pass); /* the path that AUTO takes: "winograd-f4", "im2col", ... */
    size_t (*conv3_prep_size)(ConvShape s, ConvPass pass);
    void (*conv3_prep)(real *u, const real *w, ConvShape s, ConvPass pass);
    size_t (*conv3_scratch)(ConvShape s, ConvPass pass, int threads);
    void (*conv3_fwd)(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s, void *scratch);
    void (*conv3_bwd_data)(Grad dx, const real *dy, const real *w, const real *u, ConvShape s, void *scratch);
    void (*conv3_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch);

    /* ---- 2x2 transposed convolution, stride 2: x (N,H,W,Ci) -> y (N,2H,2W,Co); s.h, s.w are the input's (convt.c).
     * b may be NULL ---- */
    size_t (*convt2_scratch)(ConvShape s, ConvPass pass, int threads);
    void (*convt2_fwd)(real *y, size_t row, const real *x, const real *w, const real *b, ConvShape s, void *scratch);
    void (*convt2_bwd_data)(Grad dx, const real *dy, const real *w, ConvShape s, void *scratch);
    void (*convt2_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch);

    /* ---- linear (linear.c): x (n,rows,in), y (n,rows,out); n images of `rows` rows each ----
     * y = res + x w^T + b; b (out) and res (n,rows,out) may be NULL, and res may be y itself. */
    size_t (*linear_fwd_scratch)(int rows, int in, int out, int threads);
    void (*linear_fwd)(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                       int out, void *scratch);
    size_t (*linear_bwd_data_scratch)(int rows, int in, int out, int threads);
    void (*linear_bwd_data)(Grad dx, const real *dy, const real *w, int n, int rows, int in, int out, void *scratch);
    size_t (*linear_bwd_weight_scratch)(int n, int rows, int in, int out, int threads);
    void (*linear_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                              void *scratch);

    /* ---- normalisation (norm.c). stats: GroupNorm (n,groups,2) mean and rstd; BatchNorm (c,2). Backward reads x,
     * gamma and beta; where d->x.beta is 0, d->x.p may be dy ---- */
    size_t (*norm_scratch)(NormShape s, int threads); /* for every group_norm_* and batch_norm_* call */
    void (*group_norm_fwd)(real *y, real *stats, const NormInputs *in, NormShape s);
    void (*group_norm_bwd)(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                           void *scratch);
    /* stats and (NULL: not wanted) unbiased variance (c) of the batch; in eval mode the caller fills stats from
     * the running mean and variance */
    void (*batch_norm_stats)(real *stats, real *var_unbiased, const real *x, NormShape s, void *scratch);
    void (*batch_norm_fwd)(real *y, const real *stats, const NormInputs *in, NormShape s);
    /* batch_stats: the statistics came from this batch, so gradients flow through them */
    void (*batch_norm_bwd)(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                           bool batch_stats, void *scratch);

    /* ---- transformer sublayer (sublayer.c); in[] and d[] are indexed by SUB_*; where row is s.c, y may be x.
     * Backward reads all inputs, and nothing that forward left ---- */
    size_t (*sublayer_fwd_scratch)(SublayerShape s, int threads);
    void (*sublayer_fwd)(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch);
    size_t (*sublayer_bwd_scratch)(SublayerShape s, int threads);
    void (*sublayer_bwd)(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch);

    /* ---- elementwise and data movement (elementwise.c); numel elements ---- */
    void (*act_fwd)(real *y, const real *x, size_t numel, Act act); /* y may be x */
    void (*act_bwd)(Grad dx, const real *dy, const real *x, size_t numel, Act act);
    void (*axpby)(real *y, const real *x, size_t numel, real a, real b); /* y = a x + b y; b = 0 overwrites */
    /* x (n,h,w,c), h and w even -> y (n,h/2,w/2,c) */
    void (*maxpool2_fwd)(real *y, uint8_t *where, const real *x, size_t row, int n, int h, int w, int c);
    void (*maxpool2_bwd)(Grad dx, const real *dy, const uint8_t *where, int n, int h, int w, int c);
    /* y (rows,c) = x + beta y, the rows of y y_row apart and those of x x_row */
    void (*copy_rows)(real *y, size_t y_row, const real *x, size_t x_row, size_t rows, int c, real beta);
    /* y (cols,rows) = x (rows,cols) turned + beta y */
    void (*transpose)(real *y, const real *x, int rows, int cols, real beta);
    /* y (n,d) = table[idx[i]]; dtable (vocab,d) gets the sum of the rows that used it */
    void (*embed_fwd)(real *y, const real *table, const int *idx, int n, int d);
    void (*embed_bwd)(Grad dtable, const real *dy, const int *idx, int n, int d, int vocab);

    /* ---- losses (loss.c): scale * sum |a-b| (l1) or scale * sum (a-b)^2, summed in double; da: scale * d/da ---- */
    size_t (*loss_scratch)(size_t numel, int threads);
    double (*loss)(Grad da, const real *a, const real *b, size_t numel, bool l1, double scale, void *scratch);
    /* scale * sum over n rows of log(sum_k exp x[k]) - x[label], x (n,classes); dx: scale * (softmax - one-hot). A
     * label outside of 0..classes-1 makes the loss and its row's gradient NaN, as a NaN in x does */
    double (*cross_entropy)(Grad dx, const real *x, const int *label, int n, int classes, double scale);

    /* ---- optimiser (optim.c), over flat slabs ---- */
    size_t (*sumsq_scratch)(size_t numel, int threads);
    /* sum of squares: of BACKEND_SUM elements each, then of those sums; NaN and Inf come through */
    double (*sumsq)(const real *x, size_t numel, void *scratch);
    void (*adam)(real *w, real *m, real *v, real *ema, const real *g, size_t numel, AdamStep s); /* ema may be NULL */
    /* Muon (Jordan et al. 2024) of n matrices, with steps as large as Adam's (Liu et al. 2025, eq. 4):
     *   m = mu m + g,  u = g + mu m,  w = (1 - lr wd) w - lr 0.2 sqrt(max(rows,cols)) O(u)
     * O(u), about the orthogonal matrix that is nearest to u: from X = u/|u|, three times X = a X + (b S + c S S) X
     * with S = X X^T, on the shorter side; a, b, c = 3.4445, -4.775, 2.0315. Scratch: the sum of their muon_scratch
     * bytes, each rounded up by mem_align_up */
    size_t (*muon_scratch)(int rows, int cols);
    void (*muon)(const MuonMatrix *of, int n, MuonStep s, void *scratch);
} Backend;

/* Every function above, for those who declare and fill a table: X(name) each. Products are what a table in bfloat16 has
 * of its own; the rest is that of fp32. */
#define BACKEND_PRODUCTS(X)                                                                                            \
    X(peak)                                                                                                            \
    X(conv3_algo)                                                                                                      \
    X(conv3_prep_size)                                                                                                 \
    X(conv3_prep)                                                                                                      \
    X(conv3_scratch)                                                                                                   \
    X(conv3_fwd)                                                                                                       \
    X(conv3_bwd_data)                                                                                                  \
    X(conv3_bwd_weight)                                                                                                \
    X(convt2_scratch)                                                                                                  \
    X(convt2_fwd)                                                                                                      \
    X(convt2_bwd_data)                                                                                                 \
    X(convt2_bwd_weight)                                                                                               \
    X(linear_fwd_scratch)                                                                                              \
    X(linear_fwd)                                                                                                      \
    X(linear_bwd_data_scratch)                                                                                         \
    X(linear_bwd_data)                                                                                                 \
    X(linear_bwd_weight_scratch)                                                                                       \
    X(linear_bwd_weight)                                                                                               \
    X(sublayer_fwd_scratch)                                                                                            \
    X(sublayer_fwd)                                                                                                    \
    X(sublayer_bwd_scratch)                                                                                            \
    X(sublayer_bwd)
#define BACKEND_FLOATS(X)                                                                                              \
    X(norm_scratch)                                                                                                    \
    X(group_norm_fwd)                                                                                                  \
    X(group_norm_bwd)                                                                                                  \
    X(batch_norm_stats)                                                                                                \
    X(batch_norm_fwd)                                                                                                  \
    X(batch_norm_bwd)                                                                                                  \
    X(act_fwd)                                                                                                         \
    X(act_bwd)                                                                                                         \
    X(axpby)                                                                                                           \
    X(maxpool2_fwd)                                                                                                    \
    X(maxpool2_bwd)                                                                                                    \
    X(copy_rows)                                                                                                       \
    X(transpose)                                                                                                       \
    X(embed_fwd)                                                                                                       \
    X(embed_bwd)                                                                                                       \
    X(loss_scratch)                                                                                                    \
    X(loss)                                                                                                            \
    X(cross_entropy)                                                                                                   \
    X(sumsq_scratch)                                                                                                   \
    X(sumsq)                                                                                                           \
    X(adam)                                                                                                            \
    X(muon_scratch)                                                                                                    \
    X(muon)
#define BACKEND_FUNCTIONS(X) BACKEND_PRODUCTS(X) BACKEND_FLOATS(X)

/* Table i of those of this precision that were compiled in and that this CPU can run, the best first, the reference
 * last; NULL after it. */
const Backend *backend_at(Precision p, int i);

/* The one of that name (amx, avx512bf16, avx512, avx2, neon, baseline, ref), or NULL. */
const Backend *backend_by_simd(Precision p, const char *simd);

/* The one that the environment variable SDLORA_SIMD names, or the best. Never NULL: what the variable names in vain is
 * for backend_check to refuse. AUTO: bfloat16 where that pays, in units that are faster than Winograd in fp32. That is
 * AMX: with vdpbf16ps, at its best twice as fast as multiply-adds and on Intel's cores without AMX a quarter, a direct
 * convolution does not pass Winograd's. backend_get: in fp32, for those whom nobody asks. */
const Backend *backend_of(Precision p);
const Backend *backend_get(void);

/* 0, or ERR_USAGE when SDLORA_SIMD is set, not empty, and names none in any precision. */
int backend_check(Err *e);

/* Why there is no AMX: a sentence without its beginning ("this processor has none"), or NULL: there is. */
const char *backend_why_no_amx(void);

/* Settle OpenBLAS: the right kernels for this CPU, one thread. Call it once, after threads_init, before any kernel. */
void backend_init(void);

/* Which kernels OpenBLAS runs ("Cooperlake", ...), after backend_init. */
const char *backend_blas_core(void);

#endif
