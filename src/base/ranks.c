/* Processes: see ranks.h. The only file that knows MPI. */
#include "sdlora/ranks.h"

#include <string.h>

static struct Ranks {
    int count, me, sharing;
    RanksTraffic traffic;
} ranks = {.count = 1, .sharing = 1};

int ranks_count(void)
{
    return ranks.count;
}

int ranks_me(void)
{
    return ranks.me;
}

int ranks_sharing(void)
{
    return ranks.sharing;
}

RanksTraffic ranks_traffic(void)
{
    return ranks.traffic;
}

void ranks_deal(int *first, int *end, int n, int r)
{
    const int64_t up = ranks.count - 1;

    *first = (int)(((int64_t)n * r + up) / ranks.count);
    *end = (int)(((int64_t)n * (r + 1) + up) / ranks.count);
}

#ifndef HAVE_MPI

const char *ranks_library(void)
{
    return NULL;
}

int ranks_begin(char *const *words, const char *build, Err *e)
{
    (void)words, (void)build, (void)e;
    return 0;
}

void ranks_end(int status)
{
    (void)status;
}

void ranks_broadcast(void *p, size_t bytes, int from)
{
    (void)p, (void)bytes, (void)from;
}

void ranks_gather(void *items, size_t bytes, int n)
{
    (void)items, (void)bytes, (void)n;
}

int64_t ranks_total(int64_t value)
{
    return value;
}

int ranks_largest(int value)
{
    return value;
}

void ranks_move(void *items, size_t bytes, const RanksSpan *has, const RanksSpan *wants)
{
    (void)items, (void)bytes, (void)has, (void)wants;
}

void ranks_trade(const RanksPart *out, const RanksPart *in)
{
    (void)out, (void)in;
}

#else

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "sdlora/clock.h"
#include "sdlora/mem.h"

#define YIELD_S 0.02

/* Room, where there are several processes */
static struct Room {
    RanksSpan *spans;          /* (count) */
    RanksPart *out, *in;       /* (count) */
    MPI_Request *on_their_way; /* (2 count) */
} room;

enum { TEXT = 160, TAG = 1, END_MS = 3000, MOST_BYTES = 1 << 30 /* a count of MPI is an int */ };

/* Its first words: "Open MPI v4.1.4" */
const char *ranks_library(void)
{
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int len;

    MPI_Get_library_version(text, &len);
    text[strcspn(text, ",\n")] = '\0';
    for (char *c = text; *c; c++)
        *c = *c == '\t' ? ' ' : *c;
    return text;
}

/* How many of this machine's processes have this one's affinity mask. */
static int count_sharing(void)
{
    cpu_set_t own, other;
    MPI_Comm machine;
    int n, same = 0;

    memset(&own, 0, sizeof own);
    sched_getaffinity(0, sizeof own, &own);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine);
    MPI_Comm_size(machine, &n);
    for (int first = 0; first < n; first++) { /* one after the other: how many there are is open */
        other = own;
        MPI_Bcast(&other, (int)sizeof own, MPI_BYTE, first, machine);
        same += memcmp(&other, &own, sizeof own) == 0;
    }
    MPI_Comm_free(&machine);
    return same > 0 ? same : 1;
}

/* FNV-1a of all words, with their ends: only to tell command lines apart */
static uint64_t hash_words(char *const *words)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (; *words; words++)
        for (const char *c = *words;; c++) {
            h = (h ^ (unsigned char)*c) * UINT64_C(1099511628211);
            if (!*c)
                break;
        }
    return h;
}

static int make_room(Err *e)
{
    const size_t n = (size_t)ranks.count;

    room.spans = mem_alloc(n, sizeof *room.spans, "the processes", e);
    room.out = mem_alloc(n, sizeof *room.out, "the processes", e);
    room.in = mem_alloc(n, sizeof *room.in, "the processes", e);
    room.on_their_way = mem_alloc(2 * n, sizeof *room.on_their_way, "the processes", e);
    return room.spans && room.out && room.in && room.on_their_way ? 0 : -1;
}

int ranks_begin(char *const *words, const char *build, Err *e)
{
    char text[TEXT];
    int given;

    MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &given);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks.count);
    MPI_Comm_rank(MPI_COMM_WORLD, &ranks.me);
    if (ranks.count == 1)
        return 0;
    if (ranks_agree(make_room(e), e))
        return -1;
    ranks.sharing = count_sharing();
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash_words(words));
    return ranks_same("version of the program", build, true, e) || ranks_same("command line", text, false, e) ? -1 : 0;
}

/* Until all n are done. MPI's own waiting keeps a core busy, which the awaited one may need. So: give way, and after a
 * while sleep. */
static void wait_for(MPI_Request *r, int n)
{
    const struct timespec nap = {.tv_nsec = 200000};
    const double begin = clock_seconds();

    for (int done; n > 0; n -= done) {
        MPI_Test(&r[n - 1], &done, MPI_STATUS_IGNORE);
        if (done)
            continue;
        if (clock_seconds() - begin < YIELD_S)
            sched_yield();
        else
            nanosleep(&nap, NULL);
    }
}

/* Do all processes come here? Who ends with an error that the others don't share must not wait for them, as they wait
 * for it; who has done its part waits for the others, asleep. */
static bool all_end(bool well)
{
    const struct timespec ms = {.tv_nsec = 1000000};
    MPI_Request r;
    int done = 0;

    MPI_Ibarrier(MPI_COMM_WORLD, &r);
    MPI_Test(&r, &done, MPI_STATUS_IGNORE);
    for (int64_t i = 0; (well || i < END_MS) && !done; i++) {
        nanosleep(&ms, NULL);
        MPI_Test(&r, &done, MPI_STATUS_IGNORE);
    }
    return done;
}

void ranks_end(int status)
{
    if (ranks.count > 1 && !all_end(status == 0))
        MPI_Abort(MPI_COMM_WORLD, status);
    /* MPICH 4.0 over TCP may hang in what follows where one process is there well before another. */
    MPI_Barrier(MPI_COMM_WORLD);
    MPI_Finalize();
    mem_free(room.spans);
    mem_free(room.out);
    mem_free(room.in);
    mem_free(room.on_their_way);
}

static void took(double begin)
{
    ranks.traffic.seconds += clock_seconds() - begin;
}

void ranks_broadcast(void *p, size_t bytes, int from)
{
    const double begin = clock_seconds();
    MPI_Request q;

    for (size_t at = 0; ranks.count > 1 && at < bytes; at += MOST_BYTES) {
        MPI_Ibcast((char *)p + at, (int)mem_min(MOST_BYTES, bytes - at), MPI_BYTE, from, MPI_COMM_WORLD, &q);
        wait_for(&q, 1);
    }
    ranks.traffic.bytes += ranks.me == from ? 0 : (int64_t)bytes;
    took(begin);
}

/* What is left of a part from `at` on, as far as one message takes it */
static int left_of(const RanksPart *p, size_t at)
{
    return p->bytes > at ? (int)mem_min(p->bytes - at, MOST_BYTES) : 0;
}

/* All at once, each beginning with another one, so that they don't all send to the same. */
static void trade_from(size_t at, const RanksPart *out, const RanksPart *in)
{
    int n = 0;

    for (int k = 1; k < ranks.count; k++) {
        const int r = (ranks.me + ranks.count - k) % ranks.count, bytes = left_of(&in[r], at);
        if (bytes)
            MPI_Irecv((char *)in[r].p + at, bytes, MPI_BYTE, r, TAG, MPI_COMM_WORLD, &room.on_their_way[n++]);
        ranks.traffic.bytes += bytes;
    }
    for (int k = 1; k < ranks.count; k++) {
        const int r = (ranks.me + k) % ranks.count, bytes = left_of(&out[r], at);
        if (bytes)
            MPI_Isend((const char *)out[r].p + at, bytes, MPI_BYTE, r, TAG, MPI_COMM_WORLD, &room.on_their_way[n++]);
    }
    wait_for(room.on_their_way, n);
}

void ranks_trade(const RanksPart *out, const RanksPart *in)
{
    const double begin = clock_seconds();
    size_t most = 0;

    for (int r = 0; r < ranks.count; r++)
        if (r != ranks.me)
            most = mem_max(most, mem_max(out[r].bytes, in[r].bytes));
    for (size_t at = 0; at < most; at += MOST_BYTES)
        trade_from(at, out, in);
    took(begin);
}

static RanksPart overlap(char *items, size_t bytes, RanksSpan a, RanksSpan b)
{
    const size_t from = mem_max(a.from, b.from), to = mem_min(a.to, b.to);
    return to > from ? (RanksPart){items + from * bytes, (to - from) * bytes} : (RanksPart){NULL, 0};
}

void ranks_move(void *items, size_t bytes, const RanksSpan *has, const RanksSpan *wants)
{
    const RanksSpan all = {0, SIZE_MAX};

    if (ranks.count == 1)
        return;
    for (int r = 0; r < ranks.count; r++) {
        room.out[r] = overlap(items, bytes, has[ranks.me], wants ? wants[r] : all);
        room.in[r] = overlap(items, bytes, has[r], wants ? wants[ranks.me] : all);
    }
    ranks_trade(room.out, room.in);
}

void ranks_gather(void *items, size_t bytes, int n)
{
    const double begin = clock_seconds();

    for (int r = 0, first, end; ranks.count > 1 && r < ranks.count; r++) {
        ranks_deal(&first, &end, n, r);
        room.spans[r] = (RanksSpan){(size_t)first, (size_t)end};
    }
    ranks_move(items, bytes, room.spans, NULL);
    ranks.traffic.waiting += clock_seconds() - begin;
}

int64_t ranks_total(int64_t value)
{
    int64_t sum = value;
    MPI_Request q;

    if (ranks.count == 1)
        return value;
    MPI_Iallreduce(&value, &sum, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD, &q);
    wait_for(&q, 1);
    return sum;
}

int ranks_largest(int value)
{
    const double begin = clock_seconds();
    int most = value;
    MPI_Request q;

    if (ranks.count == 1)
        return value;
    MPI_Iallreduce(&value, &most, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD, &q);
    wait_for(&q, 1);
    took(begin);
    return most;
}

#endif
