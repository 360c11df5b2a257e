/* The Frechet distance: see measures.h. LAPACK's dsyev, in doubles. */
#include <math.h>
#include <string.h>

#include "sdlora/measures.h"
#include "sdlora/mem.h"

/* LAPACK, which OpenBLAS brings along; Fortran's calling convention. The matrix is symmetric, so rows are columns */
void dsyev_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
            const int *lwork, int *info);

/* The eigenvalues of a (n,n) into w, and where wanted its eigenvectors into the rows of a. */
static int eigen(double *a, double *w, int n, bool vectors, Err *e)
{
    const int query = -1;
    const char *job = vectors ? "V" : "N";
    double best = 0, *work;
    int info = 0, lwork;

    dsyev_(job, "U", &n, a, &n, w, &best, &query, &info);
    lwork = (int)best;
    work = mem_alloc((size_t)(lwork > 0 ? lwork : 1), sizeof *work, "eigenvalues", e);
    if (!work)
        return -1;
    dsyev_(job, "U", &n, a, &n, w, work, &lwork, &info);
    mem_free(work);
    return info == 0 ? 0 : err_set(e, ERR_FAILED, "the eigenvalues of a %d by %d matrix were not found", n, n);
}

static float value(const Rows *r, int i, int k)
{
    const size_t at = (size_t)(r->row ? r->row[i] : i) * (size_t)r->dim + (size_t)k;
    return r->f ? r->f[at] : (float)r->px[at] / 255;
}

/* mean (dim), cov (dim,dim) */
static int gaussian(double *mean, double *cov, const Rows *r, Err *e)
{
    const size_t dim = (size_t)r->dim;
    double *d = mem_alloc(dim, sizeof *d, "a covariance", e);

    if (!d)
        return -1;
    for (int i = 0; i < r->n; i++)
        for (int k = 0; k < r->dim; k++)
            mean[k] += (double)value(r, i, k) / r->n;
    for (int i = 0; i < r->n; i++) {
        for (int k = 0; k < r->dim; k++)
            d[k] = (double)value(r, i, k) - mean[k];
        for (size_t k = 0; k < dim; k++)
            for (size_t l = 0; l <= k; l++)
                cov[k * dim + l] += d[k] * d[l] / (r->n - 1);
    }
    mem_free(d);
    for (size_t k = 0; k < dim; k++) {
        if (!isfinite(mean[k]) || !isfinite(cov[k * dim + k]))
            return err_set(e, ERR_DIVERGED, "a feature of an image is not finite");
        for (size_t l = 0; l < k; l++)
            cov[l * dim + k] = cov[k * dim + l];
    }
    return 0;
}

/* out = a b (dim,dim) */
static void product(double *out, const double *a, const double *b, size_t dim)
{
    memset(out, 0, dim * dim * sizeof *out);
    for (size_t i = 0; i < dim; i++)
        for (size_t k = 0; k < dim; k++)
            for (size_t j = 0; j < dim; j++)
                out[i * dim + j] += a[i * dim + k] * b[k * dim + j];
}

/* root = a^(1/2) of a symmetric a, which is used up; w (dim) and turned (dim,dim) are room. Rounding can leave an
 * eigenvalue of 0 below it. */
static int square_root(double *root, double *a, double *w, double *turned, int dim, Err *e)
{
    const size_t n = (size_t)dim;

    if (eigen(a, w, dim, true, e))
        return -1;
    for (size_t k = 0; k < n; k++)
        for (size_t i = 0; i < n; i++)
            turned[i * n + k] = sqrt(fmax(w[k], 0)) * a[k * n + i];
    product(root, turned, a, n);
    return 0;
}

/* tr (A B)^(1/2); both are used up. */
static int trace_root(double *out, double *a, double *b, int dim, Err *e)
{
    const size_t n = (size_t)dim;
    double *root = mem_alloc(2 * n * n + n, sizeof *root, "eigenvalues", e), *tmp, *w;
    int rc = -1;

    if (!root)
        return -1;
    tmp = root + n * n;
    w = tmp + n * n;
    if (!square_root(root, a, w, tmp, dim, e)) {
        product(tmp, root, b, n);
        product(a, tmp, root, n);
        rc = eigen(a, w, dim, false, e);
    }
    for (size_t k = 0; k < n && !rc; k++)
        *out += sqrt(fmax(w[k], 0));
    mem_free(root);
    return rc;
}

int measure_frechet(double *out, const Rows *a, const Rows *b, Err *e)
{
    const size_t dim = (size_t)a->dim, set = dim + dim * dim;
    double *mean, *cov, *mean_b, *cov_b, sum = 0, roots = 0;
    int rc = -1;

    if (a->n < 2 || b->n < 2)
        return err_set(e, ERR_INPUT, "the Frechet distance needs two images at least on either side");
    if (!(mean = mem_alloc(2 * set, sizeof *mean, "covariances", e)))
        return -1;
    cov = mean + dim;
    mean_b = mean + set;
    cov_b = mean_b + dim;
    if (!gaussian(mean, cov, a, e) && !gaussian(mean_b, cov_b, b, e)) {
        for (size_t k = 0; k < dim; k++)
            sum += (mean[k] - mean_b[k]) * (mean[k] - mean_b[k]) + cov[k * dim + k] + cov_b[k * dim + k];
        rc = trace_root(&roots, cov, cov_b, a->dim, e);
    }
    mem_free(mean);
    if (!rc)
        *out = fmax(0, sum - 2 * roots);
    return rc;
}
