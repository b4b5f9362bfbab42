/* Netlink messages: a header, a family's own header, attributes; everything on 4-byte bounds. */
#include "worker/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_S 5

void netlink_request_deinit(struct netlink_request *request)
{
    buffer_deinit(&request->bytes);
}

static void append(struct netlink_request *request, const void *data, size_t len)
{
    static const char zeros[NLMSG_ALIGNTO];
    size_t padding = NLMSG_ALIGN(len) - len;

    if (request->failed || buffer_append(&request->bytes, data, len, NULL) < 0 ||
        buffer_append(&request->bytes, zeros, padding, NULL) < 0)
        request->failed = true;
}

/* The message's length is what has been appended since it began. */
static void measure(struct netlink_request *request)
{
    uint32_t len = (uint32_t)(request->bytes.len - request->message);

    if (!request->failed)
        memcpy(request->bytes.data + request->message + offsetof(struct nlmsghdr, nlmsg_len), &len,
               sizeof(len));
}

void netlink_message(struct netlink_request *request, uint16_t type, uint16_t flags,
                     const void *header, size_t len)
{
    struct nlmsghdr message = {
        .nlmsg_type = type, .nlmsg_flags = flags | NLM_F_REQUEST, .nlmsg_seq = ++request->sequence};

    request->message = request->bytes.len;
    request->acks += (flags & NLM_F_ACK) != 0;
    append(request, &message, sizeof(message));
    append(request, header, len);
    measure(request);
}

void netlink_attribute(struct netlink_request *request, uint16_t type, const void *data, size_t len)
{
    struct nlattr attribute = {.nla_type = type, .nla_len = (uint16_t)(NLA_HDRLEN + len)};

    request->failed = request->failed || NLA_HDRLEN + len > UINT16_MAX;
    append(request, &attribute, sizeof(attribute));
    append(request, data, len);
    measure(request);
}

size_t netlink_nest(struct netlink_request *request, uint16_t type)
{
    struct nlattr attribute = {.nla_type = type | NLA_F_NESTED};
    size_t at = request->bytes.len;

    append(request, &attribute, sizeof(attribute));
    return at;
}

void netlink_nest_end(struct netlink_request *request, size_t nest)
{
    size_t len = request->bytes.len - nest;
    uint16_t short_len = (uint16_t)len;

    request->failed = request->failed || len > UINT16_MAX;
    if (request->failed)
        return;
    memcpy(request->bytes.data + nest + offsetof(struct nlattr, nla_len), &short_len,
           sizeof(short_len));
    measure(request);
}

int netlink_open(int protocol, struct error *err)
{
    const struct timeval patience = {.tv_sec = ANSWER_TIMEOUT_S};
    const int no = 0, yes = 1, room = NETLINK_REQUEST_MAX;
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);

    if (fd < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "netlink");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
    /* Answers without a copy of the request. */
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &yes, sizeof(yes));
    setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &no, sizeof(no));
    return fd;
}

/* Takes the answers in one datagram off `*left`; -1 with errno at the first that is a failure. */
static int take_answers(const char *bytes, size_t len, size_t *left)
{
    while (len >= NLMSG_HDRLEN) {
        struct nlmsghdr message;
        struct nlmsgerr answer;
        memcpy(&message, bytes, sizeof(message));
        if (message.nlmsg_len < NLMSG_HDRLEN || message.nlmsg_len > len)
            break;
        if (message.nlmsg_type == NLMSG_ERROR &&
            message.nlmsg_len >= NLMSG_HDRLEN + sizeof(answer)) {
            memcpy(&answer, bytes + NLMSG_HDRLEN, sizeof(answer));
            errno = -answer.error;
            if (answer.error)
                return -1;
            *left -= *left > 0;
        }
        size_t step = NLMSG_ALIGN(message.nlmsg_len);
        if (step >= len)
            break;
        bytes += step;
        len -= step;
    }
    return 0;
}

int netlink_exchange(int fd, struct netlink_request *request, struct error *err)
{
    const struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    char answers[16384];
    size_t left = request->acks;

    if (request->failed)
        return error_set(err, ERROR_INTERNAL, "netlink: the request is too large");
    if (sendto(fd, request->bytes.data, request->bytes.len, 0, (const struct sockaddr *)&kernel,
               sizeof(kernel)) < 0)
        return error_set_errno(err, ERROR_UNAVAILABLE, errno, "netlink");
    while (left > 0) {
        ssize_t len = recv(fd, answers, sizeof(answers), 0);
        if (len < 0 && errno == EINTR)
            continue;
        if (len < 0 || take_answers(answers, (size_t)len, &left) < 0)
            return error_set_errno(err, ERROR_UNAVAILABLE, errno, "netlink");
    }
    return 0;
}

/* ---- dumps ---- */

/* Takes one datagram: 0, 1 at the end of the dump, -1 with errno. */
static int take_entries(const char *bytes, size_t len, size_t header_len,
                        void (*entry)(void *data, const void *attributes, size_t len), void *data)
{
    const size_t begin = NLMSG_HDRLEN + NLMSG_ALIGN(header_len);

    while (len >= NLMSG_HDRLEN) {
        struct nlmsghdr message;
        int failed = 0;
        memcpy(&message, bytes, sizeof(message));
        if (message.nlmsg_len < NLMSG_HDRLEN || message.nlmsg_len > len)
            break;
        if (message.nlmsg_type == NLMSG_DONE)
            return 1;
        if (message.nlmsg_type == NLMSG_ERROR) {
            if (message.nlmsg_len >= NLMSG_HDRLEN + sizeof(failed))
                memcpy(&failed, bytes + NLMSG_HDRLEN, sizeof(failed));
            errno = failed ? -failed : EIO;
            return -1;
        }
        if (message.nlmsg_len >= begin)
            entry(data, bytes + begin, message.nlmsg_len - begin);
        size_t step = NLMSG_ALIGN(message.nlmsg_len);
        if (step >= len)
            break;
        bytes += step;
        len -= step;
    }
    return 0;
}

int netlink_dump(int fd, struct netlink_request *request, size_t header_len,
                 void (*entry)(void *data, const void *attributes, size_t len), void *data,
                 struct error *err)
{
    _Alignas(struct nlmsghdr) char answers[32768];
    int state = netlink_exchange(fd, request, err);

    if (state < 0)
        return -1;
    while (state == 0) {
        ssize_t len = recv(fd, answers, sizeof(answers), 0);
        if (len < 0 && errno == EINTR)
            continue;
        state = len < 0 ? -1 : take_entries(answers, (size_t)len, header_len, entry, data);
    }
    return state < 0 ? error_set_errno(err, ERROR_UNAVAILABLE, errno, "netlink") : 0;
}

const void *netlink_find(const void *attributes, size_t len, uint16_t type, size_t *ret_len)
{
    const char *at = attributes;

    while (at && len >= NLA_HDRLEN) {
        struct nlattr attribute;
        memcpy(&attribute, at, sizeof(attribute));
        if (attribute.nla_len < NLA_HDRLEN || attribute.nla_len > len)
            return NULL;
        if ((attribute.nla_type & NLA_TYPE_MASK) == type) {
            *ret_len = attribute.nla_len - (size_t)NLA_HDRLEN;
            return at + NLA_HDRLEN;
        }
        size_t step = NLA_ALIGN(attribute.nla_len);
        if (step >= len)
            return NULL;
        at += step;
        len -= step;
    }
    return NULL;
}
