/* Muon's step of matrices: see backend.h for the formula. All of them go through it together, in stages that are cut
 * into pieces and blocks which their shapes alone decide, so that all threads have something to do; a matrix on each
 * thread would leave most of them waiting for the largest. Products are OpenBLAS's, of one thread. */
#include "kernels.h"
#include "transpose.h"

/* ROUNDS: of Newton and Schulz; Jordan et al. take five: doc/recipes.md. PIECE: elements; BLOCK: rows and columns */
enum { ROUNDS = 3, PIECE = 1 << 14, BLOCK = 64 };
static const real A = (real)3.4445, B = (real)-4.775, C = (real)2.0315; /* Jordan et al. 2024 */

/* c (m,n) = alpha op(a) op(b) + beta from, all row-major without gaps. symmetric: c is, so half of it is enough */
typedef struct Product {
    bool ta, tb, symmetric;
    int m, n, k;
    real alpha;
    const real *a, *b;
    real beta;
    const real *from; /* with beta 0: NULL */
    real *c;
} Product;

typedef struct Work {
    MuonMatrix of;
    int first;       /* the number of its first piece or block in this stage */
    double *sums;    /* (pieces): of squares */
    real scale;      /* 1/|u| */
    real *x, *y;     /* (rows,cols): u/|u| or what it has become, and room for what it becomes */
    real *s, *t;     /* (side,side) */
    real *half;      /* (side,side), of a long x: this and t lie in y until y is written */
    real *q, *next;  /* (side,side), of a long x: what it is multiplied by */
    Product product; /* of this stage */
} Work;

static size_t numel_of(MuonMatrix m)
{
    return (size_t)m.rows * (size_t)m.cols;
}

static int pieces_of(MuonMatrix m)
{
    return (int)((numel_of(m) + PIECE - 1) / PIECE);
}

static int side_of(MuonMatrix m)
{
    return min_int(m.rows, m.cols);
}

static bool is_long(MuonMatrix m)
{
    return max_int(m.rows, m.cols) >= 2 * side_of(m);
}

static size_t square_of(MuonMatrix m)
{
    return (size_t)side_of(m) * (size_t)side_of(m);
}

/* Those with a place of their own: s, q and next, or s and t */
static size_t squares_of(MuonMatrix m)
{
    return is_long(m) ? 3 : 2;
}

size_t K(muon_scratch)(int rows, int cols)
{
    const MuonMatrix m = {.rows = rows, .cols = cols};
    return mem_align_up(sizeof(Work)) + mem_align_up((size_t)pieces_of(m) * sizeof(double)) + 2 * room(numel_of(m)) +
           squares_of(m) * room(square_of(m));
}

/* ---- stages ---- */

typedef struct Stage {
    const Work *works;
    int n;
    MuonStep step;
    void (*part)(const Work *w, MuonStep s, int i);
} Stage;

static void part_of_stage(const void *stage, int i, int thread)
{
    const Stage *g = stage;
    int w = 0;
    (void)thread;
    while (w + 1 < g->n && g->works[w + 1].first <= i)
        w++;
    g->part(&g->works[w], g->step, i - g->works[w].first);
}

static void run_stage(Work *works, int n, int (*parts)(const Work *w), void (*part)(const Work *w, MuonStep s, int i),
                      MuonStep s)
{
    int all = 0;
    for (int i = 0; i < n; i++) {
        works[i].first = all;
        all += parts(&works[i]);
    }
    threads_each(all, part_of_stage, &(Stage){works, n, s, part});
}

/* ---- elements ---- */

static int pieces(const Work *w)
{
    return pieces_of(w->of);
}

static void momentum(const Work *w, MuonStep s, int i)
{
    const size_t from = (size_t)i * PIECE, to = mem_min(numel_of(w->of), from + PIECE);
    const real mu = (real)s.momentum, scale = (real)s.grad_scale;
    real *restrict m = w->of.m, *restrict x = w->x;
    const real *restrict g = w->of.g;
    double sum = 0;
    for (size_t k = from; k < to; k++) {
        m[k] = mu * m[k] + scale * g[k];
        x[k] = scale * g[k] + mu * m[k];
        sum += (double)x[k] * (double)x[k];
    }
    w->sums[i] = sum;
}

static void normalise(const Work *w, MuonStep s, int i)
{
    const size_t from = (size_t)i * PIECE, to = mem_min(numel_of(w->of), from + PIECE);
    (void)s;
    for (size_t k = from; k < to; k++)
        w->x[k] *= w->scale;
}

static void change(const Work *w, MuonStep s, int i)
{
    const size_t from = (size_t)i * PIECE, to = mem_min(numel_of(w->of), from + PIECE);
    const real keep = (real)(1 - s.lr * s.weight_decay);
    const real lr = (real)(s.lr * 0.2 * sqrt((double)max_int(w->of.rows, w->of.cols)));
    const real decay = (real)s.ema_decay, take = (real)(1 - s.ema_decay);
    real *restrict weights = w->of.w, *restrict ema = w->of.ema;
    const real *restrict o = w->x;
    for (size_t k = from; k < to; k++)
        weights[k] = keep * weights[k] - lr * o[k];
    for (size_t k = from; ema && k < to; k++)
        ema[k] = decay * ema[k] + take * weights[k];
}

/* ---- products ---- */

static int blocks_along(int length)
{
    return (length + BLOCK - 1) / BLOCK;
}

static int blocks(const Work *w)
{
    const int rows = blocks_along(w->product.m), cols = blocks_along(w->product.n);
    return w->product.symmetric ? rows * (rows + 1) / 2 : rows * cols;
}

/* c (cols,rows) = c (rows,cols) on the other side of the diagonal: at (j,i) what is at (i,j) */
static void mirror(real *c, int n, int i, int j, int rows, int cols)
{
    real *to = c + (size_t)j * (size_t)n + (size_t)i;
    const real *from = c + (size_t)i * (size_t)n + (size_t)j;
    if (rows % VW == 0 && cols % VW == 0) {
        for (int r = 0; r < rows; r += VW)
            for (int k = 0; k < cols; k += VW)
                transpose_square(to + (size_t)k * (size_t)n + r, (size_t)n, from + (size_t)r * (size_t)n + k,
                                 (size_t)n);
        return;
    }
    for (int r = 0; r < rows; r++)
        for (int k = 0; k < cols; k++)
            to[(size_t)k * (size_t)n + (size_t)r] = from[(size_t)r * (size_t)n + (size_t)k];
}

static void block(const Work *w, MuonStep s, int index)
{
    const Product *p = &w->product;
    const int wide = blocks_along(p->n);
    int i = index / wide, j = index % wide;
    (void)s;
    if (p->symmetric) /* row i has the blocks i .. wide-1 */
        for (i = 0, j = index; j >= wide - i; i++)
            j -= wide - i;
    j += p->symmetric ? i : 0;
    i *= BLOCK;
    j *= BLOCK;
    const int rows = min_int(BLOCK, p->m - i), cols = min_int(BLOCK, p->n - j), lda = p->ta ? p->m : p->k,
              ldb = p->tb ? p->k : p->n;
    const size_t at = (size_t)i * (size_t)p->n + (size_t)j;
    for (int r = 0; r < rows && p->from; r++)
        memcpy(p->c + at + (size_t)r * (size_t)p->n, p->from + at + (size_t)r * (size_t)p->n,
               (size_t)cols * sizeof(real));
    gemm(p->ta, p->tb, rows, cols, p->k, p->alpha, p->a + (size_t)i * (size_t)(p->ta ? 1 : lda), lda,
         p->b + (size_t)j * (size_t)(p->tb ? ldb : 1), ldb, p->beta, p->c + at, p->n);
    if (p->symmetric && j > i)
        mirror(p->c, p->n, i, j, rows, cols);
}

/* s = x x^T, or x^T x where x is tall */
static Product gram(const Work *w)
{
    const bool wide = w->of.rows <= w->of.cols;
    const int side = side_of(w->of), length = max_int(w->of.rows, w->of.cols);
    return (Product){!wide, wide, true, side, side, length, 1, w->x, w->x, 0, NULL, w->s};
}

/* t = B s + C s^2: a round makes of x (A + t) x */
static Product round_of(const Work *w)
{
    const int side = side_of(w->of);
    return (Product){false, false, true, side, side, side, C, w->s, w->s, B, w->s, w->t};
}

/* y = (A + t) of, where `of` commutes with t */
static Product in_square(const Work *w, real *y, const real *of)
{
    const int side = side_of(w->of);
    return (Product){false, false, true, side, side, side, 1, w->t, of, A, of, y};
}

/* y = t x + beta x, or x t + beta x where x is tall */
static Product applied(const Work *w, const real *t, real beta)
{
    const int rows = w->of.rows, cols = w->of.cols;
    const real *from = beta != 0 ? w->x : NULL;
    if (rows <= cols)
        return (Product){false, false, false, rows, cols, rows, 1, t, w->x, beta, from, w->y};
    return (Product){false, false, false, rows, cols, cols, 1, w->x, t, beta, from, w->y};
}

static void swap(real **a, real **b)
{
    real *before = *a;
    *a = *b;
    *b = before;
}

/* The stages of a round, of x itself */
enum { GRAM, ROUND, APPLIED, OF_ROUND };

static Product of_short(Work *w, int stage)
{
    const int part = stage % OF_ROUND;
    if (part == GRAM && stage > 0)
        swap(&w->x, &w->y);
    return part == GRAM ? gram(w) : part == ROUND ? round_of(w) : applied(w, w->t, A);
}

/* Those of a round on s: t commutes with s, so the next s is (A + t)^2 s, and what x is to be multiplied by comes to be
 * in q. */
enum { HALF, WHOLE, TERMS, GATHERED, LONG_ROUND };

static Product of_long(Work *w, int stage)
{
    if (stage < 2)
        return stage == 0 ? gram(w) : round_of(w);
    if (stage == 2) { /* q = A + t */
        memcpy(w->q, w->t, square_of(w->of) * sizeof(real));
        for (int i = 0, side = side_of(w->of); i < side; i++)
            w->q[(size_t)i * (size_t)side + (size_t)i] += A;
    }
    const int k = (stage - 2) / LONG_ROUND + 1, part = (stage - 2) % LONG_ROUND;
    if (part == HALF && k > 1)
        swap(&w->q, &w->next);
    if (k == ROUNDS)
        return applied(w, w->q, 0);
    return part == HALF    ? in_square(w, w->half, w->s)
           : part == WHOLE ? in_square(w, w->s, w->half)
           : part == TERMS ? round_of(w)
                           : in_square(w, w->next, w->q);
}

static int stages_of(const Work *w)
{
    return is_long(w->of) ? 2 + (ROUNDS - 1) * LONG_ROUND + 1 : ROUNDS * OF_ROUND;
}

static Product product_of(Work *w, int stage)
{
    if (stage >= stages_of(w))
        return (Product){.m = 0};
    return is_long(w->of) ? of_long(w, stage) : of_short(w, stage);
}

static void lay_out(Work *works, const MuonMatrix *of, int n)
{
    char *at = (char *)works + (size_t)n * mem_align_up(sizeof *works);
    for (int i = 0; i < n; i++) {
        Work *w = &works[i];
        const size_t stride = room_reals(square_of(of[i]));
        *w = (Work){.of = of[i], .sums = (double *)(void *)at};
        at += mem_align_up((size_t)pieces(w) * sizeof(double));
        w->x = (real *)(void *)at;
        w->y = w->x + room_reals(numel_of(of[i]));
        w->s = w->y + room_reals(numel_of(of[i]));
        w->q = w->s + stride;
        w->next = w->q + stride;
        w->half = w->y;
        w->t = is_long(of[i]) ? w->y + square_of(of[i]) : w->s + stride;
        at += 2 * room(numel_of(of[i])) + squares_of(of[i]) * room(square_of(of[i]));
    }
}

void K(muon)(const MuonMatrix *of, int n, MuonStep s, void *scratch)
{
    Work *works = scratch;
    int most = 0;
    assert(is_aligned(scratch));
    lay_out(works, of, n);
    run_stage(works, n, pieces, momentum, s);
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < pieces(&works[i]); k++)
            sum += works[i].sums[k];
        works[i].scale = (real)(1 / (sqrt(sum) + 1e-7));
        most = max_int(most, stages_of(&works[i]));
    }
    run_stage(works, n, pieces, normalise, s);
    for (int stage = 0; stage < most; stage++) {
        for (int i = 0; i < n; i++)
            works[i].product = product_of(&works[i], stage);
        run_stage(works, n, blocks, block, s);
    }
    for (int i = 0; i < n; i++)
        swap(&works[i].x, &works[i].y);
    run_stage(works, n, pieces, change, s);
}
