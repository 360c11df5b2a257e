/* The program's very beginning. */
#ifndef SDLORA_CLI_START_H
#define SDLORA_CLI_START_H

#include <stdbool.h>

/* Opens /dev/null in the place of standard streams that are closed, so that no file gets their numbers. */
void start_streams(void);

/* This standard stream was closed, and start_streams opened it. */
bool start_opened(int fd);

/* Standard output and error go nowhere from here on: of several processes one speaks. */
void start_silent(void);

#endif
