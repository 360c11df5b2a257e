/* What a run measured, as charts: see parts.h. */
#include <math.h>

#include "chart.h"
#include "curves.h"
#include "html.h"
#include "parts.h"

enum { WIDE = 960, WIDE_HIGH = 340, NARROW = 380, NARROW_HIGH = 300, SMALL = 360, SMALL_HIGH = 220, SPANS = 40 };

static double loss_of(const Metrics *m)
{
    return m->loss;
}
static double val_of(const Metrics *m)
{
    return m->val_loss;
}
static double lr_of(const Metrics *m)
{
    return m->lr;
}
static double norm_of(const Metrics *m)
{
    return m->grad_norm;
}
static double speed_of(const Metrics *m)
{
    return m->images_per_s;
}

/* Rows that the moving average goes over. */
static double span_of(const RunInfo *r)
{
    return fmax(1, round((double)r->n_rows / SPANS));
}

/* Four drawings of the same, of which the style shows one. */
static bool draw_all(FILE *f, Chart *c)
{
    bool any = false;
    for (int log = 1; log >= 0; log--) {
        c->log = log;
        fprintf(f, "<div class=\"%s\"><div class=\"full\">\n", log ? "log" : "lin");
        c->w = WIDE;
        c->h = WIDE_HIGH;
        any |= chart_draw(f, c);
        fputs("</div><div class=\"narrow\">\n", f);
        c->w = NARROW;
        c->h = NARROW_HIGH;
        chart_draw(f, c);
        fputs("</div></div>\n", f);
    }
    return any;
}

static void put_key(const Page *p)
{
    const RunInfo *r = p->run;
    const double rows = (double)r->n_rows;
    const double each = rows > 1 ? (double)(r->rows[r->n_rows - 1].step - r->rows[0].step) / (rows - 1) : 0;
    const double steps = round(span_of(r) * each);
    char n[32];
    fputs(
        "<div class=\"key\"><span><i class=\"raw\"></i>training, single batches</span><span><i></i>training, averaged",
        p->f);
    if (steps > 1)
        fprintf(p->f, " over some %s steps", html_number(n, steps));
    fputs("</span>", p->f);
    if (!isnan(r->last_loss))
        fputs("<span><i class=\"val\"></i>validation</span>", p->f);
    if (isfinite(p->facts.base_val_loss))
        fputs("<span><i class=\"level\"></i>validation, the model without the adapter</span>", p->f);
    fputs("</div>\n", p->f);
}

int page_loss(const Page *p, Err *e)
{
    const RunInfo *r = p->run;
    Chart c = {.title = "Loss of training and validation against steps",
               .unit = "loss",
               .per_epoch = (double)r->per_epoch,
               .level = p->facts.base_val_loss,
               .n = 3};
    int rc = curve_raw(&c.curve[0], r->rows, r->n_rows, loss_of, e) ||
                     curve_smooth(&c.curve[1], r->rows, r->n_rows, loss_of, span_of(r), e) ||
                     curve_raw(&c.curve[2], r->rows, r->n_rows, val_of, e)
                 ? -1
                 : 0;
    c.curve[0].style = "raw";
    c.curve[1].style = "train";
    c.curve[2].style = "val";
    c.curve[2].dots = true;
    if (!rc) {
        fputs("<section>\n<div class=\"scale\"><label><input type=\"radio\" name=\"scale\" id=\"log\" checked> "
              "logarithmic"
              "</label><label><input type=\"radio\" name=\"scale\" id=\"lin\"> linear</label></div>\n<h2>Loss</h2>\n",
              p->f);
        put_key(p);
        if (!draw_all(p->f, &c))
            fputs("<p class=\"soft\">Nothing has been measured yet.</p>\n", p->f);
        fputs("</section>\n", p->f);
    }
    for (int k = 0; k < c.n; k++)
        curve_free(&c.curve[k]);
    return rc;
}

static int small_chart(const Page *p, const char *title, const char *unit, MetricOf *of, bool log, Err *e)
{
    const RunInfo *r = p->run;
    Chart c = {.title = title,
               .unit = unit,
               .w = SMALL,
               .h = SMALL_HIGH,
               .log = log,
               .per_epoch = (double)r->per_epoch,
               .level = (double)NAN,
               .n = 1};
    if (curve_raw(&c.curve[0], r->rows, r->n_rows, of, e))
        return -1;
    c.curve[0].style = "train";
    fprintf(p->f, "<figure><h3>%s</h3>\n", title);
    if (!chart_draw(p->f, &c))
        fputs("<p class=\"soft\">not measured</p>\n", p->f);
    fputs("</figure>\n", p->f);
    curve_free(&c.curve[0]);
    return 0;
}

int page_details(const Page *p, Err *e)
{
    int rc;
    if (p->run->n_rows < 1)
        return 0;
    page_section(p, "Training");
    fputs("<div class=\"trio\">\n", p->f);
    rc = small_chart(p, "Learning rate", "lr", lr_of, false, e) ||
                 small_chart(p, "Norm of the gradient", "before clipping, logarithmic", norm_of, true, e) ||
                 small_chart(p, "Speed", "images/s", speed_of, false, e)
             ? -1
             : 0;
    fputs("</div>\n</section>\n", p->f);
    return rc;
}
