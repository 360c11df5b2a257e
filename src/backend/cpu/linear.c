/* Linear layers: y (n,rows,out) = res + x (n,rows,in) w^T + b, w (out,in).
 *   backward   dx = dy w, dw = dy^T x, db = sum_rows dy
 * GEMMs by OpenBLAS over blocks of rows. Forward, a block lies within one image, so that an image's result does not
 * depend on the batch; few rows per image (time embedding, context tokens) go through a kernel of our own instead,
 * which computes every element in the same order wherever it is. */
#include "kernels.h"
#include "parts.h"
#include "vmath.h"

#define SMALL_ROWS   16      /* fewer rows per image than this take the kernel of our own */
#define SMALL_GEMM   1000000 /* m*n*k up to which OpenBLAS (AVX-512) has a fast path without packing */
#define BLOCK_ROWS   256     /* where that path would leave fewer than a quarter of this */
#define TURNED_MAX   16384   /* a w up to this size is turned round first: OpenBLAS's fast path likes that better */
#define CHUNK_ROWS   512     /* backward weights: rows per partial sum, at least */
#define CHUNKS_MAX   32      /* and partial sums, at most */
#define DOT_ROWS     4
#define DOT_OUTS     4
#define OUTS_PER_JOB 64

/* Rows per GEMM: equal parts of `rows`, each within the fast path where that is reasonable. */
static int block_rows(int rows, int in, int out)
{
    const size_t fit = SMALL_GEMM / ((size_t)in * out);
    const int most = fit >= BLOCK_ROWS / 4 ? (int)(fit < 4096 ? fit : 4096) : BLOCK_ROWS;
    const int parts = (rows + most - 1) / most;
    return (rows + parts - 1) / parts;
}

/* What the GEMM adds to. */
static void fill_rows(real *y, const real *b, const real *res, int rows, int out)
{
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < out; k += VW) {
            const size_t at = (size_t)r * out + k;
            const int m = min_int(VW, out - k);
            vf v = b ? vload_n(b + k, m) : (vf){0};
            if (res)
                v += vload_n(res + at, m);
            vstore_n(y + at, v, m);
        }
}

/* nr x no elements of y (at most DOT_ROWS x DOT_OUTS). A smaller tile computes its last row and column several times:
 * with one piece of code for all, the compiler cannot round the rest of a batch differently. */
static void dot_tile(real *y, const real *x, const real *w, const real *b, const real *res, int in, int out, int nr,
                     int no)
{
    vf acc[DOT_ROWS][DOT_OUTS] = {0};
    const real *xr[DOT_ROWS], *wo[DOT_OUTS];
#pragma GCC unroll 4
    for (int r = 0; r < DOT_ROWS; r++)
        xr[r] = x + (size_t)min_int(r, nr - 1) * in;
#pragma GCC unroll 4
    for (int o = 0; o < DOT_OUTS; o++)
        wo[o] = w + (size_t)min_int(o, no - 1) * in;
    for (int k = 0; k < in; k += VW) {
        const int m = min_int(VW, in - k);
        vf xv[DOT_ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < DOT_ROWS; r++)
            xv[r] = vload_n(xr[r] + k, m);
#pragma GCC unroll 4
        for (int o = 0; o < DOT_OUTS; o++) {
            const vf wv = vload_n(wo[o] + k, m);
#pragma GCC unroll 4
            for (int r = 0; r < DOT_ROWS; r++)
                acc[r][o] += xv[r] * wv;
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < DOT_ROWS; r++)
#pragma GCC unroll 4
        for (int o = 0; o < DOT_OUTS; o++) {
            const size_t at = (size_t)r * out + o;
            if (r < nr && o < no)
                y[at] = vsum(acc[r][o]) + (b ? b[o] : 0) + (res ? res[at] : 0);
        }
}

/* Reals of room for a w, whole cache lines. */
static size_t weight_stride(int in, int out)
{
    return room_reals((size_t)in * out);
}

typedef struct FwdJob {
    real *y;
    const real *x, *w, *b, *res;
    int rows, in, out;
    int block, blocks; /* rows of a block, and blocks of an image */
    bool turned;       /* w is (in,out) */
} FwdJob;

static int out_jobs(int out)
{
    return (out + OUTS_PER_JOB - 1) / OUTS_PER_JOB;
}

static void forward_tiles(const void *job, int i, int thread)
{
    const FwdJob *j = job;
    const int in = j->in, out = j->out, jobs = out_jobs(out), r0 = i / jobs * DOT_ROWS;
    const int nr = min_int(DOT_ROWS, j->rows - r0), o0 = i % jobs * OUTS_PER_JOB, o1 = min_int(out, o0 + OUTS_PER_JOB);
    (void)thread;
    for (int o = o0; o < o1; o += DOT_OUTS) {
        const size_t at = (size_t)r0 * out + o;
        dot_tile(j->y + at, j->x + (size_t)r0 * in, j->w + (size_t)o * in, j->b ? j->b + o : NULL,
                 j->res ? j->res + at : NULL, in, out, nr, min_int(DOT_OUTS, o1 - o));
    }
}

static bool turned_first(int rows, int in, int out)
{
    return rows >= SMALL_ROWS && (size_t)in * out <= TURNED_MAX;
}

/* A turned w. */
size_t K(linear_fwd_scratch)(int rows, int in, int out, int threads)
{
    (void)threads;
    return turned_first(rows, in, out) ? weight_stride(in, out) * sizeof(real) : 0;
}

static void forward_block(const void *job, int i, int thread)
{
    const FwdJob *j = job;
    const int in = j->in, out = j->out, r0 = i % j->blocks * j->block, m = min_int(j->block, j->rows - r0);
    const size_t row = (size_t)(i / j->blocks) * j->rows + r0;
    real *y = j->y + row * out;
    (void)thread;
    if (j->b || (j->res && j->res != j->y))
        fill_rows(y, j->b, j->res ? j->res + row * out : NULL, m, out);
    gemm(false, !j->turned, m, out, in, 1, j->x + row * in, in, j->w, j->turned ? out : in, j->b || j->res ? 1 : 0, y,
         out);
}

void K(linear_fwd)(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                   int out, void *scratch)
{
    if (rows < SMALL_ROWS) {
        threads_each((n * rows + DOT_ROWS - 1) / DOT_ROWS * out_jobs(out), forward_tiles,
                     &(FwdJob){y, x, w, b, res, n * rows, in, out, 0, 0, false});
        return;
    }
    const int block = block_rows(rows, in, out), blocks = (rows + block - 1) / block;
    const bool turn = turned_first(rows, in, out);
    real *turned = scratch;
    assert(!turn || is_aligned(scratch));
    for (int o = 0; turn && o < out; o++)
        for (int i = 0; i < in; i++)
            turned[(size_t)i * out + o] = w[(size_t)o * in + i];
    threads_each(n * blocks, forward_block,
                 &(FwdJob){y, x, turn ? turned : w, b, res, rows, in, out, block, blocks, turn});
}

typedef struct BwdDataJob {
    Grad dx;
    const real *dy, *w;
    int rows, in, out, block;
} BwdDataJob;

static void backward_data_block(const void *job, int i, int thread)
{
    const BwdDataJob *j = job;
    const int in = j->in, out = j->out;
    const size_t row = (size_t)i * j->block;
    (void)thread;
    gemm(false, false, min_int(j->block, j->rows - (int)row), in, out, 1, j->dy + row * out, out, j->w, in, j->dx.beta,
         j->dx.p + row * in, in);
}

size_t K(linear_bwd_data_scratch)(int rows, int in, int out, int threads)
{
    (void)rows, (void)in, (void)out, (void)threads;
    return 0;
}

void K(linear_bwd_data)(Grad dx, const real *dy, const real *w, int n, int rows, int in, int out, void *scratch)
{
    (void)scratch;
    const int total = n * rows, block = block_rows(total, in, out);
    threads_each((total + block - 1) / block, backward_data_block, &(BwdDataJob){dx, dy, w, total, in, out, block});
}

static int chunks_of(int total)
{
    return min_int(CHUNKS_MAX, (total + CHUNK_ROWS - 1) / CHUNK_ROWS);
}

/* Per chunk of rows a dw, then per chunk a db. */
size_t K(linear_bwd_weight_scratch)(int n, int rows, int in, int out, int threads)
{
    (void)threads;
    return (size_t)chunks_of(n * rows) * (weight_stride(in, out) + room_reals((size_t)out)) * sizeof(real);
}

typedef struct BwdWeightJob {
    bool dw, db;
    real *part, *part_b; /* the chunks' */
    size_t stride, stride_b;
    const real *x, *dy;
    int rows, in, out, chunk, block; /* rows of all, of a chunk, of a GEMM */
} BwdWeightJob;

static void backward_weight_chunk(const void *job, int c, int thread)
{
    const BwdWeightJob *j = job;
    const int in = j->in, out = j->out, r0 = min_int(j->rows, c * j->chunk), r1 = min_int(j->rows, r0 + j->chunk);
    real *to = j->part + (size_t)c * j->stride;
    (void)thread;
    if (j->dw && r0 == r1) /* rounding up may leave the last chunks empty */
        memset(to, 0, j->stride * sizeof(real));
    for (int r = r0; j->dw && r < r1; r += j->block)
        gemm(true, false, out, in, min_int(j->block, r1 - r), 1, j->dy + (size_t)r * out, out, j->x + (size_t)r * in,
             in, r > r0, to, in);
    if (j->db)
        K(sum_rows)(j->part_b + (size_t)c * j->stride_b, j->dy + (size_t)r0 * out, (size_t)(r1 - r0), out);
}

void K(linear_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                          void *scratch)
{
    const int total = n * rows, chunks = chunks_of(total), chunk = (total + chunks - 1) / chunks;
    const size_t stride = weight_stride(in, out), stride_b = room_reals((size_t)out);
    real *part = scratch, *part_b = part + (size_t)chunks * stride;
    const int block = block_rows(chunk, in, out);
    const bool in_place = chunks == 1 && dw.p && dw.beta == 0; /* where they belong, at once */
    assert(is_aligned(scratch));
    threads_each(chunks, backward_weight_chunk,
                 &(BwdWeightJob){dw.p != NULL, db.p != NULL, in_place ? dw.p : part, part_b, stride, stride_b, x, dy,
                                 total, in, out, chunk, block});
    if (dw.p && !in_place)
        K(add_parts)(dw, part, stride, chunks, (size_t)in * out);
    if (db.p)
        K(add_parts)(db, part_b, stride_b, chunks, (size_t)out);
}
