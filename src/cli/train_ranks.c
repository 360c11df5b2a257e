/* A run of several processes: see train_ranks.h. */
#include "train_ranks.h"

#include <inttypes.h>
#include <string.h>

#include "sdlora/backend.h"
#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/store.h"

#include "runfile.h"

/* Process 0's text, in a block of the caller's; NULL there: NULL. */
static int share_text(char **text, Err *e)
{
    uint64_t n = *text ? strlen(*text) + 1 : 0;
    ranks_broadcast(&n, sizeof n, 0);
    if (ranks_me() > 0 && n > 0)
        *text = mem_alloc((size_t)n, 1, "the run's options", e);
    if (ranks_agree(n > 0 && !*text ? -1 : 0, e))
        return -1;
    if (n > 0)
        ranks_broadcast(*text, (size_t)n, 0);
    return 0;
}

static int take_past(Run *run, const char *text, Err *e)
{
    if (rundir_init(&run->dir, run->dir.path[0] ? run->dir.path : ".", run->given->table == &FINETUNE_TABLE, e))
        return -1;
    if (!text)
        return 0;
    run->remembered = json_read_text(text, strlen(text), "run.json", e);
    return run->remembered ? runfile_apply(run->args, run->given, run->remembered, "run.json", run->checkpoint, e) : -1;
}

int train_ranks_past(Run *run, Err *e)
{
    char *text = NULL, path[FILE_PATH_MAX];
    int rc;
    if (ranks_count() == 1)
        return 0;
    if (ranks_me() == 0 && run->remembered)
        text = json_text(run->remembered, JSON_COMPACT, "run.json", e);
    if (ranks_agree(ranks_me() == 0 && run->remembered && !text ? -1 : 0, e))
        return -1;
    rc = share_text(&text, e);
    memcpy(path, run->dir.path, sizeof path);
    ranks_broadcast(path, sizeof path, 0);
    ranks_broadcast(run->checkpoint, sizeof run->checkpoint, 0);
    if (!rc && ranks_me() > 0) {
        memcpy(run->dir.path, path, sizeof path);
        rc = take_past(run, text, e);
    }
    mem_free(text);
    return rc;
}

/* Numbers and names of all fields, as one: only to compare. */
static uint64_t hash_fields(uint64_t h, const Field *f, const void *of)
{
    char text[256];
    for (; f->type != FIELD_END; f++) {
        field_text(text, sizeof text, f, of);
        for (const char *c = text;; c++) {
            h = (h ^ (unsigned char)*c) * UINT64_C(1099511628211);
            if (!*c)
                break;
        }
    }
    return h;
}

static int same_settings(const Run *run, Err *e)
{
    const TrainArgs *a = run->args;
    char text[32];
    uint64_t h = hash_fields(0, TRAIN_FIELDS, &a->train);
    h = hash_fields(h, MODEL_FIELDS, &run->loop.model->config);
    if (run->loop.adapter)
        h = hash_fields(h, ADAPTER_FIELDS, &a->adapter);
    snprintf(text, sizeof text, "%016" PRIx64, h);
    return ranks_same("set of options", text, false, e);
}

int train_ranks_same(const Run *run, Err *e)
{
    const TrainArgs *a = run->args;
    return ranks_same("set of training images (SHA-256)", run->train.sha256, true, e) ||
                   ranks_same("set of validation images (SHA-256)", run->val.n ? run->val.sha256 : "", true, e) ||
                   ranks_same("model (SHA-256)", run->base_sha256, true, e) || same_settings(run, e) ||
                   (!a->train.mixed_machines &&
                    ranks_same("instruction set", backend_of(a->train.precision)->simd, true, e))
               ? -1
               : 0;
}

void train_ranks_profile(FILE *f, const Run *run)
{
    const RanksTraffic t = ranks_traffic(), *b = &run->traffic;
    const int64_t steps = trainer_step_count(run->loop.trainer) - run->began;
    const double n = steps > 0 ? (double)steps : 1, waited = t.waiting - b->waiting;
    const double all = (double)ranks_total(t.bytes - b->bytes);
    if (ranks_count() > 1)
        fprintf(
            f,
            "\n%d processes exchange %.3f MB a step, %.3f MB of it come to process 0: %.3f ms of exchange, and %.3f "
            "ms of waiting for the last\n",
            ranks_count(), all / n * 1e-6, (double)(t.bytes - b->bytes) / n * 1e-6,
            1e3 * (t.seconds - b->seconds - waited) / n, 1e3 * waited / n);
}
