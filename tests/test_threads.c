/* The pool of threads, and how many cores there are for it. */
#include "check.h"
#include "io_util.h"

#include <sched.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "sdlora/cores.h"
#include "sdlora/threads.h"

enum { ITEMS = 1000, MOST = 5 };

/* ---- the pool ---- */

typedef struct Trace {
    atomic_int called[ITEMS];
    atomic_int busy[MOST]; /* calls with this number that have not ended */
    atomic_int done, wrong;
    int n, threads;
} Trace;

static void note(const void *ctx, int i, int thread)
{
    Trace *t = (Trace *)ctx;

    if (i < 0 || i >= t->n || thread < 0 || thread >= t->threads || thread >= t->n) {
        t->wrong++;
        return;
    }
    t->wrong += atomic_fetch_add(&t->busy[thread], 1) != 0;
    t->wrong += threads_count() != 1;
    t->called[i]++;
    t->busy[thread]--;
}

static void test_each_item_once(void **state)
{
    static const int sizes[] = {0, 1, 2, 3, 7, 64, ITEMS};

    (void)state;
    for (int threads = 1; threads <= MOST; threads++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++)
            for (int again = 0; again < 20; again++) {
                Trace t = {.n = sizes[k], .threads = threads};
                threads_init(threads);
                assert_int_equal(threads_count(), threads);
                threads_each(sizes[k], note, &t);
                assert_int_equal(threads_count(), threads);
                assert_int_equal(t.wrong, 0);
                for (int i = 0; i < ITEMS; i++)
                    assert_int_equal(t.called[i], i < sizes[k]);
            }
}

static void test_limit(void **state)
{
    Trace t = {.n = ITEMS, .threads = 2};

    (void)state;
    threads_init(4);
    assert_int_equal(threads_limit(2), 4);
    assert_int_equal(threads_count(), 2);
    assert_int_equal(threads_limit(3), 2);
    assert_int_equal(threads_count(), 2);
    threads_each(ITEMS, note, &t);
    assert_int_equal(t.wrong, 0);
    threads_restore(4);
    assert_int_equal(threads_count(), 4);
}

/* The first call ends only when all others have: another thread takes over what would have been this one's. */
static void wait_for_all(const void *ctx, int i, int thread)
{
    Trace *t = (Trace *)ctx;

    (void)thread;
    for (int turns = 0; i == 0 && t->done < t->n - 1; turns++) {
        sched_yield();
        if (turns == 10000000) {
            t->wrong++;
            break;
        }
    }
    t->done++;
}

static void test_a_late_thread(void **state)
{
    Trace t = {.n = 100};

    (void)state;
    threads_init(2);
    threads_each(t.n, wait_for_all, &t);
    assert_int_equal(t.wrong, 0);
    assert_int_equal(t.done, 100);
}

/* Loops within loops run where they are, all of each, by the one thread 0. */
static void inner(const void *ctx, int i, int thread)
{
    Trace *t = (Trace *)ctx;

    t->wrong += thread != 0 || threads_count() != 1;
    t->called[i]++;
}

static void outer(const void *ctx, int i, int thread)
{
    (void)i, (void)thread;
    threads_each(10, inner, ctx);
    ((Trace *)ctx)->wrong += threads_count() != 1;
}

static void test_within(void **state)
{
    Trace t = {.n = 10};

    (void)state;
    for (int threads = 1; threads <= 3; threads++) {
        threads_init(threads);
        threads_each(1, outer, &t);
        threads_each(7, outer, &t);
        assert_int_equal(threads_count(), threads);
    }
    assert_int_equal(t.wrong, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(t.called[i], 3 * 8);
}

typedef struct Sum {
    long *sum;
} Sum;

static void add(const void *ctx, int i, int thread)
{
    const Sum *s = ctx;

    (void)thread;
    threads_lock();
    *s->sum += i;
    threads_unlock();
}

static void test_lock(void **state)
{
    long sum = 0;

    (void)state;
    threads_init(4);
    threads_each(ITEMS, add, &(Sum){&sum});
    assert_int_equal(sum, (long)ITEMS * (ITEMS - 1) / 2);
}

/* ---- cores ---- */

static void enter(TmpDir *t)
{
    tmpdir_make(t);
    assert_int_equal(chdir(t->path), 0);
}

static void leave(TmpDir *t)
{
    assert_int_equal(chdir("/"), 0);
    tmpdir_remove(t);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

static int quota_of(const char *membership)
{
    put("membership", membership);
    return cores_of_quota("membership", "groups");
}

static int quota2(const char *cpu_max)
{
    put("groups/a/b/cpu.max", cpu_max);
    return quota_of("0::/a/b\n");
}

/* "MAX PERIOD", in microseconds; what is begun counts */
static void test_quota(void **state)
{
    TmpDir t;

    (void)state;
    enter(&t);
    assert_int_equal(mkdir("groups", 0755) | mkdir("groups/a", 0755) | mkdir("groups/a/b", 0755), 0);
    assert_int_equal(quota_of("0::/a/b\n"), 0);
    assert_int_equal(quota2("max 100000\n"), 0);
    assert_int_equal(quota2("200000 100000\n"), 2);
    assert_int_equal(quota2("150000 100000\n"), 2);
    assert_int_equal(quota2("1000 100000\n"), 1);
    assert_int_equal(quota2("400000 50000\n"), 8);
    assert_int_equal(quota2("0 100000\n"), 0);
    assert_int_equal(quota2("100000 0\n"), 0);
    assert_int_equal(quota2("-5 100000\n"), 0);
    assert_int_equal(quota2("9223372036854775807 1\n"), 0);
    assert_int_equal(quota2("300000\n"), 0);
    assert_int_equal(quota2(""), 0);
    assert_int_equal(quota2("300000 100000\n"), 3);
    put("groups/a/cpu.max", "max 100000\n");
    assert_int_equal(quota_of("0::/a/b\n"), 3);
    put("groups/a/cpu.max", "200000 100000\n"); /* binds what is in it */
    assert_int_equal(quota_of("0::/a/b\n"), 2);
    put("groups/cpu.max", "100000 100000\n");
    assert_int_equal(quota_of("0::/a/b\n"), 1);
    assert_int_equal(quota_of("0::/\n"), 1);
    assert_int_equal(quota_of("0::/elsewhere/b\n"), 1); /* a container does not see its group, whose root this is */
    assert_int_equal(cores_of_quota("no such file", "groups"), 0);
    leave(&t);
}

static void test_quota_of_version_1(void **state)
{
    const char *mine = "12:pids:/p\n4:cpu,cpuacct:/c\n3:cpuset:/s\n";
    TmpDir t;

    (void)state;
    enter(&t);
    assert_int_equal(mkdir("groups", 0755) | mkdir("groups/cpu", 0755) | mkdir("groups/cpu/c", 0755), 0);
    assert_int_equal(quota_of(mine), 0);
    put("groups/cpu/c/cpu.cfs_period_us", "100000\n");
    put("groups/cpu/c/cpu.cfs_quota_us", "-1\n");
    assert_int_equal(quota_of(mine), 0);
    put("groups/cpu/c/cpu.cfs_quota_us", "250000\n");
    assert_int_equal(quota_of(mine), 3);
    assert_int_equal(quota_of("12:pids:/c\n3:cpuset:/c\n2:cpuacct:/c\n"), 0);
    assert_int_equal(quota_of("not a line\n::\n1:cpu\n4:cpu:c\n4:cpu:/c"), 3);
    leave(&t);
}

static void test_cores(void **state)
{
    cpu_set_t all, one;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_in_range(cores_allowed(), 1, CPU_COUNT(&all));
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(cores_allowed(), 1);
    threads_init(0);
    assert_int_equal(threads_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_item_once),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_a_late_thread),
        cmocka_unit_test(test_within),
        cmocka_unit_test(test_lock),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_quota_of_version_1),
        cmocka_unit_test(test_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
