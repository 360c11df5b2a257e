/* What `eval` found: a table for people, an object for machines. See eval.h. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "eval.h"
#include "report.h"

enum { LABEL_WIDTH = 34, COLUMN_WIDTH = 16, MISTAKES = 3, CLASS_WIDTH = 12 };

static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

/* ---- what was compared ---- */

/* Of what was trained last; 0: its file does not say. */
static int64_t trained_steps(const EvalJob *j)
{
    return j->loras.n ? j->loras.item[j->loras.n - 1]->facts.steps : j->model->facts.steps;
}

static json_t *images_json(const EvalJob *j)
{
    const SampleArgs *a = &j->args->sample;
    json_t *o = json_object(), *loras = json_array();
    json_object_set_new(o, "source", report_string(j->args->source));
    json_object_set_new(o, "kind", json_string(j->kind == EVAL_MODEL ? "model" : "images"));
    json_object_set_new(o, "images", json_integer(j->images.n));
    if (j->kind == EVAL_MODEL) {
        json_object_set_new(o, "sampler", json_string(a->config.sampler->name));
        json_object_set_new(o, "steps", json_integer(a->config.steps));
        json_object_set_new(o, "cfg_scale", json_real(a->config.cfg_scale));
        json_object_set_new(o, "seed", json_integer((json_int_t)a->config.seed));
        for (int i = 0; i < a->loras.n; i++)
            json_array_append_new(loras, report_string(a->loras.item[i]));
        json_object_set(o, "lora", loras);
        if (trained_steps(j) > 0)
            json_object_set_new(o, "trained_steps", json_integer(trained_steps(j)));
    }
    json_decref(loras);
    return o;
}

static json_t *judge_json(const EvalJob *j)
{
    return json_pack("{s:i, s:i, s:i, s:b, s:o}", "images", j->n_judged, "epochs", j->args->judge_epochs, "features",
                     JUDGE_FEATURES, "cached", j->cached, "accuracy", number(j->judge->accuracy));
}

static void say_what(Report *r, const EvalJob *j)
{
    const SampleArgs *a = &j->args->sample;
    char n[32], m[32];
    fputc('\'', r->text);
    cli_put(r->text, j->args->source);
    fprintf(r->text, "': %s images", text_count(n, j->images.n));
    if (j->kind == EVAL_MODEL)
        fprintf(r->text, ", %s in %d steps, guidance %g, seed %" PRIu64, a->config.sampler->name, a->config.steps,
                a->config.cfg_scale, a->config.seed);
    for (int i = 0; i < a->loras.n; i++) {
        fputs(", --lora ", r->text);
        cli_put(r->text, a->loras.item[i]);
    }
    fprintf(r->text, "\nagainst '");
    cli_put(r->text, j->args->data);
    fprintf(r->text, "', %s test images, of which the judge, trained on %s others, sees %.2f %% as what they are\n\n",
            text_count(n, j->test.n), text_count(m, j->n_judged), 100 * j->judge->accuracy);
    fprintf(r->text, "%*s%*s\n", LABEL_WIDTH + COLUMN_WIDTH, "images", COLUMN_WIDTH, "real ones");
    report_set(r, "scored", images_json(j));
    report_set(r, "judge", judge_json(j));
    report_set(r, "data",
               json_pack("{s:o, s:i, s:i, s:s, s:s}", "path", report_string(j->args->data), "train", j->train.n, "test",
                         j->test.n, "train_sha256", j->train.sha256, "test_sha256", j->test.sha256));
    report_set(r, "floor_images", json_integer(j->floor.n));
}

/* ---- figures, each beside its floor ---- */

static void put_cell(Report *r, double x, double times, const char *unit)
{
    char text[32] = "-";
    if (isfinite(x))
        snprintf(text, sizeof text, "%.2f%s", times * x, unit);
    fprintf(r->text, "%*s", COLUMN_WIDTH, text);
}

static json_t *figure(Report *r, const char *label, const char *key, double x, double floor, double times,
                      const char *unit)
{
    json_t *o = json_pack("{s:o, s:o}", "value", number(x), "floor", number(floor));
    fprintf(r->text, "%-*s", LABEL_WIDTH, label);
    put_cell(r, x, times, unit);
    put_cell(r, floor, times, unit);
    fputc('\n', r->text);
    report_set(r, key, o);
    return o;
}

static void put_copies(Report *r, const Scores *s)
{
    char text[32], n[32];
    snprintf(text, sizeof text, "%d of %.12s", s->copies, text_count(n, s->searched));
    fprintf(r->text, "%*s", COLUMN_WIDTH, text);
}

static void say_neighbours(Report *r, const Scores *s, const Scores *f)
{
    fprintf(r->text, "%-*s", LABEL_WIDTH, "copies of training images");
    put_copies(r, s);
    put_copies(r, f);
    fputc('\n', r->text);
    report_set(r, "copies",
               json_pack("{s:i, s:i, s:i, s:i}", "value", s->copies, "of", s->searched, "floor", f->copies, "floor_of",
                         f->searched));
    figure(r, "nearest training image, pixels", "nearest_pixels", scores_median_distance(s, false),
           scores_median_distance(f, false), 1, "");
    figure(r, "nearest training image, features", "nearest_features", scores_median_distance(s, true),
           scores_median_distance(f, true), 1, "");
}

static void say_figures(Report *r, const EvalJob *j)
{
    const Scores *s = &j->scores, *f = &j->floor;
    json_t *o;
    figure(r, "accuracy", "accuracy", s->accuracy, f->accuracy, 100, " %");
    figure(r, "Frechet distance", "frechet", s->frechet, f->frechet, 1, "");
    o = figure(r, "precision", "precision", s->precision, f->precision, 100, " %");
    json_object_set_new(o, "images", json_integer(s->compared));
    o = figure(r, "recall", "recall", s->recall, f->recall, 100, " %");
    json_object_set_new(o, "images", json_integer(s->compared));
    if (j->args->cas)
        figure(r, "accuracy of a judge trained on them", "cas", s->cas, f->cas, 100, " %");
    if (s->searched)
        say_neighbours(r, s, f);
}

/* ---- classes ---- */

/* As text, padded to so many columns. */
static void put_padded(Report *r, const char *text, int columns)
{
    const int pad = columns - text_columns(text);
    cli_put(r->text, text);
    fprintf(r->text, "%*s", pad > 0 ? pad : 1, "");
}

/* The classes that class c is most often taken for: "8 (4), 9 (2)" */
static void put_mistakes(Report *r, const EvalJob *j, int c)
{
    const Scores *s = &j->scores;
    const int *row = s->confusion + (size_t)c * (size_t)s->classes;
    char name[CLASS_NAME_MAX];
    int most = 0;
    for (int k = 0; k < s->classes; k++)
        most = k != c && row[k] > most ? row[k] : most;
    for (int shown = 0; most > 0 && shown < MISTAKES; most--)
        for (int k = 0; k < s->classes && shown < MISTAKES; k++)
            if (k != c && row[k] == most) {
                fputs(shown++ ? ", " : "  ", r->text);
                cli_put(r->text, names_at(name, &j->names, k));
                fprintf(r->text, " (%d)", most);
            }
}

static void say_classes(Report *r, const EvalJob *j)
{
    const Scores *s = &j->scores;
    json_t *accuracy = json_array(), *floor = json_array(), *matrix = json_array(), *names = json_array();
    char name[CLASS_NAME_MAX];
    fprintf(r->text, "\n%-*s%12s%12s  taken for (how often)\n", CLASS_WIDTH, "class", "images", "real ones");
    for (int c = 0; c < s->classes; c++) {
        const double own = scores_class_accuracy(s, c), real_ones = scores_class_accuracy(&j->floor, c);
        json_t *row = json_array();
        for (int k = 0; k < s->classes; k++)
            json_array_append_new(row, json_integer(s->confusion[c * s->classes + k]));
        json_array_append_new(matrix, row);
        json_array_append_new(names, report_string(names_at(name, &j->names, c)));
        json_array_append_new(accuracy, number(own));
        json_array_append_new(floor, number(real_ones));
        if (!isfinite(own))
            continue;
        put_padded(r, names_at(name, &j->names, c), CLASS_WIDTH);
        fprintf(r->text, "%10.2f %%", 100 * own);
        fprintf(r->text, isfinite(real_ones) ? "%10.2f %%" : "%12.0f", 100 * real_ones); /* "nan" */
        put_mistakes(r, j, c);
        fputc('\n', r->text);
    }
    report_set(r, "classes", names);
    report_set(r, "class_accuracy", json_pack("{s:o, s:o}", "value", accuracy, "floor", floor));
    report_set(r, "confusion", matrix);
}

/* ---- how the figures came about ---- */

static void say_how(Report *r, const EvalJob *j)
{
    char n[32], m[32];
    fprintf(r->text, "\nreal ones: %s training images that the judge did not learn from%s\n", text_count(n, j->floor.n),
            j->labelled ? ", of each class as many, or all that there are" : "");
    if (j->scores.compared)
        fprintf(r->text, "precision and recall: of %s and as many test images, by the %d nearest\n",
                text_count(n, j->scores.compared), SCORES_K);
    if (j->scores.searched)
        fprintf(r->text,
                "nearest: the median of %s images, among all %s of training; a copy is less than a third as far from "
                "the nearest\nas from the second nearest, by pixels\n",
                text_count(n, j->scores.searched), text_count(m, j->train.n));
}

static void say_pictures(Report *r, const EvalJob *j)
{
    const char *dir = j->args->sample.output;
    json_t *paths = json_array();
    char path[FILE_PATH_MAX];
    if (!dir)
        dir = "";
    for (const char *const *name = EVAL_PICTURES; *dir && *name; name++) {
        if (file_join(path, sizeof path, dir, *name, NULL) || !eval_picture_made(j, *name))
            continue;
        json_array_append_new(paths, report_string(path));
        cli_put(r->text, path);
        fputc('\n', r->text);
    }
    report_set(r, "pictures", paths);
}

static int save_file(const Report *r, const char *dir, Err *e)
{
    char path[FILE_PATH_MAX];
    char *text = file_join(path, sizeof path, dir, EVAL_FILE, e)
                     ? NULL
                     : json_text(r->json, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9), EVAL_FILE, e);
    char *lines = text ? mem_printf(e, "%s\n", text) : NULL;
    const int rc = lines ? file_save(path, lines, strlen(lines), e) : -1;
    mem_free(lines);
    mem_free(text);
    if (!rc) {
        cli_put(r->text, path);
        fputc('\n', r->text);
    }
    return rc;
}

int eval_report(const EvalJob *j, Err *e)
{
    Report r;
    int rc = report_begin(&r, false, e);
    if (!rc) {
        say_what(&r, j);
        say_figures(&r, j);
        if (j->labelled)
            say_classes(&r, j);
        say_how(&r, j);
        say_pictures(&r, j);
        if (j->args->sample.output)
            rc = save_file(&r, j->args->sample.output, e);
    }
    if (!rc) {
        rc = report_print(&r, j->args->json, e);
    }
    report_free(&r);
    return rc;
}
