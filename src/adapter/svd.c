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

    for (size_t i = 0; i < (size_t)rows * (size_t)cols; i++)
        if (!isfinite(a[i])) {
            *out = (Svd){0};
            return err_set(e, ERR_DIVERGED, "a matrix of %d by %d whose singular values are wanted is not finite", rows,
                           cols);
        }
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

/* The weight's inner layout as the matrix that L R^T makes: see change.c. */
static int matrix_rows(const Param *weight)
{
    const int first = weight->file_shape.d[0];
    return weight->use == USE_CONV3 ? (int)(weight->numel / (size_t)first) : first;
}

int svd_matrix(Svd *out, const Param *weight, const real *w, Err *e)
{
    const int rows = matrix_rows(weight), cols = (int)(weight->numel / (size_t)rows);
    double *a = mem_alloc(weight->numel, sizeof *a, "singular values", e);
    int status;

    for (size_t i = 0; a && i < weight->numel; i++)
        a[i] = (double)w[i];
    status = a ? svd_of(out, a, rows, cols, e) : -1;
    mem_free(a);
    return status;
}

/* ---- of a product ---- */

static int factor_svd(Svd *out, const Param *p, int rows, int rank, Err *e)
{
    double *a = mem_alloc(p->numel, sizeof *a, "singular values", e);
    int status;

    for (size_t i = 0; a && i < p->numel; i++)
        a[i] = (double)p->value[i];
    status = a ? svd_of(out, a, rows, rank, e) : -1;
    mem_free(a);
    return status;
}

/* out (m,n) = a (m,r) b (r,n) */
static void product(double *out, const double *a, const double *b, int m, int r, int n)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int k = 0; k < r; k++)
                sum += a[(size_t)i * (size_t)r + (size_t)k] * b[(size_t)k * (size_t)n + (size_t)j];
            out[(size_t)i * (size_t)n + (size_t)j] = sum;
        }
}

/* core (l->n,r->n) = s S_l V_l (S_r V_r)^T */
static int core_svd(Svd *out, const Svd *l, const Svd *r, double scale, Err *e)
{
    double *core = mem_alloc((size_t)l->n * (size_t)r->n, sizeof *core, "singular values", e);
    int status;

    for (int i = 0; core && i < l->n; i++)
        for (int j = 0; j < r->n; j++) {
            double sum = 0;
            for (int k = 0; k < l->cols; k++)
                sum += l->v[(size_t)i * (size_t)l->cols + (size_t)k] * r->v[(size_t)j * (size_t)r->cols + (size_t)k];
            core[(size_t)i * (size_t)r->n + (size_t)j] = scale * l->s[i] * r->s[j] * sum;
        }
    status = core ? svd_of(out, core, l->n, r->n, e) : -1;
    mem_free(core);
    return status;
}

/* U = U_l U_core, V = V_core U_r^T */
static int join(Svd *out, Svd *core, const Svd *l, const Svd *r, Err *e)
{
    double *turned = mem_alloc((size_t)r->rows * (size_t)r->n, sizeof *turned, "singular vectors", e);

    *out = (Svd){.rows = l->rows, .cols = r->rows, .n = core->n, .s = core->s};
    core->s = NULL;
    out->u = mem_alloc((size_t)l->rows * (size_t)out->n, sizeof(double), "singular vectors", e);
    out->v = mem_alloc((size_t)out->n * (size_t)r->rows, sizeof(double), "singular vectors", e);
    if (!turned || !out->u || !out->v) {
        mem_free(turned);
        svd_free(out);
        return -1;
    }
    for (int i = 0; i < r->rows; i++)
        for (int k = 0; k < r->n; k++)
            turned[(size_t)k * (size_t)r->rows + (size_t)i] = r->u[(size_t)i * (size_t)r->n + (size_t)k];
    product(out->u, l->u, core->u, l->rows, l->n, out->n);
    product(out->v, core->v, turned, out->n, r->n, r->rows);
    mem_free(turned);
    return 0;
}

int svd_product(Svd *out, const AdapterLayer *l, Err *e)
{
    const Factors f = factors_of(l);
    Svd left = {0}, right = {0}, core = {0};
    int status = factor_svd(&left, f.left, f.rows, l->rank, e) || factor_svd(&right, f.right, f.cols, l->rank, e) ||
                         core_svd(&core, &left, &right, l->scale, e)
                     ? -1
                     : join(out, &core, &left, &right, e);

    svd_free(&left);
    svd_free(&right);
    svd_free(&core);
    return status;
}

/* ---- into A and B ---- */

void svd_split(const AdapterLayer *l, const Svd *s)
{
    const Factors f = factors_of(l);
    real *left = f.left->value, *right = f.right->value;

    for (int k = 0; k < l->rank; k++) {
        const double root = k < s->n ? sqrt(s->s[k] / l->scale) : 0;
        for (int i = 0; i < f.rows; i++)
            left[(size_t)i * (size_t)l->rank + (size_t)k] =
                k < s->n ? (real)(root * s->u[(size_t)i * (size_t)s->n + (size_t)k]) : 0;
        for (int i = 0; i < f.cols; i++)
            right[(size_t)i * (size_t)l->rank + (size_t)k] =
                k < s->n ? (real)(root * s->v[(size_t)k * (size_t)f.cols + (size_t)i]) : 0;
    }
}

int svd_begin(const AdapterLayer *l, Err *e)
{
    Svd s;

    if (svd_matrix(&s, l->weight, l->weight->value, e))
        return -1;
    svd_split(l, &s);
    svd_free(&s);
    memcpy(l->part[PART_A0]->value, l->part[PART_A]->value, l->part[PART_A]->numel * sizeof(real));
    memcpy(l->part[PART_B0]->value, l->part[PART_B]->value, l->part[PART_B]->numel * sizeof(real));
    return 0;
}
