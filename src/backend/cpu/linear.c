/* Linear layers: y (n,rows,out) = res + x (n,rows,in) w^T + b, w (out,in).
 *   backward   dx = dy w, dw = dy^T x, db = sum_rows dy
 * GEMMs by OpenBLAS over blocks of rows. Forward, a block lies within one image, so that an image's result does not
 * depend on the batch; few rows per image (time embedding, context tokens) go through a kernel of our own instead,
 * which computes every element in the same order wherever it is. */
#include "kernels.h"
#include "parts.h"
#include "vmath.h"

#include "sdlora/threads.h"

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
    for (int r = 0; r < DOT_ROWS; r++)
        xr[r] = x + (size_t)min_int(r, nr - 1) * in;
    for (int o = 0; o < DOT_OUTS; o++)
        wo[o] = w + (size_t)min_int(o, no - 1) * in;
    for (int k = 0; k < in; k += VW) {
        const int m = min_int(VW, in - k);
        vf xv[DOT_ROWS];
        for (int r = 0; r < DOT_ROWS; r++)
            xv[r] = vload_n(xr[r] + k, m);
        for (int o = 0; o < DOT_OUTS; o++) {
            const vf wv = vload_n(wo[o] + k, m);
            for (int r = 0; r < DOT_ROWS; r++)
                acc[r][o] += xv[r] * wv;
        }
    }
    for (int r = 0; r < nr; r++)
        for (int o = 0; o < no; o++) {
            const size_t at = (size_t)r * out + o;
            y[at] = vsum(acc[r][o]) + (b ? b[o] : 0) + (res ? res[at] : 0);
        }
}

/* Reals of room for a w, whole cache lines. */
static size_t weight_stride(int in, int out)
{
    return room_reals((size_t)in * out);
}

static void forward_few(real *y, const real *x, const real *w, const real *b, const real *res, int rows, int in,
                        int out)
{
    const int row_jobs = (rows + DOT_ROWS - 1) / DOT_ROWS, out_jobs = (out + OUTS_PER_JOB - 1) / OUTS_PER_JOB;
#pragma omp parallel for schedule(static)
    for (int job = 0; job < row_jobs * out_jobs; job++) {
        const int r0 = job / out_jobs * DOT_ROWS, nr = min_int(DOT_ROWS, rows - r0);
        const int o0 = job % out_jobs * OUTS_PER_JOB, o1 = min_int(out, o0 + OUTS_PER_JOB);
        for (int o = o0; o < o1; o += DOT_OUTS) {
            const size_t at = (size_t)r0 * out + o;
            dot_tile(y + at, x + (size_t)r0 * in, w + (size_t)o * in, b ? b + o : NULL, res ? res + at : NULL, in, out,
                     nr, min_int(DOT_OUTS, o1 - o));
        }
    }
}

static bool turned_first(int rows, int in, int out)
{
    return rows >= SMALL_ROWS && (size_t)in * out <= TURNED_MAX;
}

/* Per thread a turned w. */
size_t K(linear_fwd_scratch)(int rows, int in, int out, int threads)
{
    return turned_first(rows, in, out) ? (size_t)threads * weight_stride(in, out) * sizeof(real) : 0;
}

void K(linear_fwd)(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                   int out, void *scratch)
{
    if (rows < SMALL_ROWS) {
        forward_few(y, x, w, b, res, n * rows, in, out);
        return;
    }
    const int block = block_rows(rows, in, out), blocks = (rows + block - 1) / block;
    const bool turn = turned_first(rows, in, out);
    assert(!turn || is_aligned(scratch));
#pragma omp parallel num_threads(threads_count())
    {
        real *turned = (real *)scratch + (turn ? weight_stride(in, out) * (size_t)omp_get_thread_num() : 0);
        if (turn)
            for (int o = 0; o < out; o++)
                for (int i = 0; i < in; i++)
                    turned[(size_t)i * out + o] = w[(size_t)o * in + i];
#pragma omp for schedule(static)
        for (int job = 0; job < n * blocks; job++) {
            const int r0 = job % blocks * block, m = min_int(block, rows - r0);
            const size_t row = (size_t)(job / blocks) * rows + r0;
            if (b || (res && res != y))
                fill_rows(y + row * out, b, res ? res + row * out : NULL, m, out);
            gemm(false, !turn, m, out, in, 1, x + row * in, in, turn ? turned : w, turn ? out : in, b || res ? 1 : 0,
                 y + row * out, out);
        }
    }
}

size_t K(linear_bwd_data_scratch)(int rows, int in, int out, int threads)
{
    (void)rows, (void)in, (void)out, (void)threads;
    return 0;
}

void K(linear_bwd_data)(Grad dx, const real *dy, const real *w, int n, int rows, int in, int out, void *scratch)
{
    (void)scratch;
    const int total = n * rows, block = block_rows(total, in, out), blocks = (total + block - 1) / block;
#pragma omp parallel for schedule(static)
    for (int job = 0; job < blocks; job++) {
        const size_t row = (size_t)job * block;
        gemm(false, false, min_int(block, total - (int)row), in, out, 1, dy + row * out, out, w, in, dx.beta,
             dx.p + row * in, in);
    }
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

void K(linear_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                          void *scratch)
{
    const int total = n * rows, chunks = chunks_of(total), chunk = (total + chunks - 1) / chunks;
    const size_t stride = weight_stride(in, out), stride_b = room_reals((size_t)out);
    real *part = scratch, *part_b = part + (size_t)chunks * stride;
    const int block = block_rows(chunk, in, out);
    assert(is_aligned(scratch));
#pragma omp parallel for schedule(static)
    for (int c = 0; c < chunks; c++) {
        const int r0 = min_int(total, c * chunk), r1 = min_int(total, r0 + chunk);
        real *to = part + (size_t)c * stride;
        if (dw.p && r0 == r1) /* rounding up may leave the last chunks empty */
            memset(to, 0, stride * sizeof(real));
        for (int r = r0; dw.p && r < r1; r += block)
            gemm(true, false, out, in, min_int(block, r1 - r), 1, dy + (size_t)r * out, out, x + (size_t)r * in, in,
                 r > r0, to, in);
        if (db.p)
            K(sum_rows)(part_b + (size_t)c * stride_b, dy + (size_t)r0 * out, (size_t)(r1 - r0), out);
    }
    if (dw.p)
        K(add_parts)(dw, part, stride, chunks, (size_t)in * out);
    if (db.p)
        K(add_parts)(db, part_b, stride_b, chunks, (size_t)out);
}
