/* The floor under every HTTP figure: libmicrohttpd with one epoll thread that answers `{"hello":"world"}`, or the request's own
 * body when it has one. Prints its port; ends with its stdin. */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct body {
    char *bytes;
    size_t len, cap;
};

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_len, void **state)
{
    struct body *body = *state;
    struct MHD_Response *response;
    (void)data, (void)url, (void)method, (void)version;
    if (!body) {
        *state = calloc(1, sizeof(struct body));
        return *state ? MHD_YES : MHD_NO;
    }
    if (*upload_len > 0) {
        if (body->len + *upload_len > body->cap) {
            body->cap = (body->len + *upload_len) * 2;
            body->bytes = realloc(body->bytes, body->cap);
            if (!body->bytes)
                return MHD_NO;
        }
        memcpy(body->bytes + body->len, upload, *upload_len);
        body->len += *upload_len;
        *upload_len = 0;
        return MHD_YES;
    }
    if (body->len > 2) {
        response = MHD_create_response_from_buffer(body->len, body->bytes, MHD_RESPMEM_MUST_FREE);
        body->bytes = NULL;
    } else {
        response = MHD_create_response_from_buffer(17, (void *)"{\"hello\":\"world\"}",
                                                   MHD_RESPMEM_PERSISTENT);
    }
    enum MHD_Result result = MHD_queue_response(connection, 200, response);
    MHD_destroy_response(response);
    return result;
}

static void completed(void *data, struct MHD_Connection *connection, void **state,
                      enum MHD_RequestTerminationCode code)
{
    struct body *body = *state;
    (void)data, (void)connection, (void)code;
    if (body)
        free(body->bytes);
    free(body);
    *state = NULL;
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD, 0, NULL, NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, &address,
        MHD_OPTION_NOTIFY_COMPLETED, completed, NULL, MHD_OPTION_END);
    if (!daemon)
        return 1;
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
    printf("%u\n", info->port);
    fflush(stdout);
    char byte;
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    MHD_stop_daemon(daemon);
    return 0;
}
