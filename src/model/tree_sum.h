/* The sum of the gradients of the chunks of a batch: model.h defines it. Chunks are handed out in their order and done
 * in any; whoever finishes the second of two neighbours adds them, so that nobody waits for a turn. When no chunk is
 * left to be begun, threads come to be idle: what is still to be added then, they add together at the end.
 *
 * Where gradients can be added as they come, a worker is given two neighbours. The second's go to the first's slab:
 * half of all additions, and a slab less that is written and read. Until it begins with the second, somebody who has
 * nothing else to do may take that. */
#ifndef MODEL_TREE_SUM_H
#define MODEL_TREE_SUM_H

#include "sdlora/model.h"

typedef struct TreeSum TreeSum;

/* Of how many chunks, and which of them are done here: all of them, or the share of this process (ranks_deal), where
 * others do the rest. */
typedef struct TreeSpan {
    int chunks, first, end;
} TreeSpan;

/* By how many threads that work side by side, and whether they can add gradients as they come. */
typedef struct TreeWorkers {
    int count;
    bool add;
} TreeWorkers;

/* store: of whose weights gradients are summed up, into its own; NULL: only hands out chunks. parts: of tree_sum_join,
 * borrowed; NULL: there are no others. */
TreeSum *tree_sum_new(const ParamStore *store, TreeSpan span, const RanksSpan *parts, TreeWorkers workers, Err *e);
void tree_sum_free(TreeSum *s);
/* Memory that a sum with a store takes beside the store's own gradients. */
size_t tree_sum_bytes(const ParamStore *store, TreeSpan span, const RanksSpan *parts, TreeWorkers workers);

/* What a worker is to do */
typedef struct TreeTurn {
    int chunk;
    real *slab; /* where its gradient belongs; NULL without a store */
    bool add;   /* to that of the chunk before, its neighbour, which lies there; else the slab is written */
} TreeTurn;

void tree_sum_start(TreeSum *s);
/* The next chunk below `end` for this worker; `end`: there is none. */
TreeTurn tree_sum_next(TreeSum *s, int worker, int end);
/* The turn is done: the gradient is in its slab. */
void tree_sum_add(TreeSum *s, int worker, TreeTurn t);
/* To be called by one thread when all chunks that were handed out are done. */
void tree_sum_finish(TreeSum *s);
/* After that, where processes share the chunks: each gets its part of the sums that the others have, and adds them up,
 * along the same tree. So in the store is the whole sum there, and nothing of use elsewhere. */
void tree_sum_join(TreeSum *s);

#endif
