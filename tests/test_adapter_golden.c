/* Adapters made by PEFT and in the spellings of other programs (tests/golden/adapters): the network's output with each
 * of them is the one that was computed there, or it is refused. What is read can be written and read again. */
#include "adapter_util.h"

static bool is(const Verdict *v, const char *verdict)
{
    return !strcmp(v->verdict, verdict);
}

static void check_verdict(const Verdict *v, const StFile *io)
{
    Err err = {ERR_NONE, ""};
    Model *m = adapter_model(v->path);
    Adapter *a = adapter_load(v->path, m, &err);
    double difference;

    if (!a && is(v, "ok"))
        fail_msg("%s: %s", v->kind, err.msg);
    if (a && is(v, "refused"))
        fail_msg("%s: accepted", v->kind);
    if (!a) {
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, v->path);
        printf("%-24s refused: %s\n", v->kind, err.msg);
    } else {
        difference = adapter_difference(a, m, io, v->kind);
        printf("%-24s %.2g\n", v->kind, difference);
        if (!(difference <= v->tolerance))
            fail_msg("%s: off by %.3g", v->kind, difference);
    }
    adapter_free(a);
    model_free(m);
}

static void test_verdicts(void **state)
{
    FILE *f = fopen(ADAPTERS_DIR "/verdicts.tsv", "r");
    StFile *io = adapter_io();
    int n = 0;
    Verdict v;

    (void)state;
    assert_non_null(f);
    for (; next_verdict(&v, f); n++)
        check_verdict(&v, io);
    assert_true(n > 50);
    fclose(f);
    st_close(io);
}

/* Each is written as PEFT has it, and read again. */
static void test_written_again(void **state)
{
    FILE *f = fopen(ADAPTERS_DIR "/verdicts.tsv", "r");
    StFile *io = adapter_io();
    TmpDir tmp;
    Verdict v;
    Err err;

    (void)state;
    assert_non_null(f);
    tmpdir_make(&tmp);
    while (next_verdict(&v, f)) {
        Model *m = adapter_model(v.path);
        Adapter *a = adapter_load(v.path, m, &err), *again;
        double difference;
        if (a) {
            if (adapter_save(a, tmpdir_name(&tmp, v.kind), &err)) {
                printf("%s: %s\n", v.kind, err.msg);
                adapter_free(a);
                model_free(m);
                continue;
            }
            if (!(again = adapter_load(tmpdir_name(&tmp, v.kind), m, &err)))
                fail_msg("%s: %s", v.kind, err.msg);
            difference = adapter_difference(again, m, io, v.kind);
            printf("%-24s %.2g\n", v.kind, difference);
            if (!(difference <= v.tolerance))
                fail_msg("%s, written again: off by %.3g", v.kind, difference);
            adapter_free(again);
        }
        adapter_free(a);
        model_free(m);
    }
    fclose(f);
    st_close(io);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_written_again),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
