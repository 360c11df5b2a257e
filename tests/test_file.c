/* file.h: atomic writing, reading, directories, SHA-256. Failing writes come from a full device on standard output,
 * from a limit on file size, and from this program's own write, fsync and rename, which stand before the C library's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "io_util.h"

static size_t write_most = SIZE_MAX; /* bytes that one write takes */
static int interrupt_writes;         /* every other one fails with EINTR */
static int fail_at;                  /* the fail_at-th of write, fsync and rename fails; 0: none */

static int fails(void)
{
    if (fail_at > 0 && --fail_at == 0) {
        errno = EIO;
        return 1;
    }
    return 0;
}

ssize_t write(int fd, const void *data, size_t n)
{
    static int turn;
    if (interrupt_writes && turn++ % 2 == 0) {
        errno = EINTR;
        return -1;
    }
    return fails() ? -1 : (ssize_t)syscall(SYS_write, fd, data, n < write_most ? n : write_most);
}

int fsync(int fd)
{
    return fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    return fails() ? -1 : renameat(AT_FDCWD, from, AT_FDCWD, to);
}

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
    struct rlimit old;
    const char *path, *tmp;
    char *big = mem_alloc(1 << 20, 1, "test", &e);
    int result;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    tmp = tmpdir_name(&t, "a.tmp");
    put(path, "old");
    old = limit_files(100000);
    result = file_save(path, big, 1 << 20, &e);
    limit_back(old);
    assert_int_equal(result, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, path);
    assert_says(e, "File too large");
    assert_holds(path, "old");
    assert_false(file_exists(tmp));
    mem_free(big);
    tmpdir_remove(&t);
}

static void test_short_and_interrupted_writes(void **state)
{
    TmpDir t;
    Err e = {0};
    char text[1001];
    int i, result;
    (void)state;
    tmpdir_make(&t);
    for (i = 0; i < 1000; i++)
        text[i] = (char)('a' + i % 26);
    text[1000] = '\0';
    write_most = 7;
    interrupt_writes = 1;
    result = file_save(tmpdir_name(&t, "a"), text, 1000, &e);
    write_most = SIZE_MAX;
    interrupt_writes = 0;
    assert_int_equal(result, 0);
    assert_holds(tmpdir_name(&t, "a"), text);
    tmpdir_remove(&t);
}

/* Whichever step fails, either the old file is whole or the new one is, and nothing else is left. */
static void test_every_step_fails(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path, *tmp;
    int k, result = -1;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    tmp = tmpdir_name(&t, "a.tmp");
    put(path, "old");
    for (k = 1; result != 0; k++) {
        fail_at = k;
        result = file_save(path, "new", 3, &e);
        fail_at = 0;
        if (result != 0) {
            assert_int_equal(e.code, ERR_FAILED);
            assert_says(e, path);
            assert_says(e, "Input/output error");
        }
        assert_holds(path, k < 4 ? "old" : "new"); /* write, fsync, rename; the fsync of the directory comes after */
        assert_false(file_exists(tmp));
    }
    assert_int_equal(k, 6);
    tmpdir_remove(&t);
}

static void test_target_becomes_directory(void **state)
{
    TmpDir t;
    Err e = {0};
    FileOut *f;
    (void)state;
    tmpdir_make(&t);
    f = file_create(tmpdir_name(&t, "a"), &e);
    assert_non_null(f);
    assert_int_equal(mkdir(tmpdir_name(&t, "a"), 0777), 0);
    assert_int_equal(file_commit(f, &e), -1);
    assert_says(e, "cannot rename '");
    assert_false(file_exists(tmpdir_name(&t, "a.tmp")));
    tmpdir_remove(&t);
}

static void test_pipes_and_links(void **state)
{
    TmpDir t;
    Err e = {0};
    struct stat st;
    const char *link_path, *pipe_path;
    char got[8] = "";
    int fd;
    (void)state;
    tmpdir_make(&t);
    pipe_path = tmpdir_name(&t, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0666), 0);
    fd = open(pipe_path, O_RDONLY | O_NONBLOCK);
    assert_int_equal(file_save(pipe_path, "x", 1, &e), 0);
    assert_int_equal(lstat(pipe_path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(read(fd, got, sizeof got), 1);
    assert_int_equal(got[0], 'x');
    close(fd);

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
    stdout_back(saved);
    saved = stdout_to_full();
    full = file_save("-", "x", 1, &e);
    stdout_back(saved);
    assert_int_equal(result, 0);
    assert_holds(path, "before after");
    assert_int_equal(full, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "cannot write 'standard output': No space left");
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
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "f"), &e), -1);
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
        cmocka_unit_test(test_save_and_load),    cmocka_unit_test(test_old_file_until_commit),
        cmocka_unit_test(test_disk_full),        cmocka_unit_test(test_pipes_and_links),
        cmocka_unit_test(test_cannot_create),    cmocka_unit_test(test_stdout),
        cmocka_unit_test(test_load_errors),      cmocka_unit_test(test_load_without_size),
        cmocka_unit_test(test_mkdirs),           cmocka_unit_test(test_join),
        cmocka_unit_test(test_sha256),           cmocka_unit_test(test_short_and_interrupted_writes),
        cmocka_unit_test(test_every_step_fails), cmocka_unit_test(test_target_becomes_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
