/* Facts for run.json: see run_facts.h. */
#include "run_facts.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/backend.h"
#include "sdlora/threads.h"

#include "report.h"

/* As Linux calls the first processor; "": it does not. */
static void processor(char *out, size_t cap)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "re");
    out[0] = '\0';
    while (f && !out[0] && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, "model name", 10))
            continue;
        colon += strspn(colon, ": \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(out, cap, "%s", colon);
    }
    if (f)
        fclose(f);
}

static json_t *machine(void)
{
    char cpu[256];
    processor(cpu, sizeof cpu);
    return json_pack("{s:o, s:s, s:s, s:i}", "processor", report_string(cpu), "simd", backend_get()->simd,
                     "openblas_core", backend_blas_core(), "threads", threads_count());
}

static json_t *data(const Run *run)
{
    const Dataset *d = &run->train;
    const TrainArgs *a = run->args;
    const int val = run->val.n < a->train.val_images ? run->val.n : a->train.val_images;
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:s}", "images", d->n, "validation_images", val, "classes", d->classes,
                     "size", d->h, "channels", d->channels, "sha256", d->sha256);
}

json_t *run_facts(const Run *run)
{
    json_t *facts = json_pack("{s:o, s:o}", "data", data(run), "machine", machine());
    if (facts && run->base_sha256[0])
        json_object_set_new(facts, "base_sha256", json_string(run->base_sha256));
    return facts;
}

json_t *run_diverged(const Run *run, const Err *why)
{
    return json_pack("{s:s, s:I, s:o}", "how", "diverged", "step", (json_int_t)trainer_step_count(run->loop.trainer),
                     "why", report_string(why->msg));
}
