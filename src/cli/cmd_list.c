/* sdlora list: the runs there are, a line each. A run is a directory with a run.json; a directory with checkpoints and
 * no run.json was one. Nothing that is wrong with one run hides another. */
#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "cli.h"
#include "report.h"
#include "runinfo.h"

#define DEFAULT_DIR "runs"
enum { DEPTH = 4, COLUMNS = 8, CELL = 48 };

typedef struct ListArgs {
    bool json;
} ListArgs;

static const Option OPTIONS[] = {
    {.name = "json", OPTION_OWN(ListArgs, FIELD_BOOL, json, .help = "one JSON object: runs, an array")},
    {0},
};

static const OptionTable TABLE = {
    .command = "list",
    .summary = "the runs there are, a line each",
    .operand = "[DIR]",
    .text =
        "Looks for runs in DIR [" DEFAULT_DIR "] and four levels below it, through no symbolic link. 'sdlora info RUN' "
        "says more\nof one.\n",
    .options = OPTIONS,
};

/* One line: a path, then cells, or what is wrong. */
typedef struct Line {
    char *path, *damaged; /* damaged: why; NULL: it is not */
    char cell[COLUMNS][CELL];
    json_t *json;
} Line;

typedef struct List {
    Line *item;
    size_t n, cap;
} List;

static const char *const HEADINGS[COLUMNS] = {"command", "of", "data", "steps", "val", "best", "state", "size"};

static Line *add(List *l, const char *path, Err *e)
{
    Line *line;
    if (l->n == l->cap) {
        size_t cap = 2 * l->cap + 16;
        Line *more = mem_alloc(cap, sizeof *more, "the list of runs", e);
        if (!more)
            return NULL;
        if (l->n)
            memcpy(more, l->item, l->n * sizeof *more);
        mem_free(l->item);
        l->item = more;
        l->cap = cap;
    }
    line = &l->item[l->n];
    memset(line, 0, sizeof *line);
    line->path = mem_strdup(strncmp(path, "./", 2) || !path[2] ? path : path + 2, e);
    line->json = json_object();
    if (!line->path || !line->json) {
        mem_free(line->path);
        json_decref(line->json);
        return NULL;
    }
    l->n++;
    return line;
}

static void list_free(List *l)
{
    for (size_t i = 0; i < l->n; i++) {
        mem_free(l->item[i].path);
        mem_free(l->item[i].damaged);
        json_decref(l->item[i].json);
    }
    mem_free(l->item);
}

static int add_damaged(List *l, const char *path, const char *why, Err *e)
{
    Line *line = add(l, path, e);
    if (!line || !(line->damaged = mem_strdup(why, e)))
        return -1;
    json_object_set_new(line->json, "directory", report_string(path));
    json_object_set_new(line->json, "damaged", report_string(why));
    return 0;
}

static void put_loss(char cell[CELL], double loss)
{
    snprintf(cell, CELL, isnan(loss) ? "-" : "%.4f", loss);
}

static void fill(Line *line, const RunInfo *r)
{
    char name[256], done[32], total[32], size[32];
    snprintf(line->cell[0], CELL, "%s", r->command);
    text_safe(line->cell[1], CELL, runinfo_origin(name, sizeof name, r));
    text_safe(line->cell[2], CELL, runinfo_data(name, sizeof name, r));
    snprintf(line->cell[3], CELL, "%s/%s", text_count(done, r->step),
             r->total >= 0 ? text_count(total, r->total) : "?");
    put_loss(line->cell[4], r->last_loss);
    put_loss(line->cell[5], r->best_loss);
    snprintf(line->cell[6], CELL, "%s", RUN_STATE_NAMES[r->state]);
    json_decref(line->json);
    line->json = runinfo_json(r);
    snprintf(line->cell[7], CELL, "%s",
             report_bytes(size, (double)json_integer_value(json_object_get(line->json, "bytes"))));
}

static int add_run(List *l, const char *path, Err *e)
{
    RunInfo *r = mem_alloc(1, sizeof *r, "a run", e);
    Err why = {0};
    Line *line;
    int rc = r ? 0 : -1;
    if (!rc && runinfo_read(r, path, &why)) {
        rc = add_damaged(l, path, why.msg, e);
    } else if (!rc) {
        line = add(l, path, e);
        rc = line ? 0 : -1;
        if (line)
            fill(line, r);
    }
    if (r)
        runinfo_free(r);
    mem_free(r);
    return rc;
}

static bool was_run(const char *path)
{
    char *inner = mem_printf(NULL, "%s/checkpoints", path);
    bool was = inner && file_is_dir(inner);
    mem_free(inner);
    return was;
}

static int look_at(List *l, FTS *walk, FTSENT *f, Err *e)
{
    if (f->fts_info == FTS_DNR || f->fts_info == FTS_ERR)
        return add_damaged(l, f->fts_path, strerror(f->fts_errno), e);
    if (f->fts_info != FTS_D)
        return 0;
    if (f->fts_level >= DEPTH || (f->fts_level > 0 && f->fts_name[0] == '.'))
        fts_set(walk, f, FTS_SKIP);
    if (f->fts_level > 0 && f->fts_name[0] == '.')
        return 0;
    if (runinfo_there(f->fts_path))
        return add_run(l, f->fts_path, e);
    return was_run(f->fts_path) ? add_damaged(l, f->fts_path, "run.json is missing", e) : 0;
}

static int find(List *l, const char *dir, Err *e)
{
    char *name = mem_strdup(dir, e), *roots[] = {name, NULL};
    FTS *walk = name ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL) : NULL;
    FTSENT *f;
    int rc = walk ? 0 : name ? err_errno(e, ERR_FAILED, "cannot read the directory '%s'", dir) : -1;
    while (!rc && (f = fts_read(walk)))
        rc = look_at(l, walk, f, e);
    if (walk)
        fts_close(walk);
    mem_free(name);
    return rc;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const Line *)a)->path, ((const Line *)b)->path);
}

/* ---- printing ---- */

static int wider(int width, const char *text)
{
    int columns = text_columns(text);
    return columns > width ? columns : width;
}

static void put_cell(const char *text, int width, bool right)
{
    int pad = width - text_columns(text);
    printf("  %*s", right && pad > 0 ? pad : 0, "");
    cli_put(stdout, text);
    printf("%*s", !right && pad > 0 ? pad : 0, "");
}

static void print(const List *l)
{
    int width[COLUMNS] = {0}, first = 3;
    for (int k = 0; k < COLUMNS; k++)
        width[k] = text_columns(HEADINGS[k]);
    for (size_t i = 0; i < l->n; i++) {
        first = wider(first, l->item[i].path);
        for (int k = 0; k < COLUMNS && !l->item[i].damaged; k++)
            width[k] = wider(width[k], l->item[i].cell[k]);
    }
    printf("%-*s", first, "run");
    for (int k = 0; k < COLUMNS; k++)
        put_cell(HEADINGS[k], k == COLUMNS - 1 ? 0 : width[k], k >= 3 && k != 6);
    printf("\n");
    for (size_t i = 0; i < l->n; i++) {
        const Line *line = &l->item[i];
        cli_put(stdout, line->path);
        printf("%*s", first - text_columns(line->path), "");
        for (int k = 0; k < COLUMNS && !line->damaged; k++)
            put_cell(line->cell[k], width[k], k >= 3 && k != 6);
        if (line->damaged) {
            fputs("  damaged: ", stdout);
            cli_put(stdout, line->damaged);
        }
        printf("\n");
    }
}

static int print_json(const List *l, Err *e)
{
    json_t *root = json_object(), *runs = json_array();
    int rc;
    for (size_t i = 0; i < l->n; i++)
        json_array_append(runs, l->item[i].json);
    json_object_set_new(root, "runs", runs);
    rc = report_print_json(root, e);
    json_decref(root);
    return rc;
}

static int list(const char *dir, const ListArgs *a, Err *e)
{
    const char *where = dir ? dir : DEFAULT_DIR;
    List l = {0};
    int rc = 0;
    if (dir && !file_is_dir(dir))
        return err_set(e, ERR_INPUT, "'%s' is %s", dir, file_exists(dir) ? "not a directory" : "not there");
    if (file_is_dir(where))
        rc = find(&l, where, e);
    if (!rc && l.n > 1)
        qsort(l.item, l.n, sizeof *l.item, by_path);
    if (!rc && a->json)
        rc = print_json(&l, e);
    else if (!rc && l.n)
        print(&l);
    if (!rc && !l.n && !a->json) {
        fputs("there is no run in '", stderr);
        cli_put(stderr, where);
        fputs("'; 'sdlora train' makes one\n", stderr);
    }
    list_free(&l);
    return rc;
}

int cmd_list(int argc, char **argv)
{
    ListArgs args = {0};
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    status = list(given.operand, &args, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    return status;
}
