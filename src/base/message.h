/* The frame of a message between controller and worker:
 *
 *     u32 head_len, u64 body_len (little-endian), head (JSON object), body (raw bytes)
 *
 * so that payloads and results travel as they are, not as base64 in JSON. What is read is a stranger's. message_stream.h sends and
 * receives them; docs/worker-protocol.md has the heads. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define MESSAGE_HEAD_MAX (1024 * 1024)
#define MESSAGE_HEADER_SIZE 12

struct json_ahead;

struct message {
    const char *head;
    size_t head_len;
    const char *body;
    size_t body_len;
    const struct json_ahead *ahead; /* what was seen of the body while it came, or NULL */
};

void message_header_write(char out[MESSAGE_HEADER_SIZE], size_t head_len, size_t body_len);
/* Lengths that no message can have are refused. */
int message_header_read(const char in[MESSAGE_HEADER_SIZE], size_t *ret_head_len,
                        size_t *ret_body_len, struct error *err);

/* The body is a place in memory that both ends have (shared_memory.h), as u64 at, u64 len; the body itself lies there. The top bit
 * of head_len says so. */
#define MESSAGE_PLACE_SIZE 16
void message_header_mark_shared(char header[MESSAGE_HEADER_SIZE]);
/* Whether it was marked; it is not any more. */
bool message_header_unmark_shared(char header[MESSAGE_HEADER_SIZE]);
void message_place_write(char out[MESSAGE_PLACE_SIZE], uint64_t at, uint64_t len);
void message_place_read(const char in[MESSAGE_PLACE_SIZE], uint64_t *ret_at, uint64_t *ret_len);
