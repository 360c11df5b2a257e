/* Runs and their checkpoints: see info.h. */
#include "info.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

#include "cli.h"
#include "sdlora/rundir.h"
#include "sdlora/text.h"

enum { STEPS_SHOWN = 8 };

bool info_run_of(RunInfo *run, int64_t *step, const char *path)
{
    char *dir = mem_alloc(1, FILE_PATH_MAX, "a path", NULL), *home = mem_alloc(1, FILE_PATH_MAX, "a path", NULL);
    bool found = false;
    memset(run, 0, sizeof *run);
    *step = -1;
    if (dir && home && !file_dir(dir, FILE_PATH_MAX, path, NULL)) {
        if (runinfo_there(dir))
            found = !runinfo_read(run, dir, NULL);
        else if ((*step = rundir_step_named(dir)) >= 0 && !rundir_of_checkpoint(home, FILE_PATH_MAX, dir, NULL))
            found = !runinfo_read(run, home, NULL);
    }
    mem_free(dir);
    mem_free(home);
    return found;
}

static void loss_row(Report *r, const RunInfo *run, const Facts *facts)
{
    char n[32], base[64] = "";
    bool own = facts && isfinite(facts->val_loss);
    if (facts && isfinite(facts->base_val_loss))
        snprintf(base, sizeof base, ", the base alone %.4f", facts->base_val_loss);
    if (run && !isnan(run->last_loss))
        report_row(r, "validation loss", "%.4f last, %.4f best, at step %s%s", run->last_loss, run->best_loss,
                   text_count(n, run->best_step), base);
    else if (own)
        report_row(r, "validation loss", "%.4f%s", facts->val_loss, base);
}

static void steps_row(Report *r, const RunInfo *run)
{
    char n[32], m[32], epochs[48] = "", seed[64] = "";
    if (run->epochs > 0 && run->state == STATE_FINISHED)
        snprintf(epochs, sizeof epochs, ", %" PRId64 " epoch%s", run->epochs, run->epochs == 1 ? "" : "s");
    else if (run->epochs > 0)
        snprintf(epochs, sizeof epochs, ", in epoch %" PRId64, run->epochs);
    if (runinfo_option(run, "seed")[0])
        snprintf(seed, sizeof seed, ", seed %s", runinfo_option(run, "seed"));
    if (run->total >= 0)
        report_row(r, "steps", "%s of %s%s%s", text_count(n, run->step), text_count(m, run->total), epochs, seed);
    else
        report_row(r, "steps", "%s%s%s, of how many is not known", text_count(n, run->step), epochs, seed);
}

/* Of a checkpoint: what the run had done then. */
static void checkpoint_rows(Report *r, const RunInfo *run, int64_t step)
{
    double loss = runinfo_loss_at(run->dir, step);
    char n[32], m[32];
    if (run->total >= 0)
        report_row(r, "steps", "%s of %s, a checkpoint", text_count(n, step), text_count(m, run->total));
    else
        report_row(r, "steps", "%s, a checkpoint", text_count(n, step));
    if (!isnan(loss)) {
        report_row(r, "validation loss", "%.4f", loss);
        report_set(r, "val_loss", json_real(loss));
    }
}

static void data_row(Report *r, const RunInfo *run, const Facts *facts)
{
    char name[256] = "";
    const char *sha256 = facts ? facts->data_sha256 : "";
    if (facts && facts->data_name[0])
        snprintf(name, sizeof name, "%s", facts->data_name);
    else if (run)
        runinfo_data(name, sizeof name, run);
    if (name[0] || sha256[0])
        report_row(r, "data", "%s%s%.12s", name, sha256[0] ? ", SHA-256 " : "", sha256);
}

static json_t *facts_object(const Facts *f)
{
    json_t *o = json_object();
    if (f->data_name[0])
        json_object_set_new(o, "data", report_string(f->data_name));
    if (f->data_sha256[0])
        json_object_set_new(o, "data_sha256", report_string(f->data_sha256));
    if (f->classes)
        json_object_set_new(o, "classes", json_integer(f->classes));
    if (f->steps)
        json_object_set_new(o, "steps", json_integer(f->steps));
    if (isfinite(f->val_loss))
        json_object_set_new(o, "val_loss", json_real(f->val_loss));
    if (isfinite(f->base_val_loss))
        json_object_set_new(o, "base_val_loss", json_real(f->base_val_loss));
    return o;
}

void info_training(Report *r, const RunInfo *run, int64_t step, const Facts *facts)
{
    char n[32];
    data_row(r, run, facts);
    if (run && step >= 0) {
        checkpoint_rows(r, run, step);
    } else {
        if (run)
            steps_row(r, run);
        else if (facts && facts->steps)
            report_row(r, "steps", "%s", text_count(n, facts->steps));
        loss_row(r, run, facts);
    }
    if (facts)
        report_set(r, "facts", facts_object(facts));
    if (run)
        report_set(r, "run", runinfo_json(run));
}

static void checkpoint_row(Report *r, const RunInfo *run)
{
    char list[STEPS_SHOWN * 24 + 64] = "", best[48] = "";
    size_t used = 0;
    int n = run->n_checkpoints, first = n > STEPS_SHOWN ? n - STEPS_SHOWN : 0;
    for (int i = first; i < n; i++)
        used +=
            (size_t)snprintf(list + used, sizeof list - used, "%s%" PRId64, i > first ? ", " : "", run->checkpoints[i]);
    if (run->best_checkpoint >= 0)
        snprintf(best, sizeof best, "; the best: %" PRId64, run->best_checkpoint);
    if (n < 0)
        report_row(r, "checkpoints", "cannot be read");
    else if (n == 0)
        report_row(r, "checkpoints", "none");
    else
        report_row(r, "checkpoints", "%d, of step%s %s%s%s", n, n == 1 ? "" : "s", first ? "..., " : "", list, best);
}

static double size_in(const char *dir, const char *name)
{
    char *path = mem_printf(NULL, "%s/%s", dir, name);
    struct stat st;
    double size = path && !stat(path, &st) && S_ISREG(st.st_mode) ? (double)st.st_size : -1;
    mem_free(path);
    return size;
}

/* What a shell takes. A path too long to be quoted is left out. */
static void resume_row(Report *r, const char *command, const char *option, const char *path, const char *more)
{
    char *word = mem_alloc(4, FILE_PATH_MAX, "a word", NULL);
    char *line = word ? mem_printf(NULL, "sdlora %s --resume%s%s%s", command, option,
                                   report_word(word, (size_t)4 * FILE_PATH_MAX, path), more)
                      : NULL;
    if (line)
        report_text(r, "resume", line, 0);
    if (line)
        report_set(r, "resume", report_string(line));
    mem_free(word);
    mem_free(line);
}

/* Of any run, after what it was trained on. */
static void run_rows(Report *r, const RunInfo *run)
{
    char size[32];
    checkpoint_row(r, run);
    if (run->result[0])
        report_row(r, "result", "%s, %s", run->result, report_bytes(size, size_in(run->dir, run->result)));
    else
        report_row(r, "result", "none");
    report_row(r, "on disk", "%s", report_bytes(size, runinfo_bytes(run->dir)));
    if (run->state == STATE_FINISHED)
        resume_row(r, run->command, " --out ", run->dir, " --epochs MORE");
    else if (run->state != STATE_RUNNING)
        resume_row(r, run->command, " --out ", run->dir, "");
}

static void command_row(Report *r, const RunInfo *run)
{
    const char *base = json_string_value(json_object_get(run->root, "base_sha256"));
    char name[256];
    runinfo_origin(name, sizeof name, run);
    if (!name[0])
        report_row(r, "command", "%s", run->command);
    else if (strcmp(run->command, "finetune"))
        report_row(r, "command", "train, preset %s", name);
    else
        report_row(r, "command", "finetune, of %s%s%.12s", name, base ? ", SHA-256 " : "", base ? base : "");
}

/* Where it is not the usual one */
static void precision_row(Report *r, const RunInfo *run)
{
    const char *precision = runinfo_option(run, "precision");
    if (precision[0] && strcmp(precision, PRECISION_NAMES[PRECISION_FP32]) != 0)
        report_row(r, "precision", "%s", precision);
}

/* What finetune leaves is an adapter first. */
static int adapter_of_run(Report *r, const RunInfo *run, Err *e)
{
    char *path = mem_printf(e, "%s/%s", run->dir, run->result);
    int rc = path ? info_safetensors(r, path, e) : -1;
    mem_free(path);
    if (!rc)
        report_row(r, "state", "%s, a run of finetune", RUN_STATE_NAMES[run->state]);
    if (!rc)
        run_rows(r, run);
    return rc;
}

/* As the model that the run left has them. */
static void names_row(Report *r, const RunInfo *run)
{
    char *path = mem_printf(NULL, "%s/%s", run->dir, run->result);
    StFile *f = path && run->result[0] ? st_open(path, NULL) : NULL;
    ClassNames names = {0};
    Facts facts;
    if (f && !facts_read(&facts, &names, f, NULL) && names.n > 0) {
        report_row(r, "classes", "%d", names.n);
        info_names(r, &names);
    }
    names_free(&names);
    st_close(f);
    mem_free(path);
}

int info_run(Report *r, const char *dir, Err *e)
{
    RunInfo *run = mem_alloc(1, sizeof *run, "a run", e);
    int rc = run ? runinfo_read(run, dir, e) : -1;
    if (!rc && run->result[0] && !strcmp(run->command, "finetune")) {
        rc = adapter_of_run(r, run, e);
    } else if (!rc) {
        report_title(r, "run", "run", dir);
        command_row(r, run);
        precision_row(r, run);
        report_row(r, "state", "%s", RUN_STATE_NAMES[run->state]);
        names_row(r, run);
        info_training(r, run, -1, NULL);
        run_rows(r, run);
    }
    if (run)
        runinfo_free(run);
    mem_free(run);
    return rc;
}

/* ---- checkpoints ---- */

static int state_step(int64_t *step, const char *dir, Err *e)
{
    char *path = mem_printf(e, "%s/state.safetensors", dir);
    StFile *f = path ? st_open(path, e) : NULL;
    const char *text = f ? st_meta(f, "sdlora.checkpoint") : NULL;
    json_t *state = text ? json_read_text(text, strlen(text), path, e) : NULL;
    const json_t *value = json_object_get(state, "step");
    int rc = f && text && !state ? -1 : f ? 0 : -1;
    if (!rc && !json_is_integer(value))
        rc = err_set(e, ERR_INPUT, "'%s' does not say of which step it is", path);
    *step = json_integer_value(value);
    json_decref(state);
    st_close(f);
    mem_free(path);
    return rc;
}

static void files_row(Report *r, const char *dir)
{
    char list[512] = "", bytes[32];
    size_t used = 0;
    json_t *files = json_object();
    for (const char *const *name = CHECKPOINT_FILES; *name; name++) {
        double size = size_in(dir, *name);
        if (size < 0 || used >= sizeof list)
            continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s, %s", used ? "; " : "", *name,
                                 report_bytes(bytes, size));
        json_object_set_new(files, *name, json_integer((json_int_t)size));
    }
    report_row(r, "holds", "%s", list);
    report_set(r, "files", files);
}

int info_checkpoint(Report *r, const char *dir, Err *e)
{
    int64_t step = 0, named = -1;
    char *inner = mem_printf(e, "%s/state.safetensors", dir), n[32], m[32];
    RunInfo *run = inner ? mem_alloc(1, sizeof *run, "a run", e) : NULL;
    int rc = run ? state_step(&step, dir, e) : -1;
    if (!rc) {
        bool known = info_run_of(run, &named, inner);
        named = rundir_step_named(dir);
        report_title(r, "checkpoint", "checkpoint", dir);
        report_set(r, "step", json_integer(step));
        if (named >= 0 && named != step)
            report_row(r, "step", "%s, which its name, %s, does not say", text_count(n, step), text_count(m, named));
        else
            report_row(r, "step", "%s", text_count(n, step));
        files_row(r, dir);
        report_text(r, "run", known ? run->dir : "not known: no run.json where it should lie", 0);
        if (known) {
            command_row(r, run);
            precision_row(r, run);
            info_training(r, run, step, NULL);
            resume_row(r, run->command, " ", dir, "");
        }
        runinfo_free(run);
    }
    mem_free(inner);
    mem_free(run);
    return rc;
}
