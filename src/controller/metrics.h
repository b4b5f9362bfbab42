/* Counters and histograms of the controller, as Prometheus reads them (text format 0.0.4). Labels
 * have few values: never a function's name. */
#pragma once

#include "model/execution.h"

struct controller;

#define HISTOGRAM_BUCKETS 16

struct histogram {
    uint64_t buckets[HISTOGRAM_BUCKETS + 1]; /* the last: above all bounds */
    double sum_seconds;
};

/* By which limit of its function or token a call was refused. */
enum metrics_refused {
    REFUSED_FUNCTION_RATE,
    REFUSED_FUNCTION_CONCURRENCY,
    REFUSED_TOKEN_RATE,
    REFUSED_TOKEN_CONCURRENCY,
    REFUSED_COUNT
};

struct metrics {
    uint64_t executions[EXECUTION_STATUS_COUNT]; /* by final status */
    uint64_t cold_starts;
    uint64_t throttled; /* refused because a queue was full */
    uint64_t refused[REFUSED_COUNT];
    uint64_t requests;
    uint64_t workers_lost;
    uint64_t builds_ok, builds_failed;
    uint64_t retries, dead_letters; /* of asynchronous executions */
    uint64_t callbacks_delivered, callbacks_failed, callback_retries;
    uint64_t records_failed; /* that the store did not take */
    struct histogram duration, queue_time, start_time;
};

void metrics_execution_finished(struct metrics *metrics, const struct execution *execution);
/* The page. */
int metrics_write(const struct controller *controller, struct buffer *out, struct error *err);
