/* A run's directory: whose it is, lock, checkpoints, metrics, what was there before.
 *
 * The rule: we create the directory, take an empty one, or take one whose run.json says that it is a run of the same
 * command; anything else is refused. run.json is the first file in it and the last to change. Inside, only names that a
 * run makes are ever renamed or removed, none through a symbolic link, and nothing that holds work is removed: another
 * run in the same place first moves what is there to previous-1/, previous-2/, ... (rundir_previous.c). Only
 * checkpoints go, as `keep` of the training loop says (loop.h). */
#ifndef SDLORA_RUNDIR_H
#define SDLORA_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "sdlora/err.h"
#include "sdlora/events.h"
#include "sdlora/file.h"

typedef struct RunDir {
    char path[FILE_PATH_MAX], checkpoints[FILE_PATH_MAX];
    bool adapter;       /* a run of finetune, else of train */
    int lock;           /* a descriptor; -1: not held */
    int metrics, table; /* descriptors of metrics.jsonl and metrics.csv; -1: not open */
    EventLog *events;   /* NULL: none are wanted */
    int64_t best_step;  /* the checkpoint of the smallest validation loss; -1: none */
    double best_loss;
} RunDir;

/* Names only; nothing is touched. */
int rundir_init(RunDir *r, const char *path, bool adapter, Err *e);

/* May a run go there? Nothing is touched. ERR_USAGE where it is not empty and no run of this command. */
int rundir_check(const RunDir *r, Err *e);

/* Create the directory or take it, lock it (ERR_FAILED while another run holds it), undo or clean away what a killed
 * run left half done. */
int rundir_lock(RunDir *r, Err *e);
/* To be asked before anything is written: ERR_FAILED where the directory is no longer the one that was locked. */
int rundir_hold(RunDir *r, Err *e);
void rundir_close(RunDir *r);

/* What a run leaves besides run.json and its lock, NULL-terminated: the result's files first, then what else is work,
 * then what can be made again. */
const char *const *rundir_parts(const RunDir *r);
int rundir_results(const RunDir *r); /* how many of them are the result's */
int rundir_works(const RunDir *r);   /* how many are work */

/* ---- run.json (rundir_json.c) ---- */

/* "train" or "finetune". */
const char *rundir_command(const RunDir *r);
/* The command whose run the directory holds, as its run.json says, into out; "": it says nothing of that kind. -1 with
 * ERR_FAILED where it cannot be read now. */
int rundir_command_of(char *out, size_t cap, const char *dir, Err *e);

/* Write run.json: the command, its options and what else is known (JSON objects, which this takes over, also after an
 * error; more may be NULL): its members stand beside "options", among them, of an adapter, "base_sha256", the SHA-256
 * of the model's file. made: NULL, or write it only where there is none yet: *made says whether it was this call that
 * did.
 */
int rundir_save_json(const RunDir *r, json_t *options, json_t *more, bool *made, Err *e);
/* Add or replace one member of DIR/run.json; takes the value over. */
int rundir_note(const RunDir *r, const char *key, json_t *value, Err *e);

/* What DIR/run.json holds, an object that the caller decrefs; NULL (ERR_INPUT) where it is missing or damaged. */
json_t *rundir_read_json(const char *dir, Err *e);
/* The SHA-256 of the model that the run's adapter was trained on, as this says; NULL where it does not. */
const char *rundir_json_base(const json_t *root);
/* The same out of DIR/run.json; "" where it is not known. */
void rundir_base_of(char sha256[65], const char *dir);

/* ---- what was there before (rundir_previous.c) ---- */

typedef enum SetAside {
    ASIDE_ALL,    /* for a run that begins anew */
    ASIDE_LATER,  /* for one that goes back to an earlier checkpoint: what comes after it, and copies of what it will
                     change */
    ASIDE_RESULT, /* only the result's files */
} SetAside;

/* Move what the run there has to previous-K/, K the first number that is free, with a line about it in about.txt; of a
 * crash all of it is undone by the next rundir_lock. step: of ASIDE_LATER. inputs (NULL-terminated): paths that the
 * command reads; one that lies in what would move is an error (ERR_USAGE), and nothing moves. about (cap): that line,
 * with the place; "" when there was nothing worth keeping (a run without a finished step). */
int rundir_set_aside(const RunDir *r, SetAside what, int64_t step, const char *const *inputs, char *about, size_t cap,
                     Err *e);
/* Take back a set-aside that was not completed; the lock must be held. Of two files of one name, which somebody put
 * there meanwhile, none is removed: ERR_FAILED unless they are the same. */
int rundir_undo(const RunDir *r, Err *e);
/* The same where there is one, before anything is looked for in the directory; takes the lock for that time only. */
int rundir_recover(RunDir *r, Err *e);

/* ---- checkpoints (rundir_checkpoints.c) ---- */

/* The directory of the checkpoint that `which` means: "latest", "best", a checkpoint, or a run's directory (its
 * latest). Empty when there is none yet ("latest" and "best" only). */
int rundir_find_checkpoint(char *out, size_t cap, RunDir *r, const char *which, Err *e);

/* The directory of the run that a checkpoint belongs to, two levels up. */
int rundir_of_checkpoint(char *out, size_t cap, const char *checkpoint, Err *e);
bool rundir_owns(const RunDir *r, const char *checkpoint);
/* The step in the directory's name ckpt-NUMBER (through a link), -1 where it is called otherwise. */
int64_t rundir_step_named(const char *checkpoint);

/* checkpoints/ckpt-00001234 */
int rundir_checkpoint_name(char *out, size_t cap, const RunDir *r, int64_t step, Err *e);
/* Steps of all checkpoints, in increasing order, in a block that the caller frees; their number, -1 with *e. */
int rundir_list_checkpoints(int64_t **steps, const char *dir, Err *e);

/* A copy of another run's checkpoint. */
int rundir_import(const RunDir *r, const char *checkpoint, int64_t step, Err *e);

/* What best.json says; *step -1: there is none. */
int rundir_read_best(int64_t *step, double *val_loss, const RunDir *r, Err *e);

/* A checkpoint of `step` was saved, or found by a resumed run, which may have been killed before this: note it when it
 * is the best (val_loss NAN: not measured), remove all but the last `keep` and the best, and those to which somebody
 * added files. The best is in best.json; checkpoints/best is a link to it, for people. */
int rundir_checkpoint_saved(RunDir *r, int64_t step, double val_loss, int keep, Err *e);

/* ---- metrics (rundir_metrics.c) ---- */

/* Open metrics.jsonl after the lines up to `step`; later ones, of work that will be done again, are dropped, and so is
 * a last line that was cut short. All else stays as it is. from: the run whose lines they are, NULL: this one.
 * metrics.csv, the same as a table, is made again from these lines where it holds anything else. */
int rundir_open_metrics(RunDir *r, int64_t step, const char *from, Err *e);
/* From now on also to TensorBoard's event files in tensorboard/, where the steps after `step` begin (events.h). */
int rundir_open_events(RunDir *r, int64_t step, Err *e);

typedef struct Metrics {
    int64_t step;
    int epoch;
    double loss, lr, grad_norm, images_per_s, val_loss; /* val_loss NAN: not measured */
} Metrics;
int rundir_log(RunDir *r, const Metrics *m, Err *e);
/* A grid was drawn after this step: for those who want events. */
int rundir_log_picture(const RunDir *r, int64_t step, const char *path, Err *e);
/* The lines of DIR/metrics.jsonl that tell a step, into a block that the caller frees; their number, -1 with *e. What
 * one does not say is NAN; lines that are none are passed over. No file: none. */
int64_t rundir_read_metrics(Metrics **rows, const char *dir, Err *e);
int rundir_sync_metrics(const RunDir *r, Err *e); /* brought to the disk */
/* The last line's step up to `most` (-1: there is no line) and its validation loss, or with `any` the last one that
 * there is (NAN: none), in a run's metrics.jsonl. */
void rundir_last_metrics(int64_t *step, double *val_loss, const char *dir, int64_t most, bool any);

#endif
