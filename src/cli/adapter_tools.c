/* What convert, merge, extract and resize share: see adapter_tools.h. */
#include "adapter_tools.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

static const char *const ADAPTER_FILES[] = {"adapter_model.safetensors", "adapter_config.json", NULL};

/* ---- the report ---- */

typedef struct Sum {
    int n;
    double change, lost;
} Sum;

static void add(Sum *s, const AdapterLoss *l)
{
    s->n++;
    s->change += l->change;
    s->lost += l->lost;
}

static double share(double lost, double change)
{
    return change > 0 ? sqrt(lost / change) : lost > 0 ? (double)INFINITY : 0;
}

static void put_sum(const char *name, const Sum *s)
{
    fprintf(stderr, "  %-24s %4d %11.4g %%\n", name, s->n, 100 * share(s->lost, s->change));
}

static void put_layer(const AdapterLoss *l)
{
    char rank[48] = "";
    if (l->before && l->after)
        snprintf(rank, sizeof rank, "rank %d -> %d", l->before, l->after);
    else if (l->after)
        snprintf(rank, sizeof rank, "rank %d", l->after);
    fprintf(stderr, "  %-60s %-18s %11.4g %%%s\n", l->weight->name, rank, 100 * share(l->lost, l->change),
            l->left_out ? " left out" : "");
}

void tools_report(const AdapterLoss *loss, int n, const char *of, bool each)
{
    Sum sum[USES] = {{0}}, inside = {0}, left = {0}, all = {0};
    const AdapterLoss *worst = NULL;
    fprintf(stderr, "%s:\n", of);
    for (int i = 0; i < n; i++) {
        if (each)
            put_layer(&loss[i]);
        add(&all, &loss[i]);
        add(loss[i].left_out ? &left : &inside, &loss[i]);
        if (loss[i].left_out)
            continue;
        add(&sum[loss[i].weight->use], &loss[i]);
        if (!worst || share(loss[i].lost, loss[i].change) > share(worst->lost, worst->change))
            worst = &loss[i];
    }
    for (int use = USE_LINEAR; use < USES; use++)
        if (sum[use].n)
            put_sum(USE_NAMES[use], &sum[use]);
    if (sum[USE_OTHER].n)
        put_sum("biases, norms", &sum[USE_OTHER]);
    put_sum("together", &inside);
    if (worst)
        fprintf(stderr, "  largest: '%s', %.4g %%\n", worst->weight->name, 100 * share(worst->lost, worst->change));
    if (!left.n)
        return;
    put_sum("left out", &left);
    put_sum("together with these", &all);
}

/* ---- the adapter's directory ---- */

/* `dir` without slashes at its end, which would hide its last part. */
static int last_part(char out[FILE_PATH_MAX], const char *dir, Err *e)
{
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    return snprintf(out, FILE_PATH_MAX, "%.*s", (int)len, dir) < FILE_PATH_MAX
               ? 0
               : err_set(e, ERR_USAGE, "the path '%.60s...' is too long", dir);
}

static int check_apart(const char *dir, const char *input, Err *e)
{
    char *weights = NULL, *config = NULL, path[FILE_PATH_MAX];
    int rc = adapter_files(&weights, &config, input, e);
    for (int i = 0; ADAPTER_FILES[i] && !rc; i++)
        rc = file_join(path, sizeof path, dir, ADAPTER_FILES[i], e) || cli_check_apart(path, weights, e) ||
                     cli_check_apart(path, config, e)
                 ? -1
                 : 0;
    mem_free(weights);
    mem_free(config);
    return rc;
}

int tools_check_dir(const char *dir, const char *input, Err *e)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    if (!dir || !*dir || !strcmp(dir, "-"))
        return err_set(e, ERR_USAGE, "the adapter is a directory; name it with --output");
    if (last_part(path, dir, e) || (input && check_apart(path, input, e)))
        return -1;
    if (lstat(path, &st))
        return 0;
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_FAILED, "cannot write '%s': it is there and no directory", path);
    return dir_holds_only(path, ADAPTER_FILES)
               ? 0
               : err_set(e, ERR_FAILED, "cannot replace '%s': it holds more than an adapter's two files", path);
}

int tools_save(const Adapter *a, const char *dir, DType dtype, Err *e)
{
    char path[FILE_PATH_MAX], parent[FILE_PATH_MAX], tmp[FILE_PATH_MAX];
    bool removed;
    if (last_part(path, dir, e) || file_dir(parent, sizeof parent, path, e) || file_mkdirs(parent, e) ||
        dir_make_temporary(tmp, sizeof tmp, parent, e))
        return -1;
    if (!adapter_save_as(a, tmp, ADAPTER_PEFT, dtype, e) && !dir_replace(path, tmp, ADAPTER_FILES, e))
        return 0;
    dir_remove(tmp, ADAPTER_FILES, &removed, NULL);
    return -1;
}

double tools_bytes(const char *path)
{
    char *weights = NULL, *config = NULL;
    struct stat st;
    double bytes = !adapter_files(&weights, &config, path, NULL) && !stat(weights, &st) ? (double)st.st_size : 0;
    mem_free(weights);
    mem_free(config);
    return bytes;
}
