/* SIGINT, SIGTERM and SIGHUP: the first one asks for an end after the step and a save; a second SIGINT or SIGTERM ends
 * the program at once, with status 1. */
#ifndef SDLORA_CLI_INTERRUPT_H
#define SDLORA_CLI_INTERRUPT_H

#include <signal.h>

/* From here on; the result becomes the number of the first signal that comes. Before, nothing has been done that is
 * worth a save, and the signals kill. */
const volatile sig_atomic_t *interrupt_install(void);

/* The steps are over: a first signal, as mpirun sends to the other processes where one ends with an error, has nothing
 * left to stop, and nothing is said. */
void interrupt_over(void);

/* No SIGPIPE: a run goes on when nobody reads its messages any more. */
void interrupt_outlive_readers(void);

#endif
