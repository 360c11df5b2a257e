/* idx.h: good and hostile IDX files, raw and gzipped, and data directories. The gzip streams are made with zlib here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/idx.h"
#include "sdlora/mem.h"
#include "io_util.h"

/* Two images of 2x3. */
static const unsigned char images[] = {0, 0, 8,  3,  0,  0,  0,  2,  0,  0,  0,  2,  0,  0,
                                       0, 3, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21};
static const unsigned char labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 7};

/* n bytes as one gzip member at out; its length. */
static size_t gzip(unsigned char *out, size_t cap, const void *data, size_t n)
{
    z_stream z;
    memset(&z, 0, sizeof z);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)data;
    z.avail_in = (unsigned)n;
    z.next_out = out;
    z.avail_out = (unsigned)cap;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return cap - z.avail_out;
}

static void assert_images(const void *bytes, size_t n)
{
    unsigned char *exact = malloc(n);
    Idx idx;
    Err e = {0};
    memcpy(exact, bytes, n);
    if (idx_parse(&idx, exact, n, "here", 3, &e) != 0)
        fail_msg("%s", e.msg);
    free(exact);
    assert_int_equal(idx.nd, 3);
    assert_int_equal(idx.d[0], 2);
    assert_int_equal(idx.d[1], 2);
    assert_int_equal(idx.d[2], 3);
    assert_memory_equal(idx.data, images + 16, 12);
    idx_free(&idx);
    assert_null(idx.data);
}

/* Rejected as it is and gzipped, for the same reason. */
static void assert_rejected(const void *bytes, size_t n, int nd, const char *why)
{
    unsigned char *exact = malloc(n ? n : 1), packed[1000];
    size_t size = gzip(packed, sizeof packed, bytes, n);
    Idx idx;
    Err e = {0};
    memcpy(exact, bytes, n);
    assert_int_equal(idx_parse(&idx, exact, n, "here", nd, &e), -1);
    free(exact);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "'here'");
    assert_says(e, why);
    assert_null(idx.data);
    e.msg[0] = '\0';
    assert_int_equal(idx_parse(&idx, packed, size, "here", nd, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, why);
    assert_null(idx.data);
}

static void test_raw(void **state)
{
    Idx idx;
    Err e = {0};
    (void)state;
    assert_images(images, sizeof images);
    assert_int_equal(idx_parse(&idx, labels, sizeof labels, "here", 1, &e), 0);
    assert_int_equal(idx.d[0], 2);
    assert_int_equal(idx.data[1], 7);
    idx_free(&idx);
}

static void test_gzip(void **state)
{
    unsigned char packed[2000];
    size_t n, first;
    int cut;
    (void)state;
    n = gzip(packed, sizeof packed, images, sizeof images);
    assert_images(packed, n);
    for (cut = 0; cut <= (int)sizeof images; cut++) { /* two members, also empty ones, cut anywhere */
        first = gzip(packed, sizeof packed, images, (size_t)cut);
        n = first + gzip(packed + first, sizeof packed - first, images + cut, sizeof images - (size_t)cut);
        assert_images(packed, n);
    }
    for (n = 0, cut = 0; cut < (int)sizeof images; cut++) /* a member for every byte */
        n += gzip(packed + n, sizeof packed - n, images + cut, 1);
    assert_images(packed, n);
}

static void test_rejected(void **state)
{
    static const unsigned char type[] = {0, 0, 0x0d, 3, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0};
    static const unsigned char zero[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3};
    static const unsigned char product[] = {0, 0, 8, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0};
    static const unsigned char wraps[] = {0, 0, 8, 3, 0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 4, 1};
    static const unsigned char large[] = {0, 0, 8, 1, 0x80, 0, 0, 0, 1, 2, 3};
    static const unsigned char many[] = {0, 0, 8, 1, 0x7f, 0xff, 0xff, 0xff, 1, 2, 3};
    static const unsigned char other[] = {1, 2, 8, 1, 0, 0, 0, 1, 5};
    static const unsigned char four[] = {0, 0, 8, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 5};
    unsigned char longer[sizeof images + 1];
    size_t n;
    (void)state;
    assert_rejected("", 0, 3, "is empty");
    assert_rejected("<!DOCTYPE html><html>", 21, 3, "HTML page");
    assert_rejected("\n\n<!DOCTYPE html>", 17, 3, "HTML page");
    assert_rejected("PK\3\4xxxxxxxxx", 13, 3, "zip archive");
    assert_rejected("\0\0", 2, 3, "only 2 bytes");
    assert_rejected(other, sizeof other, 1, "neither gzip nor IDX: it begins with bytes 01 02 08 01");
    assert_rejected(type, sizeof type, 3, "type 0x0d");
    assert_rejected(labels, sizeof labels, 3, "has 1 dimension, 3 needed");
    assert_rejected(images, sizeof images, 1, "has 3 dimensions, 1 needed");
    assert_rejected(four, sizeof four, 3, "has 4 dimensions");
    assert_rejected(zero, sizeof zero, 3, "dimension 2 of 3 is 0");
    assert_rejected(product, sizeof product, 3, "announces more than 2147483647 bytes");
    assert_rejected(wraps, sizeof wraps, 3, "announces more than 2147483647 bytes");
    assert_rejected(large, sizeof large, 1, "announces more than 2147483647 bytes");
    assert_rejected(many, sizeof many, 1, "is cut short: its header announces 2147483647 bytes");
    for (n = 4; n < 16; n++)
        assert_rejected(images, n, 3, "ends inside its header");
    for (; n < sizeof images; n++)
        assert_rejected(images, n, 3, "is cut short: its header announces 12 bytes");
    memcpy(longer, images, sizeof images);
    longer[sizeof images] = 0;
    assert_rejected(longer, sizeof longer, 3, "after the 12");
}

static void test_damaged_gzip(void **state)
{
    unsigned char packed[200], copy[210];
    size_t n = gzip(packed, sizeof packed, images, sizeof images), i;
    Idx idx;
    Err e = {0};
    (void)state;
    for (i = 2; i < n; i++) { /* cut: never accepted, also when all the data is there but not the CRC */
        unsigned char *exact = malloc(i);
        memcpy(exact, packed, i);
        assert_int_equal(idx_parse(&idx, exact, i, "here", 3, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_says(e, "cut short");
        free(exact);
    }
    for (i = n - 8; i < n; i++) { /* CRC-32 and length */
        memcpy(copy, packed, n);
        copy[i] ^= 0x10;
        assert_int_equal(idx_parse(&idx, copy, n, "here", 3, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_says(e, i < n - 4 ? "incorrect data check" : "incorrect length check");
    }
    for (i = 0; i < 8 * n; i++) { /* anything */
        memcpy(copy, packed, n);
        copy[i / 8] ^= (unsigned char)(1 << i % 8);
        if (idx_parse(&idx, copy, n, "here", 3, &e) == 0)
            idx_free(&idx);
    }
    memcpy(copy, packed, n);
    memcpy(copy + n, "junk", 4);
    assert_int_equal(idx_parse(&idx, copy, n + 4, "here", 3, &e), -1);
    assert_says(e, "stray bytes after its gzip stream");
    copy[n] = 0x1e;
    copy[n + 1] = 0x8b;
    assert_int_equal(idx_parse(&idx, copy, n + 4, "here", 3, &e), -1);
    assert_says(e, "stray bytes after its gzip stream");
    assert_int_equal(idx_parse(&idx, copy, n + 1, "here", 3, &e), -1);
    assert_says(e, "stray bytes after its gzip stream");
    copy[n] = 0x1f;
    copy[n + 1] = 0x8b;
    assert_int_equal(idx_parse(&idx, copy, n + 4, "here", 3, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
}

/* 64 MiB of zeros after a header that announces 12 bytes; and 2 GiB - 1 announced by a few bytes, refused before
 * memory is taken for them. */
static void test_bomb(void **state)
{
    const size_t cap = 2 << 20;
    unsigned char *packed = malloc(cap), *zeros = calloc(1 << 20, 1), out[1 << 14];
    static const unsigned char many[] = {0, 0, 8, 1, 0x7f, 0xff, 0xff, 0xff};
    z_stream z;
    Idx idx;
    Err e = {0};
    size_t n;
    int i;
    (void)state;
    memset(&z, 0, sizeof z);
    assert_int_equal(deflateInit2(&z, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_out = packed;
    z.avail_out = (unsigned)cap;
    z.next_in = (unsigned char *)(uintptr_t)images;
    z.avail_in = 16;
    deflate(&z, Z_NO_FLUSH);
    for (i = 0; i < 64; i++) {
        z.next_in = zeros;
        z.avail_in = 1 << 20;
        deflate(&z, Z_NO_FLUSH);
    }
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    n = cap - z.avail_out;
    deflateEnd(&z);
    assert_int_equal(idx_parse(&idx, packed, n, "here", 3, &e), -1);
    assert_says(e, "goes on after the 12 bytes");
    n = gzip(out, sizeof out, many, sizeof many);
    assert_int_equal(idx_parse(&idx, out, n, "here", 1, &e), -1);
    assert_says(e, "announces 2147483647 bytes of data, at most ");
    free(packed);
    free(zeros);
}

static void test_write(void **state)
{
    uint8_t px[12];
    Idx idx = {3, {2, 2, 3}, px}, back, empty = {1, {0, 0, 0}, px};
    TmpDir t;
    Err e = {0};
    char *a, *b;
    size_t n, m;
    int saved, result;
    (void)state;
    tmpdir_make(&t);
    memcpy(px, images + 16, 12);
    assert_int_equal(idx_write_gz(tmpdir_name(&t, "a.gz"), &idx, &e), 0);
    assert_int_equal(idx_read(&back, tmpdir_name(&t, "a.gz"), 3, &e), 0);
    assert_memory_equal(back.data, px, 12);
    assert_memory_equal(back.d, idx.d, sizeof idx.d);
    idx_free(&back);
    assert_int_equal(idx_write_gz(tmpdir_name(&t, "b.gz"), &idx, &e), 0);
    assert_int_equal(file_load(&a, &n, tmpdir_name(&t, "a.gz"), 1000, &e), 0);
    assert_int_equal(file_load(&b, &m, tmpdir_name(&t, "b.gz"), 1000, &e), 0);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    assert_memory_equal(a, "\x1f\x8b\x08\0\0\0\0\0", 8); /* no name, no time */
    assert_images(a, n);
    mem_free(a);
    mem_free(b);
    saved = stdout_to_full();
    result = idx_write_gz("-", &idx, &e);
    stdout_back(saved);
    assert_int_equal(result, -1);
    assert_says(e, "cannot write 'standard output': No space left");
    assert_int_equal(idx_write_gz(tmpdir_name(&t, "c.gz"), &empty, &e), -1);
    assert_false(file_exists(tmpdir_name(&t, "c.gz")));
    tmpdir_remove(&t);
}

/* More than one buffer of every kind, hard to compress. */
static void test_write_large(void **state)
{
    Idx idx = {1, {300000, 0, 0}, NULL}, back;
    TmpDir t;
    Err e = {0};
    struct rlimit limit;
    uint32_t i, x = 1;
    int result;
    (void)state;
    tmpdir_make(&t);
    idx.data = mem_alloc(idx.d[0], 1, "test", &e);
    for (i = 0; i < idx.d[0]; i++) {
        x = x * 1664525u + 1013904223u;
        idx.data[i] = (uint8_t)(x >> 24);
    }
    limit = limit_files(100000);
    result = idx_write_gz(tmpdir_name(&t, "a"), &idx, &e);
    limit_back(limit);
    assert_int_equal(result, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_false(file_exists(tmpdir_name(&t, "a")));
    assert_false(file_exists(tmpdir_name(&t, "a.tmp")));
    assert_int_equal(idx_write_gz(tmpdir_name(&t, "a"), &idx, &e), 0);
    assert_int_equal(idx_read(&back, tmpdir_name(&t, "a"), 1, &e), 0);
    assert_int_equal(back.d[0], idx.d[0]);
    assert_memory_equal(back.data, idx.data, idx.d[0]);
    idx_free(&back);
    idx_free(&idx);
    tmpdir_remove(&t);
}

static void save(TmpDir *t, const char *name, const void *data, size_t n)
{
    Err e = {0};
    if (file_save(tmpdir_name(t, name), data, n, &e) != 0)
        fail_msg("%s", e.msg);
}

static void test_dataset(void **state)
{
    static const char *const spelled[][2] = {
        {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
        {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"},
        {"train-images.idx3-ubyte", "train-labels.idx1-ubyte.gz"},
        {"train-images-idx3-ubyte.gz", "train-labels.idx1-ubyte.gz"},
    };
    static const unsigned char both[] = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 4, 7};
    char hex[65];
    size_t i;
    (void)state;
    file_sha256(hex, both, sizeof both);
    for (i = 0; i < 4; i++) {
        TmpDir t;
        Dataset d;
        Err e = {0};
        tmpdir_make(&t);
        save(&t, spelled[i][0], images, sizeof images);
        save(&t, spelled[i][1], labels, sizeof labels);
        if (dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e) != 0)
            fail_msg("%s", e.msg);
        assert_int_equal(d.n, 2);
        assert_int_equal(d.h, 2);
        assert_int_equal(d.w, 3);
        assert_int_equal(d.classes, 8);
        assert_memory_equal(d.images, images + 16, 12);
        assert_memory_equal(d.labels, labels + 8, 2);
        assert_string_equal(d.sha256, hex);
        dataset_free(&d);
        assert_null(d.images);
        assert_int_equal(dataset_read(&d, t.path, DATA_TEST, &DATA_DEFAULTS, &e), -1);
        assert_says(e, "no 't10k-images-idx3-ubyte'");
        tmpdir_remove(&t);
    }
}

static void test_dataset_errors(void **state)
{
    static const unsigned char three[] = {0, 0, 8, 1, 0, 0, 0, 3, 4, 7, 1};
    TmpDir t;
    Dataset d;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(dataset_read(&d, "no/such/directory", DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "'no/such/directory' is not there");
    assert_says(e, "scripts/get_data.sh");
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "no 'train-images-idx3-ubyte' (or .gz) in '");
    assert_says(e, "scripts/get_data.sh");
    save(&t, "train-images-idx3-ubyte", images, sizeof images);
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_says(e, "no 'train-labels-idx1-ubyte'");
    save(&t, "train-labels-idx1-ubyte.gz", three, sizeof three);
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "train-images-idx3-ubyte' has 2 images");
    assert_says(e, "train-labels-idx1-ubyte.gz' has 3 labels");
    assert_null(d.images);
    save(&t, "train-labels-idx1-ubyte", "<html>", 6);
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_says(e, "train-labels-idx1-ubyte' is a text or HTML page");
    assert_int_equal(dataset_read(&d, tmpdir_name(&t, "train-labels-idx1-ubyte"), DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_says(e, "not a directory");
    tmpdir_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_raw),          cmocka_unit_test(test_gzip),    cmocka_unit_test(test_rejected),
        cmocka_unit_test(test_damaged_gzip), cmocka_unit_test(test_bomb),    cmocka_unit_test(test_write),
        cmocka_unit_test(test_write_large),  cmocka_unit_test(test_dataset), cmocka_unit_test(test_dataset_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
