/* LISTEN: a thread with a connection of its own that waits for what other controllers tell. While it has no connection,
 * news are missed; with each new one it says that anything may have changed. */
#include "base/loop.h"
#include "store/postgres.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RETRY_FIRST_MS 50
#define RETRY_LAST_MS 2000

struct postgres_listener {
    char *url;                    /* owned; may hold a password */
    char name[RANDOM_ID_LEN + 1]; /* of the store that it belongs to */
    store_heard_fn *heard;
    void *data;
    int stop_fd; /* readable: end */
    uv_thread_t thread;
};

/* Whether to end; waits up to `timeout_ms` (-1: for ever) for that or for something to read. */
static bool wait_for_news(struct postgres_listener *listener, int fd, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = listener->stop_fd, .events = POLLIN},
                           {.fd = fd, .events = POLLIN}};
    poll(fds, 2, timeout_ms); /* a negative fd is passed over */
    return (fds[0].revents & POLLIN) != 0;
}

static bool run(PGconn *connection, const char *sql)
{
    PGresult *result = PQexec(connection, sql);
    bool done = PQresultStatus(result) == PGRES_COMMAND_OK;
    PQclear(result);
    return done;
}

static void tell_all(struct postgres_listener *listener, PGconn *connection)
{
    PGnotify *notify;
    while ((notify = PQnotifies(connection))) {
        if (strcmp(notify->extra, listener->name) != 0)
            listener->heard(listener->data, notify->relname, notify->extra);
        PQfreemem(notify);
    }
}

/* Until the connection breaks (false) or the listener is to end (true). */
static bool serve(struct postgres_listener *listener, PGconn *connection)
{
    if (!run(connection, "LISTEN " STORE_CHANNEL_FUNCTIONS) ||
        !run(connection, "LISTEN " STORE_CHANNEL_SETTINGS) ||
        !run(connection, "LISTEN " STORE_CHANNEL_WAITING))
        return false;
    listener->heard(listener->data, NULL, NULL);
    for (;;) {
        tell_all(listener, connection);
        if (wait_for_news(listener, PQsocket(connection), -1))
            return true;
        if (!PQconsumeInput(connection))
            return false;
    }
}

static void thread_main(void *data)
{
    struct postgres_listener *listener = data;
    int pause_ms = RETRY_FIRST_MS;
    bool over = false;
    while (!over) {
        PGconn *connection = postgres_new_connection(listener->url);
        uint64_t began_ns = clock_monotonic_ns();
        if (connection && PQstatus(connection) == CONNECTION_OK)
            over = serve(listener, connection);
        PQfinish(connection);
        bool lasted = clock_monotonic_ns() - began_ns > RETRY_LAST_MS * 1000000ULL;
        pause_ms = lasted ? RETRY_FIRST_MS : pause_ms * 2;
        if (pause_ms > RETRY_LAST_MS)
            pause_ms = RETRY_LAST_MS;
        over = over || wait_for_news(listener, -1, pause_ms);
    }
}

static void free_listener(struct postgres_listener *listener)
{
    if (listener->stop_fd >= 0)
        close(listener->stop_fd);
    if (listener->url)
        explicit_bzero(listener->url, strlen(listener->url));
    free(listener->url);
    free(listener);
}

void *postgres_listen(void *db, store_heard_fn *heard, void *data, struct error *err)
{
    const struct postgres_store *store = db;
    struct postgres_listener *listener = calloc(1, sizeof(*listener));
    if (!listener) {
        error_set(err, ERROR_INTERNAL, "out of memory");
        return NULL;
    }
    listener->url = strdup(store->url);
    memcpy(listener->name, store->name, sizeof(listener->name));
    listener->heard = heard;
    listener->data = data;
    listener->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (listener->url && listener->stop_fd >= 0 &&
        uv_thread_create(&listener->thread, thread_main, listener) == 0)
        return listener;
    error_set(err, ERROR_INTERNAL, "the database's listener cannot be started");
    free_listener(listener);
    return NULL;
}

void postgres_unlisten(void *data)
{
    struct postgres_listener *listener = data;
    uint64_t one = 1;
    if (write(listener->stop_fd, &one, sizeof(one)) == sizeof(one))
        uv_thread_join(&listener->thread);
    free_listener(listener);
}
