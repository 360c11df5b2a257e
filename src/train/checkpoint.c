/* The exact state of a run: see train.h. A checkpoint is a directory: state.safetensors (weights, moments, moving
 * average, and in its metadata the counters and what the run was started with) and the model or adapter as a finished
 * run leaves it. It is written under another name, flushed to the disk, and renamed when it is complete. The random
 * streams need no state: they are pure functions of the seed and the step. */
#include "trainer_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/store_file.h"

static const char meta_key[] = "sdlora.checkpoint";

const char *const CHECKPOINT_FILES[] = {"state.safetensors", "model.safetensors", "adapter_model.safetensors",
                                        "adapter_config.json", NULL};

/* ---- what a run must find again ---- */

/* Fields that stand as they do where nothing was said are left out: states of version 0.1.0 have only these three. */
static json_t *describe_adapter(const AdapterConfig *c)
{
    const AdapterConfig plain = {.rank = c->rank, .alpha = c->alpha};
    json_t *o = json_pack("{s:i, s:f, s:s}", "rank", c->rank, "alpha", c->alpha, "targets", c->targets);

    for (const Field *f = ADAPTER_FIELDS; o && f->type != FIELD_END; f++) {
        char now[64], then[64];
        field_text(now, sizeof now, f, c);
        field_text(then, sizeof then, f, &plain);
        if (strcmp(now, then) && json_object_set_new(o, f->name, json_string(now))) {
            json_decref(o);
            o = NULL;
        }
    }
    return o;
}

/* Losses that the result's file tells: a run that is resumed does not measure them again. */
static int add_losses(json_t *o, const Facts *f)
{
    return (isfinite(f->val_loss) && json_object_set_new(o, "val_loss", json_real(f->val_loss))) ||
                   (isfinite(f->base_val_loss) && json_object_set_new(o, "base_val_loss", json_real(f->base_val_loss)))
               ? -1
               : 0;
}

static void take_losses(Facts *f, const json_t *o)
{
    const json_t *val = json_object_get(o, "val_loss"), *base = json_object_get(o, "base_val_loss");

    f->val_loss = json_is_number(val) ? json_number_value(val) : (double)NAN;
    f->base_val_loss = json_is_number(base) ? json_number_value(base) : (double)NAN;
}

static json_t *describe(const Trainer *t, Err *e)
{
    const ClassNames *names = t->adapter ? &t->adapter->names : &t->model->names;
    char *model = model_config_json(&t->model->config, e);
    json_t *o = NULL;

    if (model)
        o = json_pack("{s:I, s:s, s:s, s:s, s:i, s:I, s:b}", "step", (json_int_t)t->step, "model", model, "data_sha256",
                      t->data_sha256, "val_sha256", t->val_sha256, "batch_size", t->c.batch, "seed",
                      (json_int_t)t->c.seed, "ema", t->ema != NULL);
    /* not of Adam's, as states before there was a choice do not say */
    if (o && t->c.optimizer != OPTIMIZER_ADAM &&
        json_object_set_new(o, "optimizer", json_string(OPTIMIZER_NAMES[t->c.optimizer]))) {
        json_decref(o);
        o = NULL;
    }
    if (o &&
        (add_losses(o, trainer_facts(t)) || (names->n && json_object_set_new(o, "class_names", json_names(names))) ||
         (t->adapter && json_object_set_new(o, "lora", describe_adapter(&t->adapter->config))))) {
        json_decref(o);
        o = NULL;
    }
    if (!o && model)
        err_set(e, ERR_FAILED, "cannot describe the checkpoint: no memory");
    mem_free(model);
    return o;
}

typedef struct Differences {
    char text[900];
    size_t used;
} Differences;

static void differ(Differences *d, const char *fmt, const char *a, const char *b)
{
    if (d->used < sizeof d->text - 2) {
        d->used += (size_t)snprintf(d->text + d->used, sizeof d->text - d->used, "%s", d->used ? "; " : "");
        d->used += (size_t)snprintf(d->text + d->used, sizeof d->text - d->used, fmt, a, b);
    }
    if (d->used >= sizeof d->text)
        d->used = sizeof d->text - 1;
}

static void compare_value(Differences *d, const char *key, const json_t *saved, const json_t *now)
{
    const json_t *a = json_object_get(saved, key), *b = json_object_get(now, key);
    char fmt[64];
    char *ta, *tb;

    if ((!a && !b) || json_equal((json_t *)a, (json_t *)b)) /* two absent ones are not equal to json_equal */
        return;
    ta = a ? json_text(a, JSON_COMPACT | JSON_ENCODE_ANY, key, NULL) : NULL;
    tb = b ? json_text(b, JSON_COMPACT | JSON_ENCODE_ANY, key, NULL) : NULL;
    snprintf(fmt, sizeof fmt, "%s: %%s and %%s", key);
    differ(d, fmt, ta ? ta : "none", tb ? tb : "none");
    mem_free(ta);
    mem_free(tb);
}

static int compare_runs(const Trainer *t, const json_t *saved, const char *dir, bool force, Err *e)
{
    Differences d = {"", 0};
    json_t *now = describe(t, e);
    ModelConfig was = model_preset(PRESET_MNIST);
    const char *model = json_string_value(json_object_get(saved, "model"));
    char list[600];
    size_t others;

    if (!now)
        return -1;
    if (!model || model_config_from_json(&was, model, dir, e)) {
        json_decref(now);
        return model ? -1 : err_set(e, ERR_INPUT, "'%s' does not say what model it holds", dir);
    }
    if (fields_diff(list, sizeof list, MODEL_FIELDS, &was, &t->model->config))
        differ(&d, "%s%s", list, "");
    compare_value(&d, "lora", saved, now);
    compare_value(&d, "batch_size", saved, now);
    compare_value(&d, "seed", saved, now);
    compare_value(&d, "ema", saved, now);
    compare_value(&d, "optimizer", saved, now);
    others = d.used;
    if (!force)
        compare_value(&d, "class_names", saved, now);
    if (!force)
        compare_value(&d, "data_sha256", saved, now);
    if (!force && json_object_get(saved, "val_sha256")) /* states of version 0.1.0 do not say */
        compare_value(&d, "val_sha256", saved, now);
    json_decref(now);
    if (d.used)
        return err_set(e, ERR_USAGE, "cannot resume '%s': it and this run differ in %s%s", dir, d.text,
                       others ? "" : "; it goes on with other data by force");
    return 0;
}

/* ---- saving ---- */

static bool all_finite(const real *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return false;
    return true;
}

/* A loss can be finite beside such values: a moment that overflowed, a running variance, a weight after the last
 * step. */
int trainer_check(const Trainer *t, Err *e)
{
    const ParamStore *s = t->trained;
    size_t n = s->n_weights;
    const char *what = NULL;

    if (t->unusable)
        return err_set(e, ERR_FAILED, "an earlier error left the run in no state to be saved");
    for (int i = 0; i < s->count && !what; i++)
        if (s->items[i]->kind != PARAM_COUNTER && !all_finite(s->values + s->items[i]->offset, s->items[i]->numel))
            what = s->items[i]->name;
    if (!what && (!all_finite(t->m, n) || !all_finite(t->v, n)))
        what = "the optimiser's moments";
    if (!what && t->ema && !all_finite(t->ema, n))
        what = "the moving average";
    return what ? err_set(e, ERR_DIVERGED,
                          "'%s' is not finite after step %lld; lower the learning rate or the largest gradient norm",
                          what, (long long)t->step)
                : 0;
}

static int write_state(const Trainer *t, const char *path, Err *e)
{
    StWriter *w = st_writer(e);
    FilePool pool = {NULL};
    json_t *o = w ? describe(t, e) : NULL;
    char *meta = o ? json_text(o, JSON_COMPACT | JSON_SORT_KEYS, "the checkpoint's description", e) : NULL;
    int status = meta ? 0 : -1;

    if (!status)
        status = st_add_meta(w, meta_key, meta, e);
    if (!status)
        status = store_add(w, &pool, t->trained, t->trained->values, "weights.", false, e);
    if (!status)
        status = store_add(w, &pool, t->trained, t->m, "adam_m.", true, e);
    if (!status)
        status = store_add(w, &pool, t->trained, t->v, "adam_v.", true, e);
    if (!status && t->ema)
        status = store_add(w, &pool, t->trained, t->ema, "ema.", true, e);
    if (!status)
        status = st_save(w, path, e);
    st_writer_free(w);
    pool_free(&pool);
    json_decref(o);
    mem_free(meta);
    return status;
}

static int write_result(Trainer *t, const char *dir, Err *e)
{
    char *path = mem_printf(e, "%s/model.safetensors", dir);
    int status;

    if (!path)
        return -1;
    trainer_use_ema(t, true);
    status = t->adapter ? adapter_save(t->adapter, dir, e) : model_save(t->model, path, e);
    trainer_use_ema(t, false);
    mem_free(path);
    return status;
}

static int write_into(Trainer *t, const char *tmp, const char *dir, Err *e)
{
    char *path = mem_printf(e, "%s/state.safetensors", tmp);
    int status =
        !path || write_state(t, path, e) || write_result(t, tmp, e) || dir_replace(dir, tmp, CHECKPOINT_FILES, e) ? -1
                                                                                                                  : 0;

    mem_free(path);
    return status;
}

int trainer_save(Trainer *t, const char *dir, Err *e)
{
    const size_t cap = strlen(dir) + 64;
    char *parent = mem_alloc(cap, 1, "a path", e), *tmp = parent ? mem_alloc(cap, 1, "a path", e) : NULL;
    bool removed;
    int status = !tmp || trainer_check(t, e) || file_dir(parent, cap, dir, e) || dir_make_temporary(tmp, cap, parent, e)
                     ? -1
                     : 0;

    if (!status && (status = write_into(t, tmp, dir, e)) != 0)
        dir_remove(tmp, CHECKPOINT_FILES, &removed, NULL);
    mem_free(parent);
    mem_free(tmp);
    return status;
}

/* ---- loading ---- */

static int read_state(Trainer *t, const StFile *f, Err *e)
{
    if (store_get(t->trained, t->trained->values, f, "weights.", false, e) ||
        store_get(t->trained, t->m, f, "adam_m.", true, e) || store_get(t->trained, t->v, f, "adam_v.", true, e) ||
        (t->ema && store_get(t->trained, t->ema, f, "ema.", true, e)))
        return -1;
    trainer_weights_changed(t);
    return 0;
}

int trainer_load(Trainer *t, const char *dir, bool force, Err *e)
{
    char *path = mem_printf(e, "%s/state.safetensors", dir);
    StFile *f = path ? st_open(path, e) : NULL;
    const char *meta = f ? st_meta(f, meta_key) : NULL;
    json_t *o = meta ? json_read_text(meta, strlen(meta), "the state", NULL) : NULL;
    int status = f ? 0 : -1;

    if (!status && (!json_is_integer(json_object_get(o, "step")) || json_integer_value(json_object_get(o, "step")) < 0))
        status = err_set(e, ERR_INPUT, "'%s' is not the state of a run", path);
    else if (!status)
        status = compare_runs(t, o, dir, force, e);
    if (!status)
        t->unusable = (status = read_state(t, f, e)) != 0;
    if (!status) {
        t->step = json_integer_value(json_object_get(o, "step"));
        trainer_facts(t)->steps = t->step;
        take_losses(trainer_facts(t), o);
    }
    json_decref(o);
    st_close(f);
    mem_free(path);
    return status;
}
