/* SIGINT and SIGTERM: the first one asks, the second one ends the program at once. */
#ifndef SDLORA_CLI_INTERRUPT_H
#define SDLORA_CLI_INTERRUPT_H

void interrupt_install(void);
int interrupt_signal(void); /* the signal that came, or 0 */

#endif
