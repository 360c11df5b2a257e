/* Names of what is not finished, see file.h. Private to src/base. */
#ifndef BASE_TEMPORARY_H
#define BASE_TEMPORARY_H

#include <stddef.h>

#define TEMPORARY_NAME (sizeof ".sdlora-0123456789abcdef.tmp") /* with its NUL */

/* A path in dir that no other call gets, into out (cap). */
void temporary_path(char *out, size_t cap, const char *dir);

/* Create and lock a file of such a name: a descriptor, or -1 with errno. */
int temporary_open(char *out, size_t cap, const char *dir, unsigned mode);

#endif
