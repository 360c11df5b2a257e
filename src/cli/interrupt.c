/* Signals: see interrupt.h. A handler can only reach file-level state, so this is the program's one mutable global. */
#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t arrived;

static void on_signal(int sig)
{
    static const char text[] = "\nsdlora: finishing the step and saving; once more stops at once\n";
    int saved = errno;
    ssize_t n;
    if (arrived)
        return;
    arrived = sig;
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    n = write(STDERR_FILENO, text, sizeof text - 1);
    (void)n;
    errno = saved;
}

void interrupt_install(void)
{
    static const int SIGNALS[] = {SIGINT, SIGTERM};
    struct sigaction now, old;
    memset(&now, 0, sizeof now);
    now.sa_handler = on_signal;
    now.sa_flags = SA_RESTART;
    sigemptyset(&now.sa_mask);
    sigaddset(&now.sa_mask, SIGINT);
    sigaddset(&now.sa_mask, SIGTERM);
    for (int i = 0; i < 2; i++) /* what the parent ignores (nohup, a script's background job) stays ignored */
        if (!sigaction(SIGNALS[i], NULL, &old) && old.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &now, NULL);
}

int interrupt_signal(void)
{
    return (int)arrived;
}
