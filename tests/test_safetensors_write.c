/* safetensors.h: the writer, against bytes written out by hand and against the reader. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/safetensors.h"
#include "io_util.h"

static void test_writer_bytes(void **state)
{
    static const char want[] =
        "\x20\1\0\0\0\0\0\0{\"__metadata__\":{\"a\":\"x\\\"y\\n\",\"format\":\"pt\",\"z\":\"gr\xc3\xbcn\"},"
        "\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"a.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]},"
        "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[16,20]},"
        "\"0\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[20,23]}}       "
        "\5\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\xc0\0\0\0\x3f\7\x8\x9";
    static const float a[] = {1, -2}, b[] = {0.5f};
    static const int da[] = {1, 2}, db[] = {1}, du[] = {3};
    static const uint8_t u[] = {7, 8, 9};
    static const int64_t n = 5;
    TmpDir t;
    Err e = {0};
    char *data;
    size_t size;
    StWriter *w = st_writer(&e);
    (void)state;
    tmpdir_make(&t);
    assert_non_null(w);
    assert_int_equal(st_add(w, "0", DT_U8, 1, du, u, &e), 0);
    assert_int_equal(st_add(w, "b", DT_F32, 1, db, b, &e), 0);
    assert_int_equal(st_add_meta(w, "z", "gr\xc3\xbcn", &e), 0);
    assert_int_equal(st_add(w, "a.weight", DT_F32, 2, da, a, &e), 0);
    assert_int_equal(st_add(w, "n", DT_I64, 0, NULL, &n, &e), 0);
    assert_int_equal(st_add_meta(w, "a", "x\"y\n", &e), 0);
    if (st_save(w, tmpdir_name(&t, "f"), &e) != 0)
        fail_msg("%s", e.msg);
    st_writer_free(w);
    assert_int_equal(file_load(&data, &size, tmpdir_name(&t, "f"), 1 << 20, &e), 0);
    assert_int_equal((unsigned char)data[0] + 256 * data[1] + 8 + 23, size);
    assert_string_equal(data + 8, want + 8);
    assert_int_equal(size, sizeof want - 1);
    assert_memory_equal(data, want, size);
    mem_free(data);
    tmpdir_remove(&t);
}

/* So many bytes of this value, and how often they were made */
typedef struct Made {
    uint8_t value;
    int times;
} Made;

static void make(void *data, const void *ctx)
{
    Made *m = (Made *)ctx;

    memset(data, m->value, (size_t)m->value);
    m->times++;
}

/* Tensors that are made when they are written lie among the others as if they had been there. */
static void test_made(void **state)
{
    static const uint8_t nines[9] = {9, 9, 9, 9, 9, 9, 9, 9, 9};
    Made made[] = {{3, 0}, {8, 0}};
    TmpDir t;
    Err e = {0};
    StWriter *w = st_writer(&e);
    StFile *f;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(st_add_made(w, "a", DT_U8, 1, (int[]){3}, make, &made[0], &e), 0);
    assert_int_equal(st_add(w, "b", DT_U8, 1, (int[]){9}, nines, &e), 0);
    assert_int_equal(st_add(w, "none", DT_U8, 1, (int[]){0}, NULL, &e), 0);
    assert_int_equal(st_add_made(w, "c", DT_U8, 2, (int[]){2, 4}, make, &made[1], &e), 0);
    assert_int_equal(st_add_made(w, "c", DT_U8, 1, (int[]){8}, make, &made[1], &e), -1);
    assert_int_equal(made[0].times + made[1].times, 0);
    if (st_save(w, tmpdir_name(&t, "f"), &e) != 0 || !(f = st_open(tmpdir_name(&t, "f"), &e)))
        fail_msg("%s", e.msg);
    assert_true(made[0].times == 1 && made[1].times == 1);
    assert_memory_equal(st_find(f, "a")->data, ((uint8_t[]){3, 3, 3}), 3);
    assert_memory_equal(st_find(f, "b")->data, nines, 9);
    assert_memory_equal(st_find(f, "c")->data, ((uint8_t[]){8, 8, 8, 8, 8, 8, 8, 8}), 8);
    st_close(f);
    st_writer_free(w);
    tmpdir_remove(&t);
}

/* The header alone: all that it says, and that the data are there. */
static void test_header(void **state)
{
    static const float x[] = {1, 2, 3};
    TmpDir t;
    Err e = {0};
    StWriter *w = st_writer(&e);
    StFile *f;
    char *data;
    size_t size;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(st_add(w, "x", DT_F32, 1, (int[]){3}, x, &e), 0);
    assert_int_equal(st_save(w, tmpdir_name(&t, "f"), &e), 0);
    if (!(f = st_open_header(tmpdir_name(&t, "f"), &e)))
        fail_msg("%s", e.msg);
    assert_string_equal(st_meta(f, "format"), "pt");
    assert_int_equal(st_find(f, "x")->numel, 3);
    assert_null(st_find(f, "x")->data);
    st_close(f);
    assert_int_equal(file_load(&data, &size, tmpdir_name(&t, "f"), 1 << 20, &e), 0);
    assert_int_equal(file_save(tmpdir_name(&t, "f"), data, size - 1, &e), 0);
    assert_null(st_open_header(tmpdir_name(&t, "f"), &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "is cut short"));
    mem_free(data);
    st_writer_free(w);
    tmpdir_remove(&t);
}

/* Headers of every length modulo 8: the fewest spaces that make 8. */
static void test_padding(void **state)
{
    static const char text[] = "01234567";
    int i;
    (void)state;
    for (i = 0; i <= 8; i++) {
        TmpDir t;
        Err e = {0};
        char *data, json[64];
        size_t size, n, padded;
        StWriter *w = st_writer(&e);
        n = (size_t)sprintf(json, "{\"__metadata__\":{\"a\":\"%s\",\"format\":\"pt\"}}", text + i);
        padded = (n + 7) / 8 * 8;
        tmpdir_make(&t);
        assert_int_equal(st_add_meta(w, "a", text + i, &e), 0);
        assert_int_equal(st_save(w, tmpdir_name(&t, "f"), &e), 0);
        assert_int_equal(file_load(&data, &size, tmpdir_name(&t, "f"), 1000, &e), 0);
        assert_int_equal(size, 8 + padded);
        assert_int_equal(data[0], padded);
        assert_memory_equal(data + 8, json, n);
        assert_memory_equal(data + 8 + n, "        ", padded - n);
        mem_free(data);
        st_writer_free(w);
        tmpdir_remove(&t);
    }
}

/* A full disk leaves the old file. */
static void test_write_full(void **state)
{
    static const int d[] = {10000};
    static float x[10000];
    TmpDir t;
    Err e = {0};
    struct rlimit old;
    StWriter *w = st_writer(&e);
    char *data;
    size_t size;
    int result;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_save(tmpdir_name(&t, "f"), "old", 3, &e), 0);
    assert_int_equal(st_add(w, "x", DT_F32, 1, d, x, &e), 0);
    old = limit_files(20000);
    result = st_save(w, tmpdir_name(&t, "f"), &e);
    limit_back(old);
    assert_int_equal(result, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_int_equal(file_load(&data, &size, tmpdir_name(&t, "f"), 1 << 20, &e), 0);
    assert_string_equal(data, "old");
    assert_false(file_exists(tmpdir_name(&t, "f.tmp")));
    mem_free(data);
    st_writer_free(w);
    tmpdir_remove(&t);
}

/* 300 tensors of all types, enough for every array to grow; read back by the reader. */
static void test_write_read(void **state)
{
    enum { N = 300 };
    static char names[N][16];
    static unsigned char bytes[64];
    TmpDir t;
    Err e = {0};
    StWriter *w = st_writer(&e);
    StFile *f;
    int i, d[2];
    (void)state;
    tmpdir_make(&t);
    for (i = 0; i < 64; i++)
        bytes[i] = (unsigned char)(i * 37);
    for (i = 0; i < N; i++) {
        snprintf(names[i], sizeof names[i], "t%d", (i * 7919) % N);
        d[0] = 2;
        d[1] = 4 * (i % 2);
        if (st_add(w, names[i], (DType)(i % DT_COUNT), 2, d, bytes, &e) != 0 ||
            st_add_meta(w, names[i], names[N - 1 - i], &e) != 0)
            fail_msg("%s", e.msg);
    }
    if (st_save(w, tmpdir_name(&t, "f"), &e) != 0 || !(f = st_open(tmpdir_name(&t, "f"), &e)))
        fail_msg("%s", e.msg);
    assert_int_equal(st_count(f), N);
    assert_int_equal(st_meta_count(f), N + 1);
    for (i = 0; i < N; i++) {
        const StTensor *x = st_find(f, names[i]);
        assert_non_null(x);
        assert_int_equal(x->dtype, i % DT_COUNT);
        assert_int_equal(x->nd, 2);
        assert_int_equal(x->d[1], 4 * (i % 2));
        assert_int_equal(x->numel, 8 * (i % 2));
        assert_memory_equal(x->data, bytes, x->bytes);
        assert_string_equal(st_meta(f, names[i]), names[N - 1 - i]);
    }
    st_close(f);
    st_writer_free(w);
    tmpdir_remove(&t);
}

static void test_writer_errors(void **state)
{
    static const int d[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1}, negative[] = {-1},
                     huge[] = {2147483647, 2147483647, 2147483647};
    static const int odd[] = {3};
    static const float x[1];
    Err e = {0};
    StWriter *w = st_writer(&e);
    int saved, result;
    (void)state;
    assert_int_equal(st_add(w, "a", DT_F32, 1, d, x, &e), 0);
    assert_int_equal(st_add(w, "a", DT_F32, 1, d, x, &e), -1);
    assert_says(e, "'a' is given twice");
    assert_int_equal(st_add_meta(w, "format", "np", &e), -1);
    assert_says(e, "'format' is given twice");
    assert_int_equal(st_add(w, "", DT_F32, 1, d, x, &e), -1);
    assert_int_equal(st_add(w, "__metadata__", DT_F32, 1, d, x, &e), -1);
    assert_int_equal(st_add(w, "b", DT_F32, 9, d, x, &e), -1);
    assert_int_equal(st_add(w, "b", DT_F32, 1, negative, x, &e), -1);
    assert_int_equal(st_add(w, "b", DT_F32, 3, huge, x, &e), -1);
    assert_int_equal(st_add(w, "b", DT_F4, 1, odd, x, &e), -1);
    saved = stdout_to_full();
    result = st_save(w, "-", &e);
    stdout_back(saved);
    assert_int_equal(result, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "cannot write 'standard output': No space left");
    assert_int_equal(st_save(w, "no/such/f", &e), -1);
    assert_says(e, "'no/such/f'");
    assert_int_equal(st_add(w, "\xff", DT_F32, 1, d, x, &e), 0);
    assert_int_equal(st_save(w, "no/such/f", &e), -1);
    assert_says(e, "UTF-8");
    st_writer_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_writer_bytes),  cmocka_unit_test(test_write_read), cmocka_unit_test(test_padding),
        cmocka_unit_test(test_made),          cmocka_unit_test(test_header),     cmocka_unit_test(test_write_full),
        cmocka_unit_test(test_writer_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
