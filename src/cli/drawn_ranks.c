/* Images that several processes draw: see drawn_ranks.h. */
#include "drawn_ranks.h"

#include "sdlora/backend.h"
#include "sdlora/file.h"
#include "sdlora/ranks.h"

int drawn_share(DrawnShare *s, const Model *m, const SampleConfig *c, int n, bool mixed, Err *e)
{
    const FileSpan weights = {m->params->values, m->params->n_values * sizeof(real)};
    char sha256[65];
    int end;
    *s = (DrawnShare){.config = *c};
    ranks_deal(&s->first, &end, n, ranks_me());
    s->n = end - s->first;
    if (c->mix) {
        s->mix = *c->mix;
        s->mix.part += s->first;
        s->mix.noise += s->first;
        s->mix.to = s->mix.to ? s->mix.to + s->first : NULL;
        s->config.mix = &s->mix;
    }
    s->config.first = c->first + s->first;
    if (ranks_count() == 1)
        return 0;
    if (c->batch_stats)
        return err_set(e, ERR_USAGE,
                       "with the statistics of the batch images depend on each other, so %d processes can't "
                       "share them",
                       ranks_count());
    file_sha256_spans(sha256, &weights, 1);
    return ranks_same("model (SHA-256 of its weights)", sha256, true, e) ||
                   (!mixed && ranks_same("instruction set", backend_of(c->precision)->simd, true, e))
               ? -1
               : 0;
}
