/* file.h: atomic writing. Failing writes come from a full device on standard output,
 * from a limit on file size, and from this program's own write, fsync and rename, which stand before the C library's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
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

static int count_entries(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void test_save_and_load(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path, *tmp;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    tmp = tmpdir_name(&t, ".sdlora-0123456789abcdef.tmp");
    put(tmpdir_name(&t, "a.tmp"), "the user's");
    put(tmpdir_name(&t, ".sdlora-0123456789abcdeg.tmp"), "too");
    assert_int_equal(file_save(path, "one", 3, &e), 0);
    assert_holds(path, "one");
    assert_int_equal(file_save(path, "second", 6, &e), 0);
    assert_holds(path, "second");
    assert_int_equal(file_save(path, "", 0, &e), 0);
    assert_holds(path, "");
    put(tmp, "left by a crash, and longer than what comes");
    assert_int_equal(file_save(path, "new", 3, &e), 0);
    assert_holds(path, "new");
    assert_false(file_exists(tmp));
    assert_holds(tmpdir_name(&t, "a.tmp"), "the user's");
    assert_holds(tmpdir_name(&t, ".sdlora-0123456789abcdeg.tmp"), "too");
    assert_int_equal(count_entries(t.path), 3);
    tmpdir_remove(&t);
}

static void test_old_file_until_commit(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path;
    FileOut *f;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    put(path, "old");
    f = file_create(path, &e);
    assert_non_null(f);
    assert_int_equal(file_write(f, "new", 3, &e), 0);
    assert_holds(path, "old");
    assert_int_equal(count_entries(t.path), 2);
    file_abandon(f);
    assert_holds(path, "old");
    assert_int_equal(count_entries(t.path), 1);
    f = file_create(path, &e);
    assert_non_null(f);
    assert_int_equal(file_write(f, "ne", 2, &e), 0);
    assert_int_equal(file_write(f, "w", 1, &e), 0);
    assert_int_equal(file_commit(f, &e), 0);
    assert_holds(path, "new");
    file_abandon(NULL);
    tmpdir_remove(&t);
}

/* Two that write one file: each publishes what it wrote, whole, and neither takes the other's temporary for its own or
 * for left over. */
static void test_two_writers(void **state)
{
    TmpDir t;
    Err e = {0};
    const char *path;
    FileOut *a, *b;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "x");
    a = file_create(path, &e);
    assert_non_null(a);
    assert_int_equal(file_write(a, "fir", 3, &e), 0);
    b = file_create(path, &e);
    assert_non_null(b);
    assert_int_equal(file_write(b, "second", 6, &e), 0);
    assert_int_equal(file_write(a, "st", 2, &e), 0);
    assert_int_equal(file_commit(a, &e), 0);
    assert_holds(path, "first");
    assert_int_equal(file_save(tmpdir_name(&t, "y"), "cleans up", 9, &e), 0);
    assert_int_equal(file_commit(b, &e), 0);
    assert_holds(path, "second");
    assert_int_equal(count_entries(t.path), 2);
    tmpdir_remove(&t);
}

static unsigned mode_of(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_mode & 07777;
}

static void test_modes(void **state)
{
    static const unsigned modes[] = {0600, 0640, 0755, 0444};
    TmpDir t;
    Err e = {0};
    const char *path;
    mode_t old = umask(027);
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    assert_int_equal(file_save(path, "x", 1, &e), 0);
    assert_int_equal(mode_of(path), 0640);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(chmod(path, modes[i]), 0);
        assert_int_equal(file_save(path, "y", 1, &e), 0);
        assert_int_equal(mode_of(path), modes[i]);
    }
    umask(old);
    tmpdir_remove(&t);
}

static void test_save_new(void **state)
{
    TmpDir t;
    Err e = {0};
    bool made = false;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_save_new(tmpdir_name(&t, "a"), "mine", 4, &made, &e), 0);
    assert_true(made);
    assert_int_equal(file_save_new(tmpdir_name(&t, "a"), "other", 5, &made, &e), 0);
    assert_false(made);
    assert_holds(tmpdir_name(&t, "a"), "mine");
    assert_int_equal(count_entries(t.path), 1);
    assert_int_equal(file_save_new(tmpdir_name(&t, "no/a"), "x", 1, &made, &e), -1);
    tmpdir_remove(&t);
}

/* A short write, then an error: what a full disk does. */
static void test_disk_full(void **state)
{
    TmpDir t;
    Err e = {0};
    struct rlimit old;
    const char *path;
    char *big = mem_alloc(1 << 20, 1, "test", &e);
    int result;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    put(path, "old");
    old = limit_files(100000);
    result = file_save(path, big, 1 << 20, &e);
    limit_back(old);
    assert_int_equal(result, -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, path);
    assert_says(e, "File too large");
    assert_holds(path, "old");
    assert_int_equal(count_entries(t.path), 1);
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
    const char *path;
    int k, result = -1;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a");
    put(path, "old");
    for (k = 1; result != 0; k++) {
        fail_at = k;
        result = file_save(path, "new", 3, &e);
        fail_at = 0;
        if (result != 0) {
            assert_int_equal(e.code, ERR_FAILED);
            assert_says(e, t.path);
            assert_says(e, "Input/output error");
        }
        assert_holds(path, k < 4 ? "old" : "new"); /* write, fsync, rename; the fsync of the directory comes after */
        assert_int_equal(count_entries(t.path), 1);
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
    assert_int_equal(count_entries(t.path), 1);
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
    char name[257];
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(file_save(tmpdir_name(&t, "no/such"), "x", 1, &e), -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "no/such'");
    assert_says(e, "No such file or directory");
    assert_int_equal(file_save(t.path, "x", 1, &e), -1);
    assert_says(e, "it is a directory");
    memset(name, 'n', 256);
    name[256] = '\0';
    assert_int_equal(file_save(tmpdir_name(&t, name), "x", 1, &e), -1);
    assert_says(e, "File name too long");
    name[255] = '\0'; /* the longest there is: the temporary's does not depend on it */
    assert_int_equal(file_save(tmpdir_name(&t, name), "x", 1, &e), 0);
    assert_int_equal(count_entries(t.path), 1);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_and_load),    cmocka_unit_test(test_old_file_until_commit),
        cmocka_unit_test(test_two_writers),      cmocka_unit_test(test_modes),
        cmocka_unit_test(test_save_new),         cmocka_unit_test(test_disk_full),
        cmocka_unit_test(test_pipes_and_links),  cmocka_unit_test(test_cannot_create),
        cmocka_unit_test(test_stdout),           cmocka_unit_test(test_short_and_interrupted_writes),
        cmocka_unit_test(test_every_step_fails), cmocka_unit_test(test_target_becomes_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
