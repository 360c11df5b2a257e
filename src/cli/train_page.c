/* When the page is written: see train_page.h. */
#include "train_page.h"

#include <stdio.h>

#include "sdlora/clock.h"

#include "cli.h"
#include "page/page.h"

#define SHARE 0.01 /* of the time, for pages */

void train_page_begin(TrainPage *p, RunDir *dir, bool wanted, bool quiet)
{
    *p = (TrainPage){.dir = wanted ? dir : NULL, .quiet = quiet, .written = clock_seconds()};
}

static void write_page(TrainPage *p, RunState state)
{
    char path[FILE_PATH_MAX];
    const double begin = clock_seconds();
    Err e = {0};
    if (rundir_hold(p->dir, &e) || file_join(path, sizeof path, p->dir->path, PAGE_FILE, &e) ||
        page_check_default(path, &e) || page_write(path, p->dir->path, state, &e)) {
        p->dir = NULL;
        if (p->quiet)
            return;
        fputs("there is no page of this run: ", stderr);
        cli_put(stderr, e.msg);
        fputc('\n', stderr);
        return;
    }
    p->written = clock_seconds();
    p->took = p->written - begin;
}

void train_page_refresh(TrainPage *p)
{
    if (p->dir && p->took <= SHARE * (clock_seconds() - p->written))
        write_page(p, STATE_RUNNING);
}

void train_page_end(TrainPage *p, RunState state)
{
    if (p->dir)
        write_page(p, state);
}
