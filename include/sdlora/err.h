/* Errors of the outside world (a file, an option, the disk, memory): a code, which is also the program's exit status,
 * and one sentence. Functions that can fail return 0 or -1 (or a pointer or NULL) and fill the Err they were given.
 * Only src/cli prints. A programmer's error is an assert. */
#ifndef SDLORA_ERR_H
#define SDLORA_ERR_H

typedef enum ErrCode {
    ERR_NONE = 0,
    ERR_FAILED = 1,   /* the system refused: disk full, no memory, a file that cannot be opened for writing */
    ERR_USAGE = 2,    /* the command line asks for something impossible */
    ERR_INPUT = 3,    /* a file is missing, malformed or does not fit */
    ERR_DIVERGED = 4, /* the loss, a gradient or a result is not finite */
} ErrCode;

typedef struct Err {
    ErrCode code;
    char msg[1024]; /* lower case, no full stop, the subject in 'quotes', what failed first */
} Err;

/* Fill *e (which may be NULL) and return -1, so that a failing function ends in `return err_set(...)`. Everything else
 * about the failure must have been undone before. */
int err_set(Err *e, ErrCode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The same with ": " and the text of errno (strerror) appended. */
int err_errno(Err *e, ErrCode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

#endif
