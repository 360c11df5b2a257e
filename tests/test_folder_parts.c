/* Folders of pictures as data: what is for training, and what for testing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "folder_util.h"

static void test_two_folders(void **state)
{
    DataConfig c = DATA_DEFAULTS;
    TmpDir t;
    Dataset d, v;
    (void)state;
    c.size = 4;
    tmpdir_make(&t);
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof name, "train/%s/%d.bmp", i % 2 ? "a" : "b", i);
        put_bmp(tmpdir_name(&t, name), 4, 4, 7, 7, 7);
    }
    put_bmp(tmpdir_name(&t, "test/b/1.bmp"), 4, 4, 1, 2, 1);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.n == 40 && d.classes == 2); /* nothing is set aside */
    c.class_name = d.class_name;
    c.classes = d.classes;
    v = read_part(t.path, DATA_TEST, &c);
    assert_true(v.n == 1 && v.classes == 2 && v.labels[0] == 1); /* b, as in train/ */
    dataset_free(&v);
    put_bmp(tmpdir_name(&t, "val/c/1.bmp"), 4, 4, 1, 2, 1); /* comes before test/ */
    {
        Err e = {0};
        assert_int_equal(dataset_read(&v, t.path, DATA_TEST, &c, &e), -1);
        assert_true(strstr(e.msg, "class 'c'") && strstr(e.msg, "'a', 'b'"));
    }
    put_bmp(tmpdir_name(&t, "car/1.bmp"), 4, 4, 1, 2, 1); /* then they are all classes */
    dataset_free(&d);
    c = small();
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.classes, 4);
    assert_string_equal(d.class_name[0], "car");
    dataset_free(&d);
    tmpdir_remove(&t);
}

static void test_other_set(void **state)
{
    DataConfig c = small();
    TmpDir t;
    Dataset d, v;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "in/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "val/1.bmp"), 4, 4, 7, 7, 9);
    put_bmp(tmpdir_name(&t, "val/2.bmp"), 4, 4, 7, 7, 9);
    c.val = tmpdir_name(&t, "val");
    c.val_split = 0.9; /* of nothing */
    d = read_part(tmpdir_name(&t, "in"), DATA_TRAIN, &c);
    assert_int_equal(d.n, 1);
    c.class_name = d.class_name;
    c.classes = d.classes;
    v = read_part(tmpdir_name(&t, "in"), DATA_TEST, &c);
    assert_int_equal(v.n, 2);
    assert_string_equal(v.class_name[0], "in");
    dataset_free(&d);
    dataset_free(&v);
    tmpdir_remove(&t);
}

/* Which of the pictures c/0.bmp .. are in the part for testing; a picture's blue value is its number. */
static int test_part(bool *in, int n, const TmpDir *t, double part)
{
    DataConfig c = small();
    Dataset v;
    int found;
    c.val_split = part;
    c.channels = 3;
    memset(in, 0, (size_t)n * sizeof *in);
    v = read_part(t->path, DATA_TEST, &c);
    for (int i = 0; i < v.n; i++)
        in[v.images[(size_t)i * 48 + 32]] = true;
    found = v.n;
    dataset_free(&v);
    return found;
}

static void add_numbered(TmpDir *t, int from, int to)
{
    for (int i = from; i < to; i++) {
        char name[32];
        snprintf(name, sizeof name, "c/%d.bmp", i);
        put_bmp(tmpdir_name(t, name), 4, 4, 0, 0, (uint8_t)i);
    }
}

static void test_split(void **state)
{
    enum { FIRST = 120, ALL = 200 };
    bool few[ALL], more[ALL], larger[ALL];
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    int n;
    (void)state;
    tmpdir_make(&t);
    add_numbered(&t, 0, FIRST);
    n = test_part(few, ALL, &t, 0.25);
    c.val_split = 0.25;
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.n, FIRST - n);
    dataset_free(&d);
    add_numbered(&t, FIRST, ALL);
    test_part(more, ALL, &t, 0.25);
    test_part(larger, ALL, &t, 0.5);
    for (int i = 0; i < ALL; i++) {
        char name[32], hex[65];
        bool wanted;
        snprintf(name, sizeof name, "c/%d.bmp", i);
        file_sha256(hex, name, strlen(name));
        wanted = strchr("0123", hex[0]) != NULL; /* a quarter */
        assert_int_equal(more[i], wanted);
        assert_int_equal(few[i], wanted && i < FIRST);
        assert_int_equal(larger[i], strchr("01234567", hex[0]) != NULL);
    }
    tmpdir_remove(&t);
}

/* Of each class at least one is trained on, even where the hash takes all. */
static void test_split_leaves_one(void **state)
{
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "a/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "b/1.bmp"), 4, 4, 7, 7, 7);
    c.val_split = 1;
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.n, 2);
    dataset_free(&d);
    d = read_part(t.path, DATA_TEST, &c);
    assert_int_equal(d.n, 0);
    dataset_free(&d);
    tmpdir_remove(&t);
}

/* What is left out of both parts is told with the first. */
static void test_told_once(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "a/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "beside.bmp"), 4, 4, 7, 7, 7);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.report->lines, 1);
    dataset_free(&d);
    d = read_part(t.path, DATA_TEST, &c);
    assert_int_equal(d.report->lines, 0);
    dataset_free(&d);
    tmpdir_remove(&t);
}

/* Beside files of another source, pictures are only pictures. */
static void test_other_source(void **state)
{
    static const uint8_t none[16] = {0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1};
    static const uint8_t labels[8] = {0, 0, 8, 1};
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    put_file(tmpdir_name(&t, "train-images-idx3-ubyte"), none, sizeof none);
    put_file(tmpdir_name(&t, "train-labels-idx1-ubyte"), labels, sizeof labels);
    put_bmp(tmpdir_name(&t, "figure.bmp"), 4, 4, 7, 7, 7);
    assert_int_equal(dataset_read(&d, t.path, DATA_TEST, &c, &e), -1);
    assert_non_null(strstr(e.msg, "t10k"));
    tmpdir_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_folders),      cmocka_unit_test(test_other_set), cmocka_unit_test(test_split),
        cmocka_unit_test(test_split_leaves_one), cmocka_unit_test(test_told_once), cmocka_unit_test(test_other_source),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
