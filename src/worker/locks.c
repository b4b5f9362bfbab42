/* A worker's claim to its name and data; see locks.h. */
#include "worker/locks.h"

#include "base/cleanup.h"
#include "base/file.h"
#include "base/text.h"
#include "worker/config.h"

#include <unistd.h>

int worker_locks_take(struct worker_locks *locks, const struct worker_settings *settings,
                      struct error *err)
{
    autofree char *own = string_printf("%s/worker", settings->data_dir);
    autofree char *run_lock = string_printf("%s/lock", settings->run_dir);
    autofree char *data_lock = own ? string_printf("%s/lock", own) : NULL;
    if (!run_lock || !data_lock)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (make_directories(settings->run_dir, 0711, err) < 0 || make_directories(own, 0711, err) < 0)
        return -1;
    if (lock_file(run_lock, &locks->run, err) < 0)
        return error_wrap(err, "another worker runs as \"%s\"; give this one its own WORKER_NAME",
                          settings->name);
    if (lock_file(data_lock, &locks->data, err) < 0)
        return error_wrap(err, "another worker uses %s; give this one its own WORKER_DATA_DIR",
                          settings->data_dir);
    return 0;
}

static void remove_run_dir(const struct worker_settings *settings)
{
    autofree char *lock = string_printf("%s/lock", settings->run_dir);
    if (lock)
        unlink(lock);
    rmdir(settings->run_dir);
}

void worker_locks_release(struct worker_locks *locks, const struct worker_settings *settings)
{
    if (locks->run >= 0) {
        remove_run_dir(settings);
        close(locks->run);
    }
    if (locks->data >= 0)
        close(locks->data);
    *locks = WORKER_LOCKS_NONE;
}
