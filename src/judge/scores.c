/* Figures of a set of images: see scores.h. */
#include "sdlora/scores.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"

enum { KEPT_EACH = 6, COMPARED_MAX = 10000 };

int scores_split(int **judged, int *n_judged, int **kept, int *n_kept, const Dataset *train, Err *e)
{
    int seen[DATA_CLASSES_MAX] = {0};

    *n_judged = *n_kept = 0;
    *judged = mem_alloc((size_t)train->n, sizeof **judged, "the images", e);
    *kept = mem_alloc((size_t)train->n, sizeof **kept, "the images", e);
    if (!*judged || !*kept)
        return -1;
    for (int i = 0; i < train->n; i++)
        if (++seen[train->labels[i]] % KEPT_EACH == 0)
            (*kept)[(*n_kept)++] = i;
        else
            (*judged)[(*n_judged)++] = i;
    return *n_kept >= 2 ? 0
                        : err_set(e, ERR_INPUT,
                                  "the training images are too few to judge by: every %dth of each class is kept from "
                                  "the judge, and of %d that leaves %d",
                                  KEPT_EACH, train->n, *n_kept);
}

/* Is number i of n among `want` of them that are evenly spread? */
static bool is_kept(int i, int n, int want)
{
    return want >= n || (int64_t)(i + 1) * want / n > (int64_t)i * want / n;
}

int scores_thin(int *row, int n, int want)
{
    int kept = 0;

    for (int i = 0; i < n; i++)
        if (want == 0 || is_kept(i, n, want))
            row[kept++] = row[i];
    return kept;
}

int scores_thin_classes(int *row, int n, const Dataset *d, const int want[DATA_CLASSES_MAX])
{
    int have[DATA_CLASSES_MAX] = {0}, seen[DATA_CLASSES_MAX] = {0}, kept = 0;

    for (int i = 0; i < n; i++)
        have[d->labels[row[i]]]++;
    for (int i = 0; i < n; i++) {
        const int c = d->labels[row[i]];
        if (is_kept(seen[c]++, have[c], want[c]))
            row[kept++] = row[i];
    }
    return kept;
}

int real_look(Real *r, const Judge *j, bool neighbours, Err *e)
{
    const ImageSet train = {r->train, NULL, r->train->n}, test = {r->test, NULL, r->test->n};
    return judge_look(&r->seen_test, j, &test, e) || (neighbours && judge_look(&r->seen_train, j, &train, e)) ? -1 : 0;
}

void real_free(Real *r)
{
    seen_free(&r->seen_train);
    seen_free(&r->seen_test);
}

static int count_classes(Scores *out, const ImageSet *s, const Seen *seen, Err *e)
{
    const size_t k = (size_t)out->classes;

    out->confusion = mem_alloc(k * k, sizeof *out->confusion, "the confusion matrix", e);
    if (!out->confusion)
        return -1;
    for (int i = 0; i < s->n; i++)
        out->confusion[s->d->labels[image_set_row(s, i)] * k + (size_t)seen_class(seen, i)]++;
    out->accuracy = seen_accuracy(seen, s);
    return 0;
}

/* 0..n-1, thinned out to `want`. */
static int *some_of(int *count, int n, int want, Err *e)
{
    int *row = mem_alloc((size_t)n, sizeof *row, "the images", e);

    for (int i = 0; row && i < n; i++)
        row[i] = i;
    *count = row ? scores_thin(row, n, want) : 0;
    return row;
}

static Rows feature_rows(const Seen *s, const int *row, int n)
{
    return (Rows){.f = s->features, .row = row, .n = n, .dim = JUDGE_FEATURES};
}

/* As many on both sides: what lies within reach depends on how many there are. */
static int compare(Scores *out, const Seen *seen, const Seen *test, Err *e)
{
    int least = seen->n < test->n ? seen->n : test->n, n, *ours = NULL, *theirs = NULL, rc = -1;

    if (least > COMPARED_MAX)
        least = COMPARED_MAX;
    if (least <= SCORES_K)
        return 0;
    if ((ours = some_of(&n, seen->n, least, e)) && (theirs = some_of(&n, test->n, least, e))) {
        const Rows drawn = feature_rows(seen, ours, n), real_ones = feature_rows(test, theirs, n);
        out->compared = n;
        rc = measure_precision_recall(&out->precision, &out->recall, &drawn, &real_ones, SCORES_K, e);
    }
    mem_free(ours);
    mem_free(theirs);
    return rc;
}

/* The rows of the data set for those of `row`, which are images of s. */
static int *rows_in_set(const ImageSet *s, const int *row, int n, Err *e)
{
    int *out = mem_alloc((size_t)n, sizeof *out, "the images", e);

    for (int i = 0; out && i < n; i++)
        out[i] = (int)image_set_row(s, row[i]);
    return out;
}

static int search_for(Scores *out, const ImageSet *s, const Seen *seen, const Real *r, int search, bool training,
                      MeasureProgress progress, void *ctx, Err *e)
{
    const int dim = (int)dataset_image_bytes(s->d);
    int *in_set = NULL, rc = -1;

    if (!(out->searched_row = some_of(&out->searched, s->n, search, e)) ||
        !(in_set = rows_in_set(s, out->searched_row, out->searched, e)))
        return -1;
    out->px = mem_alloc((size_t)out->searched, sizeof *out->px, "neighbours", e);
    out->features = mem_alloc((size_t)out->searched, sizeof *out->features, "neighbours", e);
    if (out->px && out->features) {
        const Rows x = {.px = s->d->images, .row = in_set, .n = out->searched, .dim = dim};
        const Rows among = {.px = r->train->images, .n = r->train->n, .dim = dim};
        const Rows fx = feature_rows(seen, out->searched_row, out->searched);
        const Rows f_among = feature_rows(&r->seen_train, NULL, r->train->n);
        const int *except = training ? in_set : NULL;
        rc = measure_nearest(out->px, &x, &among, except, progress, ctx, e) ||
                     measure_nearest(out->features, &fx, &f_among, except, progress, ctx, e)
                 ? -1
                 : 0;
    }
    for (int i = 0; !rc && i < out->searched; i++)
        out->copies += nearest_is_copy(out->px + i);
    mem_free(in_set);
    return rc;
}

int scores_make(Scores *out, const ImageSet *s, const Seen *seen, bool labelled, const Real *r, int search,
                bool training, MeasureProgress progress, void *ctx, Err *e)
{
    const double nan = (double)NAN;
    const Rows drawn = feature_rows(seen, NULL, seen->n), test = feature_rows(&r->seen_test, NULL, r->seen_test.n);

    *out = (Scores){.n = s->n, .classes = seen->classes, .labelled = labelled};
    out->accuracy = out->precision = out->recall = out->cas = nan;
    if ((labelled && count_classes(out, s, seen, e)) || measure_frechet(&out->frechet, &drawn, &test, e) ||
        compare(out, seen, &r->seen_test, e))
        return -1;
    return search ? search_for(out, s, seen, r, search, training, progress, ctx, e) : 0;
}

void scores_free(Scores *s)
{
    mem_free(s->confusion);
    mem_free(s->searched_row);
    mem_free(s->px);
    mem_free(s->features);
    *s = (Scores){.n = 0};
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double scores_median_distance(const Scores *s, bool features)
{
    double *d = s->searched ? mem_alloc((size_t)s->searched, sizeof *d, "distances", NULL) : NULL, middle;

    if (!d)
        return (double)NAN;
    for (int i = 0; i < s->searched; i++)
        d[i] = (features ? s->features : s->px)[i].distance;
    qsort(d, (size_t)s->searched, sizeof *d, by_size);
    middle = d[s->searched / 2];
    mem_free(d);
    return middle;
}

double scores_class_accuracy(const Scores *s, int c)
{
    const int *row = s->confusion + (size_t)c * (size_t)s->classes;
    int all = 0;

    for (int k = 0; k < s->classes; k++)
        all += row[k];
    return all ? (double)row[c] / all : (double)NAN;
}
