/* `sdlora info`, by what a path is: each of these fills the report, or refuses (ERR_INPUT). */
#ifndef SDLORA_CLI_INFO_H
#define SDLORA_CLI_INFO_H

#include "sdlora/facts.h"
#include "sdlora/names.h"
#include "sdlora/safetensors.h"

#include "report.h"
#include "runinfo.h"

/* A safetensors file: a model, an adapter, the state of a checkpoint, or tensors of any kind (info_model.c). */
int info_safetensors(Report *r, const char *path, Err *e);

/* What is known of an adapter without its model: f, the file with the weights, of so many bytes at `path`; run: its
 * run, or NULL. What adapter_load would refuse is said (info_adapter.c). */
void info_adapter(Report *r, const StFile *f, const char *path, double bytes, const Facts *facts,
                  const ClassNames *names, const RunInfo *run);
/* A row below that of the classes: what they are called (info_model.c). */
void info_names(Report *r, const ClassNames *names);
/* Does the adapter at `path` fit the model at `model`? ERR_INPUT: no, with the reason. */
int info_fits(Report *r, const char *path, const char *model, Err *e);
/* The layers that an adapter can be put on, with the numbers that it has at this rank (info_targets.c). */
int info_targets(Report *r, const char *path, int rank, Err *e);

/* Metadata and tensors, one by one; a row for values that are not finite (info_tensors.c). */
int info_tensors(Report *r, const StFile *f, Err *e);

typedef struct Stats {
    size_t n, bad; /* values; those that are not finite */
    double min, max, mean;
} Stats;
void stats_take(Stats *s, double v);
void stats_end(Stats *s); /* until then `mean` is the sum */
void stats_put(json_t *to, const Stats *s);
/* "  min 0  mean 0.5  max 1", or nothing. */
void stats_print(FILE *to, const Stats *s);

/* A run's directory, a checkpoint's (info_run.c). */
int info_run(Report *r, const char *dir, Err *e);
int info_checkpoint(Report *r, const char *dir, Err *e);
/* Rows of what something was trained on and how far, as its run (or NULL) and its own facts (or NULL) say; step: of the
 * checkpoint that is meant, -1: the run. */
void info_training(Report *r, const RunInfo *run, int64_t step, const Facts *facts);
/* The run that a file belongs to: the one that it lies in, or the one of the checkpoint that it lies in (*step, else
 * -1). false: none that can be read. Needs runinfo_free either way. */
bool info_run_of(RunInfo *run, int64_t *step, const char *path);

/* An IDX file, gzipped or not; a directory of them (info_data.c). */
int info_idx(Report *r, const char *path, int nd, Err *e);
int info_data(Report *r, const char *dir, Err *e);
bool info_is_data(const char *dir);

/* A PNG file (info_png.c). */
int info_png(Report *r, const char *path, Err *e);

#endif
