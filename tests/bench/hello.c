/* The floor under every HTTP figure: libmicrohttpd with one epoll thread. It takes in the request's body and answers with a JSON
 * object of ANSWER_BYTES, which is the size of what it is compared with; on the path /echo it answers with the body itself, out of
 * the memory that it was received in. Prints its port; ends with its stdin.
 *
 *     bench-hello [ANSWER_BYTES] */
#include <arpa/inet.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BODY_MAX (64UL << 20)
#define FRAME "{\"hello\":\"\"}"

struct body {
    char *bytes; /* owned */
    size_t len, cap;
    bool echo;
};

static char *fixed;
static size_t fixed_len;

static int make_fixed(const char *size)
{
    fixed_len = size ? strtoul(size, NULL, 10) : 0;
    if (fixed_len < strlen(FRAME) || fixed_len > BODY_MAX)
        fixed_len = sizeof("{\"hello\":\"world\"}") - 1;
    fixed = malloc(fixed_len + 1);
    if (!fixed)
        return -1;
    memset(fixed, 'w', fixed_len);
    memcpy(fixed, FRAME, strlen(FRAME) - 2);
    memcpy(fixed + fixed_len - 2, "\"}", 3);
    return 0;
}

static enum MHD_Result begin(struct MHD_Connection *connection, const char *url, void **state)
{
    struct body *body = calloc(1, sizeof(*body));
    const char *length =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
    *state = body;
    if (!body)
        return MHD_NO;
    body->echo = strcmp(url, "/echo") == 0;
    body->cap = length ? strtoul(length, NULL, 10) : 0;
    if (body->cap > BODY_MAX)
        return MHD_NO;
    if (body->cap > 0)
        body->bytes = malloc(body->cap);
    return body->cap > 0 && !body->bytes ? MHD_NO : MHD_YES;
}

static enum MHD_Result receive(struct body *body, const char *upload, size_t *len)
{
    if (*len > body->cap - body->len)
        return MHD_NO;
    memcpy(body->bytes + body->len, upload, *len);
    body->len += *len;
    *len = 0;
    return MHD_YES;
}

static enum MHD_Result answer(void *data, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload,
                              size_t *upload_len, void **state)
{
    struct body *body = *state;
    struct MHD_Response *response;
    (void)data, (void)method, (void)version;
    if (!body)
        return begin(connection, url, state);
    if (*upload_len > 0)
        return receive(body, upload, upload_len);
    if (body->echo) {
        response = MHD_create_response_from_buffer(body->len, body->bytes, MHD_RESPMEM_MUST_FREE);
        body->bytes = NULL;
    } else {
        response = MHD_create_response_from_buffer(fixed_len, fixed, MHD_RESPMEM_PERSISTENT);
    }
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    enum MHD_Result result = MHD_queue_response(connection, MHD_HTTP_OK, response);
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

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (make_fixed(argc > 1 ? argv[1] : NULL) < 0)
        return 1;
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
    free(fixed);
    return 0;
}
