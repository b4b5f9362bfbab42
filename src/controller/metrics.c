/* The controller's metrics page: see metrics.h. */
#include "controller/metrics.h"

#include "base/cleanup.h"
#include "controller/controller.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

static const double bounds_seconds[HISTOGRAM_BUCKETS] = {
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 120, 600};

static void observe(struct histogram *histogram, uint64_t ns)
{
    double seconds = (double)ns / 1e9;
    size_t i = 0;
    while (i < HISTOGRAM_BUCKETS && seconds > bounds_seconds[i])
        i++;
    histogram->buckets[i]++;
    histogram->sum_seconds += seconds;
}

void metrics_execution_finished(struct metrics *metrics, const struct execution *execution)
{
    metrics->executions[execution->status]++;
    if (execution->started_at_ns == 0)
        return;
    observe(&metrics->queue_time, execution->metrics.queue_time);
    observe(&metrics->duration, execution->metrics.duration);
    if (execution->cold_start) {
        metrics->cold_starts++;
        observe(&metrics->start_time, execution->metrics.start_time);
    }
}

/* ---- writing ---- */

struct page {
    struct buffer *out;
    struct error *err;
    int status;
};

static void __attribute__((format(printf, 2, 3))) put(struct page *page, const char *format, ...)
{
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (page->status == 0)
        page->status = buffer_append_string(page->out, line, page->err);
}

static void head(struct page *page, const char *name, const char *type, const char *help)
{
    put(page, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void counter(struct page *page, const char *name, const char *help, uint64_t value)
{
    head(page, name, "counter", help);
    put(page, "%s %" PRIu64 "\n", name, value);
}

static void gauge(struct page *page, const char *name, const char *help, double value)
{
    head(page, name, "gauge", help);
    put(page, "%s %.17g\n", name, value);
}

static void histogram(struct page *page, const char *name, const char *help,
                      const struct histogram *values)
{
    uint64_t count = 0;
    head(page, name, "histogram", help);
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        count += values->buckets[i];
        put(page, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds_seconds[i], count);
    }
    count += values->buckets[HISTOGRAM_BUCKETS];
    put(page, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n%s_sum %.9f\n%s_count %" PRIu64 "\n", name,
        count, name, values->sum_seconds, name, count);
}

static double resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file || fscanf(file, "%*u %lu", &pages) != 1)
        pages = 0;
    if (file)
        fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double open_descriptors(void)
{
    int count = -3; /* ".", ".." and the one of the folder itself */
    DIR *folder = opendir("/proc/self/fd");
    while (folder && readdir(folder))
        count++;
    if (folder)
        closedir(folder);
    return count > 0 ? count : 0;
}

static void put_refused(struct page *page, const struct metrics *metrics)
{
    static const char *const limits[REFUSED_COUNT] = {
        [REFUSED_FUNCTION_RATE] = "function_rate",
        [REFUSED_FUNCTION_CONCURRENCY] = "function_concurrency",
        [REFUSED_TOKEN_RATE] = "token_rate",
        [REFUSED_TOKEN_CONCURRENCY] = "token_concurrency",
    };
    head(page, "faas_admission_refused_total", "counter",
         "Calls refused, by the limit that did it.");
    for (int i = 0; i < REFUSED_COUNT; i++)
        put(page, "faas_admission_refused_total{limit=\"%s\"} %" PRIu64 "\n", limits[i],
            metrics->refused[i]);
}

static void write_executions(struct page *page, const struct controller *controller)
{
    const struct metrics *metrics = &controller->metrics;
    head(page, "faas_executions_total", "counter", "Finished executions by status.");
    for (int status = EXECUTION_SUCCEEDED; status < EXECUTION_STATUS_COUNT; status++)
        put(page, "faas_executions_total{status=\"%s\"} %" PRIu64 "\n",
            execution_status_name((enum execution_status)status), metrics->executions[status]);
    counter(page, "faas_cold_starts_total", "Executions for which an instance had to be made.",
            metrics->cold_starts);
    counter(page, "faas_throttled_total", "Invocations refused because a queue was full.",
            metrics->throttled);
    put_refused(page, metrics);
    counter(page, "faas_async_retries_total",
            "Asynchronous executions queued again after the function's failure.", metrics->retries);
    counter(page, "faas_dead_letters_total", "Asynchronous executions given up.",
            metrics->dead_letters);
    counter(page, "faas_callbacks_delivered_total", "Callbacks that their receiver took.",
            metrics->callbacks_delivered);
    counter(page, "faas_callback_retries_total",
            "Attempts of callbacks that failed and are made again.", metrics->callback_retries);
    counter(page, "faas_callbacks_failed_total", "Callbacks given up.", metrics->callbacks_failed);
    gauge(page, "faas_callbacks_sending", "Callbacks under way now.",
          (double)controller->callbacks.count);
    gauge(page, "faas_async_stored", "Asynchronous executions that wait in the store only.",
          (double)controller->delivery.stored);
    gauge(page, "faas_executions_queued", "Executions that wait for a worker.",
          (double)controller->dispatch.length);
    gauge(page, "faas_executions_running", "Executions that workers have.",
          (double)controller->executions.running);
    gauge(page, "faas_queue_payload_bytes", "Payloads of executions that wait.",
          (double)controller->dispatch.payload_bytes);
    histogram(page, "faas_execution_duration_seconds", "Run time of the function itself.",
              &metrics->duration);
    histogram(page, "faas_execution_queue_seconds", "Time from acceptance to dispatch.",
              &metrics->queue_time);
    histogram(page, "faas_instance_start_seconds", "What a cold start added.",
              &metrics->start_time);
}

/* "warm" ones are generic: ready for a function that has none. */
static void write_instances(struct page *page, const struct controller *controller)
{
    static const char *const states[] = {"creating", "warm", "loading", "idle",
                                         "frozen",   "busy", "stopping"};
    head(page, "faas_instances", "gauge", "Instances of all workers by state.");
    for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++)
        put(page, "faas_instances{state=\"%s\"} %zu\n", states[i],
            sessions_instances(controller, states[i]));
}

int metrics_write(const struct controller *controller, struct buffer *out, struct error *err)
{
    const struct metrics *metrics = &controller->metrics;
    struct page page = {.out = out, .err = err};

    head(&page, "faas_build_info", "gauge", "The program's version.");
    put(&page, "faas_build_info{version=\"%s\"} 1\n", FAAS_VERSION);
    write_executions(&page, controller);
    gauge(&page, "faas_functions", "Functions deployed.",
          (double)controller->registry.sorted_count);
    gauge(&page, "faas_workers", "Workers in contact.", (double)sessions_alive(controller));
    gauge(&page, "faas_worker_free_slots", "Invocations that workers can take now.",
          (double)sessions_free_slots(controller));
    write_instances(&page, controller);
    counter(&page, "faas_workers_lost_total", "Workers that fell silent.", metrics->workers_lost);
    head(&page, "faas_builds_total", "counter", "Compilations by outcome.");
    put(&page, "faas_builds_total{outcome=\"ready\"} %" PRIu64 "\n", metrics->builds_ok);
    put(&page, "faas_builds_total{outcome=\"failed\"} %" PRIu64 "\n", metrics->builds_failed);
    counter(&page, "faas_http_requests_total", "HTTP requests.", metrics->requests);
    counter(&page, "faas_http_throttled_total",
            "HTTP requests refused because their client made too many.",
            controller->rate_limit.refused);
    gauge(&page, "faas_http_requests_pending", "HTTP requests that wait for their answer.",
          (double)http_server_pending(controller->server));
    gauge(&page, "faas_store_queue_length", "Calls that the database has not done yet.",
          (double)store_queue_length(controller->store));
    counter(&page, "faas_records_failed_total", "Records that the database did not take.",
            metrics->records_failed);
    gauge(&page, "faas_log_followers", "Clients that follow logs.",
          (double)controller->followers.count);
    gauge(&page, "process_resident_memory_bytes", "Resident memory.", resident_bytes());
    gauge(&page, "process_open_fds", "Open file descriptors.", open_descriptors());
    return page.status;
}
