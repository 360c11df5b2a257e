/* The judge of `eval`, and where it is kept. See eval.h. */
#include <stdio.h>

#include "sdlora/mem.h"

#include "eval.h"

typedef struct View {
    Progress progress;
    const char *what;
    double mean;
} View;

static int on_step(void *ctx, int64_t step, int64_t steps, double loss)
{
    View *v = ctx;
    char suffix[32];
    (void)steps;
    v->mean = progress_mean(v->mean, loss, step - 1);
    snprintf(suffix, sizeof suffix, "loss %.4f", v->mean);
    progress_update(&v->progress, step, v->what, suffix, false);
    return 0;
}

/* Trained for as many steps as j->judge is, and tested. */
static Judge *make(const EvalJob *j, const ImageSet *s, const char *what, Err *e)
{
    View v = {.what = what};
    JudgeTraining t = {.steps = judge_steps(j->n_judged, j->args->judge_epochs), .progress = on_step, .ctx = &v};
    const ImageSet test = {&j->test, NULL, j->test.n};
    Seen seen;
    Judge *judge;
    progress_begin(&v.progress, j->args->sample.progress, j->args->sample.quiet, "images", 0, t.steps,
                   (double)judge_batch(s->n));
    judge = judge_train(s, j->classes, &t, e);
    progress_end(&v.progress);
    if (!judge)
        return NULL;
    if (judge_look(&seen, judge, &test, e)) {
        judge_free(judge);
        return NULL;
    }
    judge->accuracy = seen_accuracy(&seen, &test);
    seen_free(&seen);
    return judge;
}

int eval_judge(EvalJob *j, Err *e)
{
    const ImageSet s = {&j->train, j->judged, j->n_judged};
    char *dir = j->args->pictures.cache ? cli_cache_directory() : NULL;
    Err why = {0};
    j->judge =
        dir ? judge_load(dir, &j->train, &j->test, j->classes, judge_steps(j->n_judged, j->args->judge_epochs)) : NULL;
    j->cached = j->judge != NULL;
    if (!j->judge)
        j->judge = make(j, &s, "judge", e);
    if (j->judge && !j->cached && dir && judge_save(j->judge, dir, &j->train, &j->test, &why) &&
        !j->args->sample.quiet) {
        fputs("the judge is not kept for the next time: ", stderr);
        cli_put(stderr, why.msg);
        fputc('\n', stderr);
    }
    mem_free(dir);
    return j->judge ? 0 : -1;
}

int eval_cas(double *accuracy, EvalJob *j, const ImageSet *s, const char *what, Err *e)
{
    Judge *judge = make(j, s, what, e);
    if (!judge)
        return -1;
    *accuracy = judge->accuracy;
    judge_free(judge);
    return 0;
}
