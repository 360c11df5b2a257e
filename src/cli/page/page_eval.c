/* What `sdlora eval` said of the result: see parts.h. Of its JSON anything may be missing. */
#include <math.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "../eval.h"
#include "../report.h"
#include "html.h"
#include "page.h"
#include "parts.h"

#define EVAL_MAX ((size_t)1 << 24)
enum { TABLE_CLASSES = 20 }; /* of more, eval's picture of the matrix is shown */

static double number(const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static void put_count(const Page *p, double n)
{
    char text[32];
    fputs(html_number(text, n), p->f);
}

/* ---- what was scored ---- */

static void say_what(const Page *p, const json_t *eval)
{
    const json_t *scored = json_object_get(eval, "scored"), *data = json_object_get(eval, "data");
    const double trained = number(scored, "trained_steps");
    fputs("<p class=\"soft\">", p->f);
    put_count(p, number(scored, "images"));
    fputs(" images", p->f);
    if (*text_of(scored, "sampler")) {
        fputs(", drawn by <code>", p->f);
        html_text(p->f, text_of(scored, "sampler"));
        fputs("</code> in ", p->f);
        put_count(p, number(scored, "steps"));
        fputs(" steps, guidance ", p->f);
        put_count(p, number(scored, "cfg_scale"));
    }
    fputs(", against <code>", p->f);
    html_text(p->f, text_of(data, "path"));
    fputs("</code>, by a judge that sees ", p->f);
    fprintf(p->f, "%.2f %% of its test images as what they are.",
            100 * number(json_object_get(eval, "judge"), "accuracy"));
    if (trained >= 0 && trained != (double)p->run->step) {
        fputs(" <b>This was after step ", p->f);
        put_count(p, trained);
        fputs("; the run has gone on since.</b>", p->f);
    }
    fputs("</p>\n", p->f);
}

/* ---- figures ---- */

typedef struct Figure {
    const char *key, *label;
    double times;
    const char *unit, *better;
} Figure;

static const Figure FIGURES[] = {
    {"accuracy", "Accuracy: seen as the class that was asked for", 100, " %", "more is better"},
    {"frechet", "Fr&eacute;chet distance of the judge's features", 1, "", "less is better"},
    {"precision", "Precision: images that could be real ones", 100, " %", "more is better"},
    {"recall", "Recall: real ones that could be drawn", 100, " %", "more is better"},
    {"cas", "Accuracy of a judge trained on them alone", 100, " %", "more is better"},
    {"nearest_pixels", "Nearest training image, by pixels", 1, "", "as real ones"},
    {"nearest_features", "Nearest training image, by features", 1, "", "as real ones"},
};

static void put_figure(const Page *p, double x, const Figure *g)
{
    if (isfinite(x))
        fprintf(p->f, "<td class=\"num\">%.2f%s</td>", g->times * x, g->unit);
    else
        fputs("<td class=\"num\">-</td>", p->f);
}

static void put_copies(const Page *p, const json_t *copies)
{
    if (!copies)
        return;
    fputs("<tr><td>Copies of training images</td>", p->f);
    for (int k = 0; k < 2; k++) {
        fputs("<td class=\"num\">", p->f);
        put_count(p, number(copies, k ? "floor" : "value"));
        fputs(" of ", p->f);
        put_count(p, number(copies, k ? "floor_of" : "of"));
        fputs("</td>", p->f);
    }
    fputs("<td class=\"soft\">as real ones</td></tr>\n", p->f);
}

static void figures(const Page *p, const json_t *eval)
{
    fputs("<div class=\"wide\"><table>\n<tr><th></th><th class=\"num\">images</th><th class=\"num\">real "
          "ones</th><th></th>"
          "</tr>\n",
          p->f);
    for (size_t i = 0; i < sizeof FIGURES / sizeof *FIGURES; i++) {
        const json_t *o = json_object_get(eval, FIGURES[i].key);
        if (!o)
            continue;
        fprintf(p->f, "<tr><td>%s</td>", FIGURES[i].label);
        put_figure(p, number(o, "value"), &FIGURES[i]);
        put_figure(p, number(o, "floor"), &FIGURES[i]);
        fprintf(p->f, "<td class=\"soft\">%s</td></tr>\n", FIGURES[i].better);
    }
    put_copies(p, json_object_get(eval, "copies"));
    fputs("</table></div>\n<p class=\"soft\">\"Real ones\" is what ", p->f);
    put_count(p, number(eval, "floor_images"));
    fputs(" training images get that the judge did not learn from.</p>\n", p->f);
}

/* ---- what is taken for what ---- */

static void class_name(const Page *p, const json_t *eval, size_t c)
{
    const char *name = json_string_value(json_array_get(json_object_get(eval, "classes"), c));
    html_text(p->f, name ? name : "?");
}

static void matrix_row(const Page *p, const json_t *eval, size_t c, size_t n)
{
    const json_t *row = json_array_get(json_object_get(eval, "confusion"), c);
    double all = 0;
    fputs("<tr><th>", p->f);
    class_name(p, eval, c);
    fputs("</th>", p->f);
    for (size_t k = 0; k < n; k++)
        all += (double)json_integer_value(json_array_get(row, k));
    for (size_t k = 0; k < n; k++) {
        const double count = (double)json_integer_value(json_array_get(row, k)), share = all > 0 ? count / all : 0;
        if (count > 0) /* the root, so that few mistakes are seen too */
            fprintf(p->f, "<td style=\"background:rgba(%s,%.2f)%s\">%.0f</td>", k == c ? "37,99,201" : "194,87,12",
                    0.12 + 0.88 * sqrt(share), sqrt(share) > 0.5 ? ";color:#fff" : "", count);
        else
            fputs("<td></td>", p->f);
    }
    fputs("</tr>\n", p->f);
}

/* False: there is none, or it is too large for a page. */
static bool matrix(const Page *p, const json_t *eval)
{
    const size_t n = json_array_size(json_object_get(eval, "confusion"));
    if (n < 1 || n > TABLE_CLASSES)
        return false;
    fputs("<h3>What is taken for what</h3>\n<p class=\"soft\">Rows: the class that was asked for; columns: the one "
          "that the "
          "judge sees.</p>\n<div class=\"wide\"><table class=\"confusion\">\n<tr><th></th>",
          p->f);
    for (size_t k = 0; k < n; k++) {
        fputs("<th>", p->f);
        class_name(p, eval, k);
        fputs("</th>", p->f);
    }
    fputs("</tr>\n", p->f);
    for (size_t c = 0; c < n; c++)
        matrix_row(p, eval, c, n);
    fputs("</table></div>\n", p->f);
    return true;
}

/* ---- pictures ---- */

/* style: of the figure */
static void shot(const Page *p, const char *name, const char *style, const char *title, const char *caption)
{
    char *path = mem_printf(NULL, "%s/" PAGE_EVAL "/%s", p->run->dir, name);
    if (path && file_exists(path)) {
        fprintf(p->f, "<figure class=\"%s\"><h3>%s</h3><p class=\"soft\">%s</p>", style, title, caption);
        html_picture(p->f, path, title);
        fputs("</figure>\n", p->f);
    }
    mem_free(path);
}

/* ---- where there is none ---- */

static void put_word(const Page *p, const char *path, const char *more)
{
    char *whole = mem_printf(NULL, "%s%s", path, more), *word = mem_alloc(4, FILE_PATH_MAX, "a word", NULL);
    if (whole && word)
        html_text(p->f, report_word(word, (size_t)4 * FILE_PATH_MAX, whole));
    mem_free(whole);
    mem_free(word);
}

static void how_to(const Page *p)
{
    const RunInfo *r = p->run;
    fputs("<p class=\"soft\">Not scored yet. This does it, and <code>sdlora report</code> shows it "
          "here:</p>\n<p><code>sdlora "
          "eval ",
          p->f);
    put_word(p, p->adapter ? runinfo_option(r, "model") : r->dir, "");
    if (p->adapter) {
        fputs(" --lora ", p->f);
        put_word(p, r->dir, "");
    }
    fputs(" --data ", p->f);
    put_word(p, runinfo_option(r, "data"), "");
    fputs(" -o ", p->f);
    put_word(p, r->dir, "/" PAGE_EVAL);
    fputs("</code></p>\n", p->f);
}

void page_eval(const Page *p)
{
    char *path = mem_printf(NULL, "%s/" PAGE_EVAL "/" EVAL_FILE, p->run->dir);
    json_t *eval = path && file_exists(path) ? json_read_file(path, EVAL_MAX, NULL) : NULL;
    mem_free(path);
    if (!eval && p->run->state != STATE_FINISHED)
        return;
    page_section(p, "Evaluation");
    if (!eval) {
        how_to(p);
    } else {
        say_what(p, eval);
        figures(p, eval);
        fputs("<div class=\"shots\">\n", p->f);
        if (json_object_get(eval, "confusion")) {
            fputs("<figure>", p->f);
            const bool drawn = matrix(p, eval);
            fputs("</figure>\n", p->f);
            if (!drawn)
                shot(p, "confusion.png", "", "What is taken for what", "Rows: asked for; columns: seen.");
        }
        shot(p, "worst.png", "", "The worst", "Asked for: seen. The least probable first.");
        shot(p, "neighbours.png", "all", "Nearest training images",
             "In threes: an image, the nearest by pixels, the nearest by features; those nearest to a copy first.");
        fputs("</div>\n", p->f);
    }
    fputs("</section>\n", p->f);
    json_decref(eval);
}
