/* The judge: what it learns, whatever the images' size and channels, the same bytes at any number of threads; its file,
 * and files that are none; figures of images whose classes are planted. */
#include "train_util.h"

#include "sdlora/backend.h"
#include "sdlora/scores.h"
#include "sdlora/threads.h"

/* n images: class c is bright in row 1 + 2c, of channel c modulo their number; the rest is noise. */
static Dataset stripes(int n, int channels, int h, int w, uint64_t seed)
{
    Dataset d = {.n = n, .channels = channels, .h = h, .w = w, .classes = CLASSES};
    const size_t bytes = dataset_image_bytes(&d);
    Rng r = rng_make(seed, 0);
    FileSpan span[2];

    d.images = mem_alloc((size_t)n, bytes, "images", NULL);
    d.labels = mem_alloc((size_t)n, 1, "labels", NULL);
    for (int i = 0; i < n; i++) {
        const int c = d.labels[i] = (uint8_t)(i % CLASSES);
        uint8_t *px = d.images + (size_t)i * bytes;
        for (size_t k = 0; k < bytes; k++)
            px[k] = (uint8_t)rng_below(&r, 60);
        for (int x = 0; x < w; x++)
            px[((c % channels) * h + 1 + 2 * c) * w + x] = (uint8_t)(190 + rng_below(&r, 60));
    }
    span[0] = (FileSpan){d.images, (size_t)n * bytes};
    span[1] = (FileSpan){d.labels, (size_t)n};
    file_sha256_spans(d.sha256, span, 2);
    return d;
}

static Judge *train(const Dataset *d, int steps, Err *e)
{
    const ImageSet s = {d, NULL, d->n};
    const JudgeTraining t = {.steps = steps};
    return judge_train(&s, CLASSES, &t, e);
}

static Seen look(const Judge *j, const Dataset *d)
{
    const ImageSet s = {d, NULL, d->n};
    Seen seen;
    Err err = {0};
    check_ok(judge_look(&seen, j, &s, &err), err);
    return seen;
}

/* Images of any size: not halved, halved once and more often, sides that are no multiple; one channel, three. (With
 * fewer steps the running statistics of BatchNorm lag behind.) */
static void test_learns(void **state)
{
    static const int shapes[][3] = {{1, 8, 8}, {3, 9, 11}, {3, 18, 21}, {1, 7, 40}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int *s = shapes[i];
        Dataset d = stripes(60, s[0], s[1], s[2], 1), test = stripes(65, s[0], s[1], s[2], 2);
        const ImageSet all = {&test, NULL, test.n};
        Err err = {0};
        Judge *j = train(&d, 60, &err);
        Seen seen;
        check_ptr(j, err);
        seen = look(j, &test);
        check_close(seen_accuracy(&seen, &all), 1, 0.05, 0, "accuracy");
        for (int k = 0; k < seen.n; k++) {
            const float *p = seen.probability + k * CLASSES;
            check_close(p[0] + p[1] + p[2], 1, 1e-5, 0, "sum of probabilities");
        }
        seen_free(&seen);
        judge_free(j);
        dataset_free(&d);
        dataset_free(&test);
    }
}

static void test_threads(void **state)
{
    Dataset d = stripes(150, 1, 28, 28, 1);
    Judge *first = NULL;
    Seen seen = {0};
    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        Err err = {0};
        Judge *j;
        Seen again;
        threads_init(threads);
        j = train(&d, 3, &err);
        check_ptr(j, err);
        again = look(j, &d);
        if (!first) {
            first = j;
            seen = again;
            continue;
        }
        assert_memory_equal(first->params->values, j->params->values, j->params->n_values * sizeof(real));
        assert_memory_equal(seen.features, again.features, (size_t)d.n * JUDGE_FEATURES * sizeof(float));
        assert_memory_equal(seen.probability, again.probability, (size_t)d.n * CLASSES * sizeof(float));
        seen_free(&again);
        judge_free(j);
    }
    threads_init(2);
    seen_free(&seen);
    judge_free(first);
    dataset_free(&d);
}

/* What an image is taken for depends on it alone, not on what lies beside it in a batch; rows name images. */
static void test_looks_at_each(void **state)
{
    Dataset d = stripes(70, 1, 28, 28, 1);
    static const int row[] = {69, 3, 3};
    const ImageSet some = {&d, row, 3};
    Err err = {0};
    Judge *j = train(&d, 2, &err);
    Seen all, few;
    (void)state;
    check_ptr(j, err);
    all = look(j, &d);
    check_ok(judge_look(&few, j, &some, &err), err);
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < JUDGE_FEATURES; k++)
            check_close(few.features[i * JUDGE_FEATURES + k], all.features[row[i] * JUDGE_FEATURES + k], 1e-5, 1e-4,
                        "feature");
    seen_free(&all);
    seen_free(&few);
    judge_free(j);
    dataset_free(&d);
}

static int stop_at(void *ctx, int64_t step, int64_t steps, double loss)
{
    assert_int_equal(steps, 9);
    assert_true(isfinite(loss));
    return step == *(int *)ctx;
}

static void test_refused(void **state)
{
    Dataset d = stripes(12, 1, 8, 8, 1);
    int stop = 4;
    const ImageSet s = {&d, NULL, d.n}, none = {&d, NULL, 0};
    const JudgeTraining t = {.steps = 9, .progress = stop_at, .ctx = &stop};
    Err err = {0};
    (void)state;
    assert_null(judge_train(&s, CLASSES, &t, &err));
    assert_int_equal(err.code, ERR_NONE);
    assert_null(judge_train(&none, CLASSES, &t, &err));
    assert_int_equal(err.code, ERR_INPUT);
    d.labels[7] = CLASSES;
    d.label_path = mem_strdup("labels.idx", &err);
    assert_null(judge_train(&s, CLASSES, &t, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_non_null(strstr(err.msg, "labels.idx"));
    dataset_free(&d);
    assert_int_equal(judge_batch(127), 127);
    assert_int_equal(judge_batch(1000), 128);
    assert_int_equal(judge_steps(300, 5), 10);
    assert_int_equal(judge_steps(3, 5), 5);
    assert_int_equal(judge_epochs(50000), 6);
    assert_int_equal(judge_epochs(1280), 100);
    assert_int_equal(judge_epochs(300), 500);
}

/* ---- its file ---- */

typedef struct Kept {
    TmpDir dir;
    Dataset train, test;
    Judge *judge;
    char path[400];
} Kept;

enum { STEPS = 3 };

static Kept keep(void)
{
    Kept k;
    Err err = {0};
    tmpdir_make(&k.dir);
    k.train = stripes(12, 1, 8, 8, 1);
    k.test = stripes(12, 1, 8, 8, 2);
    check_ptr(k.judge = train(&k.train, STEPS, &err), err);
    k.judge->accuracy = 0.75;
    check_ok(judge_save(k.judge, tmpdir_name(&k.dir, "new/cache"), &k.train, &k.test, &err), err);
    snprintf(k.path, sizeof k.path, "%s/new/cache/judge-%.16s-%d.safetensors", k.dir.path, k.train.sha256, STEPS);
    return k;
}

static Judge *take(Kept *k)
{
    return judge_load(tmpdir_name(&k->dir, "new/cache"), &k->train, &k->test, CLASSES, STEPS);
}

static void free_kept(Kept *k)
{
    judge_free(k->judge);
    dataset_free(&k->train);
    dataset_free(&k->test);
    tmpdir_remove(&k->dir);
}

static void test_kept(void **state)
{
    Kept k = keep();
    Judge *j = take(&k);
    Seen a, b;
    (void)state;
    assert_non_null(j);
    assert_true(j->accuracy == 0.75 && j->steps == STEPS);
    assert_memory_equal(j->params->values, k.judge->params->values, j->params->n_values * sizeof(real));
    a = look(j, &k.test);
    b = look(k.judge, &k.test);
    assert_memory_equal(a.features, b.features, (size_t)a.n * JUDGE_FEATURES * sizeof(float));
    seen_free(&a);
    seen_free(&b);
    judge_free(j);
    free_kept(&k);
}

static void check_none(Kept *k, const char *what)
{
    Judge *j = take(k);
    if (j)
        fail_msg("%s: a judge was loaded", what);
}

/* Other data, another number of steps: it is not taken, even where the file's name is right. */
static void test_of_other_data(void **state)
{
    Kept k = keep();
    char *digit = k.test.sha256 + 5, was = *digit;
    (void)state;
    *digit = was == 'a' ? 'b' : 'a';
    check_none(&k, "other test images");
    *digit = was;
    digit = k.train.sha256 + 60; /* behind those that the name has */
    was = *digit;
    *digit = was == 'a' ? 'b' : 'a';
    check_none(&k, "other training images");
    *digit = was;
    assert_null(judge_load(tmpdir_name(&k.dir, "new/cache"), &k.train, &k.test, CLASSES, STEPS + 1));
    assert_null(judge_load(tmpdir_name(&k.dir, "nowhere"), &k.train, &k.test, CLASSES, STEPS));
    assert_null(judge_load(tmpdir_name(&k.dir, "new/cache"), &k.train, &k.test, CLASSES + 1, STEPS));
    k.train.h = 20;
    check_none(&k, "another size");
    k.train.h = 8;
    judge_free(take(&k));
    free_kept(&k);
}

static void rewrite(const Kept *k, const char *data, size_t size)
{
    Err err = {0};
    check_ok(file_save(k->path, data, size, &err), err);
}

/* The first place of `text` in the file becomes `other`, which is as long. */
static void replaced(Kept *k, const char *data, size_t size, const char *text, const char *other)
{
    char *copy = malloc(size), *at;
    memcpy(copy, data, size);
    at = memmem(copy, size, text, strlen(text));
    assert_non_null(at);
    memcpy(at, other, strlen(other));
    rewrite(k, copy, size);
    free(copy);
    check_none(k, other);
}

static void test_damaged(void **state)
{
    Kept k = keep();
    char *data;
    size_t size;
    Err err = {0};
    (void)state;
    check_ok(file_load(&data, &size, k.path, (size_t)1 << 28, &err), err);
    for (size_t n = 0; n < size; n += size / 7 + 1) {
        rewrite(&k, data, n);
        check_none(&k, "cut short");
    }
    replaced(&k, data, size, "\"sdlora.judge.version\":\"1\"", "\"sdlora.judge.version\":\"2\"");
    replaced(&k, data, size, "\"sdlora.judge.accuracy\":\"0.75\"", "\"sdlora.judge.accuracy\":\"7.50\"");
    replaced(&k, data, size, "\"sdlora.judge.accuracy\":\"0.75\"", "\"sdlora.judge.accuracy\":\"nan \"");
    replaced(&k, data, size, "\"sdlora.judge.accuracy\"", "\"sdlora.judge.accuracx\"");
    replaced(&k, data, size, "\"features.weight\"", "\"features.wright\"");
    for (size_t at = 0; at < size; at += size / 97 + 1) { /* a bit; what is loaded all the same is what was saved */
        Judge *j;
        data[at] ^= 4;
        rewrite(&k, data, size);
        if ((j = take(&k))) {
            assert_memory_equal(j->params->values, k.judge->params->values, j->params->n_values * sizeof(real));
            assert_true(j->accuracy == k.judge->accuracy);
        }
        judge_free(j);
        data[at] ^= 4;
    }
    memcpy(data + size - 4, "\x00\x00\xc0\x7f", 4); /* a weight that is no number */
    rewrite(&k, data, size);
    check_none(&k, "NaN");
    mem_free(data);
    free_kept(&k);
}

/* ---- figures ---- */

/* As if the judge had seen class `as[i]` in image i, and the features that are given. */
static Seen plant(int n, const int *as, const float *features)
{
    Seen s = {.n = n, .classes = CLASSES};
    s.features = mem_alloc((size_t)n, JUDGE_FEATURES * sizeof(float), "test", NULL);
    s.probability = mem_alloc((size_t)n, CLASSES * sizeof(float), "test", NULL);
    for (int i = 0; i < n; i++) {
        s.probability[i * CLASSES + as[i]] = 0.9f;
        s.features[i * JUDGE_FEATURES] = features[i];
    }
    return s;
}

static void test_scores(void **state)
{
    enum { N = 6 };
    static const int as[N] = {0, 1, 2, 0, 2, 2}, all[] = {0, 1, 2, 0, 1, 2}, row[] = {5, 4, 3, 2, 1, 0};
    static const float at[N] = {1, 2, 3, 4, 5, 6}, test_at[] = {3, 4, 5, 6, 7, 8};
    Dataset train_set = stripes(12, 1, 8, 8, 1), test_set = stripes(N, 1, 8, 8, 2);
    static const int none[12], spread[] = {1, 2, 4, 5};
    static const float zero[12];
    Real r = {&train_set, &test_set, plant(12, none, zero), plant(N, all, test_at)};
    const ImageSet s = {&train_set, row, N}; /* labels 2, 1, 0, 2, 1, 0 */
    Seen seen = plant(N, as, at);
    Scores out;
    Err err = {0};
    (void)state;
    check_ok(scores_make(&out, &s, &seen, true, &r, 4, true, NULL, NULL, &err), err);
    check_close(out.accuracy, 1.0 / 6, 1e-12, 0, "accuracy"); /* the second only */
    static const int confusion[] = {0, 0, 2, 0, 1, 1, 2, 0, 0};
    assert_memory_equal(out.confusion, confusion, sizeof confusion);
    check_close(scores_class_accuracy(&out, 1), 0.5, 1e-12, 0, "accuracy of class 1");
    check_close(out.frechet, 4, 1e-9, 0, "of sets two apart"); /* in one feature, of one variance */
    assert_int_equal(out.compared, N);
    /* by the three nearest: 1 to 6 reach 3, 2, 2, 2, 2, 3 far, and so do 3 to 8 */
    check_close(out.precision, 1, 0, 0, "precision");
    assert_int_equal(out.searched, 4);
    for (int i = 0; i < 4; i++) { /* it is its own nearest, were it not left out */
        assert_int_equal(out.searched_row[i], spread[i]);
        assert_true(out.px[i].index >= 0 && out.px[i].index != row[out.searched_row[i]] && out.px[i].distance > 0);
    }
    assert_int_equal(out.copies, 0);
    assert_true(scores_median_distance(&out, false) > 0);
    scores_free(&out);
    check_ok(scores_make(&out, &s, &seen, false, &r, 4, false, NULL, NULL, &err), err);
    assert_true(isnan(out.accuracy) && !out.confusion);
    assert_int_equal(out.copies, 4); /* these images are there */
    check_close(scores_median_distance(&out, false), 0, 0, 0, "distance of copies");
    scores_free(&out);
    seen_free(&seen);
    real_free(&r);
    dataset_free(&train_set);
    dataset_free(&test_set);
}

static void test_split(void **state)
{
    Dataset d = stripes(20, 1, 8, 8, 1);
    int *judged, *kept, n_judged, n_kept;
    static const int left[] = {10, 13, 15, 16};
    int row[] = {10, 11, 12, 13, 14, 15, 16, 17}, want[DATA_CLASSES_MAX] = {[0] = 1, [1] = 5};
    Err err = {0};
    (void)state;
    check_ok(scores_split(&judged, &n_judged, &kept, &n_kept, &d, &err), err);
    assert_int_equal(n_judged, 17);
    assert_int_equal(n_kept, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(kept[i], 15 + i); /* the sixth of each class */
    assert_int_equal(judged[15], 18);
    mem_free(judged);
    mem_free(kept);
    d.n = 16; /* the sixth of one class alone */
    assert_int_equal(scores_split(&judged, &n_judged, &kept, &n_kept, &d, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    mem_free(judged);
    mem_free(kept);
    d.n = 20;
    /* labels 1 2 0 1 2 0 1 2: one of class 0's two, all three of class 1, none of class 2 */
    assert_int_equal(scores_thin_classes(row, 8, &d, want), 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(row[i], left[i]);
    assert_int_equal(scores_thin(row, 4, 2), 2);
    assert_true(row[0] == 13 && row[1] == 16);
    assert_int_equal(scores_thin(row, 2, 0), 2);
    assert_int_equal(scores_thin(row, 2, 7), 2);
    dataset_free(&d);
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
        cmocka_unit_test(test_learns),  cmocka_unit_test(test_threads), cmocka_unit_test(test_looks_at_each),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_kept),    cmocka_unit_test(test_of_other_data),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_scores),  cmocka_unit_test(test_split),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
