/* What the files of the HTTP server share. */
#pragma once

#include "base/http_route.h"
#include "base/http_server.h"
#include "base/list.h"
#include "base/string_map.h"

#include <microhttpd.h>

#define HTTP_REQUEST_ID_LEN 32
#define HTTP_QUERIES_MAX 16

/* A connection whose first request announces a large body gets more of libmicrohttpd's memory than the others. That memory is a
 * daemon's property: so there are two. */
enum http_daemon_kind { HTTP_ORDINARY, HTTP_LARGE, HTTP_DAEMONS };

/* One libmicrohttpd and its place in the loop. */
struct http_daemon {
    struct http_server *server;
    struct MHD_Daemon *mhd; /* owned; NULL: there is none */
    uv_poll_t poll;
    uv_timer_t timer;
    bool due; /* has something to do at once */
    bool ran; /* since its timer was set */
};

/* An address that has connections. */
struct http_client;

/* One client's connection, from accept to close. */
struct http_connection {
    struct list link; /* in server->arriving, then in server->connections */
    struct http_daemon *daemon;
    struct http_client *client; /* NULL: they are not counted by address */
    int fd;                     /* libmicrohttpd's */
    bool hung_up;
    bool upgraded;                /* it has left HTTP */
    uint64_t receiving_since_ns;  /* since when the next request is awaited */
    struct http_request *request; /* the one under way, or NULL */
};

struct http_linger;
struct http_upgrade;

struct http_server {
    uv_loop_t *loop;
    struct http_daemon daemons[HTTP_DAEMONS];
    struct http_server_options options;
    int listen_fd; /* owned; -1 once quiesced */
    bool paused;   /* nobody is accepted any more */
    uint16_t port;
    uv_poll_t arrivals;
    uv_idle_t again;  /* active while a daemon has something to do at once */
    int hangup_epoll; /* owned: has every connection, for EPOLLRDHUP */
    uv_poll_t hangups;
    uv_timer_t sweeper;
    struct list connections;
    struct list arriving;      /* accepted, and not yet told of by libmicrohttpd */
    size_t connection_count;   /* of both */
    size_t large_count;        /* of these, with large memory */
    struct string_map clients; /* struct http_client, by address */
    struct http_linger *lingers;
    size_t linger_count;
    int open_handles; /* that are closing */
    bool running;     /* inside MHD_run(): no need to schedule another */
    bool freeing;
    char id_prefix[17];
    uint64_t next_id;
    size_t buffered_bytes;
    size_t pending;
    struct http_request *requests; /* list of all, through next/previous */
};

enum http_request_phase {
    HTTP_PHASE_BODY,     /* the body is coming */
    HTTP_PHASE_HANDLER,  /* the handler has it */
    HTTP_PHASE_ANSWERED, /* response is there, perhaps not queued yet */
};

struct http_query_value {
    char *name, *value; /* owned */
};

/* Two owners: libmicrohttpd until it says completed, and the handler until it has answered. */
struct http_request {
    struct http_server *server;        /* NULL once it was freed */
    struct MHD_Connection *connection; /* NULL once libmicrohttpd is done with it */
    struct http_request *next, *previous;
    char id[HTTP_REQUEST_ID_LEN + 1];
    char *method, *path; /* owned */
    struct http_route_match match;
    enum http_request_phase phase;
    bool suspended;
    bool in_callback; /* inside the access handler: a response can be queued without resuming */
    bool body_unread; /* refused before its body came */
    enum error_code refusal; /* not ERROR_NONE: the rest of the body is thrown away, then this */
    size_t discarded;
    struct buffer body;
    struct blob *room;        /* owned: has the body in place of `body`; NULL: none */
    size_t room_len;          /* of them came so far */
    struct json_ahead *ahead; /* owned: a large body is looked at while it comes */
    size_t accounted_bytes;   /* part of server->buffered_bytes */
    uint64_t received_ns;
    void *data;
    void (*on_abort)(void *data);
    void *on_abort_data;
    struct MHD_Response *response; /* owned until queued */
    int status;
    struct http_query_value queries[HTTP_QUERIES_MAX];
    size_t query_count;
    struct http_upgrade *upgrade; /* owned: what is to become of the connection after a 101 */
};

enum MHD_Result http_access(void *server, struct MHD_Connection *connection, const char *url,
                            const char *method, const char *version, const char *upload_data,
                            size_t *upload_data_size, void **request);
void http_completed(void *server, struct MHD_Connection *connection, void **request,
                    enum MHD_RequestTerminationCode code);
/* The client is gone: tells the handler, which still has to answer. */
void http_request_abort(struct http_request *request);
/* Resumes the connection of a suspended request. */
void http_request_wake(struct http_request *request);
/* Frees the body and gives back what it was counted as. */
void http_request_release_body(struct http_request *request);
/* Decodes the query into request->queries. */
int http_request_read_query(struct http_request *request, struct error *err);
/* Makes MHD_run() happen soon, after one of its connections was resumed. */
void http_daemon_schedule(struct http_daemon *daemon);
struct http_daemon *http_daemon_of(struct http_server *server, struct MHD_Connection *connection);
/* Runs the daemons that are due. */
void http_server_run(struct http_server *server);
void http_request_release(struct http_request *request);
/* The answer is `response` (owned); queues it now or when the connection is resumed. */
void http_answer_with(struct http_request *request, int status, struct MHD_Response *response);
/* An error's body and status as a response. */
struct MHD_Response *http_error_response(const struct http_request *request,
                                         const struct error *err, int *ret_status);
void http_add_common_headers(const struct http_request *request, struct MHD_Response *response);

/* The client went away before its connection left HTTP. Accepts NULL. */
void http_upgrade_free(struct http_upgrade *upgrade);

/* ---- from the listening socket to libmicrohttpd ---- */

/* Opens server->listen_fd. */
int http_listener_open(struct http_server *server, struct error *err);
/* Accepts from now on, unless the server is paused. Also once there is room again. */
void http_arrivals_watch(struct http_server *server);
/* The one that libmicrohttpd tells of, taken out of server->arriving. NULL: there is none. */
struct http_connection *http_arrival_take(struct http_server *server, int fd);
/* Forgets those of which libmicrohttpd told nothing in its run, because it could not take them; all when the server is being freed. */
void http_arrivals_check(struct http_server *server);
/* Takes it out of its list and of what is counted. */
void http_connection_free(struct http_server *server, struct http_connection *connection);

/* ---- connections ---- */
struct http_connection *http_connection_of(struct MHD_Connection *connection);
void http_connection_notify(void *server, struct MHD_Connection *connection, void **context,
                            enum MHD_ConnectionNotificationCode code);
/* Starts server->hangups and the sweeper. */
void http_connections_watch(struct http_server *server);

/* Keeps a refused connection's socket open until the client has seen the answer. */
void http_linger_start(struct http_server *server, int connection_fd);
void http_lingers_end(struct http_server *server);
