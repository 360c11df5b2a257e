/* Folders of pictures as data: which files, of which class; what is broken. (Parts: test_folder_parts.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sdlora/threads.h"
#include "folder_util.h"

/* ---- classes ---- */

static const char *const SEVERAL[] = {
    "b/2.bmp",   "b/10.BMP",       "b/deep/er/1.bmp", "b/.hidden.bmp",   "b/notes.txt",
    "a a/x.bmp", "\xc3\xa9/ü.bmp", "empty/readme",    ".hidden/1.bmp",   "run/run.json",
    "run/1.bmp", "run/s/2.bmp",    "b/deep/run.json", "b/deep/lost.bmp", NULL};

/* The third pixel value of each says which it is. */
static void make_several(TmpDir *t, bool backwards)
{
    int n = 0;
    tmpdir_make(t);
    while (SEVERAL[n])
        n++;
    for (int i = 0; i < n; i++) {
        const int k = backwards ? n - 1 - i : i;
        put_bmp(tmpdir_name(t, SEVERAL[k]), 4, 4, 10, 20, (uint8_t)k);
    }
}

static void test_classes(void **state)
{
    const int order[] = {5, 1, 0, 6}; /* "10.BMP" before "2.bmp": by bytes */
    const int label[] = {0, 1, 1, 2};
    const DataConfig c = small();
    TmpDir t, u;
    Dataset d, other;
    (void)state;
    make_several(&t, false);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.n, 4);
    assert_int_equal(d.classes, 3);
    assert_string_equal(d.class_name[0], "a a");
    assert_string_equal(d.class_name[1], "b");
    assert_string_equal(d.class_name[2], "\xc3\xa9");
    assert_true(d.channels == 3 && d.h == 4 && d.w == 4);
    for (int i = 0; i < d.n; i++) {
        assert_int_equal(d.labels[i], label[i]);
        assert_int_equal(d.images[(size_t)i * 48], 10);
        assert_int_equal(d.images[(size_t)i * 48 + 16], 20);
        assert_int_equal(d.images[(size_t)i * 48 + 47], order[i]);
    }
    assert_true(d.report->pictures == 4 && d.report->skipped == 0 && d.report->lines == 0);
    make_several(&u, true);
    other = read_part(u.path, DATA_TRAIN, &c);
    assert_string_equal(d.sha256, other.sha256);
    dataset_free(&d);
    dataset_free(&other);
    tmpdir_remove(&t);
    tmpdir_remove(&u);
}

/* The folder "deep" of a class is left out where it is a run; without run.json it is read. */
static void test_deep(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    make_several(&t, false);
    unlink(tmpdir_name(&t, "b/deep/run.json"));
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.n, 6);
    assert_int_equal(d.images[3 * 48 + 47], 2);  /* deep/er/1.bmp */
    assert_int_equal(d.images[4 * 48 + 47], 13); /* deep/lost.bmp */
    dataset_free(&d);
    tmpdir_remove(&t);
}

static void test_one_class(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "my cats/1.bmp"), 4, 4, 7, 7, 7);
    d = read_part(tmpdir_name(&t, "my cats/"), DATA_TRAIN, &c);
    assert_true(d.n == 1 && d.classes == 1 && d.labels[0] == 0);
    assert_string_equal(d.class_name[0], "my cats");
    assert_true(d.channels == 1 && d.images[15] == 7 && !d.report->colour);
    dataset_free(&d);
    d = read_part(t.path, DATA_TRAIN, &c); /* the same name from the folder above */
    assert_string_equal(d.class_name[0], "my cats");
    dataset_free(&d);
    tmpdir_remove(&t);
}

static void test_loose(void **state)
{
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "cat/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "2.bmp"), 4, 4, 7, 7, 7);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.n, 1);
    assert_true(d.report->lines == 1 && d.report->skipped == 0);
    reported(&d, "/1.bmp'", "2 pictures beside");
    dataset_free(&d);
    c.strict = true;
    refused(t.path, &c, (const char *[]){"/1.bmp'", "beside", NULL});
    tmpdir_remove(&t);
}

/* What a folder is called does not make it a picture. */
static void test_folder_like_picture(void **state)
{
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    c.strict = true; /* so nothing is told of either */
    tmpdir_make(&t);
    put_file(tmpdir_name(&t, "empty.png/readme"), "", 0);
    put_bmp(tmpdir_name(&t, "1.bmp"), 4, 4, 7, 7, 7);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.n == 1 && d.report->flat && d.report->lines == 0);
    dataset_free(&d);
    assert_int_equal(remove(tmpdir_name(&t, "1.bmp")), 0);
    put_bmp(tmpdir_name(&t, "cat.png/1.bmp"), 4, 4, 7, 7, 7);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.n == 1 && !d.report->flat && d.report->lines == 0);
    assert_string_equal(d.class_name[0], "cat.png");
    dataset_free(&d);
    tmpdir_remove(&t);
}

static void test_case_only(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "Cat/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "cow/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "cat/1.bmp"), 4, 4, 7, 7, 7);
    refused(t.path, &c, (const char *[]){"'Cat' and 'cat'", "case", NULL});
    tmpdir_remove(&t);
}

static void test_most_classes(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    char name[32];
    (void)state;
    tmpdir_make(&t);
    for (int i = 0; i < DATA_CLASSES_MAX; i++) {
        snprintf(name, sizeof name, "%03d/1.bmp", i);
        put_bmp(tmpdir_name(&t, name), 4, 4, 7, 7, 7);
    }
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.classes == DATA_CLASSES_MAX && d.labels[d.n - 1] == DATA_CLASSES_MAX - 1);
    dataset_free(&d);
    put_bmp(tmpdir_name(&t, "more/1.bmp"), 4, 4, 7, 7, 7);
    refused(t.path, &c, (const char *[]){"more than 256", NULL});
    tmpdir_remove(&t);
}

/* ---- links ---- */

static void link_to(TmpDir *t, const char *target, const char *name)
{
    assert_int_equal(symlink(target, tmpdir_name(t, name)), 0);
}

static void test_links(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "in/cat/1.bmp"), 4, 4, 7, 7, 7);
    put_bmp(tmpdir_name(&t, "in/dog/1.bmp"), 4, 4, 7, 7, 8);
    put_bmp(tmpdir_name(&t, "elsewhere/1.bmp"), 4, 4, 7, 7, 9);
    link_to(&t, ".", "in/cat/self");
    link_to(&t, "../..", "in/cat/up");       /* holds elsewhere/, and in/ again */
    link_to(&t, "../dog", "in/cat/other");   /* one class in another */
    link_to(&t, "cat", "in/the same");       /* twice the same class */
    link_to(&t, "../elsewhere", "in/zebra"); /* not through cat/up */
    link_to(&t, "round", "in/dog/round");    /* a link to itself, with no picture's name */
    d = read_part(tmpdir_name(&t, "in"), DATA_TRAIN, &c);
    assert_int_equal(d.classes, 3);
    assert_int_equal(d.n, 3);
    assert_true(d.labels[0] == 0 && d.labels[1] == 1 && d.labels[2] == 2);
    assert_string_equal(d.class_name[2], "zebra");
    assert_int_equal(d.report->lines, 5);
    reported(&d, "/in/cat/self'", "read already");
    reported(&d, "/in/cat/other'", "read already");
    reported(&d, "/in/cat/up/in'", "read already");
    reported(&d, "/in/cat/up/elsewhere'", "read already");
    reported(&d, "/in/the same'", "read already");
    dataset_free(&d);
    tmpdir_remove(&t);
}

/* ---- colour ---- */

static void test_channels(void **state)
{
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "a/1.bmp"), 4, 4, 50, 50, 50);
    put_bmp(tmpdir_name(&t, "a/2.bmp"), 4, 4, 90, 90, 90);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.channels == 1 && d.images[0] == 50 && d.images[16] == 90 && !d.report->colour);
    dataset_free(&d);
    for (int i = 0; i < 3; i++) { /* one channel apart is colour, whichever */
        put_bmp(tmpdir_name(&t, "a/2.bmp"), 4, 4, i == 0 ? 91 : 90, i == 1 ? 91 : 90, i == 2 ? 91 : 90);
        d = read_part(t.path, DATA_TRAIN, &c);
        assert_true(d.channels == 3 && !strcmp(d.report->colour, "a/2.bmp"));
        dataset_free(&d);
    }
    put_bmp(tmpdir_name(&t, "a/2.bmp"), 4, 4, 90, 90, 90);
    c.channels = 3;
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.channels == 3 && d.images[47] == 50 && d.images[48] == 90 && !d.report->colour);
    dataset_free(&d);
    put_bmp(tmpdir_name(&t, "a/0.bmp"), 4, 4, 90, 100, 110);
    put_bmp(tmpdir_name(&t, "a/3.bmp"), 4, 4, 90, 100, 120);
    c.channels = 0;
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.channels, 3);
    assert_string_equal(d.report->colour, "a/0.bmp");
    dataset_free(&d);
    c.channels = 1;
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.channels == 1 && d.n == 4);
    assert_int_equal(d.images[0], (int)(0.299 * 90 + 0.587 * 100 + 0.114 * 110 + 0.5));
    assert_int_equal(d.images[16], 50);
    dataset_free(&d);
    tmpdir_remove(&t);
}

/* The same between arrays, for sources whose images are not decoded here. */
static void test_set_channels(void **state)
{
    Dataset d = {.n = 2, .channels = 1, .h = 1, .w = 2, .images = mem_alloc(4, 1, "", NULL)};
    Err e = {0};
    (void)state;
    memcpy(d.images, (uint8_t[]){1, 2, 3, 4}, 4);
    assert_int_equal(dataset_set_channels(&d, 3, &e), 0);
    assert_memory_equal(d.images, ((uint8_t[]){1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4}), 12);
    memcpy(d.images, (uint8_t[]){90, 255, 100, 0, 110, 0}, 6);
    assert_int_equal(dataset_set_channels(&d, 1, &e), 0);
    assert_memory_equal(d.images, ((uint8_t[]){98, 76, 3, 4}), 4);
    d.channels = 2;
    assert_int_equal(dataset_set_channels(&d, 3, &e), -1);
    d.channels = 1;
    dataset_free(&d);
}

/* ---- what is found ---- */

static void test_report(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    Dataset d;
    char *png;
    size_t n;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "1.bmp"), 8, 4, 1, 2, 3);
    put_bmp(tmpdir_name(&t, "2.bmp"), 4, 8, 1, 2, 3);
    put_bmp(tmpdir_name(&t, "3.bmp"), 4, 8, 1, 2, 3);
    put_bmp(tmpdir_name(&t, "4.bmp"), 4, 4, 1, 2, 3);
    for (int i = 0; i < 4; i++) {
        const char *const from[] = {"grey", "grey_alpha", "rgba", "palette"};
        char name[64];
        snprintf(name, sizeof name, "tests/golden/images/%s.png", from[i]);
        assert_int_equal(file_load(&png, &n, name, 1 << 20, &e), 0);
        snprintf(name, sizeof name, "%s.jpeg", from[i]); /* what it is called does not matter */
        put_file(tmpdir_name(&t, name), png, n);
        mem_free(png);
    }
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.report->mode[PICTURE_COLOUR], 4);
    assert_int_equal(d.report->mode[PICTURE_GREY], 1);
    assert_int_equal(d.report->mode[PICTURE_GREY_ALPHA], 1);
    assert_int_equal(d.report->mode[PICTURE_COLOUR_ALPHA], 1);
    assert_int_equal(d.report->mode[PICTURE_PALETTE], 1);
    assert_true(d.report->least[0] == 4 && d.report->least[1] == 4);
    dataset_free(&d);
    for (int i = 0; i < 4; i++)
        unlink(tmpdir_name(&t, ((const char *[]){"grey.jpeg", "grey_alpha.jpeg", "rgba.jpeg", "palette.jpeg"})[i]));
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_int_equal(d.report->sizes, 3);
    assert_true(d.report->most[0] == 8 && d.report->most[1] == 4); /* the first of the largest */
    dataset_free(&d);
    tmpdir_remove(&t);
}

/* As many as ten thousand, and the same bytes with any number of threads. */
static void test_ten_thousand(void **state)
{
    enum { N = 10000 };
    DataConfig c = small();
    TmpDir t;
    char sha[65] = "";
    (void)state;
    tmpdir_make(&t);
    for (int i = 0; i < N; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d/%d.bmp", i % 10, i);
        if (i < 10)
            put_bmp(tmpdir_name(&t, name), 4, 4, (uint8_t)i, 1, 2);
        else { /* one file with many names is as good, and faster made */
            char first[32];
            snprintf(first, sizeof first, "%d/%d.bmp", i % 10, i % 10);
            assert_int_equal(link(tmpdir_name(&t, first), tmpdir_name(&t, name)), 0);
        }
    }
    for (int threads = 1; threads <= 3; threads += 2) {
        Dataset d;
        threads_init(threads);
        d = read_part(t.path, DATA_TRAIN, &c);
        assert_true(d.n == N && d.classes == 10);
        for (int i = 0; i < N; i++)
            assert_int_equal(d.images[(size_t)i * 48], d.labels[i]);
        assert_true(!sha[0] || !strcmp(sha, d.sha256));
        memcpy(sha, d.sha256, sizeof sha);
        dataset_free(&d);
    }
    tmpdir_remove(&t);
}

/* ---- broken ---- */

static void test_broken(void **state)
{
    static const uint8_t huge[] = "\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\x75\x30\0\0\x75\x30\x08\2\0\0\0\xe9\x45\x6f\xed"
                                  "\0\0\0\0IDAT\x35\xaf\x06\x1e"
                                  "\0\0\0\0IEND\xae\x42\x60\x82";
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    char *jpeg;
    size_t n;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_load(&jpeg, &n, "tests/golden/images/rgb444.jpg", 1 << 20, &e), 0);
    put_file(tmpdir_name(&t, "c/0 cut.jpg"), jpeg, n / 2);
    mem_free(jpeg);
    put_file(tmpdir_name(&t, "c/text.png"), "no picture\n", 11);
    put_file(tmpdir_name(&t, "c/huge.png"), huge, sizeof huge - 1);
    put_file(tmpdir_name(&t, "c/new.webp"), "RIFF", 4);
    put_file(tmpdir_name(&t, "c/nothing.gif"), "", 0);
    link_to(&t, "gone", "c/dangling.png");
    assert_int_equal(mkfifo(tmpdir_name(&t, "c/pipe.png"), 0600), 0);
    refused(t.path, &c, (const char *[]){"none of the 7 pictures", "c/0 cut.jpg'", NULL});
    put_bmp(tmpdir_name(&t, "c/one.bmp"), 4, 4, 5, 5, 5);
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(d.n == 1 && d.images[0] == 5 && d.labels[0] == 0);
    assert_true(d.report->pictures == 8 && d.report->skipped == 7 && d.report->lines == 7);
    reported(&d, "/c/0 cut.jpg'", "cut short");
    reported(&d, "/c/text.png'", "no PNG");
    reported(&d, "/c/huge.png'", "30000");
    reported(&d, "/c/new.webp'", "no PNG");
    reported(&d, "/c/nothing.gif'", "empty");
    reported(&d, "/c/dangling.png'", "No such file");
    reported(&d, "/c/pipe.png'", "pipe");
    dataset_free(&d);
    c.strict = true;
    refused(t.path, &c, (const char *[]){"7 of 8 pictures", "c/0 cut.jpg'", NULL});
    tmpdir_remove(&t);
}

static void test_unreadable(void **state)
{
    const bool root = geteuid() == 0;
    DataConfig c = small();
    TmpDir t;
    Dataset d;
    (void)state;
    tmpdir_make(&t);
    put_bmp(tmpdir_name(&t, "c/one.bmp"), 4, 4, 5, 5, 5);
    put_bmp(tmpdir_name(&t, "c/secret.bmp"), 4, 4, 1, 1, 1);
    put_bmp(tmpdir_name(&t, "c/locked/1.bmp"), 4, 4, 1, 1, 1);
    chmod(tmpdir_name(&t, "c/secret.bmp"), 0);
    chmod(tmpdir_name(&t, "c/locked"), 0);
    chmod(t.path, 0755);
    assert_true(!root || !seteuid(65534)); /* whom root's rights do not help */
    if (euidaccess(t.path, R_OK | X_OK)) { /* nor lets anybody in */
        assert_true(!root || !seteuid(0));
        tmpdir_remove(&t);
        skip();
    }
    d = read_part(t.path, DATA_TRAIN, &c);
    assert_true(!root || !seteuid(0));
    assert_int_equal(d.n, 1);
    assert_true(d.report->pictures == 2 && d.report->skipped == 1 && d.report->lines == 2);
    reported(&d, "/c/secret.bmp'", "denied");
    reported(&d, "/c/locked'", "denied");
    dataset_free(&d);
    assert_true(!root || !seteuid(65534));
    c.strict = true; /* the picture is named, though the folder stands before it */
    refused(t.path, &c, (const char *[]){"1 of 2 pictures", "/c/secret.bmp'", NULL});
    assert_true(!root || !seteuid(0));
    chmod(tmpdir_name(&t, "c/locked"), 0700);
    tmpdir_remove(&t);
}

static void test_no_pictures(void **state)
{
    const DataConfig c = small();
    TmpDir t;
    (void)state;
    tmpdir_make(&t);
    refused(t.path, &c, (const char *[]){"nor pictures", NULL});
    put_file(tmpdir_name(&t, "a/readme.txt"), "", 0);
    put_bmp(tmpdir_name(&t, "run/1.bmp"), 4, 4, 1, 1, 1);
    put_file(tmpdir_name(&t, "run/run.json"), "", 0);
    refused(t.path, &c, (const char *[]){"nor pictures", NULL});
    refused(tmpdir_name(&t, "nowhere"), &c, (const char *[]){"not there", NULL});
    tmpdir_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_deep),
        cmocka_unit_test(test_one_class),
        cmocka_unit_test(test_loose),
        cmocka_unit_test(test_folder_like_picture),
        cmocka_unit_test(test_case_only),
        cmocka_unit_test(test_most_classes),
        cmocka_unit_test(test_links),
        cmocka_unit_test(test_channels),
        cmocka_unit_test(test_set_channels),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_ten_thousand),
        cmocka_unit_test(test_broken),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_no_pictures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
