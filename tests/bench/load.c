/* A load generator that costs little itself: N kept-alive connections to one address, each with one request under way, on
 * one epoll loop. Prints one JSON object with the latencies (ns) and the rate.
 *
 *     bench-load HOST PORT METHOD PATH [--clients N] [--requests N] [--warmup N] [--body FILE] [--token TOKEN]
 *                [--status CODE] [--expect TEXT]
 *
 * The first --warmup answers are not measured. In PATH, eight digits 0 are replaced by the request's number. An answer of another
 * status than CODE (200), or without TEXT in it, counts as an error, and errors make the exit status 1. It speaks only as much HTTP
 * as our servers answer with: Content-Length bodies. `cpu` in what it prints is the share of a core that it took itself: near 1,
 * it was the generator that was measured. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NUMBER "00000000" /* in PATH: the request's number */

struct options {
    const char *host, *port, *method, *path, *body_file, *token, *expect, *status;
    long clients, requests, warmup;
};

struct connection {
    int fd;
    size_t sent;  /* bytes of the request that are out */
    char *answer; /* headers and body so far */
    size_t len, cap;
    size_t total; /* length of the whole answer, 0 while the headers are incomplete */
    uint64_t started_ns;
    long number;
    bool writing; /* epoll tells when there is room for more */
};

static char *request;
static size_t request_len;
static char *request_number; /* the place of NUMBER in it, or NULL */
static uint64_t *latencies;
static long measured, started, finished, errors;
static size_t answer_bytes; /* of the last body */
static uint64_t measured_from_ns, cpu_from_ns;
static struct options options = {.clients = 1, .requests = 1000, .warmup = 50, .status = "200"};

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static uint64_t cpu_ns(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000ULL +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static char *read_file(const char *path, size_t *ret_len)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END))
        die(path);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size + 1);
    if (!bytes || fread(bytes, 1, (size_t)size, file) != (size_t)size)
        die(path);
    fclose(file);
    *ret_len = (size_t)size;
    return bytes;
}

static void make_request(void)
{
    size_t body_len = 0;
    char *body = options.body_file ? read_file(options.body_file, &body_len) : NULL;
    char authorization[512] = "";
    if (options.token)
        snprintf(authorization, sizeof(authorization), "Authorization: Bearer %s\r\n",
                 options.token);
    request = malloc(2048 + body_len);
    if (!request)
        die("malloc");
    int head = snprintf(request, 2048,
                        "%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Type: "
                        "application/json\r\nContent-Length: %zu\r\n\r\n",
                        options.method, options.path, options.host, authorization, body_len);
    if (head < 0 || head >= 2048)
        die("the request's headers are too long");
    request_number = strstr(options.path, NUMBER) ? strstr(request, NUMBER) : NULL;
    if (body)
        memcpy(request + head, body, body_len);
    request_len = (size_t)head + body_len;
    free(body);
}

static int open_connection(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(options.port))};
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || inet_pton(AF_INET, options.host, &address.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)))
        die("connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void watch(int epoll, struct connection *connection, bool writing, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (writing ? EPOLLOUT : 0),
                                .data.ptr = connection};
    if (epoll_ctl(epoll, operation, connection->fd, &event))
        die("epoll_ctl");
    connection->writing = writing;
}

static void write_number(long number)
{
    for (char *digit = request_number + strlen(NUMBER); digit-- > request_number; number /= 10)
        *digit = (char)('0' + number % 10);
}

static void send_more(int epoll, struct connection *connection)
{
    if (request_number)
        write_number(connection->number);
    while (connection->sent < request_len) {
        ssize_t len = send(connection->fd, request + connection->sent,
                           request_len - connection->sent, MSG_NOSIGNAL);
        if (len < 0 && errno == EAGAIN) {
            if (!connection->writing)
                watch(epoll, connection, true, EPOLL_CTL_MOD);
            return;
        }
        if (len < 0)
            die("send");
        connection->sent += (size_t)len;
    }
    if (connection->writing)
        watch(epoll, connection, false, EPOLL_CTL_MOD);
}

static void start_request(int epoll, struct connection *connection)
{
    if (started == options.warmup + options.requests)
        return;
    connection->number = started++;
    connection->sent = connection->len = connection->total = 0;
    connection->started_ns = now_ns();
    send_more(epoll, connection);
}

static void find_total(struct connection *connection)
{
    connection->answer[connection->len] = '\0';
    char *end = strstr(connection->answer, "\r\n\r\n");
    if (!end)
        return;
    char *length = strcasestr(connection->answer, "Content-Length:");
    if (!length || length > end) {
        fprintf(stderr, "an answer without Content-Length:\n%s\n", connection->answer);
        exit(2);
    }
    answer_bytes = strtoul(length + 15, NULL, 10);
    connection->total = (size_t)(end - connection->answer) + 4 + answer_bytes;
}

static void check_answer(struct connection *connection)
{
    bool good = strncmp(connection->answer, "HTTP/1.1 ", 9) == 0 &&
                strncmp(connection->answer + 9, options.status, 3) == 0 &&
                (!options.expect || strstr(connection->answer, options.expect));
    if (good)
        return;
    if (errors++ == 0)
        fprintf(stderr, "a wrong answer:\n%.2000s\n", connection->answer);
}

static void measuring_begins(void)
{
    measured_from_ns = now_ns();
    cpu_from_ns = cpu_ns();
}

static void answer_complete(int epoll, struct connection *connection)
{
    uint64_t latency = now_ns() - connection->started_ns;
    connection->answer[connection->len] = '\0';
    check_answer(connection);
    finished++;
    if (finished > options.warmup && measured < options.requests)
        latencies[measured++] = latency;
    if (finished == options.warmup)
        measuring_begins();
    start_request(epoll, connection);
}

static void receive(int epoll, struct connection *connection)
{
    for (;;) {
        if (connection->cap - connection->len < 65536) {
            connection->cap = connection->cap * 2 + 131072;
            connection->answer = realloc(connection->answer, connection->cap + 1);
            if (!connection->answer)
                die("realloc");
        }
        ssize_t len = recv(connection->fd, connection->answer + connection->len,
                           connection->cap - connection->len, 0);
        if (len < 0 && errno == EAGAIN)
            return;
        if (len <= 0) {
            fprintf(stderr, "the server closed a connection\n");
            exit(2);
        }
        connection->len += (size_t)len;
        if (!connection->total)
            find_total(connection);
        if (connection->total && connection->len >= connection->total) {
            answer_complete(epoll, connection);
            return;
        }
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void print_figures(void)
{
    double elapsed_ns = (double)(now_ns() - measured_from_ns);
    double cpu = (double)(cpu_ns() - cpu_from_ns) / elapsed_ns;
    qsort(latencies, (size_t)measured, sizeof(*latencies), compare);
    printf("{\"n\": %ld, \"errors\": %ld, \"median\": %llu, \"p99\": %llu, \"max\": %llu, "
           "\"elapsed\": %.0f, \"rate\": %.1f, \"cpu\": %.2f, \"answer_bytes\": %zu}\n",
           measured, errors, (unsigned long long)latencies[measured / 2],
           (unsigned long long)latencies[measured * 99 / 100],
           (unsigned long long)latencies[measured - 1], elapsed_ns,
           (double)measured * 1e9 / elapsed_ns, cpu, answer_bytes);
}

static void usage(void)
{
    fprintf(stderr,
            "usage: bench-load HOST PORT METHOD PATH [--clients N] [--requests N] [--warmup N] "
            "[--body FILE] [--token TOKEN] [--status CODE] [--expect TEXT]\n");
    exit(2);
}

static void parse_option(const char *name, const char *value)
{
    if (strcmp(name, "--clients") == 0)
        options.clients = atol(value);
    else if (strcmp(name, "--requests") == 0)
        options.requests = atol(value);
    else if (strcmp(name, "--warmup") == 0)
        options.warmup = atol(value);
    else if (strcmp(name, "--body") == 0)
        options.body_file = value;
    else if (strcmp(name, "--token") == 0)
        options.token = value;
    else if (strcmp(name, "--status") == 0)
        options.status = value;
    else if (strcmp(name, "--expect") == 0)
        options.expect = value;
    else
        usage();
}

static void parse_options(int argc, char **argv)
{
    if (argc < 5 || argc % 2 == 0)
        usage();
    options.host = argv[1];
    options.port = argv[2];
    options.method = argv[3];
    options.path = argv[4];
    for (int i = 5; i + 1 < argc; i += 2)
        parse_option(argv[i], argv[i + 1]);
    if (options.clients < 1 || options.requests < 1 || options.warmup < 0)
        usage();
}

static void handle(int epoll, const struct epoll_event *event)
{
    struct connection *connection = event->data.ptr;
    if (event->events & EPOLLOUT)
        send_more(epoll, connection);
    if (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        receive(epoll, connection);
}

static void run(int epoll)
{
    while (finished < options.warmup + options.requests) {
        struct epoll_event events[64];
        int count = epoll_wait(epoll, events, 64, 60000);
        if (count <= 0) {
            fprintf(stderr, "no answer for a minute\n");
            exit(2);
        }
        for (int i = 0; i < count; i++)
            handle(epoll, &events[i]);
    }
}

int main(int argc, char **argv)
{
    parse_options(argc, argv);
    make_request();
    struct connection *connections = calloc((size_t)options.clients, sizeof(*connections));
    latencies = calloc((size_t)options.requests, sizeof(*latencies));
    int epoll = epoll_create1(0);
    if (!connections || !latencies || epoll < 0)
        die("set-up");
    for (long i = 0; i < options.clients; i++) {
        connections[i].fd = open_connection();
        watch(epoll, &connections[i], false, EPOLL_CTL_ADD);
    }
    measuring_begins();
    for (long i = 0; i < options.clients; i++)
        start_request(epoll, &connections[i]);
    run(epoll);
    print_figures();
    for (long i = 0; i < options.clients; i++)
        free(connections[i].answer);
    free(connections);
    return errors > 0;
}
