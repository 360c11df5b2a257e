/* Adapters made by PEFT and in the spellings of other programs (tests/golden/adapters): the network's output with each
 * of them is the one that was computed there, or it is refused. What is read can be written in every form that holds
 * it, and read again with the same result. */
#include "adapter_util.h"

#include "sdlora/file.h"

static bool is(const Verdict *v, const char *verdict)
{
    return !strcmp(v->verdict, verdict);
}

typedef void (*VerdictFn)(const Verdict *v, Model *m, const StFile *io, void *ctx);

static int each_verdict(VerdictFn check, void *ctx)
{
    FILE *f = fopen(ADAPTERS_DIR "/verdicts.tsv", "r");
    StFile *io = adapter_io();
    int n = 0;
    Verdict v;

    assert_non_null(f);
    for (; next_verdict(&v, f); n++) {
        Model *m = adapter_model(v.path);
        check(&v, m, io, ctx);
        model_free(m);
    }
    fclose(f);
    st_close(io);
    return n;
}

static void check_verdict(const Verdict *v, Model *m, const StFile *io, void *ctx)
{
    Err err = {ERR_NONE, ""};
    Adapter *a = adapter_load(v->path, m, &err);
    double difference;

    (void)ctx;
    if (!a && is(v, "ok"))
        fail_msg("%s: %s", v->kind, err.msg);
    if (a && is(v, "refused"))
        fail_msg("%s: accepted", v->kind);
    if (!a) {
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, v->path);
        return;
    }
    difference = adapter_difference(a, m, io, v->kind);
    if (!(difference <= v->tolerance))
        fail_msg("%s: off by %.3g", v->kind, difference);
    adapter_free(a);
}

static void test_verdicts(void **state)
{
    (void)state;
    assert_true(each_verdict(check_verdict, NULL) > 50);
}

/* ---- and written again ---- */

/* What a form cannot hold: biases and values, embeddings, LoRA's relatives; PEFT neither factored convolutions beside
 * others; LyCORIS no scale for a Kronecker product of two whole factors; the reference linear layers only, with an
 * alpha that changes no bit of a weight. The lists are parted by spaces. */
static const char *const cannot[] = {
    " lycoris_loha lycoris_lokr ",
    " bias_all bias_lora_only dora_embedding loha_saved lokr_conv_effective lokr_full lokr_linear lokr_patterns "
    "lora_all "
    "lora_bias lora_embedding new_classes saved_bias_all saved_block saved_modules tokens ",
    " bias_all bias_lora_only dora_embedding loha_conv loha_conv_effective loha_linear loha_patterns loha_saved "
    "lokr_both "
    "lokr_conv lokr_conv_effective lokr_full lokr_linear lokr_patterns lora_all lora_bias lora_embedding lycoris_loha "
    "lycoris_lokr new_classes saved_bias_all saved_block saved_modules tokens "};
static const char reference_can[] = " diffusers_attention diffusers_processor lora_bf16 reference ";

static bool can_hold(AdapterFormat format, const char *kind)
{
    char word[80];

    snprintf(word, sizeof word, " %s ", kind);
    return format == ADAPTER_REFERENCE ? strstr(reference_can, word) != NULL : !strstr(cannot[format], word);
}

typedef struct Written {
    TmpDir tmp;
    AdapterFormat format;
} Written;

static void check_written(const Verdict *v, Model *m, const StFile *io, void *ctx)
{
    Written *w = ctx;
    Err err = {ERR_NONE, ""};
    Adapter *a = adapter_load(v->path, m, &err), *again;
    const char *path = tmpdir_name(&w->tmp, v->kind);
    double difference;

    if (!a)
        return;
    if (adapter_save_as(a, path, w->format, DT_F32, &err)) {
        if (can_hold(w->format, v->kind))
            fail_msg("%s as %s: %s", v->kind, ADAPTER_FORMAT_NAMES[w->format], err.msg);
        assert_int_equal(err.code, ERR_INPUT);
        assert_false(file_exists(path));
    } else {
        if (!can_hold(w->format, v->kind))
            fail_msg("%s as %s: written", v->kind, ADAPTER_FORMAT_NAMES[w->format]);
        again = adapter_load(path, m, &err);
        if (!again)
            fail_msg("%s as %s: %s", v->kind, ADAPTER_FORMAT_NAMES[w->format], err.msg);
        difference = adapter_difference(again, m, io, v->kind);
        if (!(difference <= v->tolerance))
            fail_msg("%s as %s: off by %.3g", v->kind, ADAPTER_FORMAT_NAMES[w->format], difference);
        adapter_free(again);
    }
    adapter_free(a);
}

static void test_written_in_every_form(void **state)
{
    (void)state;
    for (int format = ADAPTER_PEFT; format <= ADAPTER_REFERENCE; format++) {
        Written w = {.format = (AdapterFormat)format};
        tmpdir_make(&w.tmp);
        each_verdict(check_written, &w);
        tmpdir_remove(&w.tmp);
    }
}

/* ---- there and back ---- */

static void same_file(TmpDir *tmp, const char *a, const char *b, const char *name)
{
    char first[400], second[400];
    bool same;
    Err err;

    snprintf(first, sizeof first, "%s/%s", tmpdir_name(tmp, a), name);
    snprintf(second, sizeof second, "%s/%s", tmpdir_name(tmp, b), name);
    check_ok(file_same(&same, first, second, &err), err);
    if (!same)
        fail_msg("'%s' and '%s' differ", first, second);
}

static void there_and_back(const char *kind, AdapterFormat format)
{
    char path[128];
    Model *m = adapter_base();
    Adapter *a;
    TmpDir tmp;
    Err err;

    snprintf(path, sizeof path, ADAPTERS_DIR "/%s", kind);
    tmpdir_make(&tmp);
    check_ptr(a = adapter_load(path, m, &err), err);
    snprintf(a->facts.base_name, sizeof a->facts.base_name, "a base");
    a->facts.classes = 10;
    a->facts.val_loss = 0.1;
    check_ok(adapter_save(a, tmpdir_name(&tmp, "first"), &err), err);
    adapter_free(a);
    check_ptr(a = adapter_load(tmpdir_name(&tmp, "first"), m, &err), err);
    check_ok(adapter_save_as(a, tmpdir_name(&tmp, "other"), format, DT_F32, &err), err);
    adapter_free(a);
    check_ptr(a = adapter_load(tmpdir_name(&tmp, "other"), m, &err), err);
    check_ok(adapter_save(a, tmpdir_name(&tmp, "second"), &err), err);
    adapter_free(a);
    same_file(&tmp, "first", "second", "adapter_model.safetensors");
    same_file(&tmp, "first", "second", "adapter_config.json");
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Per-layer ranks and alphas, a dropout, magnitudes and facts survive, to the bit. */
static void test_there_and_back(void **state)
{
    static const char *const kohya[] = {"lora_qkv",    "lora_patterns", "lora_all_linear", "lora_conv",
                                        "dora_linear", "loha_linear",   "loha_patterns",   "lokr_both"};
    static const char *const diffusers[] = {"lora_qkv", "lora_patterns_rslora", "lora_all_linear", "dora_conv",
                                            "dora_patterns"};
    (void)state;
    for (size_t i = 0; i < sizeof kohya / sizeof *kohya; i++)
        there_and_back(kohya[i], ADAPTER_KOHYA);
    for (size_t i = 0; i < sizeof diffusers / sizeof *diffusers; i++)
        there_and_back(diffusers[i], ADAPTER_DIFFUSERS);
    there_and_back("reference.safetensors", ADAPTER_REFERENCE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_written_in_every_form),
        cmocka_unit_test(test_there_and_back),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
