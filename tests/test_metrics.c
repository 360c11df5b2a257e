/* A run's metrics: metrics.csv says what metrics.jsonl says, whatever a resumed run finds there; rows are read as they
 * stand. */
#include "check.h"
#include "io_util.h"

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/rundir.h"

#define HEAD "step,epoch,loss,lr,grad_norm,images_per_s,val_loss\n"

static const Metrics FIRST = {10, 1, 0.5, 0.001, 1.25, 1234.56, (double)NAN};
static const Metrics SECOND = {20, 2, 0.123456789012, 1e-7, 3, 10, 0.25};
#define FIRST_ROW  "10,1,0.5,0.001,1.25,1234.6,\n"
#define SECOND_ROW "20,2,0.123456789,1e-07,3,10.0,0.25\n"

static void write_text(const char *path, const char *text)
{
    Err err = {0};
    check_ok(file_save(path, text, strlen(text), &err), err);
}

typedef struct Place {
    TmpDir tmp;
    RunDir dir;
    Err err;
} Place;

static void place_make(Place *p)
{
    memset(p, 0, sizeof *p);
    tmpdir_make(&p->tmp);
    check_ok(rundir_init(&p->dir, tmpdir_name(&p->tmp, "run"), false, &p->err), p->err);
    check_ok(rundir_lock(&p->dir, &p->err), p->err);
}

static void place_free(Place *p)
{
    rundir_close(&p->dir);
    tmpdir_remove(&p->tmp);
}

static void check_file(Place *p, const char *name, const char *want)
{
    char path[FILE_PATH_MAX], *text;
    size_t n;
    check_ok(file_join(path, sizeof path, p->dir.path, name, &p->err), p->err);
    check_ok(file_load(&text, &n, path, 1 << 20, &p->err), p->err);
    assert_string_equal(text, want);
    mem_free(text);
}

static void reopen(Place *p, int64_t step)
{
    rundir_close(&p->dir);
    check_ok(rundir_lock(&p->dir, &p->err), p->err);
    check_ok(rundir_open_metrics(&p->dir, step, NULL, &p->err), p->err);
}

static void log_one(Place *p, const Metrics *m)
{
    check_ok(rundir_log(&p->dir, m, &p->err), p->err);
}

static void put_lines(Place *p, const char *text)
{
    char path[FILE_PATH_MAX];
    check_ok(file_join(path, sizeof path, p->dir.path, "metrics.jsonl", &p->err), p->err);
    write_text(path, text);
}

static void test_table(void **state)
{
    Place p;
    (void)state;
    place_make(&p);
    check_ok(rundir_open_metrics(&p.dir, 0, NULL, &p.err), p.err);
    check_file(&p, "metrics.csv", HEAD);
    log_one(&p, &FIRST);
    log_one(&p, &SECOND);
    check_file(&p, "metrics.csv", HEAD FIRST_ROW SECOND_ROW);
    place_free(&p);
}

/* What is dropped from one is dropped from the other, and what is lost is made again. */
static void test_resumed(void **state)
{
    Place p;
    char path[FILE_PATH_MAX];
    (void)state;
    place_make(&p);
    check_ok(rundir_open_metrics(&p.dir, 0, NULL, &p.err), p.err);
    log_one(&p, &FIRST);
    log_one(&p, &SECOND);
    reopen(&p, 10);
    check_file(&p, "metrics.csv", HEAD FIRST_ROW);
    log_one(&p, &SECOND);
    check_file(&p, "metrics.csv", HEAD FIRST_ROW SECOND_ROW);
    check_ok(file_join(path, sizeof path, p.dir.path, "metrics.csv", &p.err), p.err);
    remove(path); /* a run of before there were tables */
    reopen(&p, 20);
    check_file(&p, "metrics.csv", HEAD FIRST_ROW SECOND_ROW);
    write_text(path, HEAD FIRST_ROW SECOND_ROW "30,2,0"); /* killed in between */
    reopen(&p, 20);
    check_file(&p, "metrics.csv", HEAD FIRST_ROW SECOND_ROW);
    reopen(&p, 0);
    check_file(&p, "metrics.csv", HEAD);
    check_file(&p, "metrics.jsonl", "");
    place_free(&p);
}

static void test_rows(void **state)
{
    Place p;
    Metrics *rows;
    (void)state;
    place_make(&p);
    assert_int_equal(rundir_read_metrics(&rows, p.dir.path, &p.err), 0); /* no file */
    mem_free(rows);
    put_lines(&p, "{\"step\": 3, \"epoch\": 2, \"loss\": 0.5, \"lr\": null, \"grad_norm\": \"x\", \"val_loss\": 7}\n"
                  "garbage\n\n[1]\n{\"epoch\": 1}\n{\"step\": -4}\n{\"step\": 2.5}\n"
                  "{\"step\": 9007199254740993, \"epoch\": 1e99, \"images_per_s\": 5}\n{\"step\": 5, \"lo");
    assert_int_equal(rundir_read_metrics(&rows, p.dir.path, &p.err), 2);
    assert_int_equal(rows[0].step, 3);
    assert_int_equal(rows[0].epoch, 2);
    check_close(rows[0].loss, 0.5, 0, 0, "loss");
    check_close(rows[0].val_loss, 7, 0, 0, "validation loss");
    assert_true(isnan(rows[0].lr) && isnan(rows[0].grad_norm) && isnan(rows[0].images_per_s));
    assert_int_equal(rows[1].step, 9007199254740993);
    assert_int_equal(rows[1].epoch, 0);
    check_close(rows[1].images_per_s, 5, 0, 0, "images per second");
    mem_free(rows);
    place_free(&p);
}

/* More than are taken at first. */
static void test_many(void **state)
{
    enum { MANY = 3000 };
    Place p;
    Metrics m = FIRST, *rows;
    (void)state;
    place_make(&p);
    check_ok(rundir_open_metrics(&p.dir, 0, NULL, &p.err), p.err);
    for (m.step = 1; m.step <= MANY; m.step++)
        log_one(&p, &m);
    assert_int_equal(rundir_read_metrics(&rows, p.dir.path, &p.err), MANY);
    for (int i = 0; i < MANY; i++)
        assert_int_equal(rows[i].step, i + 1);
    mem_free(rows);
    place_free(&p);
}

/* One member of run.json changes, nothing else. */
static void test_note(void **state)
{
    Place p;
    json_t *root;
    (void)state;
    place_make(&p);
    check_ok(
        rundir_save_json(&p.dir, json_pack("{s:s}", "lr", "1"), json_pack("{s:s}", "base_sha256", "abc"), NULL, &p.err),
        p.err);
    check_ok(rundir_note(&p.dir, "ended", json_string("there"), &p.err), p.err);
    root = rundir_read_json(p.dir.path, &p.err);
    check_ptr(root, p.err);
    assert_string_equal(json_string_value(json_object_get(root, "ended")), "there");
    assert_string_equal(rundir_json_base(root), "abc");
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "options"), "lr")), "1");
    json_decref(root);
    put_lines(&p, "");
    write_text(tmpdir_name(&p.tmp, "run/run.json"), "{");
    assert_int_equal(rundir_note(&p.dir, "ended", json_string("there"), &p.err), -1);
    check_file(&p, "run.json", "{");
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_resumed), cmocka_unit_test(test_rows),
        cmocka_unit_test(test_many),  cmocka_unit_test(test_note),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
