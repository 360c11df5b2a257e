/* What the kernels of bfloat16 tell the tiles of AMX to do, on a model of them: every size of a block, the sums as a
 * plain loop has them. */
#include "kernel_test.h"

#if defined(__x86_64__) && !defined(SDLORA_DOUBLE)
#define room kernel_room /* kernel.h has one of its own */
#define ISA  baseline
#define UNIT model
#define UNIT_AMX
#define VBYTES 16
#include "tile_model.h"

#include "../src/backend/cpu/bf16/block.h"

enum { TERMS = 3, A_ROW = 80, B_PANEL = 5 * TILE_BF16, C_ROW = 48, SIDE = 2 * TILE };

typedef struct Operands {
    bf16 a[SIDE * A_ROW + 64], b[2 * B_PANEL];
    int32_t at[TERMS];
    float c[SIDE * C_ROW];
} Operands;

static float value(bf16 h)
{
    const uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Small integers: their products and sums are exact in float, in any order. */
static bf16 whole(size_t i)
{
    const float f = (float)((int)(i * 7 % 11) - 5);
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (bf16)(u >> 16);
}

static void fill(Operands *o)
{
    for (size_t i = 0; i < sizeof o->a / sizeof *o->a; i++)
        o->a[i] = whole(i + i / 13);
    for (size_t i = 0; i < sizeof o->b / sizeof *o->b; i++)
        o->b[i] = whole(i + i / 17);
    for (int i = 0; i < SIDE * C_ROW; i++)
        o->c[i] = (float)(i % 9);
    o->at[0] = 0;
    o->at[1] = 33; /* at odd places, too: the taps of filters' gradients begin there */
    o->at[2] = 7;
}

static float sum(const Operands *o, int r, int j, bool add)
{
    float s = add ? (float)((r * C_ROW + j) % 9) : 0;
    for (int t = 0; t < TERMS; t++)
        for (int k = 0; k < STEP; k++)
            s += value(o->a[o->at[t] + r * A_ROW + k]) *
                 value(o->b[j / TILE * B_PANEL + t * TILE_BF16 + (k / 2 * TILE + j % TILE) * 2 + k % 2]);
    return s;
}

/* Each part of the other work is done once, in order. */
static void next_part(void *work, int k)
{
    int *done = work;
    assert_int_equal(k, *done);
    ++*done;
}

static void check_block(int m, int n, bool add)
{
    static Operands o;
    int done = 0;
    fill(&o);
    block_begin();
    block_beside(o.c, C_ROW, o.a, o.b, (Terms){A_ROW, o.at, B_PANEL, TERMS}, add, m, n, next_part, &done);
    block_end();
    assert_int_equal(done, TERMS);
    for (int r = 0; r < SIDE; r++)
        for (int j = 0; j < C_ROW; j++) {
            const bool inside = r < m * TILE && j < n * TILE;
            const float want = inside ? sum(&o, r, j, add) : (float)((r * C_ROW + j) % 9);
            if (!(o.c[r * C_ROW + j] == want))
                fail_msg("%d x %d tiles, %s: (%d,%d) is %g, want %g", m, n, add ? "added" : "alone", r, j,
                         (double)o.c[r * C_ROW + j], (double)want);
        }
}

static void test_blocks(void **state)
{
    (void)state;
    for (int m = 1; m <= 2; m++)
        for (int n = 1; n <= 2; n++)
            for (int add = 0; add < 2; add++)
                check_block(m, n, add);
    assert_int_equal(model.config[0], 0); /* released */
}
#else
static void test_blocks(void **state)
{
    (void)state;
    skip();
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
