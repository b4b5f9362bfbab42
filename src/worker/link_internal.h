/* What the files of the link share. */
#pragma once

#include "base/http_tunnel.h"
#include "base/loop.h"
#include "base/message_stream.h"
#include "base/text.h"
#include "worker/link.h"

#define LINK_ID_MAX 127

/* One result, kept until the controller has taken it. */
struct outgoing {
    struct buffer head;
    char *body[2];       /* owned: result and log, or a build's output and artifact */
    struct blob *shared; /* owned: body[0] is its; NULL: that is malloc'd */
    size_t body_len[2];
    char id[LINK_ID_MAX + 1]; /* of the execution, or of the build */
    bool is_build;
    uint64_t number; /* on this connection; 0: not sent on it yet */
    struct outgoing *next;
};

struct link {
    uv_loop_t *loop;
    struct http_client *client;
    struct link_options options;
    char *url, *stream_url, *name, *session, *authorization; /* owned */
    const char *headers[2];                                  /* NULL-terminated */
    struct http_tunnel *tunnel;                              /* while it connects */
    struct message_stream *stream;                           /* while it is connected */
    uint64_t sent;                                           /* messages on this connection */
    struct outgoing *first, *last;                           /* results in order */
    size_t count;
    struct fetch *fetches;
    struct loop_timer *retry, *beat;
    uint64_t state_ms; /* the state is said at least so often */
    uint64_t state_ns; /* when it was said last */
    uint64_t heard_ns; /* when something came last */
    uint64_t taken;    /* messages that came on this connection */
    uint64_t received; /* its bytes, when that was looked at last */
    bool changed;      /* since the state was said */
    /* The message that link_announce() sent, until it is acknowledged; 0: none. */
    uint64_t announced;
    unsigned failures; /* in a row */
    bool reachable;
    bool over; /* superseded */
    void (*delivered)(void *data);
};

uint64_t link_backoff_ms(unsigned failures);

/* ---- link_results.c ---- */

/* What is not sent yet goes out, in order. */
void link_send_kept(struct link *link);
/* A new connection: nothing was sent on it yet. */
void link_forget_numbers(struct link *link);
/* The controller has taken what was announced, or the connection has ended. */
void link_note_announced(struct link *link);
/* The controller has taken so many messages of this connection. */
void link_acknowledged(struct link *link, uint64_t messages);
void link_drop_kept(struct link *link);
/* One message that is not kept. */
int link_send_now(struct link *link, const char *head, size_t head_len, char *owned_body,
                  size_t body_len, struct error *err);

/* ---- link_fetch.c ---- */

/* Ends all fetches with an error. */
void link_end_fetches(struct link *link);
