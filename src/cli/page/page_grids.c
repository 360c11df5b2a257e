/* Grids of samples over time, and before and after an adapter: see parts.h. */
#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "html.h"
#include "parts.h"

enum { GRIDS_SHOWN = 40, LABELLED_ROWS = 24 };

typedef struct Grid {
    char name[32];       /* of its file */
    int64_t step, epoch; /* -1: not known */
} Grid;

typedef struct Grids {
    Grid *item;
    size_t n, cap;
} Grids;

/* ---- which there are ---- */

static int64_t digits(const char *text, const char *end)
{
    char *stop;
    const long long v = strtoll(text, &stop, 10);
    return *text >= '0' && *text <= '9' && !strcmp(stop, end) ? v : -1;
}

/* The last step of an epoch, by the metrics. */
static int64_t step_of_epoch(const RunInfo *r, int64_t epoch)
{
    int64_t step = -1;
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->rows[i].epoch == epoch)
            step = r->rows[i].step;
    return step >= 0 ? step : r->per_epoch > 0 ? epoch * r->per_epoch : -1;
}

static int64_t epoch_of_step(const RunInfo *r, int64_t step)
{
    for (int64_t i = 0; i < r->n_rows; i++)
        if (r->rows[i].step == step)
            return r->rows[i].epoch;
    return -1;
}

/* Names as the training loop makes them: epoch-0001.png, step-00000120.png. */
static bool recognise(Grid *g, const char *name, const RunInfo *r)
{
    if (strlen(name) >= sizeof g->name)
        return false;
    snprintf(g->name, sizeof g->name, "%s", name);
    if (!strncmp(name, "epoch-", 6) && (g->epoch = digits(name + 6, ".png")) >= 0) {
        g->step = step_of_epoch(r, g->epoch);
        return true;
    }
    if (strncmp(name, "step-", 5) != 0 || (g->step = digits(name + 5, ".png")) < 0)
        return false;
    g->epoch = epoch_of_step(r, g->step);
    return true;
}

static int add(Grids *l, const Grid *g, Err *e)
{
    if (l->n == l->cap) {
        Grid *more = mem_alloc(l->cap = 2 * l->cap + 64, sizeof *more, "the sample grids", e);
        if (more && l->n)
            memcpy(more, l->item, l->n * sizeof *more);
        mem_free(l->item);
        if (!(l->item = more))
            return -1;
    }
    l->item[l->n++] = *g;
    return 0;
}

static int by_time(const void *a, const void *b)
{
    const Grid *x = a, *y = b;
    if (x->step != y->step)
        return x->step < y->step ? -1 : 1;
    return x->epoch < y->epoch ? -1 : x->epoch > y->epoch;
}

/* The caller frees l->item, also after an error. */
static int find(Grids *l, const RunInfo *r, Err *e)
{
    char *path = mem_printf(e, "%s/samples", r->dir);
    DIR *d = path ? opendir(path) : NULL;
    const struct dirent *entry;
    Grid g;
    int rc = path ? 0 : -1;
    while (d && !rc && (entry = readdir(d)))
        rc = recognise(&g, entry->d_name, r) ? add(l, &g, e) : 0;
    if (d)
        closedir(d);
    mem_free(path);
    if (!rc && l->n > 1)
        qsort(l->item, l->n, sizeof *l->item, by_time);
    return rc;
}

/* ---- one ---- */

/* A grid has a row for each class, from above. */
static void put_rows(const Page *p)
{
    char name[CLASS_NAME_MAX];
    if (p->classes < 2 || p->classes > LABELLED_ROWS)
        return;
    fputs("<ol aria-hidden=\"true\">", p->f);
    for (int i = 0; i < p->classes; i++) {
        fputs("<li>", p->f);
        html_text(p->f, names_at(name, &p->names, i));
        fputs("</li>", p->f);
    }
    fputs("</ol>", p->f);
}

static void put_grid(const Page *p, const char *path, const char *caption, const char *alt)
{
    fprintf(p->f, "<figure><figcaption>%s</figcaption><div class=\"picture\">", caption);
    put_rows(p);
    if (!html_picture(p->f, path, alt))
        fputs("<p class=\"soft\">This picture is not shown: it cannot be read, or there are too many.</p>", p->f);
    fputs("</div></figure>\n", p->f);
}

static void caption_of(char *out, size_t cap, const Grid *g)
{
    char n[32];
    if (g->step >= 0 && g->epoch >= 0)
        snprintf(out, cap, "step %s, epoch %" PRId64, text_count(n, g->step), g->epoch);
    else if (g->step >= 0)
        snprintf(out, cap, "step %s", text_count(n, g->step));
    else
        snprintf(out, cap, "epoch %" PRId64, g->epoch);
}

static int put(const Page *p, const Grid *g, const char *before, Err *e)
{
    char caption[96] = "", *path = mem_printf(e, "%s/samples/%s", p->run->dir, g->name);
    if (!path)
        return -1;
    snprintf(caption, sizeof caption, "%s", before);
    caption_of(caption + strlen(before), sizeof caption - strlen(before), g);
    put_grid(p, path, caption, caption);
    mem_free(path);
    return 0;
}

/* ---- sections ---- */

static int before_and_after(const Page *p, const Grids *l, Err *e)
{
    char *path = mem_printf(e, "%s/before.png", p->run->dir);
    FILE *f = path ? fopen(path, "rb") : NULL;
    int rc = path ? 0 : -1;
    if (f && l->n) {
        page_section(p, "Before and after");
        fputs("<p class=\"soft\">The same noise, drawn by the model as it was and with the adapter.</p>\n"
              "<div class=\"pair\">\n",
              p->f);
        put_grid(p, path, "before: the model alone", "grid of samples of the model alone");
        rc = put(p, &l->item[l->n - 1], "after: ", e);
        fputs("</div>\n</section>\n", p->f);
    }
    if (f)
        fclose(f);
    mem_free(path);
    return rc;
}

static int over_time(const Page *p, const Grids *l, Err *e)
{
    const size_t shown = l->n < GRIDS_SHOWN ? l->n : GRIDS_SHOWN;
    int rc = 0;
    page_section(p, "Samples over time");
    fputs("<p class=\"soft\">A row for each class, every time of the same noise.", p->f);
    if (shown < l->n)
        fprintf(p->f, " %zu of %zu grids; all are in <code>samples/</code>.", shown, l->n);
    fputs("</p>\n<div class=\"grids\">\n", p->f);
    if (shown > 1)
        fprintf(p->f,
                "<div class=\"slider\"><input type=\"range\" min=\"0\" max=\"%zu\" value=\"%zu\" aria-label=\"which "
                "grid\"><button type=\"button\">Play</button></div>\n",
                shown - 1, shown - 1);
    fputs("<div class=\"strip\">\n", p->f);
    for (size_t i = 0; i < shown && !rc; i++) /* the first, the last, and evenly what is between */
        rc = put(p, &l->item[shown > 1 ? i * (l->n - 1) / (shown - 1) : 0], "", e);
    fputs("</div>\n</div>\n</section>\n", p->f);
    return rc;
}

int page_grids(const Page *p, Err *e)
{
    Grids l = {0};
    int rc = find(&l, p->run, e);
    if (!rc && p->adapter)
        rc = before_and_after(p, &l, e);
    if (!rc && l.n)
        rc = over_time(p, &l, e);
    mem_free(l.item);
    return rc;
}
