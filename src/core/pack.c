/* Placing: items by decreasing size, each at the lowest offset that is free during its whole life (the "greedy by size"
 * of Pisarchyk & Lee 2020, "Efficient memory management for deep neural net inference", section 5.2). */
#include "sdlora/graph.h"

#include <assert.h>
#include <stdlib.h>

#include "sdlora/mem.h"

static bool lives_meet(const PlanItem *a, const PlanItem *b)
{
    return a->start <= b->end && b->start <= a->end;
}

static int by_size(const void *pa, const void *pb)
{
    const PlanItem *a = *(PlanItem *const *)pa, *b = *(PlanItem *const *)pb;
    if (a->bytes != b->bytes)
        return a->bytes < b->bytes ? 1 : -1;
    return a < b ? -1 : a > b;
}

/* The lowest offset where `it` fits beside the placed items (sorted by offset) that are alive with it. */
static size_t lowest_gap(const PlanItem *it, PlanItem *const *placed, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        const PlanItem *p = placed[i];
        if (!lives_meet(it, p))
            continue;
        if (at + it->bytes <= p->offset)
            break;
        if (p->offset + p->bytes > at)
            at = p->offset + p->bytes;
    }
    return at;
}

void plan_pack(PlanItem *items, int n, bool plain, size_t *total)
{
    PlanItem **order = mem_alloc((size_t)n, sizeof *order, "the plan", NULL);
    PlanItem **placed = mem_alloc((size_t)n, sizeof *placed, "the plan", NULL);

    *total = 0;
    for (int i = 0; i < n; i++)
        assert(items[i].bytes % MEM_ALIGN == 0 && items[i].start <= items[i].end);
    if (!order || !placed)
        plain = true; /* always possible, only larger */
    for (int i = 0; i < n && plain; i++) {
        items[i].offset = *total;
        *total += items[i].bytes;
    }
    if (!plain) {
        for (int i = 0; i < n; i++)
            order[i] = &items[i];
        qsort(order, (size_t)n, sizeof *order, by_size);
        for (int i = 0; i < n; i++) {
            PlanItem *it = order[i];
            int k = i;
            it->offset = lowest_gap(it, placed, i);
            for (; k > 0 && placed[k - 1]->offset > it->offset; k--)
                placed[k] = placed[k - 1];
            placed[k] = it;
            if (it->offset + it->bytes > *total)
                *total = it->offset + it->bytes;
        }
    }
    mem_free(order);
    mem_free(placed);
}
