/* Time that passes. */
#ifndef SDLORA_CLOCK_H
#define SDLORA_CLOCK_H

/* Seconds on a clock that only goes forward; its zero means nothing. */
double clock_seconds(void);

#endif
