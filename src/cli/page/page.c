/* A page from its head to its foot: see page.h. */
#include "page.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "html.h"
#include "parts.h"

enum { REFRESH_SECONDS = 30 };

/* What the page of a run begins with, and nothing else. */
static const char BEGINNING[] = "<!DOCTYPE html>\n<!-- a run of sdlora -->\n";

int page_check_default(const char *path, Err *e)
{
    char begins[sizeof BEGINNING] = "";
    struct stat st;
    FILE *f;
    size_t got = 0;
    if (lstat(path, &st))
        return 0;
    if (S_ISREG(st.st_mode) && (f = fopen(path, "rb"))) {
        got = fread(begins, 1, sizeof BEGINNING - 1, f);
        fclose(f);
    }
    if (S_ISREG(st.st_mode) && (st.st_size == 0 || (got == sizeof BEGINNING - 1 && !strcmp(begins, BEGINNING))))
        return 0;
    return err_set(e, ERR_USAGE, "'%s' is there already, and this program did not write it", path);
}

/* ---- what is known ---- */

int64_t page_batch(const RunInfo *r)
{
    const long long batch = strtoll(runinfo_option(r, "batch-size"), NULL, 10);
    return batch > 0 && batch < INT32_MAX ? batch : 0;
}

double page_seconds(const RunInfo *r)
{
    double seconds = 0;
    int64_t before = 0;
    for (int64_t i = 0; i < r->n_rows; before = r->rows[i++].step)
        if (r->rows[i].images_per_s > 0 && r->rows[i].step > before)
            seconds += (double)(r->rows[i].step - before) * (double)page_batch(r) / r->rows[i].images_per_s;
    return seconds;
}

double page_images_per_s(const RunInfo *r)
{
    const double seconds = page_seconds(r);
    return seconds > 0 ? (double)r->rows[r->n_rows - 1].step * (double)page_batch(r) / seconds : (double)NAN;
}

static void read_result(Page *p)
{
    const RunInfo *r = p->run;
    char *path = r->result[0] ? mem_printf(NULL, "%s/%s", r->dir, r->result) : NULL;
    StFile *file = path ? st_open_header(path, NULL) : NULL;
    ModelConfig config;
    p->facts = FACTS_NONE;
    if (file && facts_read(&p->facts, &p->names, file, NULL))
        p->facts = FACTS_NONE;
    p->classes = p->facts.classes;
    if (file && !p->adapter && !model_describe(&config, &p->weights, file, NULL))
        p->classes = config.classes;
    else
        p->weights = 0;
    st_close(file);
    mem_free(path);
}

/* ---- the head ---- */

static const char *state_word(RunState s)
{
    return s == STATE_STOPPED ? "interrupted" : RUN_STATE_NAMES[s];
}

void page_section(const Page *p, const char *title)
{
    fprintf(p->f, "<section>\n<h2>%s</h2>\n", title);
}

static void head(const Page *p)
{
    fputs(BEGINNING, p->f);
    fputs("<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
          "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
          "<meta name=\"generator\" content=\"sdlora " SDLORA_VERSION "\">\n<link rel=\"icon\" href=\"data:,\">\n",
          p->f);
    if (p->run->state == STATE_RUNNING)
        fprintf(p->f, "<meta http-equiv=\"refresh\" content=\"%d\">\n", REFRESH_SECONDS);
    fputs("<title>", p->f);
    html_text(p->f, p->run->dir);
    fprintf(p->f, " - %s</title>\n", state_word(p->run->state));
    page_style(p->f);
    fputs("</head>\n<body>\n<main>\n", p->f);
}

static void what_it_is(const Page *p)
{
    const RunInfo *r = p->run;
    char n[32];
    if (p->adapter) {
        fprintf(p->f, "<p class=\"soft\">An adapter of rank ");
        html_text(p->f, runinfo_option(r, "rank"));
        fputs(" for the model <code>", p->f);
        html_text(p->f, runinfo_option(r, "model"));
    } else {
        fputs("<p class=\"soft\">A model of preset <code>", p->f);
        html_text(p->f, runinfo_option(r, "preset"));
    }
    fputs("</code>", p->f);
    if (p->weights > 0)
        fprintf(p->f, ", %s weights", text_count(n, p->weights));
    fputs(", trained on <code>", p->f);
    html_text(p->f, runinfo_option(r, "data"));
    fputs("</code></p>\n", p->f);
}

static void title(const Page *p)
{
    const RunState s = p->run->state;
    const json_t *ended = json_object_get(p->run->root, RUN_ENDED);
    const char *why = json_string_value(json_object_get(ended, "why"));
    fputs("<header><h1>", p->f);
    html_text(p->f, p->run->dir);
    fprintf(p->f, "</h1><span class=\"state %s\">%s</span></header>\n", RUN_STATE_NAMES[s], state_word(s));
    what_it_is(p);
    if (s == STATE_DIVERGED && why) {
        fprintf(p->f, "<p class=\"why\">It diverged after step %" JSON_INTEGER_FORMAT ": ",
                json_integer_value(json_object_get(ended, "step")));
        html_text(p->f, why);
        fputs(".</p>\n", p->f);
    }
}

/* ---- tiles ---- */

static void tile_loss(const Page *p)
{
    const RunInfo *r = p->run;
    char x[32], n[32];
    fprintf(p->f, "<div class=\"tile\"><small>Validation loss</small><b>%s</b><small>", html_number(x, r->last_loss));
    if (isnan(r->last_loss))
        fputs("not measured", p->f);
    else
        fprintf(p->f, "best %s, at step %s", html_number(x, r->best_loss), text_count(n, r->best_step));
    if (isfinite(p->facts.base_val_loss))
        fprintf(p->f, "; the model alone %s", html_number(x, p->facts.base_val_loss));
    fputs("</small></div>\n", p->f);
}

static void tile_steps(const Page *p)
{
    const RunInfo *r = p->run;
    char n[32], m[32];
    fprintf(p->f, "<div class=\"tile\"><small>Steps</small><b>%s</b><small>of %s", text_count(n, r->step),
            r->total > 0 ? text_count(m, r->total) : "not known how many");
    if (r->epochs > 0)
        fprintf(p->f, ", epoch %" PRId64, r->epochs);
    fputs("</small>", p->f);
    if (r->total > 0)
        fprintf(p->f, "<progress max=\"%" PRId64 "\" value=\"%" PRId64 "\">%" PRId64 " %%</progress>", r->total,
                r->step, 100 * r->step / r->total);
    fputs("</div>\n", p->f);
}

static void tile_speed(const Page *p)
{
    const double seconds = page_seconds(p->run), rate = page_images_per_s(p->run);
    char x[32];
    fprintf(p->f, "<div class=\"tile\"><small>Images per second</small><b>%s</b><small>",
            html_number(x, rate >= 10 ? round(rate) : rate));
    if (seconds >= 5400)
        fprintf(p->f, "%.1f hours of training", seconds / 3600);
    else if (seconds >= 120)
        fprintf(p->f, "%.1f minutes of training", seconds / 60);
    else if (seconds > 0)
        fprintf(p->f, seconds < 10 ? "%.1f seconds of training" : "%.0f seconds of training", seconds);
    fputs("</small></div>\n", p->f);
}

static void tile_size(const Page *p)
{
    const double bytes = runinfo_bytes(p->run->dir);
    const bool there = p->run->result[0];
    fprintf(p->f, "<div class=\"tile\"><small>On disk</small><b>%.1f MB</b><small>", bytes / 1e6);
    if (there)
        html_text(p->f, p->run->result);
    else
        fputs("no result yet", p->f);
    fputs("</small></div>\n", p->f);
}

/* ---- all of it ---- */

static void foot(const Page *p)
{
    char when[64] = "";
    const time_t now = time(NULL);
    struct tm tm;
    if (localtime_r(&now, &tm))
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    fprintf(p->f,
            "<p class=\"soft foot\">Written %s by sdlora " SDLORA_VERSION
            ". <code>sdlora report</code> writes it anew.</p>\n",
            when);
    page_script(p->f);
    fputs("</main>\n</body>\n</html>\n", p->f);
}

static int put_page(const Page *p, Err *e)
{
    head(p);
    title(p);
    fputs("<div class=\"tiles\">\n", p->f);
    tile_loss(p);
    tile_steps(p);
    tile_speed(p);
    tile_size(p);
    fputs("</div>\n", p->f);
    if (page_loss(p, e) || page_grids(p, e))
        return -1;
    page_eval(p);
    if (page_details(p, e))
        return -1;
    page_tables(p);
    foot(p);
    return 0;
}

/* Put together in memory, so that a page is there whole or as it was. */
static int make(char **text, size_t *size, const RunInfo *r, Err *e)
{
    Page p = {.run = r, .adapter = !strcmp(r->command, "finetune"), .f = open_memstream(text, size)};
    int rc;
    if (!p.f)
        return err_set(e, ERR_FAILED, "no memory for the page of '%s'", r->dir);
    read_result(&p);
    rc = put_page(&p, e);
    names_free(&p.names);
    if ((ferror(p.f) | fclose(p.f)) && !rc)
        rc = err_set(e, ERR_FAILED, "no memory for the page of '%s'", r->dir);
    return rc;
}

int page_write(const char *path, const char *dir, RunState state, Err *e)
{
    RunInfo *r = mem_alloc(1, sizeof *r, "a run", e);
    char *text = NULL;
    size_t size = 0;
    int rc = r ? runinfo_read(r, dir, e) : -1;
    if (!rc && state != STATE_UNKNOWN)
        r->state = state;
    if (!rc)
        rc = make(&text, &size, r, e) || file_save(path, text, size, e) ? -1 : 0;
    free(text);
    if (r)
        runinfo_free(r);
    mem_free(r);
    return rc;
}
