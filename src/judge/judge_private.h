/* The network, for judge.c and judge_file.c. */
#ifndef JUDGE_PRIVATE_H
#define JUDGE_PRIVATE_H

#include "sdlora/graph.h"
#include "sdlora/judge.h"

typedef struct JudgeNet {
    Graph *g;    /* owned: graph_free */
    Node *x;     /* input (n,h,w,channels), its sides rounded up to what is halved: judge_place fills it */
    int *labels; /* (n), only where it is trained */
    Node *features, *logits;
} JudgeNet;

/* Of the images of d; its weights are those of the seed, or zeros for a file to fill. */
Judge *judge_new(const Dataset *d, int classes, bool blank, Err *e);

/* For n images at a time. The first one that is built declares the parameters, and has no plan yet. */
int judge_net_build(JudgeNet *net, const Judge *j, int n, bool train, Err *e);

#endif
