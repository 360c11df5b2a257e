/* Do the tensors of an adapter's file have the shapes of parts of a change? Ranks are read off them. Nothing is
 * allocated by a number of the file before this. */
#include "adapter_file.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/store_file.h"

static uint64_t dim(const StTensor *t, int k)
{
    return t && k < t->nd ? t->d[k] : 1;
}

/* The tensor has this shape, but for dimensions of 1 at the end: (r,I) is as good as (r,I,1,1). */
static bool fits(const StTensor *t, Shape s)
{
    for (int k = 0; k < t->nd || k < s.nd; k++)
        if (dim(t, k) != (uint64_t)(k < s.nd ? s.d[k] : 1))
            return false;
    return true;
}

static const char *tensor_shape(const StTensor *t, char buf[96])
{
    size_t used = 0;

    buf[0] = '\0';
    for (int k = 0; k < t->nd && used < 80; k++)
        used += (size_t)snprintf(buf + used, 96 - used, "%s%llu", k ? "," : "", (unsigned long long)t->d[k]);
    return buf;
}

static int no_fit(const AdapterFile *a, const FileLayer *l, const StTensor *t, Shape want, Err *e)
{
    char have[96], shape[64], weight[64];

    return err_set(e, ERR_INPUT, "'%s': tensor '%s' of shape (%s) does not fit '%s' of shape %s%s%s", st_label(a->f),
                   t->name, tensor_shape(t, have), l->w->name, shape_text(l->w->file_shape, weight),
                   want.nd ? ", which takes " : "", want.nd ? shape_text(want, shape) : "");
}

static int want(const AdapterFile *a, FileLayer *l, int part, Shape shape, Err *e)
{
    l->shape[part] = shape;
    return !l->part[part] || fits(l->part[part], shape) ? 0 : no_fit(a, l, l->part[part], shape, e);
}

/* 0 where no part has one. */
static int set_rank(const AdapterFile *a, FileLayer *l, Err *e)
{
    int k;
    const StTensor *t = file_layer_ranked(&k, l);
    const uint64_t rank = dim(t, k);

    if (t && (rank < 1 || rank > ADAPTER_RANK_MAX || t->nd <= k))
        return no_fit(a, l, t, (Shape){0}, e);
    l->rank = t ? (int)rank : 0;
    return 0;
}

/* A weight as (out, in, taps). */
typedef struct Sizes {
    int out, in, h, w;
} Sizes;

static Sizes sizes_of(const FileLayer *l)
{
    const Shape s = l->w->file_shape;
    return (Sizes){s.d[0], s.d[1], s.nd == 4 ? s.d[2] : 1, s.nd == 4 ? s.d[3] : 1};
}

/* ---- kinds ---- */

static bool lora_complete(const FileLayer *l)
{
    return l->part[PART_A] && l->part[PART_B];
}

static AdapterPart lora_ranked(const FileLayer *l)
{
    (void)l;
    return PART_A;
}

static int lora_check(const AdapterFile *a, FileLayer *l, Err *e)
{
    const bool turned = l->style == STYLE_REFERENCE;
    AdapterLayer like = {.weight = l->w, .kind = ADAPTER_LORA};
    Shape s;

    if (set_rank(a, l, e))
        return -1;
    like.rank = l->rank;
    like.part[PART_MID] = l->part[PART_MID] ? l->w : NULL; /* what A looks like depends on whether it is there */
    if (l->part[PART_MID] && l->w->file_shape.nd != 4)
        return no_fit(a, l, l->part[PART_MID], (Shape){0}, e);
    for (int part = PART_A; part <= PART_MID; part++) {
        s = adapter_part_shape(&like, (AdapterPart)part);
        l->shape[part] = s;
        if (turned && (s.nd != 2 || !fits(l->part[part], shape2(s.d[1], s.d[0]))) && l->part[part])
            return no_fit(a, l, l->part[part], s.nd == 2 ? shape2(s.d[1], s.d[0]) : (Shape){0}, e);
        if (!turned && want(a, l, part, s, e))
            return -1;
    }
    return 0;
}

static bool loha_complete(const FileLayer *l)
{
    return l->part[PART_W1_A] && l->part[PART_W1_B] && l->part[PART_W2_A] && l->part[PART_W2_B] &&
           !l->part[PART_T1] == !l->part[PART_T2];
}

static AdapterPart loha_ranked(const FileLayer *l)
{
    (void)l;
    return PART_W1_B;
}

static int loha_check(const AdapterFile *a, FileLayer *l, Err *e)
{
    const Sizes z = sizes_of(l);
    const bool tucker = l->part[PART_T1] != NULL;
    int r;

    if (set_rank(a, l, e))
        return -1;
    r = l->rank;
    for (int k = 0; k < 2; k++) {
        const Shape left = tucker ? shape2(r, z.out) : shape2(z.out, r);
        const Shape right = shape2(r, tucker ? z.in : z.in * z.h * z.w);
        if (want(a, l, k ? PART_W2_A : PART_W1_A, left, e) || want(a, l, k ? PART_W2_B : PART_W1_B, right, e) ||
            want(a, l, k ? PART_T2 : PART_T1, shape4(r, r, z.h, z.w), e))
            return -1;
    }
    return 0;
}

/* A factor of W1 or W2 in one piece or in two. */
static bool is_whole_or_two(const FileLayer *l, AdapterPart whole, AdapterPart first, AdapterPart second)
{
    return l->part[whole] ? !l->part[first] && !l->part[second] : l->part[first] && l->part[second];
}

static bool lokr_complete(const FileLayer *l)
{
    return is_whole_or_two(l, PART_W1, PART_W1_A, PART_W1_B) && is_whole_or_two(l, PART_W2, PART_W2_A, PART_W2_B) &&
           (!l->part[PART_T2] || l->part[PART_W2_A]);
}

static AdapterPart lokr_ranked(const FileLayer *l)
{
    return l->part[PART_W1] ? PART_W2_B : PART_W1_B;
}

static int lokr_check(const AdapterFile *a, FileLayer *l, Err *e)
{
    const Sizes z = sizes_of(l);
    const StTensor *w1 = l->part[PART_W1], *rows = w1 ? w1 : l->part[PART_W1_A], *cols = w1 ? w1 : l->part[PART_W1_B];
    uint64_t o1 = dim(rows, 0), i1 = dim(cols, 1);
    int o2, i2, r;
    bool tucker = l->part[PART_T2] != NULL;

    if (o1 < 1 || o1 > (uint64_t)z.out || (uint64_t)z.out % o1)
        return no_fit(a, l, rows, (Shape){0}, e);
    if (i1 < 1 || i1 > (uint64_t)z.in || (uint64_t)z.in % i1)
        return no_fit(a, l, cols, (Shape){0}, e);
    if (set_rank(a, l, e))
        return -1;
    r = l->rank ? l->rank : 1;
    o2 = z.out / (int)o1;
    i2 = z.in / (int)i1;
    if (want(a, l, PART_W1, shape2((int)o1, (int)i1), e) || want(a, l, PART_W1_A, shape2((int)o1, r), e) ||
        want(a, l, PART_W1_B, shape2(r, (int)i1), e) ||
        want(a, l, PART_W2, l->w->file_shape.nd == 4 ? shape4(o2, i2, z.h, z.w) : shape2(o2, i2), e) ||
        want(a, l, PART_T2, shape4(r, r, z.h, z.w), e) ||
        want(a, l, PART_W2_A, tucker ? shape2(r, o2) : shape2(o2, r), e))
        return -1;
    l->shape[PART_W2_B] = shape2(r, tucker ? i2 : i2 * z.h * z.w);
    if (l->part[PART_W2_B] && !tucker && fits(l->part[PART_W2_B], shape4(r, i2, z.h, z.w)))
        return 0; /* the same numbers, as LyCORIS' functions have them */
    return want(a, l, PART_W2_B, l->shape[PART_W2_B], e);
}

/* PEFT's magnitudes are (O), and (1,O,1,1) of convolutions; LyCORIS' (O,1,..), and (1,I,..) where they belong to
 * inputs. */
static int check_magnitude(const AdapterFile *a, FileLayer *l, Err *e)
{
    const AdapterLayer like = {.weight = l->w, .kind = ADAPTER_LORA, .rank = 1};
    const StTensor *t = l->part[PART_MAGNITUDE];
    const Shape s = adapter_part_shape(&like, PART_MAGNITUDE);
    const int channels = s.nd == 4 ? s.d[1] : s.d[0];

    l->shape[PART_MAGNITUDE] = s;
    if (!t || fits(t, shape1(channels)) || (l->style == STYLE_PEFT && fits(t, s)))
        return 0;
    if (l->style == STYLE_KOHYA && t->nd > 1 && t->d[0] == 1)
        return err_set(e, ERR_INPUT,
                       "'%s': tensor '%s' scales the inputs of '%s' (an older DoRA of LyCORIS); only "
                       "scales of outputs are supported",
                       st_label(a->f), t->name, l->w->name);
    return no_fit(a, l, t, s, e);
}

static int full_check(const AdapterFile *a, FileLayer *l, Err *e)
{
    const StTensor *v = l->part[PART_VALUE], *tokens = l->part[FILE_TOKENS];
    const bool classes = l->w->use == USE_TABLE && v && v->nd == 2 && v->d[1] == (uint64_t)l->w->file_shape.d[1];
    const int null_class = a->m->config.null_class;

    if (classes && v->d[0] != (uint64_t)l->w->file_shape.d[0])
        return err_set(e, ERR_INPUT, "'%s': tensor '%s' is for %lld classes, and the model has %d", st_label(a->f),
                       v->name, (long long)v->d[0] - null_class, l->w->file_shape.d[0] - null_class);
    if (tokens && (tokens->nd != 2 || tokens->d[0] > (uint64_t)l->w->file_shape.d[0] ||
                   tokens->d[1] != (uint64_t)l->w->file_shape.d[1]))
        return no_fit(a, l, tokens, (Shape){0}, e);
    return want(a, l, PART_VALUE, l->w->file_shape, e) || want(a, l, FILE_BIAS, l->w->file_shape, e) ? -1 : 0;
}

/* ---- all kinds ---- */

typedef struct KindFile {
    bool (*complete)(const FileLayer *l);      /* is there all that goes into the change? NULL: any part is */
    AdapterPart (*ranked)(const FileLayer *l); /* the part that the rank is read off, if it is there; NULL: none */
    int (*check)(const AdapterFile *a, FileLayer *l, Err *e);
} KindFile;

static const KindFile kinds[] = {[ADAPTER_LORA] = {lora_complete, lora_ranked, lora_check},
                                 [ADAPTER_LOHA] = {loha_complete, loha_ranked, loha_check},
                                 [ADAPTER_LOKR] = {lokr_complete, lokr_ranked, lokr_check},
                                 [ADAPTER_FULL] = {NULL, NULL, full_check}};

const StTensor *file_layer_ranked(int *k, const FileLayer *l)
{
    *k = l->style == STYLE_REFERENCE ? 1 : 0; /* its A is turned */
    return kinds[l->kind].ranked ? l->part[kinds[l->kind].ranked(l)] : NULL;
}

int adapter_check_complete(const AdapterFile *a, const FileLayer *l, Err *e)
{
    if (l->has_kind && (!kinds[l->kind].complete || kinds[l->kind].complete(l)))
        return 0;
    return err_set(e, ERR_INPUT,
                   "'%s' has only a part of the change of '%s': with '%s' something must go that is not "
                   "there",
                   st_label(a->f), l->w ? l->w->name : l->name, file_layer_tensor(l)->name);
}

static int check_layer(const AdapterFile *a, FileLayer *l, Err *e)
{
    l->scale = (double)NAN;
    if (adapter_check_complete(a, l, e))
        return -1;
    if (l->part[FILE_ALPHA] && l->part[FILE_ALPHA]->numel != 1)
        return err_set(e, ERR_INPUT, "'%s': tensor '%s' should be one number", st_label(a->f),
                       l->part[FILE_ALPHA]->name);
    return kinds[l->kind].check(a, l, e) || (l->kind != ADAPTER_FULL && check_magnitude(a, l, e)) ? -1 : 0;
}

int adapter_match_shapes(AdapterFile *a, Err *e)
{
    int misfits = 0;
    Err first, other;

    for (int i = 0; i < a->n; i++)
        if (a->layers[i].w && check_layer(a, &a->layers[i], misfits ? &other : &first))
            misfits++;
    if (misfits > 1)
        return err_set(e, ERR_INPUT, "%.900s; nor do those of %d other layers fit", first.msg, misfits - 1);
    return misfits ? err_set(e, first.code, "%s", first.msg) : 0;
}
