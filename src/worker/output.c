/* Reads an instance's stdout and stderr within caps; see output.h. */
#include "worker/output.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define READ_CHUNK (64 * 1024)
#define READS_A_TURN 4
/* The most that one drain reads from a pipe: the largest that an unprivileged user may make it. */
#define DRAIN_MAX (1024 * 1024)
/* Memory for stdout that an idle instance keeps. */
#define KEEP_MAX (64 * 1024)

struct stream {
    uv_poll_t poll; /* first member; data: the output */
    int fd;
    bool open; /* end of file not yet seen */
};

struct output {
    struct stream *streams[2]; /* stdout, stderr; freed by their close callback */
    struct output_options options;
    struct buffer text; /* collected stdout */
    struct log_tail log;
    bool over; /* stdout went over its cap in this invocation */
};

enum { STDOUT, STDERR };

/* false when stdout went over its cap. */
static bool take(struct output *output, int which, const char *bytes, size_t len)
{
    if (which == STDERR || !output->options.collect_stdout) {
        if (!output->options.shared || !output->options.shared(output->options.data, bytes, len))
            log_tail_append(&output->log, bytes, len);
        return true;
    }
    if (!output->over && buffer_append(&output->text, bytes, len, NULL) < 0)
        output->over = true;
    return !output->over;
}

/* Reads at most `max` bytes; false when stdout went over its cap. */
static bool read_stream(struct output *output, int which, size_t max)
{
    static char chunk[READ_CHUNK]; /* loop thread only */
    struct stream *stream = output->streams[which];
    while (stream->open && max > 0) {
        ssize_t got = read(stream->fd, chunk, max < sizeof(chunk) ? max : sizeof(chunk));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0) {
            stream->open = false;
            uv_poll_stop(&stream->poll);
            return true;
        }
        max -= (size_t)got;
        if (!take(output, which, chunk, (size_t)got))
            return false;
        if ((size_t)got < sizeof(chunk))
            return true;
    }
    return true;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    (void)status;
    (void)events;
    struct output *output = poll->data;
    int which = output->streams[STDOUT] == (struct stream *)poll ? STDOUT : STDERR;
    bool was_over = output->over;
    if (!read_stream(output, which, READ_CHUNK * READS_A_TURN) && !was_over)
        output->options.overflow(output->options.data);
}

static struct stream *stream_new(uv_loop_t *loop, int fd, struct output *output, struct error *err)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    int rc = stream ? uv_poll_init(loop, &stream->poll, fd) : UV_ENOMEM;
    if (rc < 0) {
        free(stream);
        error_set_errno(err, ERROR_INTERNAL, -rc, "cannot watch an instance's output");
        return NULL;
    }
    stream->fd = fd;
    stream->open = true;
    stream->poll.data = output;
    uv_poll_start(&stream->poll, UV_READABLE, on_poll);
    return stream;
}

static void on_handle_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stream_free(struct stream *stream)
{
    if (!stream)
        return;
    uv_close((uv_handle_t *)&stream->poll, on_handle_closed);
    close(stream->fd);
}

struct output *output_new(uv_loop_t *loop, int stdout_fd, int stderr_fd,
                          const struct output_options *options, struct error *err)
{
    int fds[2] = {stdout_fd, stderr_fd};
    struct output *output = calloc(1, sizeof(*output));
    for (int i = 0; i < 2 && output; i++) {
        output->streams[i] = stream_new(loop, fds[i], output, err);
        if (output->streams[i])
            continue;
        for (int j = i; j < 2; j++)
            close(fds[j]);
        output_free(output);
        return NULL;
    }
    if (!output) {
        close(stdout_fd);
        close(stderr_fd);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    output->options = *options;
    buffer_init(&output->text, options->stdout_max);
    log_tail_init(&output->log, options->log_max);
    return output;
}

void output_free(struct output *output)
{
    if (!output)
        return;
    stream_free(output->streams[STDOUT]);
    stream_free(output->streams[STDERR]);
    buffer_deinit(&output->text);
    log_tail_deinit(&output->log);
    free(output);
}

void output_collect_stdout(struct output *output, bool collect)
{
    output->options.collect_stdout = collect;
}

void output_begin(struct output *output)
{
    buffer_clear(&output->text);
    output->over = false;
}

/* What the pipe holds now; a writer that goes on for ever cannot make it more. */
static size_t pipe_holds(int fd)
{
    int bytes = 0;
    if (ioctl(fd, FIONREAD, &bytes) < 0 || bytes < 0)
        return 0;
    return bytes < DRAIN_MAX ? (size_t)bytes : DRAIN_MAX;
}

int output_drain(struct output *output)
{
    for (int which = STDOUT; which <= STDERR; which++) {
        size_t left = output->streams[which]->open ? pipe_holds(output->streams[which]->fd) : 0;
        if (left > 0)
            read_stream(output, which, left);
    }
    return output->over ? -1 : 0;
}

const char *output_stdout(const struct output *output, size_t *ret_len)
{
    *ret_len = output->text.len;
    return output->text.len ? output->text.data : "";
}

struct log_tail *output_log(struct output *output)
{
    return &output->log;
}

char *output_take_log(struct output *output, size_t *ret_len)
{
    if (output->text.cap > KEEP_MAX) {
        size_t max = output->text.max;
        buffer_deinit(&output->text);
        buffer_init(&output->text, max);
    }
    return log_tail_take(&output->log, ret_len);
}
