/* The worker's side of docs/worker-protocol.md, towards one controller.
 *
 * Keeps one connection, hands assignments to worker.c as they come, says the worker's state when it has changed and
 * now and then, and sends results at once. What was sent is kept until the controller has taken it, and sent again on the next
 * connection otherwise. When the controller cannot be reached it tries again with growing, jittered pauses; invocations that
 * run go on. Loop thread only. */
#pragma once

#include "base/buffer.h"
#include "base/http_client.h"
#include "base/json.h"
#include "base/message_stream.h"
#include "model/execution.h"

struct link;

struct link_options {
    const char *url; /* "http://127.0.0.1:8080"; copied, as all strings here */
    const char *token;
    const char *ca_file; /* for https; NULL: the system's; borrowed */
    bool shared_memory;  /* of a controller on this machine is used for large bodies */
    const char *name;    /* the worker's */
    const char *session;
    /* Members of the state after worker and session: capacity, slots, running, instances. */
    void (*describe)(void *data, struct link *link, struct json_writer *writer);
    /* One assignment; `head` is borrowed, the body of `in` may be taken. Must not free the link. */
    void (*assigned)(void *data, struct link *link, const struct json *head, struct message_in *in);
    /* A newer session has taken the name: nothing more comes. */
    void (*superseded)(void *data, struct link *link);
    /* link_announced() has become true. */
    void (*announced)(void *data, struct link *link);
    void *data;
};

struct link *link_new(uv_loop_t *loop, struct http_client *client,
                      const struct link_options *options, struct error *err);
/* Drops what is under way. Accepts NULL. */
void link_free(struct link *link);
void link_start(struct link *link);
/* The controller learns at once what describe() says now. */
void link_announce(struct link *link);
/* Whether it has taken what was announced last, or is not connected: whatever it gave out by what it knew before has come, or will not
 * come any more. */
bool link_announced(const struct link *link);
/* Results not yet taken by the controller. */
size_t link_pending(const struct link *link);
/* Writes the ids of executions whose results are still to be sent: members of the state's "running". */
void link_write_pending(const struct link *link, struct json_writer *writer);
/* The same of builds: members of "builds". */
void link_write_pending_builds(const struct link *link, struct json_writer *writer);
/* Calls `fn` (which may be NULL) whenever the controller has taken all results. */
void link_on_delivered(struct link *link, void (*fn)(void *data));
const char *link_url(const struct link *link);

/* Queue one message; texts are copied, but for the execution's result and log, which are taken. */
void link_send_result(struct link *link, struct execution *execution);
/* Memory for a result of `len` bytes that is still to be made, with a log of up to `log_max`, from where it goes to the controller without a copy; it
 * stands until it is not kept any more, whatever the connection does. NULL: none now. */
struct blob *link_result_room(struct link *link, size_t len, size_t log_max);
void link_send_log(struct link *link, const char *execution_id, int64_t attempt, uint64_t offset,
                   const char *text, size_t len);
void link_send_build(struct link *link, const char *build_id, bool ok, const char *output,
                     size_t output_len, const char *artifact, size_t artifact_len);

/* GET of a path on this controller, tried again a few times while it does not answer. `answer` is
 * NULL on failure; answers other than 2xx are failures. `done` comes exactly once, later, or from
 * inside link_free(). */
typedef void link_fetched_fn(void *data, struct http_answer *answer, const struct error *err);
int link_fetch(struct link *link, const char *path, size_t max_bytes, link_fetched_fn *done,
               void *data, struct error *err);
