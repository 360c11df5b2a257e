/* npy.h: good and hostile .npy files, made byte by byte as numpy.lib.format describes them, and directories of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/npy.h"
#include "io_util.h"
#include "npy_util.h"

static const unsigned char twelve[] = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21};

/* From memory of exactly that size. */
static int parse(Npy *out, const Bytes *f, NpyUse use, Err *e)
{
    unsigned char *exact = malloc(f->n ? f->n : 1);
    int result;
    memcpy(exact, f->b, f->n);
    result = npy_parse(out, exact, f->n, "here", use, e);
    free(exact);
    return result;
}

static Bytes gzip(const Bytes *f)
{
    Bytes out = {.n = 0};
    z_stream z;
    memset(&z, 0, sizeof z);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)f->b;
    z.avail_in = (unsigned)f->n;
    z.next_out = out.b;
    z.avail_out = sizeof out.b;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    out.n = sizeof out.b - z.avail_out;
    deflateEnd(&z);
    return out;
}

/* Two images of 2x3. */
static void assert_images(const Bytes *f)
{
    Npy a;
    Err e = {0};
    if (parse(&a, f, NPY_IMAGES, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(a.n, 2);
    assert_int_equal(a.channels, 1);
    assert_int_equal(a.h, 2);
    assert_int_equal(a.w, 3);
    assert_memory_equal(a.data, twelve, 12);
    npy_free(&a);
    assert_null(a.data);
}

static void test_images(void **state)
{
    /* np.save of arange(10, 22, dtype=uint8).reshape(2, 2, 3), to the byte */
    static const char saved[] = "\x93NUMPY\1\0v\0{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }"
                                "                                                       \n"
                                "\12\13\14\15\16\17\20\21\22\23\24\25";
    static const char *const spelled[] = {
        "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }",
        "{'shape':(2,2,3),'descr':'<u1','fortran_order':False}",
        "{\"fortran_order\": False, \"shape\": (2, 2, 3, ), \"descr\": \"|u1\"}",
        "  { 'descr' : '|u1' , 'fortran_order' : False , 'shape' : ( 2 , 2 , 3 , 1 ) , }",
    };
    Bytes f = {.n = 0};
    (void)state;
    assert_int_equal(sizeof saved - 1, 128 + 12);
    add(&f, saved, sizeof saved - 1);
    assert_images(&f);
    f = gzip(&f);
    assert_images(&f);
    for (size_t i = 0; i < sizeof spelled / sizeof *spelled; i++)
        for (int major = 1; major <= 3; major++) {
            f = npy(major, spelled[i], twelve, sizeof twelve);
            assert_images(&f);
        }
}

/* In the file the channels of a pixel lie side by side, here each is a plane. */
static void test_colour(void **state)
{
    enum { N = 2, H = 3, W = 4, C = 3 };
    uint8_t px[N * H * W * C];
    Bytes f;
    Npy a;
    Err e = {0};
    (void)state;
    for (int i = 0; i < N * H * W * C; i++)
        px[i] = (uint8_t)(i * 7 + i / 50);
    f = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4, 3), }", px, sizeof px);
    assert_int_equal(parse(&a, &f, NPY_IMAGES, &e), 0);
    assert_int_equal(a.n, N);
    assert_int_equal(a.channels, C);
    assert_int_equal(a.h, H);
    assert_int_equal(a.w, W);
    for (int i = 0; i < N; i++)
        for (int c = 0; c < C; c++)
            for (int y = 0; y < H; y++)
                for (int x = 0; x < W; x++)
                    assert_int_equal(a.data[((i * C + c) * H + y) * W + x], px[((i * H + y) * W + x) * C + c]);
    npy_free(&a);
}

/* v as an integer of that type, at p. */
static void put(unsigned char *p, int64_t v, int size, bool big)
{
    for (int i = 0; i < size; i++)
        p[big ? size - 1 - i : i] = (unsigned char)((uint64_t)v >> 8 * i);
}

static void test_labels(void **state)
{
    static const char *const types[] = {"|u1", "|i1", "<u2", ">u2", "<i2", ">i2", "<u4",
                                        ">u4", "<i4", ">i4", "<u8", ">u8", "<i8", ">i8"};
    static const int64_t wrong[] = {-1, 256, -256, 258, 1 << 16, (int64_t)1 << 32, INT64_MIN, INT64_MAX, -128};
    (void)state;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        const int size = types[t][2] - '0', most = types[t][1] == 'i' && size == 1 ? 127 : 255;
        const int64_t values[3] = {0, 7, most};
        unsigned char raw[24];
        char text[128];
        Npy a;
        Bytes f;
        Err e = {0};
        for (int column = 0; column < 2; column++) {
            snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (3,%s), }", types[t],
                     column ? " 1" : "");
            for (int i = 0; i < 3; i++)
                put(raw + i * size, values[i], size, types[t][0] == '>');
            f = npy(1, text, raw, 3 * (size_t)size);
            if (parse(&a, &f, NPY_LABELS, &e) != 0)
                fail_msg("%s: %s", types[t], e.msg);
            assert_int_equal(a.n, 3);
            for (int i = 0; i < 3; i++)
                assert_int_equal(a.data[i], values[i]);
            npy_free(&a);
        }
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            const int bits = 8 * size;
            if (bits < 64 && (wrong[k] < -((int64_t)1 << (bits - 1)) || wrong[k] >= (int64_t)1 << bits))
                continue; /* no number of this type */
            if (size == 1 && types[t][1] == 'u')
                continue; /* any byte will do */
            put(raw + size, wrong[k], size, types[t][0] == '>');
            f = npy(1, text, raw, 3 * (size_t)size);
            assert_int_equal(parse(&a, &f, NPY_LABELS, &e), -1);
            assert_int_equal(e.code, ERR_INPUT);
            assert_says(e, "'here': the label of image 1 is none of 0 to 255");
            assert_null(a.data);
        }
    }
}

/* Refused, raw and gzipped, for that reason. */
static void assert_refused(const Bytes *f, NpyUse use, const char *why)
{
    Bytes packed = gzip(f);
    const Bytes *both[] = {f, &packed};
    for (int i = 0; i < 2; i++) {
        Npy a;
        Err e = {0};
        assert_int_equal(parse(&a, both[i], use, &e), -1);
        assert_int_equal(e.code, ERR_INPUT);
        assert_says(e, "'here'");
        assert_says(e, why);
        assert_null(a.data);
    }
}

static void test_headers_refused(void **state)
{
    static const char damaged[] = "is damaged: its header is none that NumPy writes";
    static const struct {
        NpyUse use;
        const char *dictionary, *why;
    } CASES[] = {
        {NPY_IMAGES, "", damaged},
        {NPY_IMAGES, "{}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'fortran_order': False, 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), 'more': (1,)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3)", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3", damaged},
        {NPY_IMAGES, "{'descr': '|u1' 'fortran_order': False, 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, -2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2 2 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, , 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': [2, 2, 3]}", damaged},
        {NPY_LABELS, "{'descr': '|u1', 'fortran_order': False, 'shape': (12)}", damaged},
        {NPY_LABELS, "{'descr': [('a', '|u1')], 'fortran_order': False, 'shape': (12,)}", damaged},
        {NPY_IMAGES, "{'descr': '|\\u1', 'fortran_order': False, 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '|u1, 'fortran_order': False, 'shape': (2, 2, 3)}", damaged},
        {NPY_IMAGES, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2, 3)}", "elements of type '<f4'; images"},
        {NPY_IMAGES, "{'descr': '|i1', 'fortran_order': False, 'shape': (2, 2, 3)}", "elements of type '|i1'; images"},
        {NPY_IMAGES, "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 1, 3)}", "elements of type '<u2'; images"},
        {NPY_LABELS, "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)}", "elements of type '<f8'; labels"},
        {NPY_LABELS, "{'descr': '|O', 'fortran_order': False, 'shape': (12,)}", "elements of type '|O'; labels"},
        {NPY_LABELS, "{'descr': '|u2', 'fortran_order': False, 'shape': (6,)}", "elements of type '|u2'; labels"},
        {NPY_LABELS, "{'descr': '<u3', 'fortran_order': False, 'shape': (4,)}", "elements of type '<u3'; labels"},
        {NPY_LABELS, "{'descr': '|u11', 'fortran_order': False, 'shape': (1,)}", "elements of type '|u11'; labels"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': True, 'shape': (2, 2, 3)}", "is in Fortran order"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': ()}", "has 0 dimensions; images"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (12,)}", "has 1 dimension; images"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2, 3, 1)}", "has 5 dimensions; images"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 3, 2)}", "images of 2 channels"},
        {NPY_LABELS, "{'descr': '|u1', 'fortran_order': False, 'shape': (6, 2)}", "has 2 dimensions; labels"},
        {NPY_LABELS, "{'descr': '|u1', 'fortran_order': False, 'shape': (12, 1, 1)}", "has 3 dimensions; labels"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 0, 3)}", "is empty: dimension 2 of 3 is 0"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 65536, 65536)}",
         "announces more than 2147"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296, 4294967296, 1)}",
         "announces more"},
        {NPY_IMAGES, "{'descr': '|u1', 'fortran_order': False, 'shape': (36893488147419103234, 2, 3)}",
         "announces more than"}, /* 2^65 + 2 */
        {NPY_LABELS, "{'descr': '<i8', 'fortran_order': False, 'shape': (268435456,)}",
         "announces more than 2147483647"},
        {NPY_LABELS, "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483647,)}", "cut short: its header ann"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        Bytes f = npy(1, CASES[i].dictionary, twelve, sizeof twelve);
        assert_refused(&f, CASES[i].use, CASES[i].why);
    }
}

static void test_files_refused(void **state)
{
    static const char good[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }";
    static const char many[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483647,), }";
    Bytes f = {.n = 0}, g;
    Npy a;
    Err e = {0};
    (void)state;
    assert_refused(&f, NPY_IMAGES, "is empty, a NumPy file");
    add(&f, "PK\3\4xxxxxxxxx", 13);
    assert_refused(&f, NPY_IMAGES, "is a zip archive");
    f = npy(1, good, twelve, sizeof twelve);
    g = f;
    g.b[0] = 0x92;
    assert_refused(&g, NPY_IMAGES, "is not a NumPy file");
    for (int v = 0; v < 6; v++) { /* 0.0, 4.0, 255.0, 1.1, 2.1, 3.255 */
        static const unsigned char versions[6][2] = {{0, 0}, {4, 0}, {255, 0}, {1, 1}, {2, 1}, {3, 255}};
        g = f;
        memcpy(g.b + 6, versions[v], 2);
        assert_refused(&g, NPY_IMAGES, "of NumPy's format, only 1.0, 2.0 and 3.0");
    }
    g = f;
    g.b[8] = 10001 & 255;
    g.b[9] = 10001 >> 8;
    assert_refused(&g, NPY_IMAGES, "announces a header of 10001 bytes, NumPy reads 10000 at most");
    g = npy(2, good, twelve, sizeof twelve);
    g.b[11] = 0xff;
    assert_refused(&g, NPY_IMAGES, "NumPy reads 10000 at most");
    g = f;
    g.b[100] = 0; /* where C would take it for the end */
    assert_refused(&g, NPY_IMAGES, "is damaged");
    for (g = f, g.n = 1; g.n < f.n; g.n++) /* cut anywhere */
        assert_refused(&g, NPY_IMAGES,
                       g.n < 8     ? "is not a NumPy file"
                       : g.n < 128 ? "ends inside its header"
                                   : "is cut short: its header announces");
    add(&f, "x", 1);
    assert_refused(&f, NPY_IMAGES, "goes on after the 12 bytes");
    f = npy(1, many, twelve, sizeof twelve);
    f = gzip(&f);
    assert_int_equal(parse(&a, &f, NPY_LABELS, &e), -1); /* told before memory is taken */
    assert_says(e, "announces 2147483647 bytes of data, at most ");
}

static void save(TmpDir *t, const char *name, const Bytes *f)
{
    Err e = {0};
    if (file_save(tmpdir_name(t, name), f->b, f->n, &e) != 0)
        fail_msg("%s", e.msg);
}

static void test_directory(void **state)
{
    static const char grey[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }";
    static const char rgb[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2, 3), }";
    static const char two[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2,), }";
    static const uint8_t planes[] = {10, 13, 11, 14, 12, 15, 16, 19, 17, 20, 18, 21};
    const uint8_t both[] = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 4, 7};
    Bytes images = npy(1, grey, twelve, 12), colour = npy(1, rgb, twelve, 12), labels = npy(1, two, both + 12, 2);
    TmpDir t;
    Dataset d;
    DataFiles files;
    char hex[65];
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    save(&t, "train_images.npy", &images);
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "no 'train_labels.npy' in '");
    assert_says(e, "/train_images.npy': run 'scripts/get_data.sh");
    assert_int_equal(dataset_files(&files, t.path, DATA_TRAIN, &e), -1);
    assert_int_equal(dataset_files(&files, t.path, DATA_TEST, &e), 0);
    assert_int_equal(files.n, 0);
    assert_null(files.source);
    save(&t, "train_labels.npy", &labels);
    assert_int_equal(dataset_read(&d, t.path, DATA_TEST, &DATA_DEFAULTS, &e), -1);
    assert_says(e, "no 't10k-images-idx3-ubyte' (or .gz) in '");
    assert_says(e, ", nor 'test_images.npy', nor ");
    assert_int_equal(dataset_files(&files, t.path, DATA_TRAIN, &e), 0);
    assert_string_equal(files.source, "NumPy");
    assert_int_equal(files.n, 2);
    assert_string_equal(files.path[0], tmpdir_name(&t, "train_images.npy"));
    assert_string_equal(files.path[1], tmpdir_name(&t, "train_labels.npy"));
    data_files_free(&files);
    assert_int_equal(dataset_read(&d, t.path, DATA_TRAIN, &DATA_DEFAULTS, &e), 0);
    assert_int_equal(d.n, 2);
    assert_int_equal(d.channels, 1);
    assert_int_equal(d.h, 2);
    assert_int_equal(d.w, 3);
    assert_int_equal(d.classes, 8);
    file_sha256(hex, both, sizeof both);
    assert_string_equal(d.sha256, hex); /* as IDX files of the same images: test_idx.c */
    assert_int_equal(dataset_check_labels(&d, 7, &e), -1);
    assert_says(e, "/train_labels.npy': label 7, of image 1, is none of");
    dataset_free(&d);
    save(&t, "test_images.npy", &colour);
    save(&t, "test_labels.npy", &labels);
    assert_int_equal(dataset_read(&d, t.path, DATA_TEST, &DATA_DEFAULTS, &e), 0);
    assert_int_equal(d.channels, 3);
    assert_int_equal(d.h, 1);
    assert_int_equal(d.w, 2);
    assert_memory_equal(d.images, planes, sizeof planes);
    dataset_free(&d);
    labels = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", twelve, 3);
    save(&t, "test_labels.npy", &labels);
    assert_int_equal(dataset_read(&d, t.path, DATA_TEST, &DATA_DEFAULTS, &e), -1);
    assert_says(e, "test_images.npy' has 2 images");
    assert_says(e, "test_labels.npy' has 3 labels");
    assert_null(d.images);
    tmpdir_remove(&t);
}

/* What is written is what np.save writes, byte by byte, and is read back. */
static void check_written(const Npy *in, NpyUse use, const char *shape, const void *data, size_t n)
{
    char dictionary[128];
    TmpDir t;
    Err e = {0};
    Npy back;
    char *file;
    size_t size;
    Bytes want;
    tmpdir_make(&t);
    snprintf(dictionary, sizeof dictionary, "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }", shape);
    want = npy(1, dictionary, data, n);
    assert_int_equal(npy_write(tmpdir_name(&t, "a.npy"), in, use, &e), 0);
    assert_int_equal(file_load(&file, &size, tmpdir_name(&t, "a.npy"), 1 << 20, &e), 0);
    assert_int_equal(size, want.n);
    assert_memory_equal(file, want.b, size);
    assert_int_equal(npy_read(&back, tmpdir_name(&t, "a.npy"), use, &e), 0);
    assert_true(back.n == in->n && back.channels == in->channels && back.h == in->h && back.w == in->w);
    assert_memory_equal(back.data, in->data, n);
    npy_free(&back);
    mem_free(file);
    tmpdir_remove(&t);
}

static void test_written(void **state)
{
    enum { N = 2, C = 3, H = 3, W = 5 };
    uint8_t planes[N * C * H * W], pixels[N * C * H * W];
    const Npy colour = {.n = N, .channels = C, .h = H, .w = W, .data = planes};
    const Npy grey = {.n = N * C, .channels = 1, .h = H, .w = W, .data = planes};
    const Npy labels = {.n = N * C * H * W, .channels = 1, .h = 1, .w = 1, .data = planes};
    Err e = {0};
    (void)state;
    for (int i = 0; i < N; i++)
        for (int c = 0; c < C; c++)
            for (int p = 0; p < H * W; p++)
                pixels[(i * H * W + p) * C + c] = planes[(i * C + c) * H * W + p] = (uint8_t)(i * 100 + c * 31 + p);
    check_written(&colour, NPY_IMAGES, "2, 3, 5, 3", pixels, sizeof pixels);
    check_written(&grey, NPY_IMAGES, "6, 3, 5", planes, sizeof planes);
    check_written(&labels, NPY_LABELS, "90,", planes, sizeof planes);
    assert_int_equal(npy_write("no/such/a.npy", &grey, NPY_IMAGES, &e), -1);
    assert_says(e, "no/such");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images),          cmocka_unit_test(test_colour),        cmocka_unit_test(test_labels),
        cmocka_unit_test(test_headers_refused), cmocka_unit_test(test_files_refused), cmocka_unit_test(test_directory),
        cmocka_unit_test(test_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
