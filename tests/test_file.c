/* file.h: atomic writing, reading, directories, SHA-256. Failing writes come from /dev/full and from a limit on file
 * size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "io_util.h"

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fputs(text, f) >= 0, 1);
    assert_int_equal(fclose(f), 0);
}

static void assert_holds(const char *path, const char *text)
{
    char *data;
    size_t n;
    Err e = {0};
    if (file_load(&data, &n, path, 1 << 20, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(n, strlen(text));
    assert_string_equal(data, text);
    mem_free(data);
}

static void test_save_and_load(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path, *tmp;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    tmp = tmpdir_name(&t, "a.tmp");
    assert_int_equal(file_save(path, "one", 3, &e), 0);
    assert_holds(path, "one");
    assert_int_equal(file_save(path, "second", 6, &e), 0);
    assert_holds(path, "second");
    assert_int_equal(file_save(path, "", 0, &e), 0);
    assert_holds(path, "");
    assert_false(file_exists(tmp));
    put(tmp, "left by a crash, and longer than what comes");
    assert_int_equal(file_save(path, "new", 3, &e), 0);
    assert_holds(path, "new");
    assert_false(file_exists(tmp));
    tmpdir_remove(&t);
}

static void test_old_file_until_commit(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path, *tmp;
    FileOut *f;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    tmp = tmpdir_name(&t, "a.tmp");
    put(path, "old");
    f = file_create(path, &e);
    assert_non_null(f);
    assert_int_equal(file_write(f, "new", 3, &e), 0);
    assert_holds(path, "old");
    assert_holds(tmp, "new");
    file_abandon(f);
    assert_holds(path, "old");
    assert_false(file_exists(tmp));
    f = file_create(path, &e);
    assert_non_null(f);
    assert_int_equal(file_write(f, "ne", 2, &e), 0);
    assert_int_equal(file_write(f, "w", 1, &e), 0);
    assert_int_equal(file_commit(f, &e), 0);
    assert_holds(path, "new");
    file_abandon(NULL);
    tmpdir_remove(&t);
}

/* A short write, then an error: what a full disk does. */
static void test_disk_full(void **state)
{
    TmpDir t;
    Err e = {0};
    struct rlimit old, small;
    void (*handler)(int);
    const char *path, *tmp;
    char *big = mem_alloc(1 << 20, 1, "test", &e);
    int result;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    tmp = tmpdir_name(&t, "a.tmp");
    put(path, "old");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100000;
    handler = signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    result = file_save(path, big, 1 << 20, &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    signal(SIGXFSZ, handler);
    assert_int_equal(result, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, path);
    assert_says(e, "File too large");
    assert_holds(path, "old");
    assert_false(file_exists(tmp));
    mem_free(big);
    tmpdir_remove(&t);
}

static void test_devices_and_links(void **state)
{
    TmpDir t;
    Err e = {0};
    struct stat st;
    const char *link_path;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_save("/dev/full", "x", 1, &e), -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "'/dev/full'");
    assert_says(e, "No space left");
    assert_int_equal(file_save("/dev/null", "x", 1, &e), 0);
    assert_int_equal(stat("/dev/null", &st), 0);
    assert_true(S_ISCHR(st.st_mode));

    link_path = tmpdir_name(&t, "link");
    put(tmpdir_name(&t, "real"), "old");
    assert_int_equal(symlink("real", link_path), 0);
    assert_int_equal(file_save(link_path, "new", 3, &e), 0);
    assert_holds(tmpdir_name(&t, "real"), "new");
    assert_int_equal(lstat(link_path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    tmpdir_remove(&t);
}

static void test_cannot_create(void **state)
{
    TmpDir t;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_save(tmpdir_name(&t, "no/such"), "x", 1, &e), -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "no/such'");
    assert_says(e, "No such file or directory");
    assert_int_equal(file_save(t.path, "x", 1, &e), -1);
    assert_says(e, "it is a directory");
    assert_int_equal(mkdir(tmpdir_name(&t, "a.tmp"), 0777), 0);
    assert_int_equal(file_save(tmpdir_name(&t, "a"), "x", 1, &e), -1);
    assert_says(e, "a.tmp'");
    tmpdir_remove(&t);
}

static void test_stdout(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path;
    int saved, fd, result, full;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "out");
    fflush(stdout);
    saved = dup(STDOUT_FILENO);
    fd = open(path, O_CREAT | O_WRONLY, 0666);
    dup2(fd, STDOUT_FILENO);
    fputs("before ", stdout);
    result = file_save("-", "after", 5, &e);
    close(fd);
    fd = open("/dev/full", O_WRONLY);
    dup2(fd, STDOUT_FILENO);
    full = file_save("-", "x", 1, &e);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(fd);
    assert_int_equal(result, 0);
    assert_holds(path, "before after");
    assert_int_equal(full, -1);
    assert_says(e, "No space left");
    tmpdir_remove(&t);
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

static void test_mkdirs(void **state)
{
    TmpDir t;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "x//y/z/"), &e), 0);
    assert_true(file_is_dir(tmpdir_name(&t, "x/y/z")));
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "x/y/z"), &e), 0);
    assert_int_equal(file_mkdirs("/", &e), 0);
    assert_int_equal(file_mkdirs("", &e), 0);
    put(tmpdir_name(&t, "f"), "");
    assert_false(file_is_dir(tmpdir_name(&t, "f")));
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "f/g"), &e), -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "cannot create the directory '");
    tmpdir_remove(&t);
}

static void test_join(void **state)
{
    char out[8];
    Err e = {0};
    (void)state;
    assert_int_equal(file_join(out, sizeof out, "abc", "def", &e), 0);
    assert_string_equal(out, "abc/def");
    assert_int_equal(file_join(out, sizeof out, "a/", "b", &e), 0);
    assert_string_equal(out, "a/b");
    assert_int_equal(file_join(out, sizeof out, "", "b", &e), 0);
    assert_string_equal(out, "b");
    assert_int_equal(file_join(out, sizeof out, "abcd", "def", &e), -1);
    assert_says(e, "too long");
}

/* The examples of FIPS 180-2, appendix B. */
static void test_sha256(void **state)
{
    char hex[65];
    FileSpan parts[3] = {{"a", 1}, {NULL, 0}, {"bc", 2}};
    char *million;
    Err e;
    (void)state;
    file_sha256(hex, "", 0);
    assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    file_sha256(hex, "abc", 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    file_sha256_spans(hex, parts, 3);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    million = mem_alloc(1000000, 1, "test", &e);
    memset(million, 'a', 1000000);
    file_sha256(hex, million, 1000000);
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    mem_free(million);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_and_load), cmocka_unit_test(test_old_file_until_commit),
        cmocka_unit_test(test_disk_full),     cmocka_unit_test(test_devices_and_links),
        cmocka_unit_test(test_cannot_create), cmocka_unit_test(test_stdout),
        cmocka_unit_test(test_load_errors),   cmocka_unit_test(test_load_without_size),
        cmocka_unit_test(test_mkdirs),        cmocka_unit_test(test_join),
        cmocka_unit_test(test_sha256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
