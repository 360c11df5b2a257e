/* The sum of the gradients of the chunks of a batch: model.h defines it. Chunks are handed out in their order and done
 * in any; whoever finishes the second of two neighbours adds them, so that nobody waits for a turn. When no chunk is
 * left to be begun, threads come to be idle: what is still to be added then, they add together at the end. */
#ifndef MODEL_TREE_SUM_H
#define MODEL_TREE_SUM_H

#include "sdlora/model.h"

typedef struct TreeSum TreeSum;

/* Of how many chunks, and which of them are done here: all of them, or the share of this process (ranks_deal), where
 * others do the rest. */
typedef struct TreeSpan {
    int chunks, first, end;
} TreeSpan;

/* For so many threads that work side by side. store: of whose weights gradients are summed up, into its own; NULL: only
 * hands out chunks. parts: of tree_sum_join, borrowed; NULL: there are no others. */
TreeSum *tree_sum_new(const ParamStore *store, TreeSpan span, const RanksSpan *parts, int workers, Err *e);
void tree_sum_free(TreeSum *s);
/* Memory that a sum with a store takes beside the store's own gradients. */
size_t tree_sum_bytes(const ParamStore *store, TreeSpan span, const RanksSpan *parts, int workers);

void tree_sum_start(TreeSum *s);
/* The next chunk below `end`, and into *slab where its gradient belongs (NULL without a store); `end`: there is
 * none. */
int tree_sum_next(TreeSum *s, real **slab, int end);
/* Chunk i's gradient is in its slab. */
void tree_sum_add(TreeSum *s, int i, real *slab);
/* To be called by one thread when all chunks that were handed out are done. */
void tree_sum_finish(TreeSum *s);
/* After that, where processes share the chunks: each gets its part of the sums that the others have, and adds them up,
 * along the same tree. So in the store is the whole sum there, and nothing of use elsewhere. */
void tree_sum_join(TreeSum *s);

#endif
