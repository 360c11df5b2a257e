/* The program's very beginning. */
#ifndef SDLORA_CLI_START_H
#define SDLORA_CLI_START_H

#include <stdbool.h>

/* Opens /dev/null in the place of standard streams that are closed, so that no file gets their numbers, and starts the
 * program once more where libraries must find other environment variables. Where it can be, it is done before libraries
 * start; main calls it again, which does nothing then. */
void start_settle(char **argv, char **envp);

/* This standard stream was closed, and start_settle opened it. */
bool start_opened(int fd);

#endif
