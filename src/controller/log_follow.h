/* Logs as they are written: chunks that workers send while an execution runs, and clients that
 * follow a function's log (NDJSON, one line an object). Loop thread only. */
#pragma once

#include "controller/executions.h"

#define LOG_FOLLOWERS_MAX 256
/* A line that goes on for longer is shown in pieces. */
#define LOG_LINE_MAX (64 * 1024)

struct log_followers {
    struct list all; /* struct log_follower */
    size_t count;
};

void log_followers_init(struct log_followers *followers);
/* Ends all streams. */
void log_followers_end(struct controller *controller);
/* A client that follows function `name` from now on. Answers the request in any case. */
void log_follow(struct controller *controller, struct http_request *request, const char *name);
/* Bytes [offset, offset + len) of a running execution's log. */
void log_chunk(struct controller *controller, struct live_execution *execution, uint64_t offset,
               const char *bytes, size_t len);
/* The execution is final: what followers have not seen of record.logs, of which `total` bytes were
 * written altogether. */
void log_finished(struct controller *controller, struct live_execution *execution, uint64_t total);
/* Once in a while: an empty line to each, which finds out who is gone. */
void log_followers_ping(struct controller *controller);

/* A log as the members "execution_id", "time" and "line" of objects, each ended by `after` (",", or
 * "\n"). For answers that list lines. */
int log_write_lines(struct buffer *out, const char *execution_id, uint64_t time_ns,
                    const char *text, size_t len, char after, struct error *err);
