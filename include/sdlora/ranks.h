/* Processes that do one job together, started side by side by mpirun or a cluster's scheduler, on one machine or many
 * ("ranks" of MPI). Built without MPI, or started alone, there is one, and all of this costs nothing.
 *
 * Process 0 alone writes files and speaks; the others compute. No sum is formed here: MPI_Allreduce promises no order,
 * and results are the same bytes for any number of processes only where we add ourselves, in a fixed order.
 *
 * Only the thread that called ranks_begin may call these. An error of the network or of another process ends the whole
 * job within MPI; so none is returned. */
#ifndef SDLORA_RANKS_H
#define SDLORA_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

/* Before anything else. ERR_USAGE where the processes were not started with the same `words` (NULL-terminated: the
 * command line) or are different builds; all of them get it. */
int ranks_begin(char *const *words, const char *build, Err *e);
/* The last call. status: the program's. Where it is an error that other processes don't end with as well, they are
 * ended. */
void ranks_end(int status);

const char *ranks_library(void); /* which MPI that is; NULL: built without */
int ranks_count(void);
int ranks_me(void);      /* 0 .. count-1 */
int ranks_sharing(void); /* processes on this machine that may run on exactly the cores that this one may, itself too */

/* Which of n items process r does: first .. end-1. Shares are contiguous, in the order of processes, and differ by one
 * item at most; they may be empty, but process 0 has item 0. */
void ranks_deal(int *first, int *end, int n, int r);

/* ---- all processes call these, in the same order ---- */

/* What process `from` has there comes to all. */
void ranks_broadcast(void *p, size_t bytes, int from);
/* Of n items of so many bytes, dealt as above, each process has its own; then all have all. */
void ranks_gather(void *items, size_t bytes, int n);

typedef struct RanksSpan {
    size_t from, to; /* items from .. to-1 */
} RanksSpan;
/* Each process r has the items of has[r], which are no other's, and gets those of wants[r] besides, into their places;
 * (count) each, the same for all. wants NULL: all get everything. */
void ranks_move(void *items, size_t bytes, const RanksSpan *has, const RanksSpan *wants);

typedef struct RanksPart {
    void *p;
    size_t bytes;
} RanksPart;
/* From each to each: process r gets out[r], which it expects with the same number of bytes (0: nothing), and what it
 * has for this one comes to in[r]; (count) each, and one's own are not looked at. */
void ranks_trade(const RanksPart *out, const RanksPart *in);

int64_t ranks_total(int64_t value); /* the sum, of whole numbers */
int ranks_largest(int value);

/* A common end of what each has done on its own: 0 where status is 0 for all of them, else -1 for all, with the error
 * of the first that has one in *e, which says whose it is. */
int ranks_agree(int status, Err *e);
/* ERR_USAGE for all where `text` (shorter than 160) is not the same for all: "process 2 has another WHAT than process
 * 0", and if shown ": B, and not A". */
int ranks_same(const char *what, const char *text, bool shown, Err *e);

/* ---- what that costs ---- */

typedef struct RanksTraffic {
    int64_t bytes;           /* that came to this process */
    double seconds, waiting; /* in all of the above; of these in ranks_gather, which is where they meet: until the last
                                process had come so far */
} RanksTraffic;
RanksTraffic ranks_traffic(void);

#endif
