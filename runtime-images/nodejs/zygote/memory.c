/* See memory.h; /proc/self/smaps has the marks, in a line of two-letter flags after each mapping (proc(5)). */
#include "memory.h"
#include "number.h"
#include "threads.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define LINE_BYTES 8192 /* a mapping's line has a path */

/* A mapping's line: "7fed1b7ff000-7fed1bfff000 rw-p ..." */
static bool read_range(const char *line, uint64_t *ret_start, uint64_t *ret_end)
{
    uint64_t start, end;

    if (!number_read(&line, 16, &start) || *line++ != '-' || !number_read(&line, 16, &end) ||
        *line != ' ')
        return false;
    *ret_start = start;
    *ret_end = end;
    return true;
}

static int share_one(uint64_t start, uint64_t end)
{
    return madvise((void *)start, end - start, MADV_DOFORK); // NOLINT(performance-no-int-to-ptr)
}

int memory_share(char *message)
{
    FILE *file = fopen("/proc/self/smaps", "re");
    char line[LINE_BYTES];
    uint64_t start = 0, end = 0;
    int result = file ? 0 : -1;

    while (file && result == 0 && fgets(line, sizeof(line), file)) {
        if (!read_range(line, &start, &end) && strncmp(line, "VmFlags:", 8) == 0 &&
            strstr(line, " dc"))
            result = share_one(start, end);
    }
    if (result != 0)
        snprintf(message, ZYGOTE_MESSAGE_MAX, "its memory cannot be given to children: %s",
                 strerror(errno));
    if (file)
        fclose(file);
    return result;
}
