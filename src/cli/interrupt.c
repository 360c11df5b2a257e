/* Signals: see interrupt.h. A handler can only reach file-level state, so this is the program's one mutable global. */
#include "interrupt.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "sdlora/err.h"

enum { N_SIGNALS = 3 };
static const int SIGNALS[N_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

static volatile sig_atomic_t arrived; /* the first one */
static volatile sig_atomic_t asked;   /* somebody asked, by SIGINT or SIGTERM */
static volatile sig_atomic_t over;    /* there is no step to finish any more */

static void say(const char *text)
{
    ssize_t n = write(STDERR_FILENO, text, strlen(text));
    (void)n;
}

static void on_signal(int sig)
{
    int saved = errno;
    /* A closed session sends SIGHUP several times, from the terminal, the shell and the service manager, and SIGTERM
     * beside it. None of them is anybody's second thought. */
    if (sig != SIGHUP && asked) {
        say("\nsdlora: stopped at once; nothing is saved beyond the last checkpoint\n");
        _exit(ERR_FAILED);
    }
    asked = asked || sig != SIGHUP;
    if (!arrived) {
        arrived = sig;
        if (!over)
            say("\nsdlora: finishing the step and saving; once more stops at once\n");
    }
    errno = saved;
}

const volatile sig_atomic_t *interrupt_install(void)
{
    struct sigaction now, old;
    memset(&now, 0, sizeof now);
    now.sa_handler = on_signal;
    now.sa_flags = SA_RESTART;
    sigemptyset(&now.sa_mask);
    for (int i = 0; i < N_SIGNALS; i++)
        sigaddset(&now.sa_mask, SIGNALS[i]);
    for (int i = 0; i < N_SIGNALS; i++) /* what the parent ignores (nohup, a script's background job) stays ignored */
        if (!sigaction(SIGNALS[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &now, NULL);
    return &arrived;
}

void interrupt_over(void)
{
    over = true;
}

void interrupt_outlive_readers(void)
{
    signal(SIGPIPE, SIG_IGN);
}
