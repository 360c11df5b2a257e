/* file.h: directories, temporaries, paths, SHA-256. Renaming and syncing can fail on command: this program's own fsync,
 * rename and renameat2 stand before the C library's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "io_util.h"

static int sync_errno;   /* fsync fails with it; 0: it works */
static int rename_fails; /* the so-many-th rename fails; 0: none */
static bool no_exchange; /* as a file system without RENAME_EXCHANGE */

int fsync(int fd)
{
    if (sync_errno) {
        errno = sync_errno;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    if (rename_fails > 0 && --rename_fails == 0) {
        errno = EIO;
        return -1;
    }
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    if (no_exchange) {
        errno = EINVAL;
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

static const char *const NAMES[] = {"one", "two", NULL};

static void put(const char *path)
{
    Err e = {0};
    if (file_save(path, "x", 1, &e))
        fail_msg("%s", e.msg);
}

static void make(const char *path)
{
    assert_int_equal(mkdir(path, 0777), 0);
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
    put(tmpdir_name(&t, "f"));
    assert_false(file_is_dir(tmpdir_name(&t, "f")));
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "f"), &e), -1);
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "f/g"), &e), -1);
    assert_int_equal(e.code, ERR_FAILED);
    assert_says(e, "cannot create the directory '");
    sync_errno = EIO; /* what was made must be on the disk */
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "new"), &e), -1);
    assert_int_equal(file_mkdirs(tmpdir_name(&t, "x/y"), &e), 0);
    sync_errno = 0;
    tmpdir_remove(&t);
}

/* Some file systems cannot sync a directory; a disk that fails is another thing. */
static void test_sync(void **state)
{
    static const int passed[] = {EINVAL, EROFS, ENOTSUP};
    TmpDir t;
    Err e = {0};
    (void)state;
    tmpdir_make(&t);
    for (int i = 0; i < 3; i++) {
        sync_errno = passed[i];
        assert_int_equal(dir_sync(t.path, &e), 0);
    }
    sync_errno = EIO;
    assert_int_equal(dir_sync(t.path, &e), -1);
    assert_says(e, "Input/output error");
    sync_errno = 0;
    assert_int_equal(dir_sync(tmpdir_name(&t, "none"), &e), -1);
    tmpdir_remove(&t);
}

static void test_remove(void **state)
{
    TmpDir t;
    Err e = {0};
    bool removed = false;
    (void)state;
    tmpdir_make(&t);
    assert_int_equal(dir_remove(tmpdir_name(&t, "none"), NAMES, &removed, &e), 0);
    assert_true(removed);
    make(tmpdir_name(&t, "d"));
    put(tmpdir_name(&t, "d/one"));
    put(tmpdir_name(&t, "d/.sdlora-00000000000000ff.tmp"));
    put(tmpdir_name(&t, "d/notes"));
    assert_false(dir_holds_only(tmpdir_name(&t, "d"), NAMES));
    assert_int_equal(dir_remove(tmpdir_name(&t, "d"), NAMES, &removed, &e), 0);
    assert_false(removed);
    assert_true(file_exists(tmpdir_name(&t, "d/one")));
    assert_int_equal(unlink(tmpdir_name(&t, "d/notes")), 0);
    make(tmpdir_name(&t, "d/two")); /* a directory of our name is not ours */
    assert_int_equal(dir_remove(tmpdir_name(&t, "d"), NAMES, &removed, &e), 0);
    assert_false(removed);
    assert_int_equal(rmdir(tmpdir_name(&t, "d/two")), 0);
    put(tmpdir_name(&t, "precious"));
    assert_int_equal(symlink("../precious", tmpdir_name(&t, "d/two")), 0);
    assert_int_equal(dir_remove(tmpdir_name(&t, "d"), NAMES, &removed, &e), 0);
    assert_true(removed);
    assert_false(file_exists(tmpdir_name(&t, "d")));
    assert_true(file_exists(tmpdir_name(&t, "precious")));
    tmpdir_remove(&t);
}

/* A link is not what it points to. */
static void test_remove_link(void **state)
{
    TmpDir t;
    Err e = {0};
    bool removed = true;
    (void)state;
    tmpdir_make(&t);
    make(tmpdir_name(&t, "real"));
    put(tmpdir_name(&t, "real/one"));
    assert_int_equal(symlink("real", tmpdir_name(&t, "link")), 0);
    assert_int_equal(dir_remove(tmpdir_name(&t, "link"), NAMES, &removed, &e), 0);
    assert_false(removed);
    assert_true(file_exists(tmpdir_name(&t, "real/one")));
    tmpdir_remove(&t);
}

static void replace(bool exchanges)
{
    TmpDir t;
    Err e = {0};
    char tmp[4096], one[4096];
    no_exchange = !exchanges;
    tmpdir_make(&t);
    for (int pass = 0; pass < 2; pass++) {
        assert_int_equal(dir_make_temporary(tmp, sizeof tmp, t.path, &e), 0);
        assert_int_equal(file_join(one, sizeof one, tmp, pass ? "two" : "one", &e), 0);
        put(one);
        assert_int_equal(dir_replace(tmpdir_name(&t, "d"), tmp, NAMES, &e), 0);
        assert_false(file_exists(tmp));
    }
    assert_true(file_exists(tmpdir_name(&t, "d/two")));
    assert_false(file_exists(tmpdir_name(&t, "d/one")));
    put(tmpdir_name(&t, "d/notes"));
    assert_int_equal(dir_make_temporary(tmp, sizeof tmp, t.path, &e), 0);
    assert_int_equal(dir_replace(tmpdir_name(&t, "d"), tmp, NAMES, &e), -1);
    assert_says(e, "files that are not this program's");
    assert_true(file_exists(tmpdir_name(&t, "d/notes")));
    no_exchange = false;
    tmpdir_remove(&t);
}

static void test_replace(void **state)
{
    (void)state;
    replace(true);
    replace(false);
}

/* By way of a third name: wherever it is interrupted, one of the two is there, whole. */
static void test_replace_fails(void **state)
{
    TmpDir t;
    Err e = {0};
    char tmp[4096];
    (void)state;
    no_exchange = true;
    for (int k = 1; k <= 3; k++) {
        tmpdir_make(&t);
        make(tmpdir_name(&t, "d"));
        put(tmpdir_name(&t, "d/one"));
        assert_int_equal(dir_make_temporary(tmp, sizeof tmp, t.path, &e), 0);
        rename_fails = k;
        assert_int_equal(dir_replace(tmpdir_name(&t, "d"), tmp, NAMES, &e), -1);
        rename_fails = 0;
        assert_true(file_is_dir(tmpdir_name(&t, "d")));
        assert_int_equal(file_exists(tmpdir_name(&t, "d/one")), k < 3);
        tmpdir_remove(&t);
    }
    no_exchange = false;
}

/* What somebody writes is locked, and stays. */
static void test_clean(void **state)
{
    TmpDir t;
    int fd, held;
    (void)state;
    tmpdir_make(&t);
    put(tmpdir_name(&t, ".sdlora-0000000000000001.tmp"));
    make(tmpdir_name(&t, ".sdlora-0000000000000002.tmp"));
    put(tmpdir_name(&t, ".sdlora-0000000000000002.tmp/one"));
    make(tmpdir_name(&t, ".sdlora-0000000000000003.tmp"));
    put(tmpdir_name(&t, ".sdlora-0000000000000003.tmp/notes"));
    fd = open(tmpdir_name(&t, ".sdlora-0000000000000004.tmp"), O_RDWR | O_CREAT, 0666);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    make(tmpdir_name(&t, "x.tmp"));
    make(tmpdir_name(&t, ".sdlora-0000000000000005.tmp"));
    held = dir_hold(tmpdir_name(&t, ".sdlora-0000000000000005.tmp"));
    assert_true(held >= 0);
    dir_clean(t.path, NULL);
    assert_false(file_exists(tmpdir_name(&t, ".sdlora-0000000000000001.tmp")));
    assert_true(file_exists(tmpdir_name(&t, ".sdlora-0000000000000002.tmp")));
    dir_clean(t.path, NAMES);
    assert_false(file_exists(tmpdir_name(&t, ".sdlora-0000000000000002.tmp")));
    assert_true(file_exists(tmpdir_name(&t, ".sdlora-0000000000000003.tmp/notes")));
    assert_true(file_exists(tmpdir_name(&t, ".sdlora-0000000000000004.tmp")));
    assert_true(file_exists(tmpdir_name(&t, "x.tmp")));
    assert_true(file_exists(tmpdir_name(&t, ".sdlora-0000000000000005.tmp")));
    close(fd);
    close(held);
    dir_clean(t.path, NAMES);
    assert_false(file_exists(tmpdir_name(&t, ".sdlora-0000000000000005.tmp")));
    assert_false(file_exists(tmpdir_name(&t, ".sdlora-0000000000000004.tmp")));
    dir_clean(tmpdir_name(&t, "none"), NAMES);
    tmpdir_remove(&t);
}

static void test_link(void **state)
{
    TmpDir t;
    Err e = {0};
    char to[32] = "";
    (void)state;
    tmpdir_make(&t);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(dir_link(tmpdir_name(&t, "best"), k ? "second" : "first", &e), 0);
        memset(to, 0, sizeof to);
        assert_true(readlink(tmpdir_name(&t, "best"), to, sizeof to - 1) > 0);
        assert_string_equal(to, k ? "second" : "first");
    }
    make(tmpdir_name(&t, "dir"));
    assert_int_equal(dir_link(tmpdir_name(&t, "dir"), "x", &e), -1);
    assert_int_equal(rmdir(tmpdir_name(&t, "dir")), 0);
    tmpdir_remove(&t);
}

static void test_paths(void **state)
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
    assert_int_equal(file_dir(out, sizeof out, "a/b/c", &e), 0);
    assert_string_equal(out, "a/b");
    assert_int_equal(file_dir(out, sizeof out, "c", &e), 0);
    assert_string_equal(out, ".");
    assert_int_equal(file_dir(out, sizeof out, "/c", &e), 0);
    assert_string_equal(out, "/");
    assert_int_equal(file_dir(out, sizeof out, "12345678/c", &e), -1);
    assert_true(dir_is_temporary(".sdlora-0123456789abcdef.tmp"));
    assert_false(dir_is_temporary(".sdlora-0123456789abcdeF.tmp"));
    assert_false(dir_is_temporary(".sdlora-0123456789abcdef.tmp2"));
    assert_false(dir_is_temporary("a.tmp"));
}

/* The examples of FIPS 180-2, appendix B. */
static void test_sha256(void **state)
{
    char hex[65];
    FileSpan parts[3] = {{"a", 1}, {NULL, 0}, {"bc", 2}};
    char *million, whole[65];
    const char *path;
    TmpDir dir;
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
    tmpdir_make(&dir);
    path = tmpdir_name(&dir, "million");
    assert_int_equal(file_save(path, million, 1000000, &e), 0);
    hex[0] = '\0';
    assert_int_equal(file_sha256_path(hex, path, &e), 0); /* in pieces, the last one not whole */
    assert_string_equal(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    assert_int_equal(file_save(path, million, 16384, &e), 0); /* whole pieces */
    file_sha256(whole, million, 16384);
    assert_int_equal(file_sha256_path(hex, path, &e), 0);
    assert_string_equal(hex, whole);
    assert_int_equal(file_sha256_path(hex, tmpdir_name(&dir, "none"), &e), -1);
    assert_string_equal(hex, "");
    tmpdir_remove(&dir);
    mem_free(million);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mkdirs),      cmocka_unit_test(test_sync),    cmocka_unit_test(test_remove),
        cmocka_unit_test(test_remove_link), cmocka_unit_test(test_replace), cmocka_unit_test(test_replace_fails),
        cmocka_unit_test(test_clean),       cmocka_unit_test(test_link),    cmocka_unit_test(test_paths),
        cmocka_unit_test(test_sha256),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
