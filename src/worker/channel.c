/* Frames over one non-blocking socket to an instance; see channel.h. */
#include "worker/channel.h"

#include "base/blob.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/json.h"
#include "worker/body_area.h"
#include "worker/instance_socket.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_CHUNK (64 * 1024)
/* With so much of a body still to come it is read to where it stays. */
#define DIRECT_MIN (16 * 1024)
/* Reads in one turn of the loop. */
#define READS_A_TURN 8
/* Of a body in the area; it is looked at while the processor's cache has it. */
#define AREA_PIECE (128 * 1024)
/* Of a body that is put there: so often the peer is told how much of it there is. */
#define AREA_STEP (1024UL * 1024)

struct channel {
    uv_poll_t poll; /* first member: the handle's memory is the channel's */
    int fd;
    struct channel_events events;
    void *data;
    struct frame_reader reader;
    size_t max_body;
    struct buffer body;
    struct json_ahead *ahead; /* owned: a large result is looked at while it comes */
    bool dropping;            /* the body that is being read is over the cap */
    bool dead;                /* closed() or too_large() was called */
    bool *freed; /* set while events run: tells that channel_free() was called inside of one */
    struct body_area *area; /* owned; NULL: none */
    bool area_passed;       /* the peer was sent its descriptor */
    bool area_used;         /* and said that it has mapped it */
    /* of a frame whose body is in the area: what it says of it */
    uint32_t in_area; /* length */
    uint32_t copied;
    struct blob *room; /* owned: where it goes; NULL: to `body` */
    uint32_t numbers;
    uint8_t number[FRAME_IN_AREA_LEN]; /* that is being read */
    size_t number_len;
    /* the frame that is being sent: head (header, meta, numbers of a body in the area), then the borrowed body */
    char head[sizeof(struct frame_header) + FRAME_META_MAX + FRAME_IN_AREA_MAX];
    size_t head_len;
    const char *send_body;
    size_t send_len;  /* of the body */
    size_t send_done; /* of head and body together */
    bool sending;     /* stays true when the peer went away before it had all */
    bool stuck;       /* the peer does not read any more */
};

static void on_poll(uv_poll_t *poll, int status, int events);

struct channel *channel_new(uv_loop_t *loop, int fd, uint32_t types, size_t max_body,
                            const struct channel_events *events, void *data, struct error *err)
{
    struct channel *channel = calloc(1, sizeof(*channel));
    int rc = channel ? uv_poll_init(loop, &channel->poll, fd) : UV_ENOMEM;
    if (rc < 0) {
        free(channel);
        instance_socket_close(fd);
        error_set_errno(err, ERROR_INTERNAL, -rc, "cannot watch an instance's socket");
        return NULL;
    }
    instance_socket_refuse_descriptors(fd);
    channel->fd = fd;
    channel->events = *events;
    channel->data = data;
    channel->max_body = max_body;
    buffer_init(&channel->body, max_body);
    frame_reader_init(&channel->reader, types, (uint32_t)max_body);
    uv_poll_start(&channel->poll, UV_READABLE, on_poll);
    return channel;
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct channel *channel = (struct channel *)handle;
    buffer_deinit(&channel->body);
    json_ahead_free(channel->ahead);
    free(channel);
}

static void drop_room(struct channel *channel)
{
    blob_unref(channel->room);
    channel->room = NULL;
}

void channel_free(struct channel *channel)
{
    if (!channel)
        return;
    if (channel->freed)
        *channel->freed = true;
    channel->dead = true;
    uv_close((uv_handle_t *)&channel->poll, on_handle_closed);
    instance_socket_close(channel->fd);
    drop_room(channel);
    body_area_free(channel->area);
    channel->area = NULL;
}

static void die(struct channel *channel, const struct error *why)
{
    channel->dead = true;
    uv_poll_stop(&channel->poll);
    channel->events.closed(channel->data, why);
}

static void refuse(struct channel *channel, const struct frame_header *header, const char *problem)
{
    const struct frame_reader *reader = &channel->reader;
    bool known = header->type < 32 && (reader->types & FRAME_BIT(header->type));
    if (known && header->body_len > channel->max_body && channel->events.too_large) {
        channel->dead = true;
        uv_poll_stop(&channel->poll);
        channel->events.too_large(channel->data, header, NULL);
        return;
    }
    struct error why = {0};
    error_set(&why, ERROR_UNAVAILABLE, "the instance broke the protocol: %s", problem);
    die(channel, &why);
}

static void begin_body(struct channel *channel)
{
    const struct frame_header *header = &channel->reader.header;
    buffer_clear(&channel->body);
    drop_room(channel);
    channel->copied = 0;
    channel->numbers = 0;
    channel->number_len = 0;
    json_ahead_free(channel->ahead);
    channel->dropping = header->body_len > channel->max_body;
    channel->ahead =
        header->type == FRAME_RESULT && header->body_len >= JSON_AHEAD_MIN && !channel->dropping
            ? json_ahead_new()
            : NULL;
}

/* A piece that was read to its place only has to be counted. */
static int take_piece(struct channel *channel, struct error *err)
{
    const struct frame_reader *reader = &channel->reader;
    struct buffer *body = &channel->body;
    if (!body->data || reader->piece != (const uint8_t *)body->data + body->len)
        return buffer_append(body, reader->piece, reader->piece_len, err);
    body->len += reader->piece_len;
    body->data[body->len] = '\0';
    json_ahead_look(channel->ahead, body->data, body->len);
    return 0;
}

/* Where the next bytes go: a chunk, or the place that they have in the body when much of it is still to come. */
static uint8_t *read_target(struct channel *channel, uint8_t *chunk, size_t *ret_len)
{
    size_t left = frame_reader_body_left(&channel->reader);
    *ret_len = READ_CHUNK;
    if (left < DIRECT_MIN || channel->dropping || buffer_reserve(&channel->body, left, NULL) < 0)
        return chunk;
    *ret_len = left;
    return (uint8_t *)channel->body.data + channel->body.len;
}

/* Where the body of a frame goes that is in the area. */
static char *body_of(struct channel *channel)
{
    return channel->room ? (char *)channel->room->bytes : channel->body.data;
}

/* The body, out of the area, as far as it is there. */
static void copy_body(struct channel *channel, uint32_t there)
{
    char *to = body_of(channel);
    while (channel->copied < there) {
        uint32_t left = there - channel->copied;
        uint32_t piece = left < AREA_PIECE ? left : AREA_PIECE;
        body_area_get(channel->area, to + channel->copied, channel->copied, piece);
        channel->copied += piece;
        json_ahead_look(channel->ahead, to, channel->copied);
    }
    if (channel->room)
        return;
    channel->body.len = channel->copied;
    to[channel->copied] = '\0';
}

/* The first number of a frame whose body is in the area. False: the channel is dead. */
static bool begin_in_area(struct channel *channel, uint32_t len)
{
    struct frame_header header = channel->reader.header;
    struct error err = {0};
    header.body_len = len;
    if (len > channel->max_body || len > body_area_capacity(channel->area)) {
        refuse(channel, &header, "a body that is larger than the memory that it is said to be in");
        return false;
    }
    if (len >= BODY_AREA_MIN && channel->events.room)
        channel->room = channel->events.room(channel->data, len);
    if (!channel->room && buffer_reserve(&channel->body, len, &err) < 0) {
        die(channel, &err);
        return false;
    }
    if (len >= JSON_AHEAD_MIN)
        channel->ahead = json_ahead_new();
    channel->in_area = len;
    return true;
}

/* One number; false: the channel is dead. */
static bool take_number(struct channel *channel, uint32_t number)
{
    const struct frame_header *header = &channel->reader.header;
    if (channel->numbers++ == 0)
        return begin_in_area(channel, number);
    bool last = channel->numbers * FRAME_IN_AREA_LEN == header->body_len;
    if (number < channel->copied || number > channel->in_area ||
        (last && number != channel->in_area)) {
        refuse(channel, header, "numbers of a body that do not lead to its length");
        return false;
    }
    copy_body(channel, number);
    return true;
}

/* Bytes of the numbers; false: the channel is dead. */
static bool take_numbers(struct channel *channel, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint32_t number;
        channel->number[channel->number_len++] = bytes[i];
        if (channel->number_len < sizeof(number))
            continue;
        channel->number_len = 0;
        memcpy(&number, channel->number, sizeof(number));
        if (!take_number(channel, le32toh(number)))
            return false;
    }
    return true;
}

/* A frame is complete. */
static void take_frame(struct channel *channel)
{
    struct frame_header header = channel->reader.header;
    if (channel->dropping) {
        channel->events.too_large(channel->data, &header, channel->reader.meta);
        return;
    }
    if (header.flags & FRAME_FLAG_IN_AREA) {
        copy_body(channel, channel->in_area);
        header.body_len = channel->in_area;
    }
    channel->events.frame(channel->data, &header, channel->reader.meta,
                          channel->room || channel->body.len ? body_of(channel) : "");
}

/* One event of the reader; false when there is nothing more to do with these bytes. */
static bool take_event(struct channel *channel, enum frame_event event)
{
    struct error err = {0};
    switch (event) {
    case FRAME_EVENT_MORE:
        return false;
    case FRAME_EVENT_HEAD:
        begin_body(channel);
        return true;
    case FRAME_EVENT_BODY:
        if (channel->reader.header.flags & FRAME_FLAG_IN_AREA)
            return take_numbers(channel, channel->reader.piece, channel->reader.piece_len);
        if (channel->dropping || take_piece(channel, &err) == 0)
            return true;
        die(channel, &err);
        return false;
    case FRAME_EVENT_END:
        take_frame(channel);
        return true;
    case FRAME_EVENT_INVALID:
        refuse(channel, &channel->reader.header, channel->reader.problem);
        return false;
    }
    return false;
}

/* Whether the channel still stands. */
static bool take_bytes(struct channel *channel, const uint8_t *bytes, size_t len)
{
    bool freed = false;
    bool *outer = channel->freed;
    channel->freed = &freed;
    while (take_event(channel, frame_reader_next(&channel->reader, &bytes, &len))) {
        if (freed)
            break;
        if (channel->dead)
            break;
    }
    if (freed) {
        if (outer)
            *outer = true;
        return false;
    }
    channel->freed = outer;
    return !channel->dead;
}

static void read_some(struct channel *channel)
{
    uint8_t chunk[READ_CHUNK]; /* not static: reads of two channels may nest */
    for (int turn = 0; turn < READS_A_TURN; turn++) {
        size_t max;
        uint8_t *to = read_target(channel, chunk, &max);
        ssize_t got = instance_socket_receive(channel->fd, to, max);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            struct error why = {0};
            if (got < 0)
                error_set_errno(&why, ERROR_UNAVAILABLE, errno, "the instance's socket failed");
            else
                error_set(&why, ERROR_UNAVAILABLE, "the instance closed its socket%s",
                          frame_reader_pending(&channel->reader) ? " in the middle of a frame"
                                                                 : "");
            die(channel, &why);
            return;
        }
        if (!take_bytes(channel, to, (size_t)got))
            return;
        if ((size_t)got < max)
            return;
    }
}

/* sendmsg(2), with the area's descriptor at a frame's first byte if the peer is to have it. */
static ssize_t send_parts(struct channel *channel, struct iovec *parts, size_t count)
{
    union {
        struct cmsghdr header; /* aligns it */
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    int fd = channel->area && channel->send_done == 0 ? body_area_fd(channel->area) : -1;
    if (fd >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        *header = (struct cmsghdr){
            .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    }
    ssize_t sent = sendmsg(channel->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (fd >= 0 && sent > 0) {
        body_area_close_fd(channel->area);
        channel->area_passed = true;
        frame_reader_expect_area(&channel->reader);
    }
    return sent;
}

/* 0 when all is sent or the socket is full; -1 when the peer is gone. */
static int send_some(struct channel *channel)
{
    while (channel->sending) {
        size_t total = channel->head_len + channel->send_len;
        struct iovec parts[2];
        int count = 0;
        if (channel->send_done < channel->head_len)
            parts[count++] = (struct iovec){channel->head + channel->send_done,
                                            channel->head_len - channel->send_done};
        size_t body_done =
            channel->send_done > channel->head_len ? channel->send_done - channel->head_len : 0;
        if (body_done < channel->send_len)
            parts[count++] = (struct iovec){(char *)channel->send_body + body_done,
                                            channel->send_len - body_done};
        ssize_t sent = send_parts(channel, parts, (size_t)count);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN ? 0 : -1;
        channel->send_done += (size_t)sent;
        channel->sending = channel->send_done < total;
    }
    return 0;
}

static void watch(struct channel *channel)
{
    uv_poll_start(&channel->poll,
                  UV_READABLE | (channel->sending && !channel->stuck ? UV_WRITABLE : 0), on_poll);
}

static void send_rest(struct channel *channel)
{
    if (!channel->sending || channel->stuck)
        return;
    /* A peer that is gone shows as end of file on the reading side. */
    channel->stuck = send_some(channel) < 0;
    if (channel->stuck || !channel->sending)
        watch(channel);
    if (!channel->sending && channel->events.sent)
        channel->events.sent(channel->data);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct channel *channel = (struct channel *)poll;
    if (status < 0)
        events = UV_READABLE; /* the read says what is wrong */
    if (events & UV_WRITABLE)
        send_rest(channel);
    if (events & UV_READABLE)
        read_some(channel);
}

static int send_failed(struct channel *channel, struct error *err)
{
    channel->stuck = true;
    return error_set_errno(err, ERROR_UNAVAILABLE, errno, "an instance's socket is closed");
}

/* What is in the head so far; what the socket does not take of it goes with the next. */
static int send_head(struct channel *channel, struct error *err)
{
    channel->sending = true;
    return send_some(channel) < 0 ? send_failed(channel, err) : 0;
}

static void add_number(struct channel *channel, size_t number)
{
    uint32_t bytes = htole32((uint32_t)number);
    memcpy(channel->head + channel->head_len, &bytes, sizeof(bytes));
    channel->head_len += sizeof(bytes);
}

/* The peer hears of it before it is there, and then how much of it is, so that it begins with what it has. */
static int send_through_area(struct channel *channel, const char *body, size_t len,
                             struct error *err)
{
    add_number(channel, len);
    for (size_t there = 0; there < len;) {
        if (send_head(channel, err) < 0)
            return -1;
        size_t piece = len - there < AREA_STEP ? len - there : AREA_STEP;
        body_area_put(channel->area, body + there, there, piece);
        there += piece;
        add_number(channel, there);
    }
    return send_head(channel, err);
}

/* Whether a body goes that way. */
static bool area_takes(const struct channel *channel, size_t len)
{
    return channel->area_used && len >= BODY_AREA_MIN && len <= body_area_capacity(channel->area) &&
           body_area_make_room(channel->area, len);
}

int channel_send(struct channel *channel, enum frame_type type, uint32_t value, const char *meta,
                 const char *body, size_t body_len, struct error *err)
{
    size_t meta_len = strlen(meta);
    if (channel->dead || channel->sending || meta_len > FRAME_META_MAX || body_len > UINT32_MAX)
        return error_set(err, ERROR_INTERNAL, "an instance's socket cannot take a frame now");
    bool elsewhere = area_takes(channel, body_len);
    size_t numbers = 1 + (body_len + AREA_STEP - 1) / AREA_STEP;
    assert(!elsewhere || numbers * FRAME_IN_AREA_LEN <= FRAME_IN_AREA_MAX);
    struct frame_header header =
        frame_header_make(type, elsewhere ? FRAME_FLAG_IN_AREA : 0, value, (uint32_t)meta_len,
                          elsewhere ? (uint32_t)numbers * FRAME_IN_AREA_LEN : (uint32_t)body_len);
    memcpy(channel->head, &header, sizeof(header));
    memcpy(channel->head + sizeof(header), meta, meta_len);
    channel->head_len = sizeof(header) + meta_len;
    channel->send_body = body;
    channel->send_len = elsewhere ? 0 : body_len;
    channel->send_done = 0;
    int status =
        elsewhere ? send_through_area(channel, body, body_len, err) : send_head(channel, err);
    if (status == 0 && channel->sending)
        watch(channel);
    return status;
}

void channel_move_body(struct channel *channel, const char *body)
{
    channel->send_body = body;
}

void channel_pass_area(struct channel *channel, struct body_area *area)
{
    assert(!channel->area && !channel->sending);
    channel->area = area;
}

void channel_use_area(struct channel *channel)
{
    channel->area_used = channel->area_passed;
}

struct body_area *channel_area(const struct channel *channel)
{
    return channel->area;
}

void channel_read(struct channel *channel)
{
    if (!channel->dead)
        read_some(channel);
}

char *channel_take_body(struct channel *channel, size_t *ret_len)
{
    return buffer_take(&channel->body, ret_len);
}

struct blob *channel_take_room(struct channel *channel)
{
    return steal_pointer(&channel->room);
}

const struct json_ahead *channel_ahead(const struct channel *channel)
{
    return channel->ahead;
}

void channel_pass_over_large(struct channel *channel, uint32_t max)
{
    frame_reader_expect(&channel->reader, channel->reader.types, max);
}

bool channel_sending(const struct channel *channel)
{
    return channel->sending;
}
