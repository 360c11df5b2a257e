/* A contact sheet: some images of each class of a data set, as a network would be given them. */
#ifndef SDLORA_CLI_DATA_SHEET_H
#define SDLORA_CLI_DATA_SHEET_H

#include "sdlora/data.h"

/* Refuse what cannot be written, or would replace or join the data at `source`, before anything is read. */
int data_sheet_check(const char *path, const char *source, Err *e);
/* A row for each class, with its name where it has one. ERR_INPUT: neither grey nor of three channels. */
int data_sheet_write(const char *path, const Dataset *d, Err *e);

#endif
