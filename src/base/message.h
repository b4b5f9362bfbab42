/* Batches of messages between controller and worker: the body of one HTTP request or answer is a
 * sequence of
 *
 *     u32 head_len, u64 body_len (little-endian), head (JSON object), body (raw bytes)
 *
 * so that payloads and results travel as they are, not as base64 in JSON, and several share one
 * exchange. Both sides treat what they read as a stranger's: lengths are checked against what is
 * there. docs/worker-protocol.md has the heads. */
#pragma once

#include "base/buffer.h"

#include <stdint.h>

#define MESSAGE_CONTENT_TYPE "application/vnd.faas.messages"
#define MESSAGE_HEAD_MAX (1024 * 1024)

int message_append(struct buffer *batch, const char *head, size_t head_len, const char *body,
                   size_t body_len, struct error *err);

struct message {
    const char *head; /* borrowed from the batch */
    size_t head_len;
    const char *body;
    size_t body_len;
};

/* Reads the message at *offset and moves *offset behind it. 1: got one; 0: end of batch; -1:
 * malformed. */
int message_next(const char *batch, size_t batch_len, size_t *offset, struct message *ret_message,
                 struct error *err);
