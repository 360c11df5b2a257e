/* The sum of the gradients of the chunks of a batch: model.h defines it. Chunks are handed out in their order and done
 * in any; whoever finishes the second of two neighbours adds them, so that nobody waits for a turn. When no chunk is
 * left to be begun, threads come to be idle: what is still to be added then, they add together at the end. */
#ifndef MODEL_TREE_SUM_H
#define MODEL_TREE_SUM_H

#include "sdlora/param.h"

typedef struct TreeSum TreeSum;

/* For so many chunks and threads that work on them side by side. store: of whose weights gradients are summed up, into
 * its own; NULL: only hands out chunks. */
TreeSum *tree_sum_new(const ParamStore *store, int chunks, int workers, Err *e);
void tree_sum_free(TreeSum *s);
/* Memory of the slabs that a sum with a store takes beside the store's own. */
size_t tree_sum_bytes(const ParamStore *store, int chunks, int workers);

void tree_sum_start(TreeSum *s);
/* The next chunk below `end`, and into *slab where its gradient belongs (NULL without a store); `end`: there is
 * none. */
int tree_sum_next(TreeSum *s, real **slab, int end);
/* Chunk i's gradient is in its slab. */
void tree_sum_add(TreeSum *s, int i, real *slab);
/* To be called by one thread when all chunks that were handed out are done. */
void tree_sum_finish(TreeSum *s);

#endif
