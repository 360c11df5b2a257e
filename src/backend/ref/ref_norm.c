/* Group and batch normalisation, fused with what follows:
 *   xh = (x - mean) rstd,  u = gamma xh + beta,  y = act(u) + temb + res,  rstd = 1/sqrt(variance + eps)
 * The two differ only in the elements that share a mean: all pixels of one image and a group of channels, or all pixels
 * of all images and one channel. */
#include "ref.h"

/* Elements with a mean and rstd in common: images n0..n1-1, all pixels, channels k0..k1-1 */
typedef struct Set {
    int n0, n1, k0, k1;
} Set;

static int sets_of(NormShape s)
{
    return s.groups ? s.n * s.groups : s.c;
}

/* Number i, whose mean is stats[2*i] and whose rstd is stats[2*i+1] */
static Set set_at(int i, NormShape s)
{
    const int width = s.groups ? s.c / s.groups : 1;
    if (!s.groups)
        return (Set){0, s.n, i, i + 1};
    return (Set){i / s.groups, i / s.groups + 1, i % s.groups * width, (i % s.groups + 1) * width};
}

static double count_of(Set set, NormShape s)
{
    return (double)(set.n1 - set.n0) * s.hw * (set.k1 - set.k0);
}

/* For every element of a set: its place `at`, of channel k and image n */
#define EACH(set, s)                                                                                                   \
    for (int n = (set).n0; n < (set).n1; n++)                                                                          \
        for (int p = 0; p < (s).hw; p++)                                                                               \
            for (size_t k = (size_t)(set).k0, at = ((size_t)n * (size_t)(s).hw + (size_t)p) * (size_t)(s).c + k;       \
                 k < (size_t)(set).k1; k++, at++)

/* mean = sum x / count, variance = sum (x - mean)^2 / count */
static void statistics(real *stats, real *var_unbiased, const real *x, NormShape s)
{
    for (int i = 0; i < sets_of(s); i++) {
        const Set set = set_at(i, s);
        const double count = count_of(set, s);
        double sum = 0, squares = 0;
        EACH(set, s)
        sum += (double)x[at];
        const double mean = sum / count;
        EACH(set, s)
        squares += ((double)x[at] - mean) * ((double)x[at] - mean);
        stats[2 * i] = (real)mean;
        stats[2 * i + 1] = (real)(1 / sqrt(squares / count + (double)s.eps));
        if (var_unbiased)
            var_unbiased[i] = (real)(squares / (count > 1 ? count - 1 : 1));
    }
}

/* y = act(gamma xh + beta) + temb + res */
static void forward(real *y, const real *stats, const NormInputs *in, NormShape s)
{
    for (int i = 0; i < sets_of(s); i++) {
        const Set set = set_at(i, s);
        const double mean = (double)stats[2 * i], rstd = (double)stats[2 * i + 1];
        EACH(set, s)
        {
            const double xh = ((double)in->x[at] - mean) * rstd;
            const double u = (double)in->gamma[k] * xh + (double)in->beta[k];
            y[at] = (real)(ref_act(u, s.act) + (in->temb ? (double)in->temb[(size_t)n * (size_t)s.c + k] : 0) +
                           (in->res ? (double)in->res[at] : 0));
        }
    }
}

/* One element on the way back: xh, and du = dy act'(u) */
typedef struct Element {
    double xh, du;
} Element;

static Element element(const real *dy, const real *stats, const NormInputs *in, size_t at, size_t k, Act act)
{
    const double xh = ((double)in->x[at] - (double)stats[0]) * (double)stats[1];
    const double u = (double)in->gamma[k] * xh + (double)in->beta[k];
    return (Element){xh, (double)dy[at] * ref_act_slope(u, act)};
}

/* The statistics of image n and channel k */
static const real *stats_of(const real *stats, int n, int k, NormShape s)
{
    return stats + 2 * (s.groups ? n * s.groups + k / (s.c / s.groups) : k);
}

/* dgamma[k] = sum du xh, dbeta[k] = sum du, over images and pixels */
static void affine_gradients(Grad dgamma, Grad dbeta, const real *dy, const real *stats, const NormInputs *in,
                             NormShape s)
{
    for (int channel = 0; channel < s.c; channel++) {
        const Set set = {0, s.n, channel, channel + 1};
        double sum = 0, sum_xh = 0;
        EACH(set, s)
        {
            const Element e = element(dy, stats_of(stats, n, channel, s), in, at, k, s.act);
            sum += e.du;
            sum_xh += e.du * e.xh;
        }
        ref_put(dgamma, (size_t)channel, sum_xh);
        ref_put(dbeta, (size_t)channel, sum);
    }
}

/* dtemb[n,k] = sum_pixels dy, dres = dy */
static void added_gradients(Grad dtemb, Grad dres, const real *dy, NormShape s)
{
    for (int i = 0; i < s.n * s.c; i++) {
        const Set set = {i / s.c, i / s.c + 1, i % s.c, i % s.c + 1};
        double sum = 0;
        EACH(set, s)
        {
            sum += (double)dy[at];
            ref_put(dres, at, (double)dy[at]);
        }
        ref_put(dtemb, (size_t)i, sum);
    }
}

/* dx = rstd (gamma du - avg(gamma du) - xh avg(gamma du xh)), the averages over the set; without them where the
 * statistics are constants. Element by element, so that dx may be dy. */
static void input_gradient(Grad dx, const real *dy, const real *stats, const NormInputs *in, NormShape s, bool flow)
{
    for (int i = 0; i < sets_of(s); i++) {
        const Set set = set_at(i, s);
        const real *st = stats + 2 * i;
        double avg = 0, avg_xh = 0;
        EACH(set, s)
        {
            const Element e = element(dy, st, in, at, k, s.act);
            avg += (double)in->gamma[k] * e.du;
            avg_xh += (double)in->gamma[k] * e.du * e.xh;
        }
        avg = flow ? avg / count_of(set, s) : 0;
        avg_xh = flow ? avg_xh / count_of(set, s) : 0;
        EACH(set, s)
        {
            const Element e = element(dy, st, in, at, k, s.act);
            ref_put(dx, at, (double)st[1] * ((double)in->gamma[k] * e.du - avg - e.xh * avg_xh));
        }
    }
}

static void backward(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                     bool flow)
{
    added_gradients(d->temb, d->res, dy, s);
    if (d->gamma.p || d->beta.p)
        affine_gradients(d->gamma, d->beta, dy, stats, in, s);
    if (d->x.p)
        input_gradient(d->x, dy, stats, in, s, flow);
}

size_t ref_norm_scratch(NormShape s, int threads)
{
    (void)s, (void)threads;
    return 0;
}

void ref_group_norm_fwd(real *y, real *stats, const NormInputs *in, NormShape s)
{
    statistics(stats, NULL, in->x, s);
    forward(y, stats, in, s);
}

void ref_group_norm_bwd(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                        void *scratch)
{
    (void)scratch;
    backward(d, dy, stats, in, s, true);
}

void ref_batch_norm_stats(real *stats, real *var_unbiased, const real *x, NormShape s, void *scratch)
{
    (void)scratch;
    statistics(stats, var_unbiased, x, s);
}

void ref_batch_norm_fwd(real *y, const real *stats, const NormInputs *in, NormShape s)
{
    forward(y, stats, in, s);
}

void ref_batch_norm_bwd(const NormGrads *d, const real *dy, const real *stats, const NormInputs *in, NormShape s,
                        bool batch_stats, void *scratch)
{
    (void)scratch;
    backward(d, dy, stats, in, s, batch_stats);
}
