/* Requests to the kernel over netlink (netlink(7)), made by hand: a set's element or a queueing discipline costs some ten
 * microseconds this way, and milliseconds as a process of `nft` or `tc`.
 *
 *     struct netlink_request request = NETLINK_REQUEST_INIT;
 *     netlink_message(&request, type, flags, &header, sizeof(header));
 *     netlink_attribute(&request, …); at = netlink_nest(&request, …); netlink_nest_end(&request, at);
 *     netlink_exchange(fd, &request, &err);
 *     netlink_request_deinit(&request);
 *
 * What cannot be appended makes the exchange fail. All calls are short; exchange waits for the kernel's answer. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stdint.h>

#define NETLINK_REQUEST_MAX (256 * 1024)

struct netlink_request {
    struct buffer bytes;
    size_t message;    /* where the last message begins */
    size_t acks;       /* messages that the kernel answers */
    uint32_t sequence; /* of the last message */
    bool failed;
};
#define NETLINK_REQUEST_INIT ((struct netlink_request){.bytes = {.max = NETLINK_REQUEST_MAX}})

void netlink_request_deinit(struct netlink_request *request);
/* Begins a message; with NLM_F_ACK in `flags` it is answered, and a failure of it told. */
void netlink_message(struct netlink_request *request, uint16_t type, uint16_t flags,
                     const void *header, size_t len);
void netlink_attribute(struct netlink_request *request, uint16_t type, const void *data,
                       size_t len);
/* Attributes between the two are inside of the nest, which may hold 65,531 bytes. */
size_t netlink_nest(struct netlink_request *request, uint16_t type);
void netlink_nest_end(struct netlink_request *request, size_t nest);

/* `protocol`: NETLINK_ROUTE or NETLINK_NETFILTER. The socket is of the calling thread's network namespace, for good. */
int netlink_open(int protocol, struct error *err);
/* Sends all messages, and reads an answer for each that is answered. The error has the kernel's errno of the first that failed. */
int netlink_exchange(int fd, struct netlink_request *request, struct error *err);
/* Sends a request with NLM_F_DUMP, and calls `entry` with the attributes of each message of the answer; `header_len` is that of the family's own
 * header. */
int netlink_dump(int fd, struct netlink_request *request, size_t header_len,
                 void (*entry)(void *data, const void *attributes, size_t len), void *data,
                 struct error *err);
/* What an attribute holds, among `len` bytes of them (NULL: none); NULL when it is not there. */
const void *netlink_find(const void *attributes, size_t len, uint16_t type, size_t *ret_len);
