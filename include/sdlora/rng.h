/* Random numbers: Philox4x32-10, a counter-based generator (Salmon et al. 2011, "Parallel random numbers: as easy as
 * 1, 2, 3"). A block of four 32-bit words is a pure function of (seed, stream, counter), so any part of any stream can
 * be produced by any thread in any order. Results are the same bits on every CPU: only IEEE + - * / sqrt are used. */
#ifndef SDLORA_RNG_H
#define SDLORA_RNG_H

#include <stddef.h>
#include <stdint.h>

typedef struct Rng {
    uint64_t seed;
    uint64_t stream;
    uint64_t counter; /* the next block of four words */
} Rng;

Rng rng_make(uint64_t seed, uint64_t stream);

/* A stream number from a name and an index, e.g. rng_stream("noise", i) (FNV-1a, then splitmix64's finaliser). */
uint64_t rng_stream(const char *name, uint64_t index);

/* The four words at (seed, stream, counter). */
void rng_block(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter);

/* Each call of these takes whole blocks: it starts at r->counter, and leaves there the one after the last used. */
uint32_t rng_u32(Rng *r);
double rng_uniform(Rng *r);                    /* [0,1), 53 bits */
uint32_t rng_below(Rng *r, uint32_t n);        /* 0..n-1, unbiased; n >= 1 */
void rng_normal(Rng *r, float *out, size_t n); /* N(0,1) by Box-Muller, four to a block, 24-bit uniforms */

/* out (n) becomes a uniformly random permutation of 0..n-1 (Fisher-Yates). */
void rng_permutation(Rng *r, uint32_t *out, uint32_t n);

#endif
