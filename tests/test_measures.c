/* Distances of sets: the Frechet distance against closed forms, precision, recall and neighbours against their
 * definitions, on sets that are larger than the blocks they are worked off in. */
#include "check.h"
#include "sdlora/backend.h"
#include "sdlora/measures.h"
#include "sdlora/threads.h"

static float *numbers(size_t n, uint64_t seed, double scale, double shift)
{
    float *p = malloc(n * sizeof *p);
    Rng r = rng_make(seed, 0);
    rng_normal(&r, p, n);
    for (size_t i = 0; i < n; i++)
        p[i] = (float)((double)p[i] * scale + shift);
    return p;
}

static double frechet(const float *a, int n, const float *b, int m, int dim)
{
    const Rows x = {.f = a, .n = n, .dim = dim}, y = {.f = b, .n = m, .dim = dim};
    double out = -1;
    Err err = {0};
    check_ok(measure_frechet(&out, &x, &y, &err), err);
    return out;
}

/* ---- Frechet ---- */

static void test_frechet_equal(void **state)
{
    enum { N = 50, DIM = 16 };
    float *a = numbers(N * DIM, 1, 2, 1), *b = malloc(N * DIM * sizeof *b);
    (void)state;
    for (int i = 0; i < N; i++) /* the same rows in another order */
        memcpy(b + (size_t)i * DIM, a + (size_t)((i * 7) % N) * DIM, DIM * sizeof *b);
    check_close(frechet(a, N, b, N, DIM), 0, 1e-6, 0, "equal sets");
    for (int i = 0; i < N * DIM; i++)
        b[i] += 3; /* the means alone: 16 * 9 */
    check_close(frechet(a, N, b, N, DIM), 144, 1e-4, 1e-6, "a shifted set");
    free(a);
    free(b);
}

/* Points at +-s_k and +-t_k on the axes: covariances are diagonal, 2 s_k^2/(n-1), and the distance is the sum of the
 * squared differences of the deviations. With fewer points than dimensions covariances have no inverse. */
static void test_frechet_axes(void **state)
{
    enum { DIM = 5, N = 2 * DIM };
    static const double s[DIM] = {1, 2, 0.5, 3, 0}, t[DIM] = {2, 2, 1, 0.25, 1};
    float a[N * DIM] = {0}, b[N * DIM] = {0};
    double want = 0;
    (void)state;
    for (int k = 0; k < DIM; k++) {
        const double scale = sqrt(2.0 / (N - 1));
        for (int sign = 0; sign < 2; sign++) {
            a[(2 * k + sign) * DIM + k] = (float)(sign ? s[k] : -s[k]);
            b[(2 * k + sign) * DIM + k] = (float)(sign ? t[k] : -t[k]);
        }
        want += scale * scale * (s[k] - t[k]) * (s[k] - t[k]);
    }
    check_close(frechet(a, N, b, N, DIM), want, 1e-9, 1e-9, "diagonal covariances");
    check_close(frechet(b, N, a, N, DIM), want, 1e-9, 1e-9, "exchanged");
}

static void moments(double mean[2], double cov[3], const float *x, int n)
{
    mean[0] = mean[1] = cov[0] = cov[1] = cov[2] = 0;
    for (int i = 0; i < 2 * n; i++)
        mean[i % 2] += (double)x[i] / n;
    for (int i = 0; i < n; i++) {
        const double u = (double)x[2 * i] - mean[0], v = (double)x[2 * i + 1] - mean[1];
        cov[0] += u * u / (n - 1);
        cov[1] += u * v / (n - 1);
        cov[2] += v * v / (n - 1);
    }
}

/* Of matrices of 2 by 2 that do not commute: tr M^(1/2) = sqrt(tr M + 2 sqrt(det M)), M = A B. */
static void test_frechet_plane(void **state)
{
    enum { N = 40, M = 30 };
    float *a = numbers(2 * N, 3, 1, 0), *b = numbers(2 * M, 4, 1, 0.5);
    double m[2], c[3], p[2], d[3], trace, det, want;
    (void)state;
    for (int i = 0; i < N; i++)
        a[2 * i + 1] = a[2 * i + 1] * 0.3f + 2 * a[2 * i];
    for (int i = 0; i < M; i++)
        b[2 * i] = b[2 * i] * 0.1f - b[2 * i + 1];
    moments(m, c, a, N);
    moments(p, d, b, M);
    trace = c[0] * d[0] + 2 * c[1] * d[1] + c[2] * d[2];
    det = (c[0] * c[2] - c[1] * c[1]) * (d[0] * d[2] - d[1] * d[1]);
    want = (m[0] - p[0]) * (m[0] - p[0]) + (m[1] - p[1]) * (m[1] - p[1]) + c[0] + c[2] + d[0] + d[2] -
           2 * sqrt(trace + 2 * sqrt(det));
    check_close(frechet(a, N, b, M, 2), want, 0, 1e-9, "two covariances");
    free(a);
    free(b);
}

static void test_frechet_refused(void **state)
{
    float a[] = {1, 2, 3, 4}, odd[] = {1, NAN, 3, 4};
    const Rows two = {.f = a, .n = 2, .dim = 2}, one = {.f = a, .n = 1, .dim = 2}, nan = {.f = odd, .n = 2, .dim = 2};
    double out;
    Err err = {0};
    (void)state;
    assert_int_equal(measure_frechet(&out, &two, &one, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_int_equal(measure_frechet(&out, &two, &nan, &err), -1);
    assert_int_equal(err.code, ERR_DIVERGED);
}

/* ---- precision and recall ---- */

static double square(const float *a, const float *b, int dim)
{
    double sum = 0;
    for (int k = 0; k < dim; k++)
        sum += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
    return sum;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* As the paper has it: x lies in a ball around some y whose radius is y's distance to its k-th nearest of the others.
 */
static double share_within(const float *x, int n, const float *y, int m, int dim, int k)
{
    double *radius = malloc((size_t)m * sizeof *radius), *d = malloc((size_t)m * sizeof *d);
    int within = 0;
    for (int j = 0; j < m; j++) {
        int others = 0;
        for (int i = 0; i < m; i++)
            if (i != j)
                d[others++] = square(y + (size_t)j * (size_t)dim, y + (size_t)i * (size_t)dim, dim);
        qsort(d, (size_t)others, sizeof *d, by_size);
        radius[j] = d[k - 1];
    }
    for (int i = 0; i < n; i++) {
        bool in = false;
        for (int j = 0; j < m; j++)
            in |= square(x + (size_t)i * (size_t)dim, y + (size_t)j * (size_t)dim, dim) <= radius[j];
        within += in;
    }
    free(radius);
    free(d);
    return (double)within / n;
}

static void both(double *precision, double *recall, const float *x, int n, const float *y, int m, int dim, int k)
{
    const Rows drawn = {.f = x, .n = n, .dim = dim}, real_ones = {.f = y, .n = m, .dim = dim};
    Err err = {0};
    check_ok(measure_precision_recall(precision, recall, &drawn, &real_ones, k, &err), err);
}

static void test_precision_by_hand(void **state)
{
    /* real ones: 0, 1, 2 and 10, 11, 12, each of which reaches 1 far with k = 1. Drawn ones: two among the first three,
     * one between the groups that nobody reaches, one at the very end of the second group's reach. */
    const float y[] = {0, 1, 2, 10, 11, 12}, x[] = {0.5f, 0.75f, 5, 13}, far[] = {100, 101, 102, 103};
    double p, r;
    (void)state;
    both(&p, &r, x, 4, y, 6, 1, 1);
    check_close(p, 0.75, 0, 0, "precision");
    /* 0.5 and 0.75 reach 0.25 far: 1; 5 reaches 4.25: 1 and 2; 13 reaches 8: 10, 11 and 12; nobody reaches 0 */
    check_close(r, 5.0 / 6, 1e-12, 0, "recall");
    both(&p, &r, far, 4, y, 6, 1, 1);
    check_close(p + r, 0, 0, 0, "sets that are apart");
    both(&p, &r, y, 6, y, 6, 1, 3);
    check_close(p + r, 2, 0, 0, "equal sets");
}

/* Whole numbers, whose distances are exact, with many ties. */
static void test_precision_by_definition(void **state)
{
    enum { N = 700, M = 530, DIM = 6 };
    float *x = numbers((size_t)N * DIM, 5, 2, 1), *y = numbers((size_t)M * DIM, 6, 2, 0);
    (void)state;
    for (int i = 0; i < N * DIM; i++)
        x[i] = roundf(x[i]);
    for (int i = 0; i < M * DIM; i++)
        y[i] = roundf(y[i]);
    for (int k = 1; k <= 3; k += 2) {
        const double p = share_within(x, N, y, M, DIM, k), r = share_within(y, M, x, N, DIM, k);
        assert_true(p > 0.1 && p < 0.99 && r > 0.1 && r < 0.99 && p != r);
        for (int threads = 1; threads <= 3; threads++) {
            double got_p, got_r;
            threads_init(threads);
            both(&got_p, &got_r, x, N, y, M, DIM, k);
            assert_true(got_p == p && got_r == r);
        }
    }
    threads_init(2);
    free(x);
    free(y);
}

static void test_precision_refused(void **state)
{
    const float y[] = {0, 1, 2, 3};
    const Rows four = {.f = y, .n = 4, .dim = 1}, three = {.f = y, .n = 3, .dim = 1};
    double p, r;
    Err err = {0};
    (void)state;
    assert_int_equal(measure_precision_recall(&p, &r, &four, &three, 3, &err), -1);
    assert_int_equal(measure_precision_recall(&p, &r, &three, &four, 3, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
}

/* ---- nearest ---- */

typedef struct Bytes {
    uint8_t *px;
    int n, dim;
} Bytes;

static Bytes bytes(int n, int dim, uint64_t seed)
{
    Bytes b = {malloc((size_t)n * (size_t)dim), n, dim};
    Rng r = rng_make(seed, 1);
    for (int i = 0; i < n * dim; i++)
        b.px[i] = (uint8_t)rng_below(&r, 256);
    return b;
}

static double apart(const Bytes *a, int i, const Bytes *b, int j)
{
    double sum = 0;
    for (int k = 0; k < a->dim; k++) {
        const double d = (double)a->px[i * a->dim + k] / 255 - (double)b->px[j * a->dim + k] / 255;
        sum += d * d;
    }
    return sqrt(sum);
}

static void count_done(void *ctx, int more)
{
    *(int *)ctx += more;
}

static void test_nearest(void **state)
{
    enum { N = 601, M = 700, DIM = 40 };
    Bytes a = bytes(N, DIM, 1), b = bytes(M, DIM, 2);
    static int except[N], row[N];
    static Nearest got[N], again[N];
    const Rows x = {.px = a.px, .row = row, .n = N, .dim = DIM}, among = {.px = b.px, .n = M, .dim = DIM};
    Err err = {0};
    int done = 0;
    (void)state;
    memcpy(b.px + 650 * DIM, a.px + 17 * DIM, DIM); /* a copy, of which image 17 itself knows nothing */
    for (int i = 0; i < N; i++) {
        row[i] = N - 1 - i;
        except[i] = i % 2 ? -1 : row[i];
    }
    check_ok(measure_nearest(got, &x, &among, except, count_done, &done, &err), err);
    assert_int_equal(done, N);
    for (int i = 0; i < N; i++) {
        int best = -1;
        double d1 = INFINITY, d2 = INFINITY;
        for (int j = 0; j < M; j++) {
            const double d = apart(&a, row[i], &b, j);
            if (j == except[i])
                continue;
            d2 = d < d1 ? d1 : d < d2 ? d : d2;
            best = d < d1 ? j : best;
            d1 = d < d1 ? d : d1;
        }
        assert_int_equal(got[i].index, best);
        check_close(got[i].distance, d1, 1e-12, 1e-12, "distance");
        check_close(got[i].second, d2, 1e-12, 1e-12, "distance of the second");
        assert_int_equal(nearest_is_copy(&got[i]), row[i] == 17);
    }
    for (int threads = 1; threads <= 3; threads++) {
        threads_init(threads);
        memset(again, 0, sizeof again);
        check_ok(measure_nearest(again, &x, &among, except, NULL, NULL, &err), err);
        for (int i = 0; i < N; i++)
            assert_true(again[i].index == got[i].index && again[i].distance == got[i].distance &&
                        again[i].second == got[i].second);
    }
    threads_init(2);
    free(a.px);
    free(b.px);
}

static void test_nearest_few(void **state)
{
    const float x[] = {0, 0}, y[] = {3, 4};
    const Rows one = {.f = x, .n = 1, .dim = 2}, other = {.f = y, .n = 1, .dim = 2};
    Nearest n;
    Err err = {0};
    (void)state;
    check_ok(measure_nearest(&n, &one, &other, NULL, NULL, NULL, &err), err);
    assert_true(n.index == 0 && n.distance == 5 && isinf(n.second));
    check_ok(measure_nearest(&n, &one, &other, (const int[]){0}, NULL, NULL, &err), err);
    assert_true(n.index == -1 && isinf(n.distance) && !nearest_is_copy(&n));
}

static void test_copy(void **state)
{
    static const struct {
        Nearest n;
        bool copy;
    } cases[] = {{{0, 0, 0}, true}, {{0, 0.9, 3}, true}, {{0, 1, 3}, false}, {{0, 2, 3}, false}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(nearest_is_copy(&cases[i].n), cases[i].copy);
}

static int setup(void **state)
{
    (void)state;
    threads_init(2);
    backend_init();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frechet_equal),     cmocka_unit_test(test_frechet_axes),
        cmocka_unit_test(test_frechet_plane),     cmocka_unit_test(test_frechet_refused),
        cmocka_unit_test(test_precision_by_hand), cmocka_unit_test(test_precision_by_definition),
        cmocka_unit_test(test_precision_refused), cmocka_unit_test(test_nearest),
        cmocka_unit_test(test_nearest_few),       cmocka_unit_test(test_copy),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
