/* See memory.h; /proc/self/smaps has the marks, in a line of two-letter flags after each mapping (proc(5)). */
#include "memory.h"
#include "threads.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_BYTES 8192 /* a mapping's line has a path */

static int share_one(unsigned long start, unsigned long end)
{
    return madvise((void *)start, end - start, MADV_DOFORK); // NOLINT(performance-no-int-to-ptr)
}

int memory_share(char *message)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[LINE_BYTES];
    unsigned long start = 0, end = 0, first, second;
    int result = file ? 0 : -1;

    while (file && result == 0 && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "%lx-%lx ", &first, &second) == 2) {
            start = first;
            end = second;
        } else if (strncmp(line, "VmFlags:", 8) == 0 && strstr(line, " dc")) {
            result = share_one(start, end);
        }
    }
    if (result != 0)
        snprintf(message, ZYGOTE_MESSAGE_MAX, "its memory cannot be given to children: %s",
                 strerror(errno));
    if (file)
        fclose(file);
    return result;
}
