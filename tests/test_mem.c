/* mem.h: sizes that overflow, texts, and how much memory there is, by made-up file systems. */
#include "check.h"

#include "io_util.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"

static void test_sizes(void **state)
{
    size_t n = 7;

    (void)state;
    assert_false(mem_mul(&n, SIZE_MAX / 2 + 1, 2));
    assert_false(mem_add(&n, SIZE_MAX, 1));
    assert_int_equal(n, 7);
    assert_true(mem_mul(&n, SIZE_MAX / 2, 2));
    assert_int_equal(n, SIZE_MAX - 1);
    assert_null(mem_alloc(SIZE_MAX / 2, 4, "nothing", NULL));
}

static void test_texts(void **state)
{
    char word[10001], *s;
    Err err;

    (void)state;
    memset(word, 'x', sizeof word - 1);
    word[sizeof word - 1] = '\0';
    s = mem_printf(&err, "%s/%d", word, 7);
    check_ptr(s, err);
    assert_int_equal(strlen(s), 10002);
    assert_string_equal(s + 10000, "/7");
    mem_free(s);
    s = mem_printf(&err, "%s", "");
    check_ptr(s, err);
    assert_string_equal(s, "");
    mem_free(s);
}

/* ---- control groups ---- */

static TmpDir tmp;

static void put(const char *path, const char *text)
{
    char *full = mem_printf(NULL, "%s/%s", tmp.path, path), *slash = strrchr(full, '/');
    Err err;

    *slash = '\0';
    check_ok(file_mkdirs(full, &err), err);
    *slash = '/';
    check_ok(file_save(full, text, strlen(text), &err), err);
    mem_free(full);
}

static int begin(void **state)
{
    (void)state;
    tmpdir_make(&tmp);
    return 0;
}

static int end(void **state)
{
    (void)state;
    tmpdir_remove(&tmp);
    return 0;
}

static void test_no_groups(void **state)
{
    (void)state;
    assert_true(mem_cgroup_bytes(tmp.path) == SIZE_MAX);
    put("proc/self/cgroup", "");
    assert_true(mem_cgroup_bytes(tmp.path) == SIZE_MAX);
    put("proc/self/cgroup", "no colons\n:\n0:\n0::\n12:memory\n");
    assert_true(mem_cgroup_bytes(tmp.path) == SIZE_MAX);
}

static void test_version_2(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/user.slice/job.scope\n");
    assert_true(mem_cgroup_bytes(tmp.path) == SIZE_MAX);
    put("sys/fs/cgroup/user.slice/job.scope/memory.max", "max\n");
    assert_true(mem_cgroup_bytes(tmp.path) == SIZE_MAX);
    put("sys/fs/cgroup/user.slice/memory.max", "3000000\n"); /* a parent's counts */
    assert_int_equal(mem_cgroup_bytes(tmp.path), 3000000);
    put("sys/fs/cgroup/user.slice/job.scope/memory.max", "2000000\n");
    assert_int_equal(mem_cgroup_bytes(tmp.path), 2000000);
    put("sys/fs/cgroup/memory.max", "1000000\n"); /* of a container, which sees its own group on top */
    assert_int_equal(mem_cgroup_bytes(tmp.path), 1000000);
    put("sys/fs/cgroup/other.slice/memory.max", "5\n");
    assert_int_equal(mem_cgroup_bytes(tmp.path), 1000000);
    put("proc/self/cgroup", "0::/../elsewhere\n"); /* as a process outside its namespace is told */
    assert_int_equal(mem_cgroup_bytes(tmp.path), 1000000);
}

static void test_version_1(void **state)
{
    (void)state;
    put("proc/self/cgroup",
        "11:cpu,cpuacct:/docker/abc\n10:hugetlb,memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n");
    assert_true(mem_cgroup_bytes(tmp.path) == SIZE_MAX);
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(mem_cgroup_bytes(tmp.path) == (size_t)9223372036854771712u);
    put("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "512000000\n");
    assert_int_equal(mem_cgroup_bytes(tmp.path), 512000000);
    put("sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "not a number\n");
    assert_int_equal(mem_cgroup_bytes(tmp.path), 512000000);
}

/* ---- limits of the process ---- */

static void limited(int kind)
{
    struct rlimit before, now;
    size_t free_bytes = mem_machine_bytes();

    assert_true(free_bytes > 1000000 && free_bytes < SIZE_MAX);
    assert_int_equal(getrlimit(kind, &before), 0);
    now = before;
    now.rlim_cur = free_bytes - 4096;
    assert_int_equal(setrlimit(kind, &now), 0);
    assert_int_equal(mem_machine_bytes(), free_bytes - 4096);
    assert_int_equal(mem_bound(0), free_bytes - 4096);
    assert_int_equal(mem_bound(77), 77);
    assert_int_equal(setrlimit(kind, &before), 0);
}

static void test_limits(void **state)
{
    (void)state;
    limited(RLIMIT_DATA);
#ifndef __SANITIZE_ADDRESS__ /* which has more addresses than any machine has memory */
    limited(RLIMIT_AS);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_texts),
        cmocka_unit_test_setup_teardown(test_no_groups, begin, end),
        cmocka_unit_test_setup_teardown(test_version_2, begin, end),
        cmocka_unit_test_setup_teardown(test_version_1, begin, end),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
