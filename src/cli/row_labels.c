/* Names of classes beside rows: see row_labels.h. */
#include "row_labels.h"

#include <string.h>

#include "sdlora/text.h"

enum {
    LEAST_SCALE = 2,
    MARGIN = 4,
    LETTERS = 72,
    LETTER_HEIGHT = 9
}; /* dots of twelve letters; of a capital, with its base */

static int columns_of(const SampleJob *j)
{
    return j->args->trajectory ? j->args->trajectory : 1;
}

/* The class of the row's images. A row of several classes has none, nor one that goes on with that of the row above. */
static bool row_class(int *class_id, const SampleJob *j, int row)
{
    const int each = columns_of(j), cells = j->plan.n * each, first = row * j->plan.cols;
    const int end = first + j->plan.cols < cells ? first + j->plan.cols : cells, *class_of = j->plan.classes;
    *class_id = class_of[first / each];
    return *class_id == class_of[(end - 1) / each] && !(first && class_of[(first - 1) / each] == *class_id);
}

/* What the row is called, cut to `width` pixels, with dots for what is left out; "": nothing. */
static const char *label_of(char out[CLASS_NAME_MAX], const SampleJob *j, int row, int scale, int width)
{
    const ClassNames *names = &j->model->names;
    size_t len;
    int id;
    out[0] = '\0';
    if (!row_class(&id, j, row))
        return out;
    text_ascii(out, CLASS_NAME_MAX, id < names->n ? names->name[id] : "none");
    len = strlen(out);
    while (len > 2 && image_text_width(out, scale) > width) {
        out[--len] = '\0';
        out[len - 1] = out[len - 2] = '.';
    }
    return out;
}

/* Letters as large as in captions, or as rows have room for. */
static int scale_for(const SampleJob *j, int pitch)
{
    int scale = j->args->scale > LEAST_SCALE ? j->args->scale : LEAST_SCALE;
    while (scale > 1 && IMAGE_TEXT_HEIGHT * scale > pitch)
        scale--;
    return scale;
}

RowLabels row_labels(const SampleJob *j, int grid_width, int pad)
{
    const int cells = j->plan.n * columns_of(j);
    RowLabels l = {.pitch = j->model->config.image_size * j->args->scale + pad, .pad = pad};
    char text[CLASS_NAME_MAX];
    int widest = 0;
    if (!j->model->names.n || j->args->no_captions || sample_mixes_classes(j->args) || sample_moves(j->args))
        return l;
    l.rows = (cells + j->plan.cols - 1) / j->plan.cols;
    l.scale = scale_for(j, l.pitch);
    l.most = grid_width / 3 > LETTERS * l.scale ? grid_width / 3 : LETTERS * l.scale;
    for (int row = 0; row < l.rows; row++) {
        const int width = image_text_width(label_of(text, j, row, l.scale, l.most), l.scale);
        widest = width > widest ? width : widest;
    }
    l.width = widest ? widest + 2 * MARGIN : 0;
    return l;
}

void row_labels_draw(Image *im, const RowLabels *l, const SampleJob *j, int y)
{
    const int above = (l->pitch - l->pad - LETTER_HEIGHT * l->scale) / 2;
    char text[CLASS_NAME_MAX];
    for (int row = 0; row < l->rows && l->width; row++)
        image_text(im, MARGIN, y + l->pad + row * l->pitch + above, label_of(text, j, row, l->scale, l->most), l->scale,
                   0);
}
