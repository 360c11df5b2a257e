/* What is kept of a folder of pictures for the next time: the same bytes, or nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "folder_util.h"

enum {
    PICTURES = 5,
    CRC_AT = 20, /* places in the file */
    CHECKED_AT = 24,
    FACTS_AT = 160,
    FACTS = 12, /* bytes of each picture's */
    PIXELS_AT = FACTS_AT + PICTURES * FACTS,
};

typedef struct Fixture {
    TmpDir t;
    DataConfig c;
    char in[320], cache[320];
    char sha256[65]; /* of what is decoded without a cache */
} Fixture;

static void begin(Fixture *f)
{
    Dataset d;
    tmpdir_make(&f->t);
    f->c = small();
    snprintf(f->in, sizeof f->in, "%s", tmpdir_name(&f->t, "in"));
    snprintf(f->cache, sizeof f->cache, "%s", tmpdir_name(&f->t, "deep/cache"));
    for (int i = 0; i < PICTURES; i++) {
        char name[32];
        snprintf(name, sizeof name, "in/%d/%d.bmp", i % 2, i);
        put_bmp(tmpdir_name(&f->t, name), 8, 4, (uint8_t)(50 * i), 1, 2);
    }
    d = read_part(f->in, DATA_TRAIN, &f->c);
    assert_true(!d.report->cache && !d.report->cached);
    memcpy(f->sha256, d.sha256, sizeof f->sha256);
    dataset_free(&d);
    f->c.cache = f->cache;
}

/* Reads, and says whether it came from the cache; the data are the same in any case. */
static bool cached(const Fixture *f)
{
    Dataset d = read_part(f->in, DATA_TRAIN, &f->c);
    FileSpan span[2] = {{d.images, (size_t)d.n * dataset_image_bytes(&d)}, {d.labels, (size_t)d.n}};
    char sha256[65];
    const bool hit = d.report->cached;
    file_sha256_spans(sha256, span, 2);
    assert_string_equal(sha256, d.sha256);
    assert_string_equal(sha256, f->sha256);
    assert_true(d.report->pictures == PICTURES && d.report->most[0] == 8 && d.report->mode[PICTURE_COLOUR] == PICTURES);
    assert_string_equal(d.report->colour, "0/0.bmp");
    assert_true(d.n == PICTURES && d.classes == 2 && d.channels == 3 && d.h == 4 && d.w == 4);
    dataset_free(&d);
    return hit;
}

static char *cache_file(const Fixture *f)
{
    Dataset d = read_part(f->in, DATA_TRAIN, &f->c);
    char *path;
    Err e;
    assert_non_null(d.report->cache);
    path = mem_strdup(d.report->cache, &e);
    dataset_free(&d);
    return path;
}

static void test_hit(void **state)
{
    Fixture f;
    char *path;
    (void)state;
    begin(&f);
    assert_false(cached(&f));
    assert_true(cached(&f));
    path = cache_file(&f);
    assert_int_equal(strncmp(path, f.cache, strlen(f.cache)), 0);
    mem_free(path);
    tmpdir_remove(&f.t);
}

/* Whatever decides the images decides whether they are taken. */
static void test_wishes(void **state)
{
    Fixture f;
    DataConfig c;
    (void)state;
    begin(&f);
    cached(&f);
    for (int i = 0; i < 8; i++) {
        Dataset d;
        c = f.c;
        if (i == 0)
            c.size = 5;
        else if (i == 1)
            c.channels = 3;
        else if (i == 2)
            c.channels = 1;
        else if (i == 3)
            c.fit = FIT_PAD;
        else if (i < 7)
            c.background[i - 4] = 0;
        else
            c.val_split = 0.5;
        d = read_part(f.in, DATA_TRAIN, &c);
        assert_false(d.report->cached);
        dataset_free(&d);
        d = read_part(f.in, DATA_TRAIN, &c);
        assert_true(d.report->cached);
        dataset_free(&d);
    }
    f.c.val_split = 0; /* the last one was of the same name */
    assert_false(cached(&f));
    tmpdir_remove(&f.t);
}

/* A picture that changes, without a change of its name and size. */
static void test_changed(void **state)
{
    Fixture f;
    Dataset d;
    struct stat before;
    struct timespec times[2];
    char picture[400];
    (void)state;
    begin(&f);
    cached(&f);
    snprintf(picture, sizeof picture, "%s/1/3.bmp", f.in);
    put_bmp(picture, 8, 4, 9, 9, 9);
    stat(picture, &before);
    d = read_part(f.in, DATA_TRAIN, &f.c);
    assert_false(d.report->cached);
    assert_int_equal(d.images[4 * 48], 9);
    dataset_free(&d);
    put_bmp(picture, 8, 4, 8, 8, 8); /* and its time is set back: that it was, is seen */
    times[0] = before.st_atim;
    times[1] = before.st_mtim;
    utimensat(AT_FDCWD, picture, times, 0);
    d = read_part(f.in, DATA_TRAIN, &f.c);
    assert_false(d.report->cached);
    assert_int_equal(d.images[4 * 48], 8);
    dataset_free(&d);
    rename(tmpdir_name(&f.t, "in/1"), tmpdir_name(&f.t, "in/2")); /* the same under another name */
    d = read_part(f.in, DATA_TRAIN, &f.c);
    assert_false(d.report->cached);
    dataset_free(&d);
    tmpdir_remove(&f.t);
}

static void test_damaged(void **state)
{
    Fixture f;
    char *path, *good;
    size_t n;
    Err e = {0};
    (void)state;
    begin(&f);
    cached(&f);
    path = cache_file(&f);
    assert_int_equal(file_load(&good, &n, path, 1 << 20, &e), 0);
    assert_int_equal(n, PIXELS_AT + PICTURES * 48);
    for (size_t at = 0; at < n; at += 3) { /* reaches every member */
        char *bad = mem_alloc(n, 1, "", &e);
        memcpy(bad, good, n);
        bad[at] ^= 1;
        put_file(path, bad, n);
        if (cached(&f))
            fail_msg("byte %zu changed and was taken", at);
        if (at % 32 == 0 && !cached(&f))
            fail_msg("byte %zu changed and was not made anew", at);
        mem_free(bad);
    }
    for (size_t cut = 0; cut < n; cut += 23) {
        put_file(path, good, cut);
        assert_false(cached(&f));
    }
    {
        char *longer = mem_alloc(n + 1, 1, "", &e);
        memcpy(longer, good, n);
        put_file(path, longer, n + 1);
        assert_false(cached(&f));
        mem_free(longer);
    }
    put_file(path, good, n);
    assert_true(cached(&f));
    mem_free(good);
    mem_free(path);
    tmpdir_remove(&f.t);
}

/* One made to mislead, with a sum that is right. */
static void test_hostile(void **state)
{
    static const struct {
        size_t at;
        uint8_t value;
    } lies[] = {
        {FACTS_AT + 8, 200},      /* a mode that there is not */
        {FACTS_AT + 9, 0},        /* fewer that were read than there are images */
        {FACTS_AT + 9, 2},        /* neither yes nor no */
        {FACTS_AT, 0},            /* no width */
        {FACTS_AT + 7, 0x80},     /* a negative height */
        {CHECKED_AT + 128, 4},    /* the number of those that were read */
        {CHECKED_AT + 131, 0x80}, /* negative */
        {CHECKED_AT + 132, 1},    /* channels */
        {CHECKED_AT + 132, 2},    /* such as there are none */
    };
    Fixture f;
    char *path, *good;
    size_t n;
    Err e = {0};
    (void)state;
    begin(&f);
    cached(&f);
    path = cache_file(&f);
    assert_int_equal(file_load(&good, &n, path, 1 << 20, &e), 0);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        uint8_t *bad = mem_alloc(n, 1, "", &e);
        uint32_t crc;
        memcpy(bad, good, n);
        bad[lies[i].at] = lies[i].value;
        crc = (uint32_t)crc32(0, bad + CHECKED_AT, (uInt)(n - CHECKED_AT));
        memcpy(bad + CRC_AT, &crc, sizeof crc);
        put_file(path, bad, n);
        if (cached(&f))
            fail_msg("lie %zu was taken", i);
        mem_free(bad);
    }
    mem_free(good);
    mem_free(path);
    tmpdir_remove(&f.t);
}

/* What cannot be read is said from the cache too, and is read once it can be. */
static void test_broken(void **state)
{
    Fixture f;
    Dataset d;
    char picture[400], hidden[400];
    (void)state;
    begin(&f);
    snprintf(picture, sizeof picture, "%s/1/link.bmp", f.in);
    snprintf(hidden, sizeof hidden, "%s/.hidden", f.in);
    assert_int_equal(symlink("../.hidden", picture), 0);
    for (int i = 0; i < 2; i++) {
        d = read_part(f.in, DATA_TRAIN, &f.c);
        assert_int_equal(d.report->cached, i);
        assert_true(d.n == PICTURES && d.report->skipped == 1 && d.report->pictures == PICTURES + 1);
        reported(&d, "/1/link.bmp'", "No such file");
        dataset_free(&d);
    }
    put_bmp(hidden, 4, 4, 1, 2, 3);
    d = read_part(f.in, DATA_TRAIN, &f.c);
    assert_true(!d.report->cached && d.n == PICTURES + 1 && d.report->skipped == 0);
    dataset_free(&d);
    tmpdir_remove(&f.t);
}

/* The same where nothing that is kept of a picture tells. */
static void test_rights(void **state)
{
    Fixture f;
    Dataset d;
    char picture[400];
    (void)state;
    if (geteuid() != 0)
        skip(); /* nobody else can be two people */
    begin(&f);
    snprintf(picture, sizeof picture, "%s/1/3.bmp", f.in);
    chmod(picture, 0600);
    chmod(f.t.path, 0777);
    assert_int_equal(seteuid(65534), 0);
    if (euidaccess(f.t.path, R_OK | X_OK)) {
        assert_int_equal(seteuid(0), 0);
        tmpdir_remove(&f.t);
        skip();
    }
    for (int i = 0; i < 3; i++) {
        if (i == 2)
            assert_int_equal(seteuid(0), 0);
        d = read_part(f.in, DATA_TRAIN, &f.c);
        assert_int_equal(d.report->cached, i == 1);
        assert_int_equal(d.n, i < 2 ? PICTURES - 1 : PICTURES);
        dataset_free(&d);
    }
    tmpdir_remove(&f.t);
}

static void test_no_place(void **state)
{
    Fixture f;
    Dataset d;
    (void)state;
    begin(&f);
    put_file(tmpdir_name(&f.t, "file"), "", 0);
    f.c.cache = tmpdir_name(&f.t, "file/cache"); /* no directory can be made there */
    for (int i = 0; i < 2; i++) {
        d = read_part(f.in, DATA_TRAIN, &f.c);
        assert_string_equal(d.sha256, f.sha256);
        assert_true(!d.report->cached && !d.report->cache);
        dataset_free(&d);
    }
    tmpdir_remove(&f.t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hit),     cmocka_unit_test(test_wishes),   cmocka_unit_test(test_changed),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_hostile),  cmocka_unit_test(test_broken),
        cmocka_unit_test(test_rights),  cmocka_unit_test(test_no_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
