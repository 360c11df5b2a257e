/* For tests against tests/golden (scripts/make_golden.py): reading, PyTorch's layouts, comparisons. Tests run from the
 * root of the repository. What these functions return is freed with free(). */
#ifndef TESTS_GOLDEN_UTIL_H
#define TESTS_GOLDEN_UTIL_H

#include "check.h"
#include "start_util.h"

#include "sdlora/model.h"
#include "sdlora/safetensors.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

static inline StFile *golden_open(const char *name)
{
    char path[256];
    Err err;
    StFile *f;

    snprintf(path, sizeof path, "tests/golden/%s.safetensors", name);
    f = st_open(path, &err);
    check_ptr(f, err);
    return f;
}

static inline const StTensor *golden_tensor(const StFile *f, const char *name)
{
    const StTensor *t = st_find(f, name);
    if (!t)
        fail_msg("'%s' lacks '%s'", st_label(f), name);
    return t;
}

static inline float *golden_f32(const StFile *f, const char *name)
{
    const StTensor *t = golden_tensor(f, name);
    float *out = calloc(t->numel, sizeof *out);
    Err err;

    assert_non_null(out);
    check_ok(st_read_f32(out, f, t, &err), err);
    return out;
}

/* Element i of an F64 tensor. */
static inline double golden_f64(const StFile *f, const char *name, size_t i)
{
    const StTensor *t = golden_tensor(f, name);
    double v;

    assert_int_equal(t->dtype, DT_F64);
    assert_true(i < t->numel);
    memcpy(&v, t->data + i * sizeof v, sizeof v);
    return v;
}

static inline int *golden_ints(const StFile *f, const char *name)
{
    const StTensor *t = golden_tensor(f, name);
    int64_t *wide = calloc(t->numel, sizeof *wide);
    int *out = calloc(t->numel, sizeof *out);
    Err err;

    assert_non_null(wide);
    assert_non_null(out);
    check_ok(st_read_i64(wide, f, t, &err), err);
    for (size_t i = 0; i < t->numel; i++)
        out[i] = (int)wide[i];
    free(wide);
    return out;
}

static inline Shape golden_shape(const StTensor *t)
{
    int d[TENSOR_MAX_DIMS];

    assert_true(t->nd <= TENSOR_MAX_DIMS);
    for (int i = 0; i < t->nd; i++)
        d[i] = (int)t->d[i];
    return shape_make(t->nd, d);
}

/* (n,c,hw) to (n,hw,c), in place; with c and hw exchanged it is its own inverse. */
static inline void swap_layout(float *x, int n, int c, int hw)
{
    size_t image = (size_t)c * (size_t)hw;
    float *copy = malloc(image * sizeof *copy);

    assert_non_null(copy);
    for (int i = 0; i < n; i++, x += image) {
        memcpy(copy, x, image * sizeof *copy);
        for (int k = 0; k < c; k++)
            for (int p = 0; p < hw; p++)
                x[p * c + k] = copy[k * hw + p];
    }
    free(copy);
}

static inline double largest(const float *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        const double size = fabs((double)x[i]);
        if (size > most) /* fmax in this loop kills GCC 12 on AArch64 */
            most = size;
    }
    return most;
}

/* max |got - want| <= atol + rtol max |want| */
static inline void check_array(const float *got, const float *want, size_t n, double atol, double rtol,
                               const char *what)
{
    double d = max_diff(got, want, n), most = largest(want, n);
    if (!(d <= atol + rtol * most))
        fail_msg("%s: off by %.3g where the largest is %.3g", what, d, most);
}

/* Is NAME in the list that the metadata key holds (a JSON array of strings)? */
static inline bool meta_lists(const StFile *f, const char *key, const char *name)
{
    const char *list = st_meta(f, key);
    char quoted[PARAM_NAME_MAX + 2];

    assert_non_null(list);
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    return strstr(list, quoted) != NULL;
}

static inline Model *golden_model(const char *name, bool trainable)
{
    char path[256];
    Err err;
    Model *m;

    snprintf(path, sizeof path, "tests/golden/%s.safetensors", name);
    m = model_load(path, trainable, &err);
    check_ptr(m, err);
    return m;
}

/* A network for the batch of NAME_io, with x, t, y (and target, in training) of that batch; the loss is the mean. */
static inline Unet golden_unet(Model *m, const StFile *io, bool train)
{
    const StTensor *x = golden_tensor(io, "x");
    int n = (int)x->d[0], size = (int)x->d[2], *t = golden_ints(io, "t"), *y = golden_ints(io, "y");
    UnetOptions o = {.n = n, .h = size, .w = size, .train = train};
    Unet u;
    Err err;

    o.l1 = m->config.norm == NORM_BATCH; /* model seed; see make_golden.py */
    o.loss_scale = 1.0 / (double)x->numel;
    check_ok(unet_build(&u, m, &o, &err), err);
    check_ok(st_read_f32(u.x->val.data, io, x, &err), err);
    swap_layout(u.x->val.data, n, m->config.in_channels, size * size);
    if (train) {
        check_ok(st_read_f32(u.target->val.data, io, golden_tensor(io, "target"), &err), err);
        swap_layout(u.target->val.data, n, m->config.in_channels, size * size);
    }
    memcpy(u.y, y, (size_t)n * sizeof(int));
    unet_set_time(&u, t);
    free(t);
    free(y);
    return u;
}

/* Run the network and compare its output with the tensor NAME. */
static inline void check_output(Unet *u, const StFile *f, const char *name, double tol)
{
    const Shape s = u->out->val.shape; /* (n,h,w,c) */
    float *want = golden_f32(f, name);

    swap_layout(want, s.d[0], s.d[3], s.d[1] * s.d[2]);
    graph_forward(u->g);
    check_array(u->out->val.data, want, u->out->val.numel, tol, 0, name);
    free(want);
}

/* Parameter p, in PyTorch's layout, of a slab against PREFIX + its name. */
static inline void check_param(const Param *p, const real *slab, const StFile *f, const char *prefix, double atol,
                               double rtol)
{
    char name[2 * PARAM_NAME_MAX];
    float *got = calloc(p->numel, sizeof *got), *want;

    snprintf(name, sizeof name, "%s%s", prefix, p->name);
    want = golden_f32(f, name);
    assert_int_equal(golden_tensor(f, name)->numel, p->numel);
    param_export(got, p, slab);
    check_array(got, want, p->numel, atol, rtol, name);
    free(got);
    free(want);
}

#endif
