/* What must be settled before libraries start: see start.h. Nothing here may allocate, or use what libc sets up in its
 * constructors; system calls and functions on strings are all. */
#include "start.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/file.h"

#include "cli.h"

/* No other program opens /dev/null for reading and appending, so cli_stdout_closed knows ours again. */
enum { NULL_FLAGS = O_RDWR | O_APPEND };

static void open_streams(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", NULL_FLAGS) < 0) /* the least that is free: fd */
            return;
}

bool start_opened(int fd)
{
    struct stat own, null;
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && (flags & (O_ACCMODE | O_APPEND)) == NULL_FLAGS && !fstat(fd, &own) &&
           !stat("/dev/null", &null) && S_ISCHR(own.st_mode) && own.st_rdev == null.st_rdev;
}

/* The value of the variable, or NULL. `name` ends in '='. */
static const char *value(char *const *envp, const char *name)
{
    size_t len = strlen(name);
    for (; *envp; envp++)
        if (!strncmp(*envp, name, len))
            return *envp + len;
    return NULL;
}

/* envp without what `with` replaces, and that; two lists that end in NULL. */
static char **joined(char *const *envp, char *const *with)
{
    size_t n = 0, m = 0;
    char **out;
    while (envp[n])
        n++;
    while (with[m])
        m++;
    out = mmap(NULL, (n + m + 1) * sizeof *out, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (out == MAP_FAILED)
        return NULL;
    n = 0;
    for (; *envp; envp++) {
        bool replaced = false;
        for (size_t k = 0; k < m; k++)
            replaced |= !strncmp(*envp, with[k], strcspn(with[k], "=") + 1);
        if (!replaced)
            out[n++] = *envp;
    }
    for (size_t k = 0; k < m; k++)
        out[n++] = with[k];
    return out; /* mapped memory is zero, and so is the last one */
}

/* libgomp and OpenBLAS read these variables in their constructors, when libc has no environment yet that could be
 * changed. So the program starts itself once more, with another environment, which takes 1 ms.
 *
 * By default a thread of libgomp that waits spins 300,000 times, several ms, while the thread that it waits for may
 * need the very processor. 20,000 spins, some 250 us, bridge the gaps between our loops and the differences between
 * threads; then the thread sleeps. Two threads on 2 cores of a Zen 4, preset mnist, medians of 7 on a free machine:
 * 2,000 spins train 391 images/s and draw 100 images in 3.2 s; 20,000 spins 484 and 3.0 s. Beside six busy processes 0
 * spins gave 115 images/s, 2,000 121, 10,000 59, 300,000 20: who trains on a busy machine sets OMP_WAIT_POLICY=passive.
 * So what the user says about it holds.
 *
 * OpenBLAS would start threads that spin for 25 ms and then never get work, whatever the user says. Where memory is
 * limited and it cannot start them, it waits for ever or raises SIGINT, which would look like a run that was saved. */
static void settle_runtimes(char **argv, char **envp)
{
    static char spins[] = "GOMP_SPINCOUNT=20000", blas[] = "OPENBLAS_NUM_THREADS=1", started[] = "SDLORA_STARTED=1";
    char *with[4] = {started}, **env, self[FILE_PATH_MAX];
    const char *threads = value(envp, "OPENBLAS_NUM_THREADS=");
    int n = 1;
    ssize_t len;

    if (value(envp, "SDLORA_STARTED=")) /* whatever became of the others: only once */
        return;
    if (!value(envp, "GOMP_SPINCOUNT=") && !value(envp, "OMP_WAIT_POLICY="))
        with[n++] = spins;
    if (!threads || strcmp(threads, "1") != 0)
        with[n++] = blas;
    if (n == 1 || !(env = joined(envp, with)))
        return;
    /* By its path, so that the process keeps its name; by the link where the file has been replaced or has a longer
     * path. execve comes back only where it cannot: then all works, only slower. */
    len = readlink("/proc/self/exe", self, sizeof self - 1);
    if (len > 0) {
        self[len] = '\0';
        execve(self, argv, env);
    }
    execve("/proc/self/exe", argv, env);
}

void start_settle(char **argv, char **envp)
{
    open_streams();
    settle_runtimes(argv, envp);
}

/* glibc runs this before all constructors, those of libraries too. Sanitizers are not ready there, other libraries have
 * no such list, and the call at the beginning of main does. */
#ifdef __has_feature
#define SANITIZED                                                                                                      \
    (__has_feature(address_sanitizer) || __has_feature(memory_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#if defined(__GLIBC__) && !SANITIZED
static void start_early(int argc, char **argv, char **envp)
{
    (void)argc;
    start_settle(argv, envp);
}
__attribute__((section(".preinit_array"), used)) static void (*const early)(int, char **, char **) = start_early;
#endif
