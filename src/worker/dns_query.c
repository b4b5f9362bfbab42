/* A UDP socket of its own for each try, so that source port and identifier are new, and only the server's datagrams come in. */
#include "worker/dns_query.h"

#include "base/loop.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DNS_PORT 53
#define TRY_MS 1000
#define ROUNDS 2 /* over all servers */

struct dns_query {
    uv_loop_t *loop;
    struct name_servers servers;
    uv_udp_t *socket; /* of this try */
    struct loop_timer *timer;
    size_t tries;
    char *name; /* owned */
    uint8_t message[DNS_QUERY_MAX];
    size_t message_len;
    uint8_t answer[DNS_ANSWER_MAX];
    dns_query_done_fn *done;
    void *data;
    struct error last;
};

static void try_next(void *data);

static void on_socket_closed(uv_handle_t *handle)
{
    free(handle);
}

static void end_try(struct dns_query *query)
{
    if (query->socket) {
        query->socket->data = NULL;
        uv_close((uv_handle_t *)query->socket, on_socket_closed);
    }
    query->socket = NULL;
    loop_timer_stop(query->timer);
    query->timer = NULL;
}

void dns_query_cancel(struct dns_query *query)
{
    end_try(query);
    free(query->name);
    free(query);
}

static void finish(struct dns_query *query, const struct dns_answer *answer)
{
    dns_query_done_fn *done = query->done;
    void *data = query->data;
    struct error err = query->last;

    dns_query_cancel(query);
    done(data, answer, answer ? NULL : &err);
}

static void on_allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *ret)
{
    struct dns_query *query = handle->data;

    (void)suggested;
    *ret = uv_buf_init((char *)query->answer, sizeof(query->answer));
}

static void on_datagram(uv_udp_t *socket, ssize_t len, const uv_buf_t *buffer,
                        const struct sockaddr *from, unsigned flags)
{
    struct dns_query *query = socket->data;
    struct dns_answer answer;

    (void)buffer;
    (void)flags;
    if (!query || (len == 0 && !from))
        return;
    if (len < 0) {
        error_set(&query->last, ERROR_UNAVAILABLE, "the name server cannot be reached");
        try_next(query);
        return;
    }
    if (dns_answer_read(query->answer, (size_t)len, query->message, query->message_len, &answer,
                        &query->last) == 0)
        finish(query, &answer);
    else if (query->last.code == ERROR_NOT_FOUND)
        finish(query, NULL);
    else if (query->last.code == ERROR_UNAVAILABLE)
        try_next(query);
    /* What is no answer to this query is a stranger's: the true one may come yet. */
}

static void on_timeout(void *data)
{
    struct dns_query *query = data;

    error_set(&query->last, ERROR_TIMED_OUT, "no name server answered");
    try_next(query);
}

/* -1: this server cannot even be asked. */
static int ask(struct dns_query *query, uint32_t server)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(DNS_PORT), .sin_addr = {htonl(server)}};
    uv_buf_t message;
    uint16_t id;

    if (getrandom(&id, sizeof(id), 0) != sizeof(id))
        return -1;
    query->message_len = dns_query_write(id, query->name, query->message);
    message = uv_buf_init((char *)query->message, (unsigned)query->message_len);
    query->socket = calloc(1, sizeof(*query->socket));
    if (!query->socket || uv_udp_init(query->loop, query->socket) < 0) {
        free(query->socket);
        query->socket = NULL;
        return -1;
    }
    query->socket->data = query;
    query->timer = loop_timer_start(query->loop, TRY_MS, 0, on_timeout, query, NULL);
    if (!query->timer || uv_udp_connect(query->socket, (const struct sockaddr *)&address) < 0 ||
        uv_udp_recv_start(query->socket, on_allocate, on_datagram) < 0)
        return -1;
    return uv_udp_try_send(query->socket, &message, 1, NULL) < 0 ? -1 : 0;
}

static void try_next(void *data)
{
    struct dns_query *query = data;

    end_try(query);
    while (query->tries < ROUNDS * query->servers.count) {
        uint32_t server = query->servers.addresses[query->tries++ % query->servers.count];
        if (ask(query, server) == 0)
            return;
        end_try(query);
        error_set(&query->last, ERROR_UNAVAILABLE, "the name server cannot be reached");
    }
    finish(query, NULL);
}

static void on_begin(void *data)
{
    struct dns_query *query = data;

    loop_timer_stop(query->timer);
    query->timer = NULL;
    try_next(query);
}

struct dns_query *dns_query_start(uv_loop_t *loop, const struct name_servers *servers,
                                  const char *name, dns_query_done_fn *done, void *data,
                                  struct error *err)
{
    struct dns_query *query = calloc(1, sizeof(*query));

    if (!query || !(query->name = strdup(name))) {
        free(query);
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    query->loop = loop;
    query->servers = *servers;
    query->done = done;
    query->data = data;
    error_set(&query->last, ERROR_UNAVAILABLE, "there is no name server (WORKER_DNS)");
    query->timer = loop_timer_start(loop, 0, 0, on_begin, query, err);
    if (query->timer)
        return query;
    free(query->name);
    free(query);
    return NULL;
}
