/* The picture that `sample` begins with, and the mask of what is painted anew in it. */
#ifndef SDLORA_CLI_SAMPLE_INIT_H
#define SDLORA_CLI_SAMPLE_INIT_H

#include "sample_files.h"

/* Read what --init-image and --mask name, fitted to the model's images, into j->init and j->paint, and tell a->config.
 * What is transparent in a mask is black: kept. Does nothing without them. */
int sample_init_read(SampleJob *j, SampleArgs *a, Err *e);

#endif
