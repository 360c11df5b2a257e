/* Group normalisation (Wu & He 2018) and batch normalisation (Ioffe & Szegedy 2015), fused with the activation, the
 * time embedding and the residual that follow them.
 *   forward    xh = (x - mean) rstd, u = gamma xh + beta, y = act(u) + temb + res
 *   backward   du = dy act'(u), dgamma = sum du xh, dbeta = sum du, dtemb = sum_pixels dy, dres = dy,
 *              dx = rstd (gamma du - avg(gamma du) - xh avg(gamma du xh))
 * the averages being over what shares the statistics. Backward computes u again rather than keep it.
 *
 * A block of work is one image and a run of channels: for groups whole ones, of COLS channels in all (16 where images
 * are few), or one that is wider. Sums are per channel, so the cut does not show in the result. Per-image sums go to
 * scratch and are added in the order of the images. */
#include "kernels.h"
#include "norm_cols.h"

/* Scratch: per image and channel the sums of du and du xh (or mean and squared deviations), then per channel the
 * totals. */
size_t K(norm_scratch)(NormShape s, int threads)
{
    (void)threads;
    return mem_align_up(((size_t)s.n + 1) * (size_t)s.c * 2 * sizeof(double));
}

/* Groups that one block of work holds. */
static int groups_per_block(NormShape s)
{
    const int width = s.c / s.groups, most = s.n < 4 ? 16 : COLS; /* few images: more blocks, of a cache line a pixel */
    return width >= most ? 1 : most / width;
}

/* The columns k..k+cols-1, each with the statistics stats[2*group]. */
static void cols_of_groups(Cols *c, const real *stats, const NormInputs *in, int k, int cols, int width)
{
    memset(c, 0, sizeof *c);
    memcpy(c->beta, in->beta + k, (size_t)cols * sizeof(real));
    for (int i = 0, g = k / width; i < cols; g++) {
        const int end = min_int(cols, (g + 1) * width - k);
        for (const real mean = stats[2 * g], rstd = stats[2 * g + 1]; i < end; i++) {
            c->mean[i] = mean;
            c->rstd[i] = rstd;
            c->scale[i] = in->gamma[k + i] * rstd;
        }
    }
}

/* Mean and 1/sqrt(variance + eps) of groups g0..g1-1 of one image, from those of their channels (Chan et al. 1983): the
 * channels' means are taken from that of the group's first. */
static void group_stats(real *stats, const real *x, NormShape s, int g0, int g1)
{
    const int width = s.c / s.groups, k1 = g1 * width;
    double mean[COLS], m2[COLS], first = 0, sum = 0, sq = 0;
    for (int k = g0 * width, g = g0, place = 0; k < k1; k += COLS) {
        const int cols = min_int(COLS, k1 - k);
        cols_moments(mean, m2, x + k, s.hw, s.c, cols);
        for (int i = 0; i < cols; i++) {
            if (place == 0) {
                first = mean[i];
                sum = sq = 0;
            }
            const double d = mean[i] - first;
            sum += d;
            sq += m2[i] + d * d * s.hw;
            if (++place < width)
                continue;
            const double rest = sq - sum * sum * s.hw / width;
            stats[2 * g] = (real)(first + sum / width);
            stats[2 * g + 1] = (real)(1 / sqrt((rest < 0 ? 0 : rest) / ((double)s.hw * width) + (double)s.eps));
            place = 0;
            g++;
        }
    }
}

/* y from the columns c, which begin at image n's channel k, in->x[at] */
static void forward_at(real *y, const NormInputs *in, const Cols *c, NormShape s, int n, int k, size_t at, int cols)
{
    cols_forward(y + at, in->x + at, c, in->temb ? in->temb + (size_t)n * s.c + k : NULL, in->res ? in->res + at : NULL,
                 s.hw, s.c, cols, s.act);
}

/* What a pass runs over: an image's groups or columns in blocks, (image, block) to a thread at a time. */
typedef struct NormJob {
    real *y;     /* forward */
    real *stats; /* group_norm_fwd writes them */
    const NormInputs *in;
    NormShape s;
    const NormGrads *d; /* backward */
    const real *dy;
    double *part;         /* (n,c,2) sums, of batch norm's statistics too */
    const double *totals; /* (c,2) of all images; NULL: they do not matter */
} NormJob;

static int group_blocks(NormShape s)
{
    const int per = groups_per_block(s);
    assert(s.c % s.groups == 0);
    return (s.groups + per - 1) / per;
}

static int col_blocks(NormShape s)
{
    return (s.c + COLS - 1) / COLS;
}

static void group_fwd_block(const void *job, int i, int thread)
{
    const NormJob *j = job;
    const NormShape s = j->s;
    const int width = s.c / s.groups, per = groups_per_block(s), blocks = group_blocks(s);
    const int n = i / blocks, g0 = i % blocks * per, g1 = min_int(s.groups, g0 + per);
    const size_t image = (size_t)n * s.hw * s.c;
    real *st = j->stats + (size_t)n * s.groups * 2;
    (void)thread;
    group_stats(st, j->in->x + image, s, g0, g1);
    for (int k = g0 * width; k < g1 * width; k += COLS) {
        const int cols = min_int(COLS, g1 * width - k);
        Cols c;
        cols_of_groups(&c, st, j->in, k, cols, width);
        forward_at(j->y, j->in, &c, s, n, k, image + k, cols);
    }
}

void K(group_norm_fwd)(real *y, real *stats, const NormInputs *in, NormShape s)
{
    threads_each(s.n * group_blocks(s), group_fwd_block, &(NormJob){.y = y, .stats = stats, .in = in, .s = s});
}

/* Does the first pass of backward leave du in dx? Where an exp is dearer than a store, and dx holds nothing yet. */
static bool keep_du(Grad dx, NormShape s)
{
    return dx.p && s.act == ACT_SILU && dx.beta == 0;
}

/* The first pass over the columns c, which begin at image n's channel k, dy[at]: dres, dtemb, du where it is kept, and
 * the sums to scratch. */
static void sums_at(double *part, const NormGrads *d, const real *dy, const NormInputs *in, const Cols *c, NormShape s,
                    int n, int k, size_t at, int cols)
{
    const BackwardOut out = {keep_du(d->x, s) ? d->x.p + at : NULL, grad_at(d->res, at)};
    const Grad dtemb = grad_at(d->temb, (size_t)n * s.c + k);
    ColSums sums;
    cols_sums(&sums, out, dy + at, in->x + at, c, s.hw, s.c, cols, s.act);
    for (int i = 0; i < cols; i++) {
        part[2 * i] = sums.du[i];
        part[2 * i + 1] = sums.duxh[i];
        if (dtemb.p)
            update(dtemb.p + i, (real)sums.dy[i], dtemb.beta);
    }
}

/* The second pass over them: dx. */
static void backward_at(Grad dx, const real *dy, const NormInputs *in, const Cols *c, NormShape s, size_t at, int cols)
{
    const bool kept = keep_du(dx, s);
    cols_backward(grad_at(dx, at), (kept ? dx.p : dy) + at, in->x + at, c, s.hw, s.c, cols, kept ? ACT_NONE : s.act);
}

typedef struct AffineJob {
    Grad dgamma, dbeta;
    double *totals;
    const double *part;
    int n, c, cols; /* cols: for a thread at a time */
} AffineJob;

static void affine_cols(const void *job, int block, int thread)
{
    const AffineJob *a = job;
    (void)thread;
    for (int k = block * a->cols; k < min_int(a->c, (block + 1) * a->cols); k++) {
        double du = 0, duxh = 0;
        for (int i = 0; i < a->n; i++) {
            du += a->part[((size_t)i * a->c + k) * 2];
            duxh += a->part[((size_t)i * a->c + k) * 2 + 1];
        }
        if (a->dgamma.p)
            update(a->dgamma.p + k, (real)duxh, a->dgamma.beta);
        if (a->dbeta.p)
            update(a->dbeta.p + k, (real)du, a->dbeta.beta);
        if (a->totals) {
            a->totals[2 * k] = du;
            a->totals[2 * k + 1] = duxh;
        }
    }
}

/* dgamma and dbeta from the sums of all images, and the totals (c,2) themselves, which may be NULL. */
static void affine_grad(Grad dgamma, Grad dbeta, double *totals, const double *part, int n, int c)
{
    const int cols = max_int(VW, 16384 / n);
    threads_each((c + cols - 1) / cols, affine_cols, &(AffineJob){dgamma, dbeta, totals, part, n, c, cols});
}

/* avg[2*i] and avg[2*i+1]: of gamma du and of gamma du xh over group g0+i; part (c,2) are the image's sums. */
static void group_averages(double *avg, const double *part, const real *gamma, NormShape s, int g0, int g1)
{
    const int width = s.c / s.groups;
    for (int g = g0; g < g1; g++) {
        double a = 0, b = 0;
        for (int k = g * width; k < (g + 1) * width; k++) {
            a += (double)gamma[k] * part[2 * k];
            b += (double)gamma[k] * part[2 * k + 1];
        }
        avg[2 * (g - g0)] = a / ((double)s.hw * width);
        avg[2 * (g - g0) + 1] = b / ((double)s.hw * width);
    }
}

/* The averages of a group are those of its columns c; g0: the block's first group */
static void average_cols(Cols *c, const double *avg, int k, int cols, int width, int g0)
{
    for (int i = 0, g = k / width; i < cols; g++) {
        const double *a = avg + 2 * (g - g0);
        for (const int end = min_int(cols, (g + 1) * width - k); i < end; i++) {
            c->k1[i] = (real)(c->rstd[i] * a[0]);
            c->k2[i] = (real)(c->rstd[i] * a[1] * c->rstd[i]);
        }
    }
}

static void group_bwd_block(const void *job, int i, int thread)
{
    const NormJob *j = job;
    const NormShape s = j->s;
    const NormInputs *in = j->in;
    const int width = s.c / s.groups, per = groups_per_block(s), blocks = group_blocks(s);
    const int n = i / blocks, g0 = i % blocks * per, g1 = min_int(s.groups, g0 + per), k1 = g1 * width;
    const size_t image = (size_t)n * s.hw * s.c;
    const real *st = j->stats + (size_t)n * s.groups * 2;
    double *own = j->part + (size_t)n * s.c * 2, avg[2 * COLS];
    Cols c;
    (void)thread;
    for (int k = g0 * width; k < k1; k += COLS) {
        const int cols = min_int(COLS, k1 - k);
        cols_of_groups(&c, st, in, k, cols, width);
        sums_at(own + 2 * k, j->d, j->dy, in, &c, s, n, k, image + k, cols);
    }
    if (!j->d->x.p)
        return;
    group_averages(avg, own, in->gamma, s, g0, g1);
    for (int k = g0 * width; k < k1; k += COLS) {
        const int cols = min_int(COLS, k1 - k);
        cols_of_groups(&c, st, in, k, cols, width);
        average_cols(&c, avg, k, cols, width, g0);
        backward_at(j->d->x, j->dy, in, &c, s, image + k, cols);
    }
}

void K(group_norm_bwd)(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                       void *scratch)
{
    assert(is_aligned(scratch));
    threads_each(s.n * group_blocks(s), group_bwd_block,
                 &(NormJob){.stats = (real *)stats, .in = in, .s = s, .d = d, .dy = dy, .part = scratch});
    affine_grad(d->gamma, d->beta, NULL, scratch, s.n, s.c);
}

static void moments_block(const void *job, int i, int thread)
{
    const NormJob *j = job;
    const NormShape s = j->s;
    const int n = i / col_blocks(s), k = i % col_blocks(s) * COLS, cols = min_int(COLS, s.c - k);
    double *at = j->part + ((size_t)n * s.c + k) * 2, mean[COLS], m2[COLS];
    (void)thread;
    cols_moments(mean, m2, j->in->x + (size_t)n * s.hw * s.c + k, s.hw, s.c, cols);
    for (int c = 0; c < cols; c++) {
        at[2 * c] = mean[c];
        at[2 * c + 1] = m2[c];
    }
}

void K(batch_norm_stats)(real *stats, real *var_unbiased, const real *x, NormShape s, void *scratch)
{
    const double count = (double)s.n * s.hw;
    double *part = scratch;
    assert(is_aligned(scratch));
    threads_each(s.n * col_blocks(s), moments_block, &(NormJob){.in = &(NormInputs){.x = x}, .s = s, .part = part});
    for (int k = 0; k < s.c; k++) {
        double mean = 0, m2 = 0;
        for (int n = 0; n < s.n; n++)
            mean += part[((size_t)n * s.c + k) * 2];
        mean /= s.n;
        for (int n = 0; n < s.n; n++) {
            const double *at = part + ((size_t)n * s.c + k) * 2;
            m2 += at[1] + (at[0] - mean) * (at[0] - mean) * s.hw;
        }
        stats[2 * k] = (real)mean;
        stats[2 * k + 1] = (real)(1 / sqrt(m2 / count + (double)s.eps));
        if (var_unbiased)
            var_unbiased[k] = (real)(m2 / (count > 1 ? count - 1 : 1));
    }
}

/* The block's image, first column and how many, and its statistics */
static void cols_block(Cols *c, int *n, int *k, int *cols, const NormJob *j, int i)
{
    const int blocks = col_blocks(j->s);
    *n = i / blocks;
    *k = i % blocks * COLS;
    *cols = min_int(COLS, j->s.c - *k);
    cols_of_groups(c, j->stats, j->in, *k, *cols, 1);
}

static void batch_fwd_block(const void *job, int i, int thread)
{
    const NormJob *j = job;
    int n, k, cols;
    Cols c;
    (void)thread;
    cols_block(&c, &n, &k, &cols, j, i);
    forward_at(j->y, j->in, &c, j->s, n, k, (size_t)n * j->s.hw * j->s.c + k, cols);
}

void K(batch_norm_fwd)(real *y, const real *stats, const NormInputs *in, NormShape s)
{
    threads_each(s.n * col_blocks(s), batch_fwd_block, &(NormJob){.y = y, .stats = (real *)stats, .in = in, .s = s});
}

static void batch_sums_block(const void *job, int i, int thread)
{
    const NormJob *j = job;
    const NormShape s = j->s;
    int n, k, cols;
    Cols c;
    (void)thread;
    cols_block(&c, &n, &k, &cols, j, i);
    sums_at(j->part + ((size_t)n * s.c + k) * 2, j->d, j->dy, j->in, &c, s, n, k, (size_t)n * s.hw * s.c + k, cols);
}

static void batch_bwd_block(const void *job, int i, int thread)
{
    const NormJob *j = job;
    const NormShape s = j->s;
    const double count = (double)s.n * s.hw;
    int n, k, cols;
    Cols c;
    (void)thread;
    cols_block(&c, &n, &k, &cols, j, i);
    for (int o = 0; j->totals && o < cols; o++) {
        c.k1[o] = (real)(c.scale[o] * j->totals[2 * (k + o)] / count);
        c.k2[o] = (real)(c.scale[o] * j->totals[2 * (k + o) + 1] / count * c.rstd[o]);
    }
    backward_at(j->d->x, j->dy, j->in, &c, s, (size_t)n * s.hw * s.c + k, cols);
}

void K(batch_norm_bwd)(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                       bool batch_stats, void *scratch)
{
    double *part = scratch, *totals = part + (size_t)s.n * s.c * 2;
    NormJob j = {.stats = (real *)stats, .in = in, .s = s, .d = d, .dy = dy, .part = part};
    assert(is_aligned(scratch) && s.groups == 0);
    threads_each(s.n * col_blocks(s), batch_sums_block, &j);
    affine_grad(d->gamma, d->beta, totals, part, s.n, s.c);
    if (!d->x.p)
        return;
    j.totals = batch_stats ? totals : NULL;
    threads_each(s.n * col_blocks(s), batch_bwd_block, &j);
}
