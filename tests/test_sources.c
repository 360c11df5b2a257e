/* Sources of data besides MNIST's and .npy files: EMNIST, CIFAR, .npz; files in their exact format, and broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <zlib.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "io_util.h"
#include "npy_util.h"

static TmpDir dir;

static int set_up(void **state)
{
    (void)state;
    tmpdir_make(&dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tmpdir_remove(&dir);
    return 0;
}

static void save(const char *name, const void *bytes, size_t n)
{
    Err e = {0};
    if (file_save(tmpdir_name(&dir, name), bytes, n, &e) != 0)
        fail_msg("%s", e.msg);
}

static Dataset read_set(const char *path, DataSplit split, const char *source)
{
    DataFiles files;
    Dataset d = {0};
    Err e = {0};

    if (dataset_files(&files, path, split, &e) || dataset_read(&d, path, split, &DATA_DEFAULTS, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(files.source, source);
    data_files_free(&files);
    return d;
}

static void refused(const char *path, DataSplit split, const char *why)
{
    Dataset d;
    Err e = {0};

    if (dataset_read(&d, path, split, &DATA_DEFAULTS, &e) == 0)
        fail_msg("it is read, not: %s", why);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, why);
    assert_null(d.images);
    assert_null(d.class_name);
}

static void assert_none(const char *path, DataSplit split)
{
    DataFiles files;
    Err e = {0};

    assert_int_equal(dataset_files(&files, path, split, &e), 0);
    assert_int_equal(files.n, 0);
    data_files_free(&files);
}

/* ---- EMNIST ---- */

/* 0 1 / 2 3 / 4 5 lies in the file for 0 2 4 / 1 3 5 */
static const uint8_t EMNIST_IMAGES[] = {0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0,  0,
                                        0, 2, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
static const uint8_t EMNIST_LABELS[] = {0, 0, 8, 1, 0, 0, 0, 2, 1, 26};

static void test_emnist(void **state)
{
    static const uint8_t upright[] = {0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11};
    uint8_t labels[sizeof EMNIST_LABELS];
    Dataset d;

    (void)state;
    memcpy(labels, EMNIST_LABELS, sizeof labels);
    save("emnist-letters-train-images-idx3-ubyte", EMNIST_IMAGES, sizeof EMNIST_IMAGES);
    refused(dir.path, DATA_TRAIN, "no 'emnist-letters-train-labels-idx1-ubyte' (or .gz) in '");
    save("emnist-letters-train-labels-idx1-ubyte", EMNIST_LABELS, sizeof EMNIST_LABELS);
    d = read_set(dir.path, DATA_TRAIN, "EMNIST");
    assert_true(d.n == 2 && d.h == 2 && d.w == 3 && d.channels == 1 && d.classes == 26);
    assert_memory_equal(d.images, upright, sizeof upright);
    assert_true(d.labels[0] == 0 && d.labels[1] == 25);
    dataset_free(&d);
    assert_none(dir.path, DATA_TEST);
    for (int bad = 0; bad <= 27; bad += 27) {
        labels[9] = (uint8_t)bad;
        save("emnist-letters-train-labels-idx1-ubyte", labels, sizeof labels);
        refused(dir.path, DATA_TRAIN, "of image 1, is none of EMNIST's letters 1 to 26");
    }
}

/* Digits count from 0, packed or not; of two kinds one is to be named. */
static void test_emnist_kinds(void **state)
{
    char path[400];
    Dataset d;
    gzFile gz;

    (void)state;
    save("emnist-digits-test-images-idx3-ubyte", EMNIST_IMAGES, sizeof EMNIST_IMAGES);
    gz = gzopen(tmpdir_name(&dir, "emnist-digits-test-labels-idx1-ubyte.gz"), "wb");
    assert_true(gz && gzwrite(gz, EMNIST_LABELS, sizeof EMNIST_LABELS) == sizeof EMNIST_LABELS && gzclose(gz) == Z_OK);
    d = read_set(dir.path, DATA_TEST, "EMNIST");
    assert_true(d.labels[0] == 1 && d.labels[1] == 26 && d.images[1] == 2);
    dataset_free(&d);
    save("emnist-letters-test-images-idx3-ubyte", EMNIST_IMAGES, sizeof EMNIST_IMAGES);
    save("emnist-letters-test-labels-idx1-ubyte", EMNIST_LABELS, sizeof EMNIST_LABELS);
    refused(dir.path, DATA_TEST, "has EMNIST's digits and its letters: name one, as '");
    snprintf(path, sizeof path, "%s/emnist-letters", dir.path);
    d = read_set(path, DATA_TEST, "EMNIST");
    assert_int_equal(d.labels[1], 25);
    dataset_free(&d);
    snprintf(path, sizeof path, "%s/emnist-digits", dir.path);
    d = read_set(path, DATA_TEST, "EMNIST");
    assert_int_equal(d.labels[1], 26);
    dataset_free(&d);
    snprintf(path, sizeof path, "%s/emnist-letter", dir.path);
    refused(path, DATA_TEST, "is not there");
}

/* ---- CIFAR ---- */

enum { PIXELS = 3072 };

/* Records of `labels` labels: pixel k of image i is k + 7 i, red first; the last label is `first` + i. */
static size_t cifar(uint8_t *out, int labels, int n, int first)
{
    for (int i = 0; i < n; i++) {
        memset(out, 99, (size_t)labels);
        out[labels - 1] = (uint8_t)(first + i);
        for (int k = 0; k < PIXELS; k++)
            out[labels + k] = (uint8_t)(k % 251 + 7 * i);
        out += labels + PIXELS;
    }
    return (size_t)n * (size_t)(labels + PIXELS);
}

static void save_cifar(const char *name, int labels, int n, int first)
{
    static uint8_t file[4 * (2 + PIXELS)];

    save(name, file, cifar(file, labels, n, first));
}

static void save_names(const char *name, int n, const char *end)
{
    char text[2000] = "";

    for (int i = 0; i < n; i++)
        sprintf(text + strlen(text), "name %d%s", i, end);
    strcat(text, end);
    save(name, text, strlen(text));
}

static void test_cifar10(void **state)
{
    Dataset d;

    (void)state;
    save_cifar("data_batch_2.bin", 1, 2, 3);
    save_cifar("data_batch_1.bin", 1, 3, 0);
    save_cifar("test_batch.bin", 1, 1, 9);
    d = read_set(dir.path, DATA_TRAIN, "CIFAR-10");
    assert_true(d.n == 5 && d.channels == 3 && d.h == 32 && d.w == 32 && d.classes == 5 && !d.class_name);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(d.labels[i], i);
        for (int k = 0; k < PIXELS; k++) /* (channels,h,w), as it lies there */
            assert_int_equal(d.images[i * PIXELS + k], (uint8_t)(k % 251 + 7 * (i < 3 ? i : i - 3)));
    }
    dataset_free(&d);
    save_names("batches.meta.txt", 10, "\n");
    d = read_set(dir.path, DATA_TEST, "CIFAR-10");
    assert_true(d.n == 1 && d.labels[0] == 9 && d.classes == 10);
    assert_string_equal(d.class_name[0], "name 0");
    assert_string_equal(d.class_name[9], "name 9");
    dataset_free(&d);
    save_names("batches.meta.txt", 9, "\n");
    refused(dir.path, DATA_TEST, "has 9 names of classes, CIFAR-10 has 10");
    save_names("batches.meta.txt", 11, "\n");
    refused(dir.path, DATA_TEST, "has 11 names of classes");
}

static void test_cifar100(void **state)
{
    Dataset d;

    (void)state;
    save_cifar("train.bin", 2, 2, 98);
    save_names("fine_label_names.txt", 100, "\r\n");
    d = read_set(dir.path, DATA_TRAIN, "CIFAR-100");
    assert_true(d.n == 2 && d.classes == 100 && d.labels[0] == 98 && d.labels[1] == 99);
    assert_int_equal(d.images[PIXELS + 1], 8);
    assert_string_equal(d.class_name[99], "name 99");
    dataset_free(&d);
    assert_none(dir.path, DATA_TEST);
    save_cifar("test.bin", 2, 1, 100);
    refused(dir.path, DATA_TEST, "label 100 is none of CIFAR-100's classes 0 to 99");
}

static void test_cifar_broken(void **state)
{
    static uint8_t file[2 * (1 + PIXELS)];

    (void)state;
    cifar(file, 1, 2, 9);
    save("test_batch.bin", file, sizeof file);
    refused(dir.path, DATA_TEST, "label 10 is none of CIFAR-10's classes 0 to 9");
    save("test_batch.bin", file, sizeof file - 1);
    refused(dir.path, DATA_TEST, "is no multiple of 3073 bytes");
    save("test_batch.bin", file, 0);
    refused(dir.path, DATA_TEST, "is no multiple of 3073 bytes");
}

/* ---- .npz: a zip archive, made as APPNOTE.TXT describes it ---- */

typedef struct Zip {
    Bytes file, list;
    int n;
    size_t lie; /* what members are said to unpack to; 0: the truth */
} Zip;

static void put(Bytes *f, uint32_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        add(f, &(uint8_t){(uint8_t)(v >> (8 * i))}, 1);
}

/* What both kinds of header have. */
static void put_head(Bytes *f, int method, uint32_t crc, size_t packed, size_t size, size_t name)
{
    put(f, 20, 2); /* version needed */
    put(f, 0, 2);
    put(f, (uint32_t)method, 2);
    put(f, 0x00210000, 4); /* time and date */
    put(f, crc, 4);
    put(f, (uint32_t)packed, 4);
    put(f, (uint32_t)size, 4);
    put(f, (uint32_t)name, 2);
    put(f, 0, 2);
}

/* method 0: stored, 8: deflated, another: as stored, and a lie. Bytes of the member as it is packed. */
static size_t zip_add(Zip *z, const char *name, const Bytes *member, int method, uint32_t wrong_crc)
{
    const uint32_t crc = (uint32_t)crc32(0, member->b, (uInt)member->n) ^ wrong_crc, at = (uint32_t)z->file.n;
    const size_t size = z->lie ? z->lie : member->n;
    Bytes packed = *member;

    if (method == 8) {
        z_stream s = {.next_in = (Bytef *)(uintptr_t)member->b, .avail_in = (uInt)member->n};
        assert_int_equal(deflateInit2(&s, 9, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY), Z_OK);
        s.next_out = packed.b;
        s.avail_out = sizeof packed.b;
        assert_int_equal(deflate(&s, Z_FINISH), Z_STREAM_END);
        packed.n = sizeof packed.b - s.avail_out;
        deflateEnd(&s);
    }
    put(&z->file, 0x04034b50, 4);
    put_head(&z->file, method, crc, packed.n, size, strlen(name));
    add(&z->file, name, strlen(name));
    add(&z->file, packed.b, packed.n);
    put(&z->list, 0x02014b50, 4);
    put(&z->list, 20, 2);
    put_head(&z->list, method, crc, packed.n, size, strlen(name));
    put(&z->list, 0, 2);
    put(&z->list, 0, 2);
    put(&z->list, 0, 2);
    put(&z->list, 0, 4);
    put(&z->list, at, 4);
    add(&z->list, name, strlen(name));
    z->n++;
    return packed.n;
}

static void zip_save(const char *name, const Zip *z)
{
    Bytes f = z->file;

    add(&f, z->list.b, z->list.n);
    put(&f, 0x06054b50, 4);
    put(&f, 0, 4);
    put(&f, (uint32_t)z->n, 2);
    put(&f, (uint32_t)z->n, 2);
    put(&f, (uint32_t)z->list.n, 4);
    put(&f, (uint32_t)z->file.n, 4);
    put(&f, 0, 2);
    save(name, f.b, f.n);
}

static const uint8_t twelve[] = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21};

static Bytes grey(void)
{
    return npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 2, 3), }", twelve, 12);
}

static Bytes colour(void)
{
    return npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 2, 3), }", twelve, 12);
}

static Bytes column(void) /* MedMNIST's labels */
{
    return npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1), }", (const uint8_t[]){4, 7}, 2);
}

static void test_npz(void **state)
{
    static const uint8_t planes[] = {10, 13, 11, 14, 12, 15, 16, 19, 17, 20, 18, 21};
    const Bytes g = grey(), c = colour(), l = column();
    const char *path = tmpdir_name(&dir, "med.npz");
    Zip z = {.n = 0};
    Dataset d;

    (void)state;
    zip_add(&z, "train_images.npy", &g, 8, 0);
    zip_add(&z, "val_images.npy", &g, 8, 0);
    zip_add(&z, "val_labels.npy", &l, 0, 0);
    zip_add(&z, "train_labels.npy", &l, 8, 0);
    zip_save("med.npz", &z);
    d = read_set(path, DATA_TEST, "NumPy archive"); /* val stands in */
    assert_int_equal(d.channels, 1);
    dataset_free(&d);
    zip_add(&z, "test_images.npy", &c, 0, 0);
    zip_add(&z, "test_labels.npy", &l, 8, 0);
    zip_save("med.npz", &z);
    for (int i = 0; i < 2; i++) { /* by its path, and in its directory */
        d = read_set(i ? dir.path : path, DATA_TRAIN, "NumPy archive");
        assert_true(d.n == 2 && d.channels == 1 && d.h == 2 && d.w == 3 && d.classes == 8 && d.labels[1] == 7);
        assert_memory_equal(d.images, twelve, 12);
        dataset_free(&d);
        d = read_set(i ? dir.path : path, DATA_TEST, "NumPy archive");
        assert_true(d.channels == 3 && d.h == 1 && d.w == 2);
        assert_memory_equal(d.images, planes, 12);
        dataset_free(&d);
    }
    zip_save("more.npz", &z);
    refused(dir.path, DATA_TRAIN, "hold data both: name one of them");
}

static void test_npz_plain(void **state)
{
    const Bytes g = grey(), l = column();
    Zip z = {.n = 0};
    Dataset d;

    (void)state;
    save("images.npy", g.b, g.n);
    refused(dir.path, DATA_TRAIN, "no 'labels.npy' in '");
    save("labels.npy", l.b, l.n);
    d = read_set(dir.path, DATA_TRAIN, "NumPy");
    assert_int_equal(d.labels[1], 7);
    dataset_free(&d);
    assert_none(dir.path, DATA_TEST);
    zip_add(&z, "images.npy", &g, 0, 0);
    zip_add(&z, "labels.npy", &l, 0, 0);
    zip_save("a.npz", &z);
    d = read_set(tmpdir_name(&dir, "a.npz"), DATA_TRAIN, "NumPy archive");
    assert_int_equal(d.labels[0], 4);
    dataset_free(&d);
    assert_none(tmpdir_name(&dir, "a.npz"), DATA_TEST);
}

/* An archive of images as given and sound labels. */
static void refused_zip(const Bytes *images, int method, uint32_t wrong_crc, const char *why)
{
    const Bytes l = column();
    Zip z = {.n = 0};

    zip_add(&z, "images.npy", images, method, wrong_crc);
    zip_add(&z, "labels.npy", &l, 0, 0);
    zip_save("a.npz", &z);
    refused(tmpdir_name(&dir, "a.npz"), DATA_TRAIN, why);
}

static void test_npz_broken(void **state)
{
    static const char many[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483647, 1, 1), }";
    const Bytes g = grey(), l = column(), bomb = npy(1, many, twelve, 12);
    const Bytes large = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000, 1, 1), }", twelve, 12);
    const char *path = tmpdir_name(&dir, "a.npz");
    Bytes three = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", twelve, 3);
    Zip z = {.n = 0};
    size_t packed;
    char why[128];

    (void)state;
    refused_zip(&g, 0, 1, "a.npz: images' is damaged: CRC error");
    refused_zip(&g, 8, 1, "a.npz: images' is damaged: CRC error");
    refused_zip(&g, 12, 0, "is packed by method 12");
    refused_zip(&bomb, 8, 0, "is cut short: its header announces 2147483647 bytes of data, 12 are there");
    z.lie = 2000000000; /* memory is taken for what the packed bytes can hold */
    packed = zip_add(&z, "images.npy", &large, 8, 0);
    z.lie = 0;
    zip_add(&z, "labels.npy", &l, 0, 0);
    zip_save("a.npz", &z);
    snprintf(why, sizeof why, "announces 1000000000 bytes of data, %zu are there", packed * 1032 + 65536 - 128);
    refused(path, DATA_TRAIN, why);
    memset(&z, 0, sizeof z);
    refused_zip(&three, 0, 0, "a.npz: images'");
    zip_add(&z, "images.npy", &g, 0, 0);
    zip_save("a.npz", &z);
    refused(path, DATA_TRAIN, "a.npz' has no array 'labels'");
    zip_add(&z, "labels.npy", &three, 0, 0);
    zip_save("a.npz", &z);
    refused(path, DATA_TRAIN, "has 2 images in 'images', but 3 labels in 'labels'");
    memset(&z, 0, sizeof z);
    zip_add(&z, "x.npy", &l, 0, 0);
    zip_save("a.npz", &z);
    refused(path, DATA_TRAIN, "has no array 'train_images' nor 'images'");
    save("a.npz", "PK\3\4 and then", 13);
    refused(path, DATA_TRAIN, "is no zip archive that can be read");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_emnist, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_emnist_kinds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cifar10, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cifar100, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_cifar_broken, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_npz, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_npz_plain, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_npz_broken, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
