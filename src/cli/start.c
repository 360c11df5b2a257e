/* Standard streams that are closed: see start.h. */
#include "start.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

/* No other program opens /dev/null for reading and appending, so cli_stdout_closed knows ours again. */
enum { NULL_FLAGS = O_RDWR | O_APPEND };

void start_streams(void)
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

void start_silent(void)
{
    const int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    close(fd);
}
