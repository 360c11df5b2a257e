/* The generator: known answers, distributions, independence of how the work is cut. Every bound is at least four and a
 * half standard deviations of what it bounds; seeds are fixed, so a test that passes once always passes. */
#include "check.h"

/* ---- Philox4x32-10: the known-answer vectors of Random123 (Salmon et al. 2011), file kat_vectors ---- */

static void test_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < 3; i++) { /* counter words 0, 1: the counter; 2, 3: the stream; the key: the seed */
        uint64_t counter = (uint64_t)kat[i].counter[1] << 32 | kat[i].counter[0];
        uint64_t stream = (uint64_t)kat[i].counter[3] << 32 | kat[i].counter[2];
        uint64_t seed = (uint64_t)kat[i].key[1] << 32 | kat[i].key[0];
        uint32_t got[4];
        rng_block(got, seed, stream, counter);
        for (int k = 0; k < 4; k++)
            assert_int_equal(got[k], kat[i].want[k]);
    }
}

static void test_draws_take_whole_blocks(void **state)
{
    Rng r = rng_make(5, 6);
    uint32_t block[4], u, perm[3];
    float z[9];

    (void)state;
    assert_true(r.seed == 5 && r.stream == 6 && r.counter == 0);
    u = rng_u32(&r);
    rng_block(block, 5, 6, 0);
    assert_int_equal(u, block[0]);
    assert_int_equal(r.counter, 1);
    assert_true(rng_uniform(&r) < 1);
    assert_int_equal(r.counter, 2);
    rng_normal(&r, z, 1);
    assert_int_equal(r.counter, 3);
    rng_normal(&r, z, 9);
    assert_int_equal(r.counter, 6);
    rng_normal(&r, z, 0);
    assert_int_equal(r.counter, 6);
    rng_permutation(&r, perm, 1);
    assert_int_equal(r.counter, 6);
}

static void test_streams_differ(void **state)
{
    enum { N = 300 };
    uint64_t id[3 * N];

    (void)state;
    for (int i = 0; i < N; i++) {
        id[3 * i] = rng_stream("noise", (uint64_t)i);
        id[3 * i + 1] = rng_stream("noisf", (uint64_t)i);
        id[3 * i + 2] = rng_stream("", (uint64_t)i);
    }
    for (int i = 0; i < 3 * N; i++)
        for (int k = 0; k < i; k++)
            assert_true(id[i] != id[k]);
    assert_true(rng_stream("noise", 7) == id[21]);
}

/* ---- uniform ---- */

static void test_uniform(void **state)
{
    enum { N = 1 << 18, BINS = 128 };
    Rng r = rng_make(1, 2);
    double sum = 0, squares = 0, chi2 = 0;
    int bins[BINS] = {0};

    (void)state;
    for (int i = 0; i < N; i++) {
        double u = rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
        sum += u;
        squares += u * u;
        bins[(int)(u * BINS)]++;
    }
    for (int i = 0; i < BINS; i++)
        chi2 += pow(bins[i] - (double)N / BINS, 2) / ((double)N / BINS);
    check_close(sum / N, 0.5, 5 * sqrt(1.0 / 12 / N), 0, "mean");
    check_close(squares / N, 1.0 / 3, 5 * sqrt(4.0 / 45 / N), 0, "mean square");
    check_close(chi2, BINS - 1, 5 * sqrt(2.0 * BINS), 0, "chi square");
}

static void test_below(void **state)
{
    static const uint32_t sizes[] = {2, 3, 10, 100};
    enum { N = 60000 };

    (void)state;
    for (size_t k = 0; k < 4; k++) {
        uint32_t n = sizes[k];
        Rng r = rng_make(3, k);
        int count[100] = {0};
        double chi2 = 0;
        for (int i = 0; i < N; i++) {
            uint32_t u = rng_below(&r, n);
            assert_true(u < n);
            count[u]++;
        }
        for (uint32_t i = 0; i < n; i++)
            chi2 += pow(count[i] - (double)N / n, 2) / ((double)N / n);
        check_close(chi2, n - 1, 6 * sqrt(2.0 * n), 0, "chi square");
    }
}

/* Of 3 2^30 values, a plain remainder would hit the lowest third half of the time. */
static void test_below_is_unbiased(void **state)
{
    enum { N = 20000 };
    Rng r = rng_make(4, 0);
    int low = 0;

    (void)state;
    for (int i = 0; i < N; i++)
        low += rng_below(&r, 3u << 30) < 1u << 30;
    check_close((double)low / N, 1.0 / 3, 5 * sqrt(2.0 / 9 / N), 0, "lowest third");
    for (int i = 0; i < 10; i++)
        assert_int_equal(rng_below(&r, 1), 0);
}

/* ---- normal ---- */

static void test_normal_is_box_muller(void **state)
{
    enum { BLOCKS = 2000 };
    static float z[4 * BLOCKS];
    Rng r = rng_make(77, 88);
    const double pi = acos(-1.0);

    (void)state;
    rng_normal(&r, z, 4 * BLOCKS);
    for (uint64_t b = 0; b < BLOCKS; b++) {
        uint32_t w[4];
        rng_block(w, 77, 88, b);
        for (int k = 0; k < 2; k++) { /* 24 bits and a half, in float, for the radius; 32 for the angle */
            double radius = sqrt(-2 * log((double)(float)((double)(w[2 * k] >> 8) + 0.5) * 0x1p-24));
            double angle = 2 * pi * (double)w[2 * k + 1] * 0x1p-32;
            check_close(z[4 * b + 2 * (uint64_t)k], radius * cos(angle), 2e-6, 0, "cosine");
            check_close(z[4 * b + 2 * (uint64_t)k + 1], radius * sin(angle), 2e-6, 0, "sine");
        }
    }
}

static int by_value(const void *a, const void *b)
{
    const float *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static void test_normal_distribution(void **state)
{
    enum { N = 1 << 19 };
    float *z = malloc(N * sizeof *z);
    double m1 = 0, m2 = 0, m3 = 0, m4 = 0, lag = 0, ks = 0;
    int beyond3 = 0, beyond4 = 0;
    Rng r = rng_make(11, 12);

    (void)state;
    assert_non_null(z);
    rng_normal(&r, z, N);
    for (int i = 0; i < N; i++) {
        double x = z[i];
        m1 += x / N;
        m2 += x * x / N;
        m3 += x * x * x / N;
        m4 += x * x * x * x / N;
        lag += i ? x * z[i - 1] / N : 0;
        beyond3 += fabs(x) > 3;
        beyond4 += fabs(x) > 4;
        assert_true(fabs(x) < 5.9); /* sqrt(-2 ln 2^-25) */
    }
    check_close(m1, 0, 5 * sqrt(1.0 / N), 0, "mean");
    check_close(m2, 1, 5 * sqrt(2.0 / N), 0, "variance");
    check_close(m3, 0, 5 * sqrt(15.0 / N), 0, "skewness");
    check_close(m4, 3, 5 * sqrt(96.0 / N), 0, "kurtosis");
    check_close(lag, 0, 5 * sqrt(1.0 / N), 0, "neighbours");
    check_close(beyond3, erfc(3 / sqrt(2)) * N, 5 * sqrt(erfc(3 / sqrt(2)) * N), 0, "beyond 3");
    check_close(beyond4, erfc(4 / sqrt(2)) * N, 5 * sqrt(erfc(4 / sqrt(2)) * N), 0, "beyond 4");
    qsort(z, N, sizeof *z, by_value);
    for (int i = 0; i < N; i++)
        ks = fmax(ks, fabs(0.5 * erfc(-z[i] / sqrt(2)) - (i + 0.5) / N));
    if (!(ks < 2.2 / sqrt(N))) /* Kolmogorov: exceeded once in 10^4 samples */
        fail_msg("Kolmogorov-Smirnov distance %g", ks);
    free(z);
}

static void test_normal_does_not_depend_on_chunks(void **state)
{
    enum { N = 1000 };
    static const size_t sizes[] = {4, 8, 12, 124, 128, 132, 400};
    float whole[N], parts[N];
    Rng r = rng_make(21, 22);

    (void)state;
    rng_normal(&r, whole, N);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        Rng q = rng_make(21, 22);
        for (size_t done = 0; done < N;) {
            size_t now = N - done < sizes[k] ? N - done : sizes[k];
            rng_normal(&q, parts + done, now);
            done += now;
        }
        assert_memory_equal(whole, parts, sizeof whole);
        assert_int_equal(q.counter, N / 4);
    }
    for (size_t n = 1; n < 10; n++) { /* a short draw is the beginning of a long one, and nothing after it is touched */
        Rng q = rng_make(21, 22);
        parts[n] = 99;
        rng_normal(&q, parts, n);
        assert_memory_equal(whole, parts, n * sizeof *parts);
        assert_true(parts[n] == 99);
    }
}

/* ---- permutations ---- */

static void test_permutation(void **state)
{
    static const uint32_t sizes[] = {1, 2, 3, 60, 1000};
    uint32_t p[1000];

    (void)state;
    for (size_t k = 0; k < 5; k++) {
        char seen[1000] = {0};
        uint32_t n = sizes[k], fixed = 0;
        Rng r = rng_make(31, k);
        rng_permutation(&r, p, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(p[i] < n && !seen[p[i]]);
            seen[p[i]] = 1;
            fixed += p[i] == i;
        }
        if (n >= 60) /* one on average */
            assert_true(fixed < 8);
    }
}

static void test_permutations_are_equally_likely(void **state)
{
    enum { N = 24000, ALL = 24 };
    int count[ALL] = {0};
    double chi2 = 0;
    Rng r = rng_make(41, 0);

    (void)state;
    for (int i = 0; i < N; i++) {
        uint32_t p[4];
        int index = 0;
        rng_permutation(&r, p, 4);
        for (int a = 0; a < 4; a++) { /* its number: how many later ones are smaller, in base 4, 3, 2, 1 */
            int smaller = 0;
            for (int b = a + 1; b < 4; b++)
                smaller += p[b] < p[a];
            index = index * (4 - a) + smaller;
        }
        count[index]++;
    }
    for (int i = 0; i < ALL; i++)
        chi2 += pow(count[i] - (double)N / ALL, 2) / ((double)N / ALL);
    check_close(chi2, ALL - 1, 5 * sqrt(2.0 * ALL), 0, "chi square");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_draws_take_whole_blocks),
        cmocka_unit_test(test_streams_differ),
        cmocka_unit_test(test_uniform),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_below_is_unbiased),
        cmocka_unit_test(test_normal_is_box_muller),
        cmocka_unit_test(test_normal_distribution),
        cmocka_unit_test(test_normal_does_not_depend_on_chunks),
        cmocka_unit_test(test_permutation),
        cmocka_unit_test(test_permutations_are_equally_likely),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
