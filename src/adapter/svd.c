/* Singular values: how PiSSA begins, what a difference of two weights is made of, what an adapter of a smaller rank is
 * to keep. LAPACK's dgesdd, in doubles. */
#include <math.h>
#include <string.h>

#include "adapter_private.h"
#include "sdlora/mem.h"

/* LAPACK, which OpenBLAS brings along; Fortran's calling convention, matrices by columns */
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u,
             const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info);

void svd_free(Svd *s)
{
    mem_free(s->s);
    mem_free(s->u);
    mem_free(s->v);
    *s = (Svd){0};
}

/* A row-major matrix (rows,cols) is the column-major one (cols,rows) of its transpose: its left vectors are our right
 * ones. */
int svd_of(Svd *out, double *a, int rows, int cols, Err *e)
{
    const int k = rows < cols ? rows : cols;
    const int query = -1;
    int info = 0, lwork;
    double best, *work;
    int *iwork;

    *out = (Svd){.rows = rows, .cols = cols, .n = k};
    out->s = mem_alloc((size_t)k, sizeof(double), "singular values", e);
    out->v = mem_alloc((size_t)k * (size_t)cols, sizeof(double), "singular vectors", e);
    out->u = mem_alloc((size_t)k * (size_t)rows, sizeof(double), "singular vectors", e);
    iwork = mem_alloc((size_t)k, 8 * sizeof *iwork, "singular values", e);
    if (!out->s || !out->v || !out->u || !iwork) {
        mem_free(iwork);
        svd_free(out);
        return -1;
    }
    dgesdd_("S", &cols, &rows, a, &cols, out->s, out->v, &cols, out->u, &k, &best, &query, iwork, &info);
    lwork = (int)best;
    work = info == 0 ? mem_alloc((size_t)lwork, sizeof *work, "singular values", e) : NULL;
    if (work)
        dgesdd_("S", &cols, &rows, a, &cols, out->s, out->v, &cols, out->u, &k, work, &lwork, iwork, &info);
    if (work && info != 0)
        err_set(e, ERR_FAILED, "the singular values of a %d by %d matrix were not found", rows, cols);
    mem_free(iwork);
    mem_free(work);
    if (work && info == 0)
        return 0;
    svd_free(out);
    return -1;
}

/* The weight's inner layout as the matrix that L R^T makes. */
static int matrix_svd(Svd *out, const real *w, const Factors *f, Err *e)
{
    const size_t n = (size_t)f->rows * (size_t)f->cols;
    double *a = mem_alloc(n, sizeof *a, "singular values", e);
    int status;

    for (size_t i = 0; a && i < n; i++)
        a[i] = (double)w[i];
    status = a ? svd_of(out, a, f->rows, f->cols, e) : -1;
    mem_free(a);
    return status;
}

int svd_factors(const AdapterLayer *l, const real *w, double scale, double *kept, double *all, Err *e)
{
    const Factors f = factors_of(l);
    real *left = f.left->value, *right = f.right->value;
    Svd s;

    if (matrix_svd(&s, w, &f, e))
        return -1;
    for (int k = 0; k < l->rank; k++) {
        const double root = k < s.n ? sqrt(s.s[k] / scale) : 0;
        for (int i = 0; i < f.rows; i++)
            left[(size_t)i * (size_t)l->rank + (size_t)k] =
                k < s.n ? (real)(root * s.u[(size_t)i * (size_t)s.n + (size_t)k]) : 0;
        for (int i = 0; i < f.cols; i++)
            right[(size_t)i * (size_t)l->rank + (size_t)k] =
                k < s.n ? (real)(root * s.v[(size_t)k * (size_t)f.cols + (size_t)i]) : 0;
    }
    *kept = *all = 0;
    for (int k = 0; k < s.n; k++) {
        *all += s.s[k] * s.s[k];
        *kept += k < l->rank ? s.s[k] * s.s[k] : 0;
    }
    svd_free(&s);
    return 0;
}

int svd_begin(const AdapterLayer *l, Err *e)
{
    double kept, all;

    if (svd_factors(l, l->weight->value, l->scale, &kept, &all, e))
        return -1;
    memcpy(l->part[PART_A0]->value, l->part[PART_A]->value, l->part[PART_A]->numel * sizeof(real));
    memcpy(l->part[PART_B0]->value, l->part[PART_B]->value, l->part[PART_B]->numel * sizeof(real));
    return 0;
}
