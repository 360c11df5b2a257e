/* SIGINT, SIGTERM and SIGHUP: the first one asks for an end behind the step and a save; a second SIGINT or SIGTERM ends
 * the program at once, with status 1. */
#ifndef SDLORA_CLI_INTERRUPT_H
#define SDLORA_CLI_INTERRUPT_H

/* From here on. Before, nothing has been done that is worth a save, and the signals kill. */
void interrupt_install(void);
int interrupt_signal(void); /* the first signal that came, or 0 */

/* No SIGPIPE: a run goes on when nobody reads its messages any more. */
void interrupt_outlive_readers(void);

#endif
