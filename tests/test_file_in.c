/* file.h: reading. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "io_util.h"

static void put(const char *path, const char *text)
{
    Err e = {0};
    if (file_save(path, text, strlen(text), &e))
        fail_msg("%s", e.msg);
}

static void test_load_errors(void **state)
{
    TmpDir t;
    Err e = {0};
    char *data = NULL;
    size_t n = 1;
    const char *path;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    assert_int_equal(file_load(&data, &n, path, 10, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "cannot open '");
    assert_says(e, "No such file");
    assert_null(data);
    assert_int_equal(file_load(&data, &n, t.path, 10, &e), -1);
    assert_says(e, "it is a directory");
    put(path, "12345678901");
    assert_int_equal(file_load(&data, &n, path, 10, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "11 bytes are more than 10");
    assert_int_equal(file_load(&data, &n, path, 11, &e), 0);
    assert_int_equal(n, 11);
    mem_free(data);
    tmpdir_remove(&t);
}

/* What would be waited for, or has no end, is not opened. */
static void test_load_no_file(void **state)
{
    TmpDir t;
    Err e = {0};
    char *data;
    size_t n;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(mkfifo(tmpdir_name(&t, "pipe"), 0666), 0);
    assert_int_equal(file_load(&data, &n, tmpdir_name(&t, "pipe"), 10, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "pipe': it is a named pipe");
    assert_int_equal(file_load(&data, &n, "/dev/zero", SIZE_MAX, &e), -1);
    assert_says(e, "'/dev/zero': it is a device");
    assert_null(data);
    tmpdir_remove(&t);
}

/* A file whose size the system gives as 0, and a pipe, of 300000 bytes. */
static void test_load_without_size(void **state)
{
    Err e = {0};
    char *data, path[32], block[1000];
    size_t n, i;
    int ends[2];
    (void)state;
    assert_int_equal(file_load(&data, &n, "/proc/self/status", 1 << 20, &e), 0);
    assert_true(n > 0 && strncmp(data, "Name:", 5) == 0);
    mem_free(data);
    assert_int_equal(file_load(&data, &n, "/proc/self/status", 10, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "larger than 10 bytes");
    assert_int_equal(pipe(ends), 0);
    if (fork() == 0) {
        close(ends[0]);
        for (i = 0; i < 300; i++) {
            memset(block, 'a' + (int)(i % 26), sizeof block);
            if (write(ends[1], block, sizeof block) != (ssize_t)sizeof block)
                _exit(1);
        }
        _exit(0);
    }
    close(ends[1]);
    snprintf(path, sizeof path, "/dev/fd/%d", ends[0]);
    assert_int_equal(file_load(&data, &n, path, 1 << 20, &e), 0);
    close(ends[0]);
    assert_int_equal(n, 300000);
    for (i = 0; i < n; i++)
        assert_int_equal(data[i], 'a' + (int)(i / 1000 % 26));
    assert_int_equal(data[n], 0);
    mem_free(data);
}

static void test_copy_and_same(void **state)
{
    enum { N = 200000 };
    TmpDir t;
    Err e = {0};
    char *bytes = mem_alloc(N, 1, "test", &e);
    bool same;
    (void)state;
    tmpdir_make(&t);
    for (int i = 0; i < N; i++)
        bytes[i] = (char)(i * 7 % 251);
    assert_int_equal(file_save(tmpdir_name(&t, "a"), bytes, N, &e), 0);
    assert_int_equal(file_copy(tmpdir_name(&t, "b"), tmpdir_name(&t, "a"), &e), 0);
    assert_int_equal(file_same(&same, tmpdir_name(&t, "a"), tmpdir_name(&t, "b"), &e), 0);
    assert_true(same);
    bytes[N - 1]++;
    assert_int_equal(file_save(tmpdir_name(&t, "b"), bytes, N, &e), 0);
    assert_int_equal(file_same(&same, tmpdir_name(&t, "a"), tmpdir_name(&t, "b"), &e), 0);
    assert_false(same);
    bytes[N - 1]--;
    assert_int_equal(file_save(tmpdir_name(&t, "b"), bytes, N - 1, &e), 0);
    assert_int_equal(file_same(&same, tmpdir_name(&t, "b"), tmpdir_name(&t, "a"), &e), 0);
    assert_false(same);
    assert_int_equal(file_same(&same, tmpdir_name(&t, "a"), tmpdir_name(&t, "c"), &e), -1);
    assert_int_equal(file_copy(tmpdir_name(&t, "d"), tmpdir_name(&t, "c"), &e), -1);
    assert_false(file_exists(tmpdir_name(&t, "d")));
    mem_free(bytes);
    tmpdir_remove(&t);
}

/* The end is where the bytes end, whatever is asked for. */
static void test_blocks(void **state)
{
    static const size_t sizes[] = {0, 1, 7, 65535, 65536, 65537, 200000};
    TmpDir t;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            char *bytes = mem_alloc(sizes[i] + 1, 1, "test", &e), *block;
            size_t got, more;
            FileIn *f;
            for (size_t j = 0; j < sizes[i]; j++)
                bytes[j] = (char)(j * 31 % 253);
            assert_int_equal(file_save(tmpdir_name(&t, "a"), bytes, sizes[i], &e), 0);
            f = file_open(tmpdir_name(&t, "a"), &e);
            assert_non_null(f);
            assert_int_equal(file_read_block(&block, &got, f, sizes[k], &e), 0);
            assert_int_equal(got, sizes[k] < sizes[i] ? sizes[k] : sizes[i]);
            assert_memory_equal(block, bytes, got);
            assert_int_equal(block[got], 0);
            mem_free(block);
            assert_int_equal(file_read_block(&block, &more, f, SIZE_MAX, &e), 0);
            assert_int_equal(got + more, sizes[i]);
            assert_memory_equal(block, bytes + got, more);
            mem_free(block);
            file_close(f);
            mem_free(bytes);
        }
    tmpdir_remove(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_errors),
        cmocka_unit_test(test_load_no_file),
        cmocka_unit_test(test_load_without_size),
        cmocka_unit_test(test_copy_and_same),
        cmocka_unit_test(test_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
