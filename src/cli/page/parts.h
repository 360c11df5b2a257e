/* The parts of a page (page.h), each of which writes a section, or nothing where there is nothing to show. */
#ifndef SDLORA_CLI_PAGE_PARTS_H
#define SDLORA_CLI_PAGE_PARTS_H

#include "sdlora/facts.h"
#include "sdlora/names.h"

#include "../runinfo.h"

typedef struct Page {
    FILE *f;
    const RunInfo *run;
    bool adapter; /* of finetune */
    Facts facts;  /* of the result */
    ClassNames names;
    int classes;     /* 0: not known */
    int64_t weights; /* of a model; 0: not known */
} Page;

void page_style(FILE *f);
void page_script(FILE *f);
void page_section(const Page *p, const char *title); /* begins one, which "</section>" ends */

int page_loss(const Page *p, Err *e);
int page_details(const Page *p, Err *e); /* learning rate, norm of the gradient, speed */
int page_grids(const Page *p, Err *e);
void page_eval(const Page *p);
void page_tables(const Page *p);

/* Seconds of training, as the metrics have them. */
double page_seconds(const RunInfo *r);
double page_images_per_s(const RunInfo *r); /* NAN: not known */
int64_t page_batch(const RunInfo *r);       /* 0: not known */

#endif
