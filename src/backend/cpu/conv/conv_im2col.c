/* 3x3 convolution as GEMM: the general path, right for every shape, and the reference that the others are tested with.
 * Forward: the 3x3 neighbourhoods of P pixels become the rows of a (P, 9*ci) matrix, times w (9*ci, co).
 * Backward-weight, tap by tap: dw[a,c] (ci,co) = x[pixels shifted by (a-1,c-1)]^T dy[pixels], over the pixels whose
 * neighbour lies inside the image, so nothing is multiplied by padding. */
#include "conv.h"

/* A forward block is one of `parts` pieces of an image, or `group` whole small images; rows is its fixed GEMM height.
 */
typedef struct Blocks {
    int group, parts, rows, count;
} Blocks;

static Blocks blocks_of(ConvShape s)
{
    int hw = s.h * s.w;
    Blocks b = {1, 1, hw, 0};
    if (hw >= 128) {
        b.parts = (hw + 127) / 128;
        b.rows = (hw + b.parts - 1) / b.parts;
    } else {
        b.group = backend_group(hw);
        b.rows = b.group * hw;
    }
    b.count = (s.n + b.group - 1) / b.group * b.parts;
    return b;
}

/* One row of the matrix: the neighbourhood of pixel (i,j) of image x. */
static void neighbourhood(real *row, const real *x, int i, int j, ConvShape s)
{
    size_t ci = (size_t)s.ci;
    for (int a = 0; a < 3; a++, row += 3 * ci) {
        int y = i + a - 1;
        if (y < 0 || y >= s.h) {
            memset(row, 0, 3 * ci * sizeof(real));
            continue;
        }
        const real *from = x + ((size_t)y * (size_t)s.w + (size_t)j) * ci;
        for (int c = 0; c < 3; c++) {
            int col = j + c - 1;
            if (col < 0 || col >= s.w)
                memset(row + (size_t)c * ci, 0, ci * sizeof(real));
            else
                memcpy(row + (size_t)c * ci, from + (ptrdiff_t)(c - 1) * (ptrdiff_t)ci, ci * sizeof(real));
        }
    }
}

static size_t prep_size(ConvShape s, bool turn)
{
    return turn ? 9 * (size_t)s.ci * (size_t)s.co : 0;
}

/* What the passes run over; each sets what it needs. */
typedef struct Im2colJob {
    Grad y;
    const real *x, *u, *b;
    ConvShape s;
    Blocks blocks;
    real *scratch;
    real *part; /* backward weights: (chunks) */
    const real *dy;
    int chunks;
} Im2colJob;

/* u[a,c,k,o] = w[2-a,2-c,o,k], w (3,3,co,ci) */
static void prep_tap(const void *job, int tap, int thread)
{
    const Im2colJob *j = job;
    const size_t ci = (size_t)j->s.ci, co = (size_t)j->s.co;
    (void)thread;
    for (size_t k = 0; k < ci; k++)
        for (size_t o = 0; o < co; o++)
            j->y.p[((size_t)tap * ci + k) * co + o] = j->x[((size_t)(8 - tap) * co + o) * ci + k];
}

static void prep(real *u, const real *w, ConvShape s, bool turn)
{
    (void)turn;
    threads_each(9, prep_tap, &(Im2colJob){.y = {u, 0}, .x = w, .s = s});
}

static size_t thread_reals(ConvShape s)
{
    Blocks b = blocks_of(s);
    return room_reals((size_t)b.rows * 9 * (size_t)s.ci) + room_reals((size_t)b.rows * (size_t)s.co);
}

static size_t scratch_size(ConvShape s, int threads)
{
    return thread_reals(s) * sizeof(real) * (size_t)threads;
}

static void put_row(real *y, const real *v, const real *b, int co, real beta)
{
    for (int o = 0; o < co; o++) {
        real sum = b ? v[o] + b[o] : v[o];
        y[o] = beta == 0 ? sum : beta * y[o] + sum;
    }
}

static void correlate_block(const void *job, int k, int thread)
{
    const Im2colJob *j = job;
    const ConvShape s = j->s;
    const Blocks bl = j->blocks;
    const int hw = s.h * s.w, depth = 9 * s.ci, from = (k % bl.parts) * bl.rows;
    const int rows = bl.parts > 1 ? min_int(bl.rows, hw - from) : bl.rows; /* the last of an image may be shorter */
    const size_t total = (size_t)s.n * (size_t)hw;
    const size_t first = (size_t)(k / bl.parts) * (size_t)(bl.group * hw) + (size_t)from;
    real *col = j->scratch + thread_reals(s) * (size_t)thread;
    real *out = col + room_reals((size_t)bl.rows * (size_t)depth);
    for (int r = 0; r < rows; r++) {
        size_t pixel = first + (size_t)r;
        real *row = col + (size_t)r * (size_t)depth;
        if (pixel >= total) { /* no such image: the GEMM keeps its height all the same */
            memset(row, 0, (size_t)depth * sizeof(real));
            continue;
        }
        int p = (int)(pixel % (size_t)hw);
        neighbourhood(row, j->x + (pixel - (size_t)p) * (size_t)s.ci, p / s.w, p % s.w, s);
    }
    gemm(false, false, rows, s.co, depth, 1, col, depth, j->u, s.co, 0, out, s.co);
    for (int r = 0; r < rows && first + (size_t)r < total; r++)
        put_row(j->y.p + (first + (size_t)r) * (size_t)s.co, out + (size_t)r * (size_t)s.co, j->b, s.co, j->y.beta);
}

static void correlate(Grad y, const real *x, const real *u, const real *b, ConvShape s, bool turn, void *scratch)
{
    const Im2colJob j = {.y = y, .x = x, .u = u, .b = b, .s = s, .blocks = blocks_of(s), .scratch = scratch};
    (void)turn;
    threads_each(j.blocks.count, correlate_block, &j);
}

/* Weight gradient: chunk j takes the image rows [j*R/J, (j+1)*R/J) of all R = n*h; one unit of work is (chunk, tap). */
enum { GATHER = 128 }; /* pixels per GEMM */

static int chunks_of(ConvShape s)
{
    size_t fit = CONV_PARTIAL / (9 * (size_t)s.ci * (size_t)s.co);
    int most = fit < CONV_CHUNKS ? max_int(1, (int)fit) : CONV_CHUNKS;
    return max_int(1, min_int(most, s.n * s.h / 8));
}

static size_t weight_thread_reals(ConvShape s)
{
    return room_reals((size_t)GATHER * (size_t)s.ci) + room_reals((size_t)GATHER * (size_t)s.co);
}

static size_t weight_scratch(ConvShape s, int threads)
{
    return weight_thread_reals(s) * sizeof(real) * (size_t)threads +
           (size_t)chunks_of(s) * room(9 * (size_t)s.ci * (size_t)s.co);
}

/* dw (ci,co) = sum over image rows [from,to) for the tap (a,c) */
static void tap_gradient(real *dw, const real *x, const real *dy, ConvShape s, int a, int c, int from, int to, real *xs,
                         real *ys)
{
    size_t ci = (size_t)s.ci, co = (size_t)s.co;
    int held = 0, j0 = c == 0 ? 1 : 0, j1 = c == 2 ? s.w - 1 : s.w;
    real beta = 0;
    for (int r = from; r < to; r++) {
        int i = r % s.h + a - 1;
        if (i < 0 || i >= s.h)
            continue;
        const real *xrow = x + (size_t)(r + a - 1) * (size_t)s.w * ci, *yrow = dy + (size_t)r * (size_t)s.w * co;
        for (int j = j0; j < j1;) {
            int len = min_int(j1 - j, GATHER - held);
            memcpy(xs + (size_t)held * ci, xrow + (size_t)(j + c - 1) * ci, (size_t)len * ci * sizeof(real));
            memcpy(ys + (size_t)held * co, yrow + (size_t)j * co, (size_t)len * co * sizeof(real));
            held += len;
            j += len;
            if (held == GATHER) {
                gemm(true, false, s.ci, s.co, held, 1, xs, s.ci, ys, s.co, beta, dw, s.co);
                held = 0;
                beta = 1;
            }
        }
    }
    if (held > 0)
        gemm(true, false, s.ci, s.co, held, 1, xs, s.ci, ys, s.co, beta, dw, s.co);
    else if (beta == 0)
        memset(dw, 0, ci * co * sizeof(real));
}

static void weight_unit(const void *job, int unit, int thread)
{
    const Im2colJob *j = job;
    const ConvShape s = j->s;
    const int chunk = unit / 9, t = unit % 9, lines = s.n * s.h;
    const int from = (int)((long)lines * chunk / j->chunks), to = (int)((long)lines * (chunk + 1) / j->chunks);
    const size_t tap = (size_t)s.ci * (size_t)s.co;
    real *xs = j->scratch + weight_thread_reals(s) * (size_t)thread;
    real *ys = xs + room_reals((size_t)GATHER * (size_t)s.ci);
    tap_gradient(j->part + (size_t)chunk * room_reals(9 * tap) + (size_t)t * tap, j->x, j->dy, s, t / 3, t % 3, from,
                 to, xs, ys);
}

static void bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const int chunks = chunks_of(s);
    const size_t filters = 9 * (size_t)s.ci * (size_t)s.co;
    real *part = (real *)scratch + weight_thread_reals(s) * (size_t)threads_count();
    (void)db;
    threads_each(9 * chunks, weight_unit,
                 &(Im2colJob){.x = x, .dy = dy, .s = s, .chunks = chunks, .scratch = scratch, .part = part});
    K(add_parts)(dw, part, room_reals(filters), chunks, filters);
}

const ConvPath K(conv_im2col) = {"im2col", prep_size, prep, scratch_size, correlate, weight_scratch, bwd_weight, false};
