/* Polls and results towards one controller; see link.h and docs/worker-protocol.md. */
#include "worker/link.h"

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "base/message.h"
#include "base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Polls under way: while the answer to one is worked on, the other stands ready for the next work.
 */
#define POLLS 2
/* Requests with results under way. */
#define POSTS 2
#define WAIT_MS 20000
#define ANSWER_SLACK_MS 10000
#define POST_TIMEOUT_MS 30000
#define BATCH_MESSAGES_MAX 64
#define BATCH_BYTES_MAX (8 * 1024 * 1024)
#define ASSIGNMENTS_MAX_BYTES (128 * 1024 * 1024)
#define MESSAGE_MAX_BYTES (1024ul * 1024 * 1024)
#define BACKOFF_FIRST_MS 100
#define BACKOFF_LAST_MS 5000
/* A controller that answers "nothing" faster than this is not asked again at once. */
#define POLL_MIN_MS 20
#define FETCH_TRIES 6

/* One message that waits, framed as it goes out. */
struct outgoing {
    struct buffer frame;
    char execution_id[TIME_ID_LEN + 1]; /* of a result; "" for others */
    bool is_log;                        /* of use only now: dropped when it cannot be sent */
    struct outgoing *next;
};

struct queue {
    struct outgoing *first;
    struct outgoing **last; /* where the next one goes */
    size_t count;
};

struct poll {
    struct link *link;
    struct http_call *call; /* NULL: not under way */
    struct buffer body;
    struct loop_timer *retry;
    uint64_t started_ns;
    bool extra; /* an announcement: not repeated */
};

struct post {
    struct link *link;
    struct http_call *call;
    struct queue messages; /* in this request */
    struct buffer body;    /* of several messages */
};

struct fetch {
    struct link *link;
    char *url; /* owned */
    size_t max_bytes;
    int tries;
    struct http_call *call;
    struct loop_timer *retry;
    link_fetched_fn *done;
    void *data;
    struct fetch *next;
};

struct link {
    uv_loop_t *loop;
    struct http_client *client;
    struct link_options options;
    char *url, *name, *session, *authorization; /* owned */
    const char *headers_json[3], *headers_messages[3];
    struct poll polls[POLLS + 1]; /* the last one is for announcements */
    struct post posts[POSTS];
    struct queue waiting;
    struct fetch *fetches;
    struct loop_timer *resend;
    bool single;       /* a batch was refused: one message at a time until the queue is empty */
    unsigned failures; /* in a row */
    bool reachable;
    bool over; /* superseded */
    bool *freed;
    void (*delivered)(void *data);
};

/* ---- queues ---- */

static void queue_init(struct queue *queue)
{
    *queue = (struct queue){.last = &queue->first};
}

static void queue_push(struct queue *queue, struct outgoing *message)
{
    message->next = NULL;
    *queue->last = message;
    queue->last = &message->next;
    queue->count++;
}

static struct outgoing *queue_pop(struct queue *queue)
{
    struct outgoing *message = queue->first;
    if (!message)
        return NULL;
    queue->first = message->next;
    if (!queue->first)
        queue->last = &queue->first;
    queue->count--;
    return message;
}

static void outgoing_free(struct outgoing *message)
{
    buffer_deinit(&message->frame);
    free(message);
}

static void queue_clear(struct queue *queue)
{
    struct outgoing *message;
    while ((message = queue_pop(queue)))
        outgoing_free(message);
}

/* ---- failure and recovery ---- */

static uint64_t backoff_ms(unsigned failures)
{
    uint64_t ms = BACKOFF_FIRST_MS;
    for (unsigned i = 1; i < failures && ms < BACKOFF_LAST_MS; i++)
        ms *= 2;
    if (ms > BACKOFF_LAST_MS)
        ms = BACKOFF_LAST_MS;
    return ms / 2 + (uint64_t)random() % (ms / 2 + 1);
}

static void note_failure(struct link *link, const struct error *err)
{
    link->failures++;
    if (link->reachable || link->failures == 1)
        log_warn("controller cannot be used, trying again", LOG_STR("controller", link->url),
                 LOG_ERR(err));
    link->reachable = false;
}

static void note_success(struct link *link)
{
    if (!link->reachable)
        log_info("connected to controller", LOG_STR("controller", link->url));
    link->reachable = true;
    link->failures = 0;
}

static void stop_polls(struct link *link)
{
    for (int i = 0; i <= POLLS; i++) {
        struct poll *poll = &link->polls[i];
        loop_timer_stop(poll->retry);
        poll->retry = NULL;
        if (poll->call)
            http_call_cancel(poll->call);
        poll->call = NULL;
    }
}

static void be_superseded(struct link *link)
{
    if (link->over)
        return;
    link->over = true;
    stop_polls(link);
    log_error("another worker with this name has connected", LOG_STR("controller", link->url),
              LOG_STR("worker", link->name));
    link->options.superseded(link->options.data, link);
}

/* ---- assignments ---- */

static int take_assignment(struct link *link, const struct message *message, struct error *err)
{
    autojson *head = json_parse(message->head, message->head_len, NULL, err);
    if (!head)
        return error_wrap(err, "head of an assignment");
    link->options.assigned(link->options.data, link, head, message->body, message->body_len);
    return 0;
}

/* false when the link was freed by what came. */
static bool take_assignments(struct link *link, const struct buffer *body)
{
    struct message message;
    struct error err = {0};
    size_t offset = 0;
    bool freed = false;
    link->freed = &freed;
    int rc;
    while ((rc = message_next(body->data ? body->data : "", body->len, &offset, &message, &err)) >
           0) {
        if (take_assignment(link, &message, &err) < 0)
            rc = -1;
        if (freed)
            return false;
        if (rc < 0)
            break;
    }
    link->freed = NULL;
    if (rc < 0)
        log_error("controller sent what cannot be read", LOG_STR("controller", link->url),
                  LOG_ERR(&err));
    return true;
}

/* ---- polls ---- */

static void poll_again(void *data);

static void poll_later(struct poll *poll, uint64_t after_ms)
{
    if (poll->extra || poll->link->over)
        return;
    loop_timer_stop(poll->retry);
    poll->retry = loop_timer_start(poll->link->loop, after_ms, 0, poll_again, poll, NULL);
}

static int write_poll(struct poll *poll, struct error *err)
{
    struct link *link = poll->link;
    buffer_clear(&poll->body);
    struct json_writer *writer = json_writer_new(&poll->body);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "worker", link->name);
    json_member_string(writer, "session", link->session);
    json_member_int(writer, "wait_ms", poll->extra ? 0 : (int64_t)link->options.wait_ms);
    link->options.describe(link->options.data, link, writer);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

static void on_poll(void *data, struct http_answer *answer, const struct error *err)
{
    struct poll *poll = data;
    struct link *link = poll->link;
    struct error refused = {0};
    poll->call = NULL;
    if (answer && answer->status == 409) {
        be_superseded(link);
        return;
    }
    if (answer && http_answer_check(answer, &refused) < 0)
        err = &refused;
    if (!answer || err) {
        note_failure(link, err);
        poll_later(poll, backoff_ms(link->failures));
        return;
    }
    note_success(link);
    if (answer->status == 200) {
        if (!take_assignments(link, &answer->body))
            return;
    } else if (clock_monotonic_ns() - poll->started_ns < POLL_MIN_MS * 1000000ull) {
        poll_later(poll, POLL_MIN_MS);
        return;
    }
    if (!poll->extra && !link->over && !poll->call)
        poll_again(poll);
}

static void poll_again(void *data)
{
    struct poll *poll = data;
    struct link *link = poll->link;
    struct error err = {0};
    loop_timer_stop(poll->retry);
    poll->retry = NULL;
    autofree char *url = string_printf("%s/v1/worker/poll", link->url);
    int rc = url ? write_poll(poll, &err) : error_set(&err, ERROR_INTERNAL, "out of memory");
    if (rc == 0) {
        struct http_call_options options = {
            .method = "POST",
            .url = url,
            .headers = link->headers_json,
            .body = poll->body.data,
            .body_len = poll->body.len,
            .timeout_ms = link->options.wait_ms + ANSWER_SLACK_MS,
            .max_response_bytes = ASSIGNMENTS_MAX_BYTES,
        };
        poll->started_ns = clock_monotonic_ns();
        poll->call = http_call_start(link->client, &options, on_poll, poll, &err);
    }
    if (!poll->call) {
        note_failure(link, &err);
        poll_later(poll, backoff_ms(link->failures));
    }
}

void link_start(struct link *link)
{
    for (int i = 0; i < POLLS; i++)
        poll_again(&link->polls[i]);
}

void link_announce(struct link *link)
{
    struct poll *poll = &link->polls[POLLS];
    if (link->over)
        return;
    if (poll->call)
        http_call_cancel(poll->call);
    poll->call = NULL;
    poll_again(poll);
}

/* ---- results ---- */

static void send_waiting(struct link *link);

static void on_resend(void *data)
{
    struct link *link = data;
    loop_timer_stop(link->resend);
    link->resend = NULL;
    send_waiting(link);
}

/* Puts what a failed request carried back to the front, without log chunks. */
static void take_back(struct link *link, struct post *post)
{
    struct queue kept;
    struct outgoing *message;
    queue_init(&kept);
    while ((message = queue_pop(&post->messages))) {
        if (message->is_log)
            outgoing_free(message);
        else
            queue_push(&kept, message);
    }
    while ((message = queue_pop(&link->waiting)))
        queue_push(&kept, message);
    while ((message = queue_pop(&kept)))
        queue_push(&link->waiting, message);
}

/* The controller understood, and does not want it: trying again cannot help. */
static bool is_refusal(int status)
{
    return status >= 400 && status < 500 && status != 401 && status != 403 && status != 408 &&
           status != 429;
}

static void post_failed(struct link *link, struct post *post, int status, const struct error *err)
{
    if (is_refusal(status) && post->messages.count == 1) {
        log_error("controller refused a result", LOG_STR("controller", link->url), LOG_ERR(err));
        queue_clear(&post->messages);
        send_waiting(link);
        return;
    }
    take_back(link, post);
    if (is_refusal(status)) {
        link->single = true;
        send_waiting(link);
        return;
    }
    note_failure(link, err);
    if (!link->resend)
        link->resend =
            loop_timer_start(link->loop, backoff_ms(link->failures), 0, on_resend, link, NULL);
}

static void on_post(void *data, struct http_answer *answer, const struct error *err)
{
    struct post *post = data;
    struct link *link = post->link;
    struct error refused = {0};
    post->call = NULL;
    if (!err && http_answer_check(answer, &refused) < 0)
        err = &refused;
    if (err) {
        post_failed(link, post, answer ? answer->status : 0, err);
        return;
    }
    note_success(link);
    queue_clear(&post->messages);
    buffer_deinit(&post->body);
    buffer_init(&post->body, MESSAGE_MAX_BYTES);
    if (answer->status == 200 && !take_assignments(link, &answer->body))
        return;
    send_waiting(link);
    if (link_pending(link) == 0 && link->delivered)
        link->delivered(link->options.data);
}

/* Moves as much of the queue into the request as one request should carry. */
static int fill_post(struct link *link, struct post *post, struct error *err)
{
    size_t bytes = 0;
    size_t max = link->single ? 1 : BATCH_MESSAGES_MAX;
    while (link->waiting.first && post->messages.count < max &&
           (bytes == 0 || bytes + link->waiting.first->frame.len <= BATCH_BYTES_MAX)) {
        struct outgoing *message = queue_pop(&link->waiting);
        bytes += message->frame.len;
        queue_push(&post->messages, message);
    }
    if (link->waiting.count == 0)
        link->single = false;
    buffer_clear(&post->body);
    if (post->messages.count == 1)
        return 0;
    for (struct outgoing *message = post->messages.first; message; message = message->next) {
        if (buffer_append(&post->body, message->frame.data, message->frame.len, err) < 0)
            return -1;
    }
    return 0;
}

static void send_post(struct link *link, struct post *post)
{
    struct error err = {0};
    autofree char *url = string_printf("%s/v1/worker/results", link->url);
    int rc = fill_post(link, post, &err);
    const struct buffer *body =
        post->messages.count == 1 ? &post->messages.first->frame : &post->body;
    if (rc == 0 && url) {
        struct http_call_options options = {
            .method = "POST",
            .url = url,
            .headers = link->headers_messages,
            .body = body->data,
            .body_len = body->len,
            .timeout_ms = POST_TIMEOUT_MS,
            .max_response_bytes = ASSIGNMENTS_MAX_BYTES,
        };
        post->call = http_call_start(link->client, &options, on_post, post, &err);
    }
    if (!post->call)
        post_failed(link, post, 0, &err);
}

static void send_waiting(struct link *link)
{
    for (int i = 0; i < POSTS && link->waiting.count > 0 && !link->resend; i++) {
        if (!link->posts[i].call)
            send_post(link, &link->posts[i]);
    }
}

static void enqueue(struct link *link, struct buffer *head, const char *body, size_t body_len,
                    const char *execution_id, bool is_log)
{
    struct error err = {0};
    struct outgoing *message = calloc(1, sizeof(*message));
    if (message)
        buffer_init(&message->frame, MESSAGE_MAX_BYTES);
    if (!message ||
        message_append(&message->frame, head->data, head->len, body, body_len, &err) < 0) {
        log_error("a result is lost", LOG_STR("error", message ? err.message : "out of memory"));
        free(message);
        return;
    }
    message->is_log = is_log;
    snprintf(message->execution_id, sizeof(message->execution_id), "%s", execution_id);
    queue_push(&link->waiting, message);
    send_waiting(link);
}

/* result then log, as one piece; *ret is `a` or `b` itself where the other is empty. */
static const char *join(const char *a, size_t a_len, const char *b, size_t b_len, char **ret_owned)
{
    *ret_owned = NULL;
    if (b_len == 0)
        return a ? a : "";
    if (a_len == 0)
        return b;
    char *joined = malloc(a_len + b_len);
    if (joined) {
        memcpy(joined, a, a_len);
        memcpy(joined + a_len, b, b_len);
    }
    *ret_owned = joined;
    return joined;
}

static int write_result_head(struct buffer *head, const struct execution *execution,
                             struct error *err)
{
    struct json_writer *writer = json_writer_new(head);
    if (!writer)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    json_object_begin(writer);
    json_member_string(writer, "kind", "result");
    json_member_string(writer, "execution_id", execution->id);
    json_member_int(writer, "attempt", execution->attempt);
    json_member_string(writer, "status", execution_status_name(execution->status));
    json_member_bool(writer, "cold_start", execution->cold_start);
    json_member_bool(writer, "result_base64", execution->result_base64);
    json_member_int(writer, "result_len", (int64_t)execution->result_len);
    json_member_int(writer, "logs_len", (int64_t)execution->logs_len);
    if (execution->has_error) {
        json_key(writer, "error");
        execution_error_write(writer, &execution->error);
    }
    json_key(writer, "metrics");
    execution_metrics_write(writer, &execution->metrics);
    json_object_end(writer);
    return json_writer_finish(writer, err);
}

void link_send_result(struct link *link, const struct execution *execution)
{
    with_cleanup(buffer_deinit) struct buffer head = BUFFER_INIT(MESSAGE_HEAD_MAX);
    struct error err = {0};
    autofree char *owned = NULL;
    const char *body = join(execution->result, execution->result_len, execution->logs,
                            execution->logs_len, &owned);
    if (!body || write_result_head(&head, execution, &err) < 0) {
        log_error("a result is lost", LOG_STR("execution", execution->id), LOG_ERR(&err));
        return;
    }
    enqueue(link, &head, body, execution->result_len + execution->logs_len, execution->id, false);
}

void link_send_log(struct link *link, const char *execution_id, int64_t attempt, uint64_t offset,
                   const char *text, size_t len)
{
    if (link->resend || link->waiting.count > BATCH_MESSAGES_MAX)
        return;
    with_cleanup(buffer_deinit) struct buffer head = BUFFER_INIT(MESSAGE_HEAD_MAX);
    struct json_writer *writer = json_writer_new(&head);
    if (!writer)
        return;
    json_object_begin(writer);
    json_member_string(writer, "kind", "log");
    json_member_string(writer, "execution_id", execution_id);
    json_member_int(writer, "attempt", attempt);
    json_member_int(writer, "offset", (int64_t)offset);
    json_object_end(writer);
    if (json_writer_finish(writer, NULL) == 0)
        enqueue(link, &head, text, len, "", true);
}

void link_send_build(struct link *link, const char *build_id, bool ok, const char *output,
                     size_t output_len, const char *artifact, size_t artifact_len)
{
    with_cleanup(buffer_deinit) struct buffer head = BUFFER_INIT(MESSAGE_HEAD_MAX);
    autofree char *owned = NULL;
    const char *body = join(output, output_len, artifact, artifact_len, &owned);
    struct json_writer *writer = json_writer_new(&head);
    if (!writer || !body) {
        log_error("a build's result is lost", LOG_STR("build", build_id));
        if (writer)
            json_writer_finish(writer, NULL);
        return;
    }
    json_object_begin(writer);
    json_member_string(writer, "kind", "build_result");
    json_member_string(writer, "build_id", build_id);
    json_member_bool(writer, "ok", ok);
    json_member_int(writer, "output_len", (int64_t)output_len);
    json_object_end(writer);
    if (json_writer_finish(writer, NULL) == 0)
        enqueue(link, &head, body, output_len + artifact_len, "", false);
}

size_t link_pending(const struct link *link)
{
    size_t count = link->waiting.count;
    for (int i = 0; i < POSTS; i++)
        count += link->posts[i].messages.count;
    return count;
}

static void write_ids(const struct queue *queue, struct json_writer *writer)
{
    for (const struct outgoing *message = queue->first; message; message = message->next) {
        if (message->execution_id[0])
            json_write_string(writer, message->execution_id);
    }
}

void link_write_pending(const struct link *link, struct json_writer *writer)
{
    write_ids(&link->waiting, writer);
    for (int i = 0; i < POSTS; i++)
        write_ids(&link->posts[i].messages, writer);
}

void link_on_delivered(struct link *link, void (*fn)(void *data))
{
    link->delivered = fn;
}

const char *link_url(const struct link *link)
{
    return link->url;
}

/* ---- fetches ---- */

static void fetch_end(struct fetch *fetch, struct http_answer *answer, const struct error *err)
{
    struct fetch **at = &fetch->link->fetches;
    while (*at != fetch)
        at = &(*at)->next;
    *at = fetch->next;
    loop_timer_stop(fetch->retry);
    fetch->done(fetch->data, answer, err);
    free(fetch->url);
    free(fetch);
}

static void fetch_try(void *data);

static void on_fetched(void *data, struct http_answer *answer, const struct error *err)
{
    struct fetch *fetch = data;
    struct error refused = {0};
    fetch->call = NULL;
    if (!err && http_answer_check(answer, &refused) < 0)
        err = &refused;
    if (!err) {
        fetch_end(fetch, answer, NULL);
        return;
    }
    bool may_help =
        !answer || answer->status == 0 || answer->status >= 500 || answer->status == 429;
    if (may_help && err->code != ERROR_PAYLOAD_TOO_LARGE && ++fetch->tries < FETCH_TRIES) {
        fetch->retry = loop_timer_start(fetch->link->loop, backoff_ms((unsigned)fetch->tries), 0,
                                        fetch_try, fetch, NULL);
        if (fetch->retry)
            return;
    }
    fetch_end(fetch, NULL, err);
}

static int fetch_start(struct fetch *fetch, struct error *err)
{
    struct http_call_options options = {
        .method = "GET",
        .url = fetch->url,
        .headers = fetch->link->headers_json,
        .timeout_ms = 60000,
        .max_response_bytes = fetch->max_bytes,
    };
    fetch->call = http_call_start(fetch->link->client, &options, on_fetched, fetch, err);
    return fetch->call ? 0 : -1;
}

static void fetch_try(void *data)
{
    struct fetch *fetch = data;
    struct error err = {0};
    loop_timer_stop(fetch->retry);
    fetch->retry = NULL;
    if (fetch_start(fetch, &err) < 0)
        fetch_end(fetch, NULL, &err);
}

int link_fetch(struct link *link, const char *path, size_t max_bytes, link_fetched_fn *done,
               void *data, struct error *err)
{
    struct fetch *fetch = calloc(1, sizeof(*fetch));
    if (fetch)
        fetch->url = string_printf("%s%s", link->url, path);
    if (!fetch || !fetch->url) {
        free(fetch);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    fetch->link = link;
    fetch->max_bytes = max_bytes;
    fetch->done = done;
    fetch->data = data;
    if (fetch_start(fetch, err) < 0) {
        free(fetch->url);
        free(fetch);
        return -1;
    }
    fetch->next = link->fetches;
    link->fetches = fetch;
    return 0;
}

/* ---- life ---- */

static int copy_texts(struct link *link, const struct link_options *options)
{
    size_t len = strlen(options->url);
    while (len > 0 && options->url[len - 1] == '/')
        len--;
    link->url = strndup(options->url, len);
    link->name = strdup(options->name);
    link->session = strdup(options->session);
    link->authorization = string_printf("Authorization: Bearer %s", options->token);
    return link->url && link->name && link->session && link->authorization ? 0 : -1;
}

struct link *link_new(uv_loop_t *loop, struct http_client *client,
                      const struct link_options *options, struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    if (!link) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    link->loop = loop;
    link->client = client;
    link->options = *options;
    if (link->options.wait_ms == 0)
        link->options.wait_ms = WAIT_MS;
    queue_init(&link->waiting);
    for (int i = 0; i <= POLLS; i++)
        link->polls[i] =
            (struct poll){.link = link, .body = BUFFER_INIT(4 * 1024 * 1024), .extra = i == POLLS};
    for (int i = 0; i < POSTS; i++) {
        link->posts[i] = (struct post){.link = link, .body = BUFFER_INIT(MESSAGE_MAX_BYTES)};
        queue_init(&link->posts[i].messages);
    }
    if (copy_texts(link, options) < 0) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        link_free(link);
        return NULL;
    }
    link->headers_json[0] = link->headers_messages[0] = link->authorization;
    link->headers_json[1] = "Content-Type: application/json";
    link->headers_messages[1] = "Content-Type: " MESSAGE_CONTENT_TYPE;
    return link;
}

void link_free(struct link *link)
{
    struct error err = {0};
    if (!link)
        return;
    if (link->freed)
        *link->freed = true;
    stop_polls(link);
    error_set(&err, ERROR_UNAVAILABLE, "the worker is stopping");
    while (link->fetches) {
        if (link->fetches->call)
            http_call_cancel(link->fetches->call);
        fetch_end(link->fetches, NULL, &err);
    }
    for (int i = 0; i <= POLLS; i++)
        buffer_deinit(&link->polls[i].body);
    for (int i = 0; i < POSTS; i++) {
        if (link->posts[i].call)
            http_call_cancel(link->posts[i].call);
        queue_clear(&link->posts[i].messages);
        buffer_deinit(&link->posts[i].body);
    }
    queue_clear(&link->waiting);
    loop_timer_stop(link->resend);
    free(link->url);
    free(link->name);
    free(link->session);
    free(link->authorization);
    free(link);
}
