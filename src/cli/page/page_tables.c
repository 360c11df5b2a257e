/* What the run was asked to do, on what data and on what machine: see parts.h. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "sdlora/text.h"

#include "html.h"
#include "parts.h"

static void row(const Page *p, const char *label, const char *value)
{
    if (!value || !*value)
        return;
    fprintf(p->f, "<tr><th>%s</th><td class=\"value\">", label);
    html_text(p->f, value);
    fputs("</td></tr>\n", p->f);
}

/* Nothing where it is not known. */
static void row_count(const Page *p, const char *label, const json_t *o, const char *key)
{
    const json_t *value = json_object_get(o, key);
    char n[32];
    if (json_is_integer(value))
        row(p, label, text_count(n, json_integer_value(value)));
}

static void row_text(const Page *p, const char *label, const json_t *o, const char *key)
{
    row(p, label, json_string_value(json_object_get(o, key)));
}

static void classes(const Page *p)
{
    char name[CLASS_NAME_MAX];
    if (!p->names.n)
        return;
    fputs("<tr><th>classes</th><td>", p->f);
    for (int i = 0; i < p->names.n; i++) {
        fputs(i ? ", " : "", p->f);
        html_text(p->f, names_at(name, &p->names, i));
    }
    fputs("</td></tr>\n", p->f);
}

static void data(const Page *p)
{
    const json_t *d = json_object_get(p->run->root, "data");
    const char *sum = json_string_value(json_object_get(d, "sha256"));
    fputs("<div><h3>Data</h3>\n<table>\n", p->f);
    row(p, "from", runinfo_option(p->run, "data"));
    row_count(p, "training images", d, "images");
    row_count(p, "for validation", d, "validation_images");
    if (p->names.n)
        classes(p);
    else
        row_count(p, "classes", d, "classes");
    row(p, "SHA-256", sum ? sum : p->facts.data_sha256);
    fputs("</table></div>\n", p->f);
}

static void base(const Page *p)
{
    char loss[32];
    if (!p->adapter)
        return;
    fputs("<div><h3>The model adapted</h3>\n<table>\n", p->f);
    row(p, "file", runinfo_option(p->run, "model"));
    row(p, "SHA-256", p->facts.base_sha256[0] ? p->facts.base_sha256 : rundir_json_base(p->run->root));
    if (isfinite(p->facts.base_val_loss))
        row(p, "its validation loss", html_number(loss, p->facts.base_val_loss));
    fputs("</table></div>\n", p->f);
}

static void machine(const Page *p)
{
    const json_t *m = json_object_get(p->run->root, "machine");
    fputs("<div><h3>Machine</h3>\n<table>\n", p->f);
    row_text(p, "processor", m, "processor");
    row_count(p, "threads", m, "threads");
    row_text(p, "kernels", m, "simd");
    row_text(p, "OpenBLAS core", m, "openblas_core");
    row_text(p, "sdlora", p->run->root, "sdlora");
    fputs("</table></div>\n", p->f);
}

/* As the command line takes them; what was not given is as the preset says. */
static void options(const Page *p)
{
    json_t *all = json_object_get(p->run->root, "options"), *value;
    const char *name;
    fputs("<div class=\"options\">\n", p->f);
    json_object_foreach(all, name, value)
    {
        const char *text = json_string_value(value);
        if (!text || !*text)
            continue;
        fputs("<div><span>", p->f);
        html_text(p->f, name);
        fputs("</span><code>", p->f);
        html_text(p->f, text);
        fputs("</code></div>\n", p->f);
    }
    fputs("</div>\n", p->f);
}

void page_tables(const Page *p)
{
    page_section(p, "Data and machine");
    fputs("<div class=\"trio\">\n", p->f);
    data(p);
    base(p);
    machine(p);
    fputs("</div>\n</section>\n", p->f);
    page_section(p, "Configuration");
    fprintf(p->f, "<p class=\"soft\">Options of <code>sdlora %s</code>.</p>\n", p->run->command);
    options(p);
    fputs("</section>\n", p->f);
}
