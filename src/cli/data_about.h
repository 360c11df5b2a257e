/* What `sdlora data` says about a data set. */
#ifndef SDLORA_CLI_DATA_ABOUT_H
#define SDLORA_CLI_DATA_ABOUT_H

#include "sdlora/data.h"
#include "sdlora/json.h"

#include "options/picture_args.h"

/* Everything there is to say, from reading all of it. sheet: NULL, or where some of the training images are drawn. NULL
 * with *e. */
json_t *data_about(const char *path, const DataConfig *c, const PictureArgs *pictures, const char *sheet, Err *e);
/* The same for people, on standard output. */
void data_about_print(const json_t *about);

#endif
