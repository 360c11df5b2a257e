/* What an adapter does to a weight: see adapter.h for the formulas. A and B have layouts in which the weight's own
 * inner layout, seen as a matrix, is a product L R^T of two tall ones, which is a linear layer's forward kernel:
 *
 *   linear, 1x1      (O, I)      L = B (O,r)           R = A turned (I,r)
 *   3x3              (9 I, O)    L = A (9 I,r)         R = B (O,r)
 *   transposed       (I, 4 O)    L = A turned (I,r)    R = B (4 O,r)
 *   embedding        (V, D)      L = A turned (V,r)    R = B (D,r)
 *
 * The other kinds are computed in the order of files, once an adapter, and then brought into the inner layout. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "adapter_private.h"
#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/threads.h"

Channels channels_of(const Param *w)
{
    const size_t out = (size_t)w->file_shape.d[w->use == USE_CONVT2 || w->use == USE_TABLE ? 1 : 0];

    if (w->use == USE_LINEAR || w->use == USE_CONV1)
        return (Channels){1, out, w->numel / out};
    return (Channels){w->numel / out, out, 1};
}

/* sum[o]: of x y over channel o */
static void channel_dots(double *sum, const real *x, const real *y, Channels c)
{
    memset(sum, 0, c.channels * sizeof *sum);
    for (size_t a = 0; a < c.outer; a++)
        for (size_t o = 0; o < c.channels; o++)
            for (size_t i = (a * c.channels + o) * c.inner, end = i + c.inner; i < end; i++)
                sum[o] += (double)x[i] * (double)y[i];
}

/* x[o] = by[o] x + add[o] y, over every channel o */
static void channel_combine(real *x, const double *by, const real *y, const double *add, Channels c)
{
    for (size_t a = 0; a < c.outer; a++)
        for (size_t o = 0; o < c.channels; o++)
            for (size_t i = (a * c.channels + o) * c.inner, end = i + c.inner; i < end; i++)
                x[i] = (real)(by[o] * (double)x[i] + add[o] * (double)y[i]);
}

int channel_norms(real *out, const AdapterLayer *l, const real *w, Err *e)
{
    const Channels c = channels_of(l->weight);
    double *sum = mem_alloc(c.channels, sizeof *sum, "an adapter", e);

    if (!sum)
        return -1;
    channel_dots(sum, w, w, c);
    for (size_t o = 0; o < c.channels; o++)
        out[o] = (real)sqrt(sum[o]);
    mem_free(sum);
    return 0;
}

Factors factors_of(const AdapterLayer *l)
{
    const Param *a = l->part[PART_A], *b = l->part[PART_B];
    const bool a_left = l->weight->use != USE_LINEAR && l->weight->use != USE_CONV1;

    return (Factors){.left = a_left ? a : b,
                     .right = a_left ? b : a,
                     .rows = (int)((a_left ? a : b)->numel / (size_t)l->rank),
                     .cols = (int)((a_left ? b : a)->numel / (size_t)l->rank)};
}

/* ---- s B A, by kernels ---- */

/* A tall matrix (rows,rank), its columns times `scale` and what the mask has for them. */
static void scale_columns(real *out, const real *in, double scale, const real *mask, int rows, int rank)
{
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < rank; k++)
            out[i * rank + k] = (real)(scale * (double)in[i * rank + k]) * (mask ? mask[k] : 1);
}

void lora_product(real *out, const AdapterLayer *l, const real *base, const real *mask, void *scratch)
{
    const Backend *be = backend_get();
    const Factors f = factors_of(l);
    const bool a_left = f.left == l->part[PART_A];
    const Param *a0 = l->part[PART_A0], *b0 = l->part[PART_B0];
    real *left = scratch;
    void *rest = (char *)scratch + mem_align_up(f.left->numel * sizeof(real));

    scale_columns(left, f.left->value, l->scale, mask, f.rows, l->rank);
    be->linear_fwd(out, left, f.right->value, NULL, base, 1, f.rows, l->rank, f.cols, rest);
    if (!a0)
        return;
    scale_columns(left, (a_left ? a0 : b0)->value, -l->scale, mask, f.rows, l->rank);
    be->linear_fwd(out, left, (a_left ? b0 : a0)->value, NULL, out, 1, f.rows, l->rank, f.cols, rest);
}

size_t lora_product_scratch(const AdapterLayer *l)
{
    const Factors f = factors_of(l);

    return mem_align_up(f.left->numel * sizeof(real)) +
           mem_align_up(backend_get()->linear_fwd_scratch(f.rows, l->rank, f.cols, threads_count()));
}

/* ---- the others, in the order of files ---- */

/* out (m,n) = a (m,r) b (r,n) */
static void product(real *out, const real *a, const real *b, size_t m, size_t r, size_t n)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t k = 0; k < r; k++)
                sum += (double)a[i * r + k] * (double)b[k * n + j];
            out[i * n + j] = (real)sum;
        }
}

/* out (m,n,taps) = sum over i, j of t[i,j] u[i] v[j]: t (r,r,taps), u's row i and column p at i * ui + p * up, v (r,n);
 * tmp (r,n,taps) */
static void tucker(real *out, const real *t, const real *u, size_t ui, size_t up, const real *v, size_t r, size_t m,
                   size_t n, size_t taps, real *tmp)
{
    for (size_t i = 0; i < r; i++)
        for (size_t q = 0; q < n; q++)
            for (size_t k = 0; k < taps; k++) {
                double sum = 0;
                for (size_t j = 0; j < r; j++)
                    sum += (double)t[(i * r + j) * taps + k] * (double)v[j * n + q];
                tmp[(i * n + q) * taps + k] = (real)sum;
            }
    for (size_t p = 0; p < m; p++)
        for (size_t q = 0; q < n * taps; q++) {
            double sum = 0;
            for (size_t i = 0; i < r; i++)
                sum += (double)u[i * ui + p * up] * (double)tmp[i * n * taps + q];
            out[p * n * taps + q] = (real)sum;
        }
}

typedef struct Sizes { /* of a weight (out,in,taps) in files */
    size_t out, in, taps, numel, rank;
} Sizes;

static Sizes sizes_of(const AdapterLayer *l)
{
    const Shape f = l->weight->file_shape;
    const size_t taps = f.nd == 4 ? (size_t)f.d[2] * (size_t)f.d[3] : 1;

    return (Sizes){(size_t)f.d[0], (size_t)f.d[1], taps, l->weight->numel, (size_t)l->rank};
}

/* From D in the order of files, less its scale, to the inner one; ordered is used up. */
static void take_ordered(real *out, const AdapterLayer *l, real *ordered)
{
    for (size_t i = 0; i < l->weight->numel; i++)
        ordered[i] = (real)((double)ordered[i] * l->scale);
    param_to_inner(out, l->weight, ordered);
}

static void mid_product(real *out, const AdapterLayer *l, real *tmp)
{
    const Sizes z = sizes_of(l);
    const real *a = l->part[PART_A]->value; /* turned: (in,r) */
    real *v = tmp + z.rank * z.in * z.taps;

    for (size_t i = 0; i < z.in; i++)
        for (size_t k = 0; k < z.rank; k++)
            v[k * z.in + i] = a[i * z.rank + k];
    tucker(out, l->part[PART_MID]->value, l->part[PART_B]->value, 1, z.rank, v, z.rank, z.out, z.in, z.taps, tmp);
}

static void loha_product(real *out, const AdapterLayer *l, real *tmp)
{
    const Sizes z = sizes_of(l);
    real *second = tmp, *rest = tmp + z.numel;

    for (int k = 0; k < 2; k++) {
        const real *a = l->part[k ? PART_W2_A : PART_W1_A]->value, *b = l->part[k ? PART_W2_B : PART_W1_B]->value;
        const Param *t = l->part[k ? PART_T2 : PART_T1];
        real *to = k ? second : out;
        if (t)
            tucker(to, t->value, a, z.out, 1, b, z.rank, z.out, z.in, z.taps, rest);
        else
            product(to, a, b, z.out, z.rank, z.in * z.taps);
    }
    for (size_t i = 0; i < z.numel; i++)
        out[i] *= second[i];
}

/* One factor of a Kronecker product: itself, or made of others into `room`. cols: (columns, taps). */
static const real *kron_factor(real *room, const Param *whole, const Param *a, const Param *b, const Param *t, size_t r,
                               size_t rows, size_t cols, size_t taps, real *tmp)
{
    if (whole)
        return whole->value;
    if (t)
        tucker(room, t->value, a->value, rows, 1, b->value, r, rows, cols, taps, tmp);
    else
        product(room, a->value, b->value, rows, r, cols * taps);
    return room;
}

KronSizes kron_sizes(const AdapterLayer *l)
{
    const Sizes z = sizes_of(l);
    const Param *w1 = l->part[PART_W1], *a = l->part[PART_W1_A], *b = l->part[PART_W1_B];
    KronSizes k = {.o1 = (size_t)(w1  ? w1->file_shape.d[0]
                                  : a ? a->file_shape.d[0]
                                      : 1),
                   .i1 = (size_t)(w1  ? w1->file_shape.d[1]
                                  : b ? b->file_shape.d[1]
                                      : 1)};

    k.o2 = z.out / k.o1;
    k.i2 = z.in / k.i1;
    return k;
}

static void lokr_product(real *out, const AdapterLayer *l, real *tmp)
{
    const Sizes z = sizes_of(l);
    const KronSizes k = kron_sizes(l);
    real *room1 = tmp, *room2 = room1 + k.o1 * k.i1, *rest = room2 + k.o2 * k.i2 * z.taps;
    const real *w1 =
        kron_factor(room1, l->part[PART_W1], l->part[PART_W1_A], l->part[PART_W1_B], NULL, z.rank, k.o1, k.i1, 1, rest);
    const real *w2 = kron_factor(room2, l->part[PART_W2], l->part[PART_W2_A], l->part[PART_W2_B], l->part[PART_T2],
                                 z.rank, k.o2, k.i2, z.taps, rest);

    for (size_t o = 0; o < z.out; o++)
        for (size_t i = 0; i < z.in; i++)
            for (size_t t = 0; t < z.taps; t++)
                out[(o * z.in + i) * z.taps + t] =
                    w1[o / k.o2 * k.i1 + i / k.i2] * w2[(o % k.o2 * k.i2 + i % k.i2) * z.taps + t];
}

/* ---- magnitudes: W' = m V / |V|, V = W + D ---- */

size_t magnitude_scratch(const AdapterLayer *l)
{
    return l->part[PART_MAGNITUDE] ? mem_align_up(2 * channels_of(l->weight).channels * sizeof(double)) : 0;
}

/* m/|V| of a channel; one that is all zero has no direction, and stays zero. */
static double magnitude_factor(real m, double square)
{
    return square > 0 ? (double)m / sqrt(square) : 0;
}

/* From V to m V/|V|, less `base` where there is one. */
void magnitudes_apply(real *v, const AdapterLayer *l, const real *base, void *scratch)
{
    const Channels c = channels_of(l->weight);
    const real *m = l->part[PART_MAGNITUDE]->value;
    double *by = scratch, *minus = by + c.channels;

    channel_dots(by, v, v, c);
    for (size_t o = 0; o < c.channels; o++) {
        by[o] = magnitude_factor(m[o], by[o]);
        minus[o] = base ? -1 : 0;
    }
    channel_combine(v, by, base ? base : v, minus, c);
}

/* dW' becomes dD; dm = dW' . V/|V|, dV = m/|V| (dW' - V (dW' . V)/|V|^2). */
void magnitudes_backward(real *dw, real *dm, const real *v, const AdapterLayer *l, void *scratch)
{
    const Channels c = channels_of(l->weight);
    const Param *m = l->part[PART_MAGNITUDE];
    double *square = scratch, *dot = square + c.channels;

    channel_dots(square, v, v, c);
    channel_dots(dot, dw, v, c);
    for (size_t o = 0; o < c.channels; o++) {
        const double by = magnitude_factor(m->value[o], square[o]);
        dm[o] = (real)(dot[o] * magnitude_factor(1, square[o]));
        dot[o] *= square[o] > 0 ? -by / square[o] : 0;
        square[o] = by;
    }
    channel_combine(dw, square, v, dot, c);
}

/* ---- all kinds ---- */

static bool by_kernels(const AdapterLayer *l)
{
    return l->kind == ADAPTER_LORA && !l->part[PART_MID];
}

/* Of D itself, without magnitudes. */
static size_t plain_scratch(const AdapterLayer *l)
{
    const bool tucker = l->part[PART_MID] || l->part[PART_T1] || l->part[PART_T2];
    const Sizes z = sizes_of(l);

    if (by_kernels(l))
        return lora_product_scratch(l);
    /* D in the files' order; then factors, and what a Tucker product needs on its way. (A Kronecker product of whole
     * factors has a rank by name only, of any size.) */
    return mem_align_up((3 * z.numel + (tucker ? z.rank * z.in * (z.taps + 1) : 0)) * sizeof(real));
}

size_t adapter_change_scratch(const AdapterLayer *l)
{
    return l->kind == ADAPTER_FULL ? 0 : mem_max(plain_scratch(l), magnitude_scratch(l));
}

static void lora_change(real *out, const AdapterLayer *l, const real *base, real *tmp)
{
    (void)base;
    if (by_kernels(l)) {
        lora_product(out, l, NULL, NULL, tmp);
        return;
    }
    mid_product(tmp, l, tmp + l->weight->numel);
    take_ordered(out, l, tmp);
}

static void loha_change(real *out, const AdapterLayer *l, const real *base, real *tmp)
{
    (void)base;
    loha_product(tmp, l, tmp + l->weight->numel);
    take_ordered(out, l, tmp);
}

static void lokr_change(real *out, const AdapterLayer *l, const real *base, real *tmp)
{
    (void)base;
    lokr_product(tmp, l, tmp + l->weight->numel);
    take_ordered(out, l, tmp);
}

static void full_change(real *out, const AdapterLayer *l, const real *base, real *tmp)
{
    (void)tmp;
    for (size_t i = 0; i < l->weight->numel; i++)
        out[i] = l->part[PART_VALUE]->value[i] - base[i];
}

/* D(base) of each kind, in the weight's inner layout; tmp: plain_scratch bytes. */
typedef void (*ChangeFn)(real *out, const AdapterLayer *l, const real *base, real *tmp);
static const ChangeFn changes[] = {[ADAPTER_LORA] = lora_change,
                                   [ADAPTER_LOHA] = loha_change,
                                   [ADAPTER_LOKR] = lokr_change,
                                   [ADAPTER_FULL] = full_change};

void plain_change(real *out, const AdapterLayer *l, const real *base, void *scratch)
{
    changes[l->kind](out, l, base, scratch);
}

void adapter_change(real *out, const AdapterLayer *l, const real *base, void *scratch)
{
    plain_change(out, l, base, scratch);
    if (!l->part[PART_MAGNITUDE])
        return;
    for (size_t i = 0; i < l->weight->numel; i++)
        out[i] += base[i];
    magnitudes_apply(out, l, base, scratch);
}
