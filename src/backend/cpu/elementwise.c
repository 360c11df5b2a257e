/* Elementwise kernels and data movement: activations, sums, 2x2 max-pooling, copies of rows, transposition, embedding
 * rows. All are bound by memory. */
#include "kernels.h"
#include "vmath.h"

#define BLOCK 16384 /* elements for a thread at a time; fewer are not worth a second thread */

static int blocks_of(size_t numel)
{
    return (int)((numel + BLOCK - 1) / BLOCK);
}

/* One loop for full vectors and the tail, so that an element is rounded in the same way wherever it lies. */
ALWAYS_INLINE void act_block(real *y, const real *x, size_t len, Act act)
{
    for (size_t i = 0; i < len; i += VW) {
        const int m = lanes_from(i, len);
        vstore_n(y + i, vact(vload_n(x + i, m), act), m);
    }
}

typedef struct ActJob {
    real *y;
    const real *x;
    size_t numel;
    Act act;
} ActJob;

static void act_fwd_block(const void *job, int block, int thread)
{
    const ActJob *a = job;
    const size_t i = (size_t)block * BLOCK, len = mem_min(BLOCK, a->numel - i);
    (void)thread;
    if (a->act == ACT_SILU)
        act_block(a->y + i, a->x + i, len, ACT_SILU);
    else if (a->act == ACT_RELU)
        act_block(a->y + i, a->x + i, len, ACT_RELU);
    else if (a->y != a->x)
        memcpy(a->y + i, a->x + i, len * sizeof(real));
}

void K(act_fwd)(real *y, const real *x, size_t numel, Act act)
{
    threads_each(blocks_of(numel), act_fwd_block, &(ActJob){y, x, numel, act});
}

ALWAYS_INLINE void act_bwd_as(real *dx, const real *dy, const real *x, size_t len, Act act, real beta)
{
    size_t i = 0;
    for (; i + VW <= len; i += VW)
        vupdate_n(dx + i, vact_bwd(vload(dy + i), vload(x + i), act), beta, VW);
    if (i < len) {
        const int m = (int)(len - i);
        vupdate_n(dx + i, vact_bwd(vload_n(dy + i, m), vload_n(x + i, m), act), beta, m);
    }
}

typedef struct ActBwdJob {
    Grad dx;
    const real *dy, *x;
    size_t numel;
    Act act;
} ActBwdJob;

static void act_bwd_block(const void *job, int block, int thread)
{
    const ActBwdJob *a = job;
    const size_t i = (size_t)block * BLOCK, len = mem_min(BLOCK, a->numel - i);
    (void)thread;
    if (a->act == ACT_SILU)
        act_bwd_as(a->dx.p + i, a->dy + i, a->x + i, len, ACT_SILU, a->dx.beta);
    else if (a->act == ACT_RELU)
        act_bwd_as(a->dx.p + i, a->dy + i, a->x + i, len, ACT_RELU, a->dx.beta);
    else
        act_bwd_as(a->dx.p + i, a->dy + i, a->x + i, len, ACT_NONE, a->dx.beta);
}

void K(act_bwd)(Grad dx, const real *dy, const real *x, size_t numel, Act act)
{
    threads_each(blocks_of(numel), act_bwd_block, &(ActBwdJob){dx, dy, x, numel, act});
}

typedef struct AxpbyJob {
    real *y;
    const real *x;
    size_t numel;
    real a, b;
} AxpbyJob;

static void axpby_block(const void *job, int block, int thread)
{
    const AxpbyJob *j = job;
    const size_t i0 = (size_t)block * BLOCK, len = mem_min(BLOCK, j->numel - i0);
    const real *restrict xb = j->x + i0;
    real *restrict yb = j->y + i0;
    const real a = j->a, b = j->b;
    (void)thread;
    if (b == 0)
        for (size_t i = 0; i < len; i++)
            yb[i] = a * xb[i];
    else
        for (size_t i = 0; i < len; i++)
            yb[i] = a * xb[i] + b * yb[i];
}

void K(axpby)(real *y, const real *x, size_t numel, real a, real b)
{
    threads_each(blocks_of(numel), axpby_block, &(AxpbyJob){y, x, numel, a, b});
}

/* As many places of maxima as a vector has lanes; in memory they are bytes. */
typedef uint8_t vplace __attribute__((vector_size(VBYTES / sizeof(real))));

ALWAYS_INLINE vi places_load(const uint8_t *p, int m)
{
    vplace v = {0};
    memcpy(&v, p, (size_t)m);
    return __builtin_convertvector(v, vi);
}

ALWAYS_INLINE void places_store(uint8_t *p, vi at, int m)
{
    const vplace v = __builtin_convertvector(at, vplace);
    memcpy(p, &v, (size_t)m);
}

/* The first of equal ones stays and a NaN wins over all, as in PyTorch. */
ALWAYS_INLINE void keep_larger(vf *best, vi *at, vf v, int place)
{
    const vi wins = (vi)(v > *best) | (vi)(v != v);
    *best = vselect(wins, v, *best);
    *at = (wins & place) | (~wins & *at);
}

/* m channels of an output pixel; a and b: the upper and the lower pair of inputs, `row` apart. */
ALWAYS_INLINE void pool_lanes(real *y, uint8_t *where, const real *a, const real *b, size_t row, int m)
{
    vf best = vload_n(a, m);
    vi at = {0};
    keep_larger(&best, &at, vload_n(a + row, m), 1);
    keep_larger(&best, &at, vload_n(b, m), 2);
    keep_larger(&best, &at, vload_n(b + row, m), 3);
    vstore_n(y, best, m);
    places_store(where, at, m);
}

/* One output pixel's channels */
static void pool_pixel(real *y, uint8_t *where, const real *a, const real *b, size_t row, int c)
{
    int k = 0;
    for (; k + VW <= c; k += VW)
        pool_lanes(y + k, where + k, a + k, b + k, row, VW);
    if (k < c)
        pool_lanes(y + k, where + k, a + k, b + k, row, c - k);
}

typedef struct PoolJob {
    real *y;
    uint8_t *where;
    const real *x;
    size_t row;
    int w, c;
} PoolJob;

static void pool_line(const void *job, int line, int thread)
{
    const PoolJob *p = job;
    const int ow = p->w / 2;
    (void)thread;
    for (int j = 0; j < ow; j++) {
        const size_t to = ((size_t)line * ow + j) * p->c;
        const real *a = p->x + ((size_t)line * 2 * p->w + 2 * j) * p->row;
        pool_pixel(p->y + to, p->where + to, a, a + (size_t)p->w * p->row, p->row, p->c);
    }
}

void K(maxpool2_fwd)(real *y, uint8_t *where, const real *x, size_t row, int n, int h, int w, int c)
{
    assert(h % 2 == 0 && w % 2 == 0);
    threads_each(n * (h / 2), pool_line, &(PoolJob){y, where, x, row, w, c});
}

ALWAYS_INLINE void unpool_lanes(real *a, real *b, const real *dy, const uint8_t *where, int c, real beta, int m)
{
    const vi at = places_load(where, m);
    const vf d = vload_n(dy, m), none = {0};
    vupdate_n(a, vselect((vi)(at == 0), d, none), beta, m);
    vupdate_n(a + c, vselect((vi)(at == 1), d, none), beta, m);
    vupdate_n(b, vselect((vi)(at == 2), d, none), beta, m);
    vupdate_n(b + c, vselect((vi)(at == 3), d, none), beta, m);
}

static void unpool_pixel(real *a, real *b, const real *dy, const uint8_t *where, int c, real beta)
{
    int k = 0;
    for (; k + VW <= c; k += VW)
        unpool_lanes(a + k, b + k, dy + k, where + k, c, beta, VW);
    if (k < c)
        unpool_lanes(a + k, b + k, dy + k, where + k, c, beta, c - k);
}

typedef struct UnpoolJob {
    Grad dx;
    const real *dy;
    const uint8_t *where;
    int w, c;
} UnpoolJob;

static void unpool_line(const void *job, int line, int thread)
{
    const UnpoolJob *p = job;
    const int ow = p->w / 2, c = p->c;
    (void)thread;
    for (int j = 0; j < ow; j++) {
        const size_t from = ((size_t)line * ow + j) * c;
        real *a = p->dx.p + ((size_t)line * 2 * p->w + 2 * j) * c;
        unpool_pixel(a, a + (size_t)p->w * c, p->dy + from, p->where + from, c, p->dx.beta);
    }
}

void K(maxpool2_bwd)(Grad dx, const real *dy, const uint8_t *where, int n, int h, int w, int c)
{
    assert(h % 2 == 0 && w % 2 == 0);
    threads_each(n * (h / 2), unpool_line, &(UnpoolJob){dx, dy, where, w, c});
}

typedef struct RowsJob {
    real *y;
    size_t y_row;
    const real *x;
    size_t x_row, rows, block; /* block: of rows, for a thread at a time */
    int c;
    real beta;
} RowsJob;

static void copy_block(const void *job, int block, int thread)
{
    const RowsJob *j = job;
    const size_t from = (size_t)block * j->block;
    (void)thread;
    for (size_t r = from; r < mem_min(j->rows, from + j->block); r++)
        update_row(j->y + r * j->y_row, j->x + r * j->x_row, j->c, j->beta);
}

void K(copy_rows)(real *y, size_t y_row, const real *x, size_t x_row, size_t rows, int c, real beta)
{
    const size_t block = BLOCK / (size_t)c + 1;
    assert(x_row >= (size_t)c && y_row >= (size_t)c);
    threads_each((int)((rows + block - 1) / block), copy_block, &(RowsJob){y, y_row, x, x_row, rows, block, c, beta});
}

void K(transpose)(real *y, const real *x, int rows, int cols, real beta)
{
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++)
            update(y + (size_t)j * rows + i, x[(size_t)i * cols + j], beta);
}

void K(embed_fwd)(real *y, const real *table, const int *idx, int n, int d)
{
    for (int i = 0; i < n; i++)
        memcpy(y + (size_t)i * d, table + (size_t)idx[i] * d, (size_t)d * sizeof(real));
}

void K(embed_bwd)(Grad dtable, const real *dy, const int *idx, int n, int d, int vocab)
{
    for (int i = 0; i < n; i++)
        assert(idx[i] >= 0 && idx[i] < vocab);
    for (int v = 0; v < vocab; v++) {
        real *row = dtable.p + (size_t)v * d;
        if (dtable.beta == 0)
            memset(row, 0, (size_t)d * sizeof(real));
        else if (dtable.beta != 1)
            for (int k = 0; k < d; k++)
                row[k] *= dtable.beta;
        for (int i = 0; i < n; i++)
            if (idx[i] == v)
                update_row(row, dy + (size_t)i * d, d, 1);
    }
}
