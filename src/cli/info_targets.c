/* The layers of a model that can be adapted: see info.h. */
#include "info.h"

#include <inttypes.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "cli.h"

enum { GROUPS_MAX = 8, LIST_CAP = 256 };

typedef struct Total {
    int layers;
    int64_t numbers;
} Total;

static const char *groups_of(char list[LIST_CAP], const Param *weight)
{
    size_t used = 0;
    list[0] = '\0';
    for (int i = 0; adapter_group(i); i++)
        if (adapter_group_has(i, weight) && used < LIST_CAP)
            used += (size_t)snprintf(list + used, LIST_CAP - used, "%s%s", used ? ", " : "", adapter_group(i));
    return list;
}

static json_t *groups_json(const Param *weight)
{
    json_t *list = json_array();
    for (int i = 0; adapter_group(i); i++)
        if (adapter_group_has(i, weight))
            json_array_append_new(list, json_string(adapter_group(i)));
    return list;
}

static json_t *layer_row(Report *r, Param *weight, int rank, int width)
{
    char layer[PARAM_NAME_MAX], shape[64], n[32], list[LIST_CAP];
    const Shape *s = &weight->file_shape;
    json_t *sizes = json_array();
    adapter_layer_name(layer, weight);
    for (int i = 0; i < s->nd; i++)
        json_array_append_new(sizes, json_integer(s->d[i]));
    fprintf(r->text, "  %-*s  %-22s %-14s %9s  %s\n", width, layer, USE_NAMES[weight->use], shape_text(*s, shape),
            text_count(n, adapter_rank_numbers(weight, rank)), groups_of(list, weight));
    return json_pack("{s:s, s:s, s:o, s:I, s:o}", "name", layer, "kind", USE_NAMES[weight->use], "shape", sizes,
                     "numbers", (json_int_t)adapter_rank_numbers(weight, rank), "groups", groups_json(weight));
}

static void put_layers(Report *r, const ParamStore *model, int rank)
{
    json_t *layers = json_array();
    int width = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < model->count; i++) {
            char layer[PARAM_NAME_MAX];
            if (!adapter_adaptable(model->items[i]))
                continue;
            adapter_layer_name(layer, model->items[i]);
            if (pass)
                json_array_append_new(layers, layer_row(r, model->items[i], rank, width));
            else if ((int)strlen(layer) > width)
                width = (int)strlen(layer);
        }
    report_set(r, "targets", layers);
}

static void put_groups(Report *r, const ParamStore *model, int rank)
{
    json_t *groups = json_array();
    int64_t weights = cli_weight_count(model);
    fprintf(r->text, "groups:\n");
    for (int g = 0; adapter_group(g); g++) {
        Total t = {0, 0};
        char n[32];
        for (int i = 0; i < model->count; i++)
            if (adapter_group_has(g, model->items[i])) {
                t.layers++;
                t.numbers += adapter_rank_numbers(model->items[i], rank);
            }
        report_row(r, adapter_group(g), "%d layers, %s numbers, %.2f %% of the model: %s", t.layers,
                   text_count(n, t.numbers), 100 * (double)t.numbers / (double)weights, adapter_group_words(g));
        json_array_append_new(groups, json_pack("{s:s, s:i, s:I}", "name", adapter_group(g), "layers", t.layers,
                                                "numbers", (json_int_t)t.numbers));
    }
    report_set(r, "groups", groups);
}

int info_targets(Report *r, const char *path, int rank, Err *e)
{
    char file[FILE_PATH_MAX];
    int64_t weights;
    ModelConfig c;
    StFile *f = cli_model_file(file, path, e) ? NULL : st_open(file, e);
    Model *m = f && !model_describe(&c, &weights, f, e) ? model_declare(&c, false, e) : NULL;
    if (m) {
        report_title(r, "targets", "layers to adapt, of model", file);
        report_set(r, "rank", json_integer(rank));
        fprintf(r->text, "with the numbers of an adapter of rank %d, and the groups that hold each:\n", rank);
        put_layers(r, m->params, rank);
        put_groups(r, m->params, rank);
    }
    model_free(m);
    st_close(f);
    return m ? 0 : -1;
}
