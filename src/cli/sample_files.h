/* What `sample` writes: names and checks before anything is drawn, the picture, or files of images and labels,
 * afterwards. */
#ifndef SDLORA_CLI_SAMPLE_FILES_H
#define SDLORA_CLI_SAMPLE_FILES_H

#include "recipe.h"

typedef struct SampleJob {
    const SampleArgs *args;
    Model *model;
    AdapterSet loras;
    Plan plan;
    Recipe recipe; /* the texts of the picture */
    /* (n,channels,h,w), or with --trajectory (n,K,channels,h,w); with --compare [0] is without an adapter, [i] with
     * adapter i-1. Owned */
    uint8_t *px[1 + TEXT_LIST_MAX];
    float *init; /* the picture to begin with, and where it is painted anew; owned. NULL: see SampleConfig */
    uint8_t *paint;
    char *path[2]; /* the PNG file, or images and labels; owned. NULL: not named yet */
} SampleJob;

/* Blocks of images: how many of px are used. */
int sample_blocks(const SampleJob *j);

/* Name the files, after --output or, where that was not given, after what is drawn (then the plan must be there), and
 * refuse what cannot be written, is read by this command, or is somebody else's. */
int sample_files_name(SampleJob *j, Err *e);

/* Refuse a picture that would be too large for a PNG file; *bytes: of memory while it is made and written. */
int sample_files_measure(size_t *bytes, const SampleJob *j, Err *e);

/* From j->px into the files; their names go to standard output. */
int sample_files_write(const SampleJob *j, Err *e);

#endif
