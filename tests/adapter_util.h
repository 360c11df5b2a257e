/* For tests of adapters' files: the small network of tests/golden/adapters, and what it gives with an adapter. */
#ifndef TESTS_ADAPTER_UTIL_H
#define TESTS_ADAPTER_UTIL_H

#include "check.h"
#include "io_util.h"

#include "sdlora/backend.h"
#include "sdlora/safetensors.h"
#include "sdlora/store.h"
#include "sdlora/threads.h"

#define ADAPTERS_DIR "tests/golden/adapters"

enum { OUTPUTS = 6 * 64 }; /* 6 images of 8x8 */

static inline Model *adapter_base(void)
{
    Err err;
    Model *m = model_load(ADAPTERS_DIR "/base.safetensors", false, &err);
    check_ptr(m, err);
    return m;
}

static inline StFile *adapter_io(void)
{
    Err err;
    StFile *f = st_open(ADAPTERS_DIR "/io.safetensors", &err);
    check_ptr(f, err);
    return f;
}

/* The tensor PREFIX + kind of the expected outputs, or NULL. */
static inline const StTensor *adapter_tensor(const StFile *io, const char *prefix, const char *kind)
{
    char name[128];
    snprintf(name, sizeof name, "%s%s", prefix, kind);
    return st_find(io, name);
}

static inline void read_ints(int *out, size_t n, const StFile *f, const StTensor *t)
{
    int64_t wide[64];
    Err err;

    assert_non_null(t);
    assert_true(t->numel == n && n <= 64);
    check_ok(st_read_i64(wide, f, t, &err), err);
    for (size_t i = 0; i < n; i++)
        out[i] = (int)wide[i];
}

/* The network's outputs; classes: the tensor that holds them. */
static inline void adapter_outputs(float *out, Model *m, const StFile *io, const StTensor *classes)
{
    UnetOptions o = {.n = 6, .h = 8, .w = 8};
    float x[OUTPUTS];
    int t[6], y[6];
    Err err;

    check_ok(st_read_f32(x, io, st_find(io, "x"), &err), err);
    read_ints(t, 6, io, st_find(io, "t"));
    read_ints(y, 6, io, classes);
    check_ok(model_predict(out, m, x, t, y, &o, 6, &err), err);
}

/* The base with room for the adapter's classes. */
static inline Model *adapter_model(const char *path)
{
    Model *m = adapter_base();
    int classes = m->config.classes;
    Err err;

    check_ok(adapter_classes(&classes, path, m, &err), err);
    if (classes != m->config.classes)
        check_ok(model_grow_classes(m, classes, &err), err);
    return m;
}

/* Largest difference between what the network gives with the adapter merged into it and the expected output, in parts
 * of the largest output (2 to 4; in float32 PyTorch itself is off by 3e-6 there). */
static inline double adapter_difference(const Adapter *a, Model *m, const StFile *io, const char *kind)
{
    const StTensor *want = adapter_tensor(io, "out.", kind), *classes = adapter_tensor(io, "y.", kind);
    float got[OUTPUTS], expected[OUTPUTS];
    const double one = 1;
    double largest = 1;
    Err err;

    assert_non_null(want);
    assert_int_equal(want->numel, OUTPUTS);
    check_ok(st_read_f32(expected, io, want, &err), err);
    check_ok(adapter_merge(m->params, &a, &one, 1, &err), err);
    adapter_outputs(got, m, io, classes ? classes : st_find(io, "y"));
    for (int i = 0; i < OUTPUTS; i++)
        if (fabs((double)expected[i]) > largest)
            largest = fabs((double)expected[i]);
    return max_diff(got, expected, OUTPUTS) / largest;
}

typedef struct Verdict {
    char kind[64], path[128], verdict[16];
    double tolerance; /* NaN: no output is expected */
} Verdict;

/* The next line of verdicts.tsv; false at the end. */
static inline bool next_verdict(Verdict *v, FILE *f)
{
    char line[512], file[64], tolerance[16];

    do
        if (!fgets(line, sizeof line, f))
            return false;
    while (line[0] == '#');
    if (sscanf(line, "%63[^\t]\t%63[^\t]\t%15[^\t]\t%15[^\t]", v->kind, file, v->verdict, tolerance) != 4)
        fail_msg("verdicts.tsv: %s", line);
    snprintf(v->path, sizeof v->path, ADAPTERS_DIR "/%s", file);
    v->tolerance = strcmp(tolerance, "-") ? atof(tolerance) : (double)NAN;
    return true;
}

static inline int adapter_start(void **state)
{
    (void)state;
    threads_init(1);
    backend_init();
    return 0;
}

#endif
