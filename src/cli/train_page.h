/* The page of a run while it trains: written anew at milestones, as long as that costs next to nothing. */
#ifndef SDLORA_CLI_TRAIN_PAGE_H
#define SDLORA_CLI_TRAIN_PAGE_H

#include "sdlora/rundir.h"

#include "runinfo.h"

typedef struct TrainPage {
    RunDir *dir; /* NULL: no page is wanted, or it cannot be written */
    bool quiet;
    double written, took; /* when the last one was done, and how long it took: seconds */
} TrainPage;

void train_page_begin(TrainPage *p, RunDir *dir, bool wanted, bool quiet);
/* No error: a run goes on without its page, which says so once. */
void train_page_refresh(TrainPage *p);
void train_page_end(TrainPage *p, RunState state);

#endif
