/* The file in which a worker keeps what it learnt of idle times: whatever it holds, counts stay within their bounds. */
#include "worker/idle_table.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct idle_table *table = idle_table_new(3, NULL);
    if (!table)
        return 0;
    int outcome = idle_table_read(table, size ? (const char *)data : "", size, NULL);
    if (idle_table_count(table) > 3 || (outcome < 0 && idle_table_count(table) > 0))
        abort();
    struct idle_windows windows = idle_table_windows(table, "hello", 1000);
    if (windows.keep_alive_ms < windows.prewarm_ms)
        abort();
    idle_table_add(table, "hello", 100);
    idle_table_free(table);
    return 0;
}
