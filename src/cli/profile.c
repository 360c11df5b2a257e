/* `train --profile`: see profile.h. */
#include "profile.h"

#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"

enum { ROWS_SHOWN = 40 };

static double row_seconds(const ProfileRow *r)
{
    return r->fwd_s + r->bwd_s;
}

static double gflops(double flops, double seconds)
{
    return seconds > 0 ? flops / seconds * 1e-9 : 0;
}

/* Where flops are not counted, the operation moves memory rather than computes. */
static const char *rate(char text[16], double flops, double seconds)
{
    if (flops > 0)
        snprintf(text, 16, "%.1f", gflops(flops, seconds));
    return flops > 0 ? text : "-";
}

static void put_row(FILE *f, const char *op, const char *scope, const ProfileRow *r, double total)
{
    char fwd[16], bwd[16];
    if (row_seconds(r) > 5e-4 * total) /* leaves do nothing */
        fprintf(f, "%6.1f%% %10.2f %10.2f %11s %11s  %-18s %s\n", 100 * row_seconds(r) / total, 1e3 * r->fwd_s,
                1e3 * r->bwd_s, rate(fwd, r->fwd_flops, r->fwd_s), rate(bwd, r->bwd_flops, r->bwd_s), op, scope);
}

static void add_to(ProfileRow *sum, const ProfileRow *r)
{
    sum->fwd_s += r->fwd_s;
    sum->bwd_s += r->bwd_s;
    sum->fwd_flops += r->fwd_flops;
    sum->bwd_flops += r->bwd_flops;
}

static int by_time(const void *a, const void *b)
{
    double x = row_seconds(a), y = row_seconds(b);
    return (x < y) - (x > y);
}

/* Sums by the op's name. */
static int by_op(ProfileRow *sums, const ProfileRow *rows, int n)
{
    int m = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < m && strcmp(sums[k].op, rows[i].op))
            k++;
        if (k == m)
            sums[m++] = (ProfileRow){.op = rows[i].op};
        add_to(&sums[k], &rows[i]);
    }
    return m;
}

int profile_print(FILE *f, const Trainer *t, Err *e)
{
    const int count = trainer_graph(t)->count;
    ProfileRow *rows = mem_alloc(2 * (size_t)count + 1, sizeof *rows, "the profile", e), *sums, all = {0};
    int n, m;
    if (!rows)
        return -1;
    n = trainer_profile_rows(t, rows, count);
    sums = rows + n;
    m = by_op(sums, rows, n);
    qsort(rows, (size_t)n, sizeof *rows, by_time);
    qsort(sums, (size_t)m, sizeof *sums, by_time);
    for (int i = 0; i < n; i++)
        add_to(&all, &rows[i]);
    fprintf(f, "%7s %10s %10s %11s %11s  %-18s %s\n", "share", "fwd ms", "bwd ms", "fwd GFLOP/s", "bwd GFLOP/s",
            "operation", "scope");
    for (int i = 0; i < m; i++)
        put_row(f, sums[i].op, "(all)", &sums[i], row_seconds(&all));
    fputc('\n', f);
    for (int i = 0; i < n && i < ROWS_SHOWN; i++)
        put_row(f, rows[i].op, rows[i].scope, &rows[i], row_seconds(&all));
    mem_free(rows);
    return 0;
}
