/* Statements in the pipeline: sending, waiting, reading outcomes; see postgres.h. */
#include "base/cleanup.h"
#include "base/loop.h"
#include "store/postgres.h"
#include "store/record.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TEXT 0
#define BINARY 1
#define NS_PER_MS 1000000ULL

/* ---- arguments ---- */

static void add_argument(struct postgres_arguments *arguments, const char *value, size_t len,
                         int format)
{
    int at = arguments->count++;
    arguments->values[at] = value;
    arguments->lengths[at] = (int)len;
    arguments->formats[at] = format;
    arguments->bytes += len;
}

void postgres_bind_text_len(struct postgres_arguments *arguments, const char *text, size_t len)
{
    /* In binary format the length counts, in text format a NUL would have to end it. */
    add_argument(arguments, text, text ? len : 0, BINARY);
}

void postgres_bind_text(struct postgres_arguments *arguments, const char *text)
{
    postgres_bind_text_len(arguments, text, text ? strlen(text) : 0);
}

void postgres_bind_bytes(struct postgres_arguments *arguments, const char *bytes, size_t len)
{
    add_argument(arguments, bytes, bytes ? len : 0, BINARY);
}

void postgres_bind_int(struct postgres_arguments *arguments, int64_t number)
{
    uint64_t *slot = &arguments->numbers[arguments->count];
    *slot = htobe64((uint64_t)number);
    add_argument(arguments, (const char *)slot, sizeof(*slot), BINARY);
}

void postgres_bind_array(struct postgres_arguments *arguments, const char *text)
{
    add_argument(arguments, text, strlen(text), TEXT);
}

void postgres_bind_bool(struct postgres_arguments *arguments, bool value)
{
    add_argument(arguments, value ? "\1" : "\0", 1, BINARY);
}

/* ---- failures ---- */

int postgres_lose(struct postgres_store *store, struct error *err, const char *format, ...)
{
    char message[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof(message), format, arguments);
    va_end(arguments);
    store->broken = true;
    store->pending_count = 0;
    postgres_drop_gathered(store);
    return error_set(err, ERROR_UNAVAILABLE, "the database cannot be used: %s", message);
}

static bool has_class(const char *state, const char *class)
{
    return strncmp(state, class, strlen(class)) == 0;
}

/* The connection is of no more use: the server stops, has become a standby, or has ended an idle session. */
static bool is_over(const struct postgres_store *store, const char *state)
{
    static const char *const over[] = {"08", "57P", "25006", "25P03"};
    for (size_t i = 0; i < ARRAY_LENGTH(over); i++)
        if (has_class(state, over[i]))
            return true;
    return PQstatus(store->pg) == CONNECTION_BAD;
}

/* Not now: no resources, a lock that was not had, somebody who cancelled it, a disk that fails. */
static bool is_passing(const char *state)
{
    static const char *const passing[] = {"53", "55P03", "57014", "58030"};
    for (size_t i = 0; i < ARRAY_LENGTH(passing); i++)
        if (has_class(state, passing[i]))
            return true;
    return false;
}

int postgres_fail(struct postgres_store *store, const PGresult *result, const char *what,
                  struct error *err)
{
    const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
    const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    bool over = is_over(store, state ? state : "08");
    bool collided = !over && has_class(state, "40");
    bool passing = over || collided || is_passing(state);
    store->broken = store->broken || over;
    store->collided = store->collided || collided;
    return error_set(err, passing ? ERROR_UNAVAILABLE : ERROR_INTERNAL,
                     "%s: PostgreSQL says: %s (%s)", what, message ? message : "nothing",
                     state ? state : "connection lost");
}

/* ---- waiting ---- */

/* Until something can be read (or written, while there is something to send). */
static int wait_for_server(struct postgres_store *store, bool to_send, struct error *err)
{
    struct pollfd fd = {.fd = PQsocket(store->pg),
                        .events = (short)(POLLIN | (to_send ? POLLOUT : 0))};
    int ready;
    do
        ready = poll(&fd, 1, POSTGRES_SILENCE_MS);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return postgres_lose(store, err, "it has said nothing for %d s",
                             POSTGRES_SILENCE_MS / 1000);
    if (ready < 0 || !PQconsumeInput(store->pg))
        return postgres_lose(store, err, "the connection broke");
    return 0;
}

int postgres_next(struct postgres_store *store, PGresult **ret, struct error *err)
{
    for (;;) {
        int to_send = PQflush(store->pg);
        if (to_send < 0)
            return postgres_lose(store, err, "the connection broke");
        if (!PQisBusy(store->pg)) {
            *ret = PQgetResult(store->pg);
            return 0;
        }
        if (wait_for_server(store, to_send > 0, err) < 0)
            return -1;
    }
}

/* ---- outcomes ---- */

static int first_failure(struct postgres_store *store, struct error *err)
{
    if (!store->failure.code)
        return 0;
    if (err)
        *err = store->failure;
    return -1;
}

/* What a statement came to. Its rows in *ret_rows, unless it failed. */
static int take_outcome(struct postgres_store *store, const char *what, PGresult **ret_rows,
                        struct error *err)
{
    PGresult *result = NULL;
    *ret_rows = NULL;
    do {
        if (postgres_next(store, &result, err) < 0) {
            PQclear(*ret_rows);
            *ret_rows = NULL;
            return -1;
        }
        ExecStatusType status = result ? PQresultStatus(result) : PGRES_TUPLES_OK;
        if (status == PGRES_FATAL_ERROR && !store->failure.code)
            postgres_fail(store, result, what, &store->failure);
        if (result && (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK)) {
            PQclear(*ret_rows);
            *ret_rows = result;
        } else {
            PQclear(result);
        }
    } while (result);
    return 0;
}

/* Reads the outcomes of all but the last `keep` statements that were sent. */
static int take_pending(struct postgres_store *store, size_t keep, struct error *err)
{
    size_t count = store->pending_count - keep;
    for (size_t i = 0; i < count; i++) {
        auto_result *rows = NULL;
        if (take_outcome(store, store->pending[i].what, &rows, err) < 0)
            return -1;
        if (rows && store->pending[i].ret_rows)
            *store->pending[i].ret_rows = strtoll(PQcmdTuples(rows), NULL, 10);
    }
    memmove(store->pending, store->pending + count, keep * sizeof(store->pending[0]));
    store->pending_count = keep;
    store->pending_bytes = 0;
    return 0;
}

/* ---- sending ---- */

static void note_sent(struct postgres_store *store, const char *what, int64_t *ret_rows,
                      size_t bytes)
{
    store->pending[store->pending_count].what = what;
    store->pending[store->pending_count++].ret_rows = ret_rows;
    store->pending_bytes += bytes;
}

static int make_room(struct postgres_store *store, struct error *err)
{
    if (store->pending_count < POSTGRES_PENDING_MAX &&
        store->pending_bytes < POSTGRES_PENDING_BYTES_MAX)
        return 0;
    if (!PQsendFlushRequest(store->pg))
        return postgres_lose(store, err, "the connection broke");
    return take_pending(store, 0, err);
}

int postgres_send(struct postgres_store *store, enum postgres_statement which, int count,
                  const char *const *values, const int *lengths, const int *formats, size_t bytes,
                  const char *what, int64_t *ret_rows, struct error *err)
{
    char name[16];
    if (!store->pg || store->broken)
        return postgres_lose(store, err, "there is no connection");
    if (make_room(store, err) < 0 || first_failure(store, err) < 0)
        return -1;
    snprintf(name, sizeof(name), "s%d", (int)which);
    if (!PQsendQueryPrepared(store->pg, name, count, values, lengths, formats, BINARY))
        return postgres_lose(store, err, "the connection broke");
    note_sent(store, what, ret_rows, bytes);
    return 0;
}

static int send_statement(struct postgres_store *store, enum postgres_statement which,
                          const struct postgres_arguments *arguments, const char *what,
                          int64_t *ret_rows, struct error *err)
{
    static const struct postgres_arguments none;
    const struct postgres_arguments *given = arguments ? arguments : &none;
    if (postgres_send_gathered(store, err) < 0)
        return -1;
    return postgres_send(store, which, given->count, given->values, given->lengths, given->formats,
                         given->bytes, what, ret_rows, err);
}

int postgres_write(struct postgres_store *store, enum postgres_statement which,
                   const struct postgres_arguments *arguments, const char *what, int64_t *ret_rows,
                   struct error *err)
{
    return send_statement(store, which, arguments, what, ret_rows, err);
}

int postgres_sync(struct postgres_store *store, struct error *err)
{
    auto_result *mark = NULL;
    if (!PQpipelineSync(store->pg))
        return postgres_lose(store, err, "the connection broke");
    if (take_pending(store, 0, err) < 0 || postgres_next(store, &mark, err) < 0)
        return -1;
    if (!mark || PQresultStatus(mark) != PGRES_PIPELINE_SYNC)
        return postgres_lose(store, err, "its answers are out of order");
    return first_failure(store, err);
}

/* Outside of a transaction a statement is one by itself, which a sync ends. */
static int end_read(struct postgres_store *store, PGresult **rows, struct error *err)
{
    if (store->in_transaction)
        return first_failure(store, err);
    int outcome = postgres_sync(store, err);
    memset(&store->failure, 0, sizeof(store->failure));
    if (outcome < 0) {
        PQclear(*rows);
        *rows = NULL;
    }
    return outcome;
}

PGresult *postgres_read(struct postgres_store *store, enum postgres_statement which,
                        const struct postgres_arguments *arguments, const char *what,
                        struct error *err)
{
    PGresult *rows = NULL;
    if (send_statement(store, which, arguments, what, NULL, err) < 0)
        return NULL;
    if (!PQsendFlushRequest(store->pg)) {
        postgres_lose(store, err, "the connection broke");
        return NULL;
    }
    if (take_pending(store, 1, err) < 0 || take_outcome(store, what, &rows, err) < 0)
        return NULL;
    store->pending_count = 0;
    if (end_read(store, &rows, err) < 0) {
        PQclear(rows);
        return NULL;
    }
    return rows;
}

int postgres_prepare(struct postgres_store *store, struct error *err)
{
    for (int i = 0; i < POSTGRES_STATEMENT_COUNT; i++) {
        char name[16];
        snprintf(name, sizeof(name), "s%d", i);
        if (!PQsendPrepare(store->pg, name, postgres_statement_texts[i], 0, NULL))
            return postgres_lose(store, err, "the connection broke");
        note_sent(store, postgres_statement_texts[i], NULL, 0);
    }
    int outcome = postgres_sync(store, err);
    memset(&store->failure, 0, sizeof(store->failure));
    return outcome;
}

/* ---- rows ---- */

int64_t postgres_get_int(const PGresult *rows, int row, int column)
{
    uint64_t number = 0;
    if (PQgetisnull(rows, row, column) || PQgetlength(rows, row, column) != sizeof(number))
        return 0;
    memcpy(&number, PQgetvalue(rows, row, column), sizeof(number));
    return (int64_t)be64toh(number);
}

bool postgres_get_bool(const PGresult *rows, int row, int column)
{
    return !PQgetisnull(rows, row, column) && PQgetvalue(rows, row, column)[0] != 0;
}

const char *postgres_get_text(const PGresult *rows, int row, int column)
{
    return PQgetisnull(rows, row, column) ? NULL : PQgetvalue(rows, row, column);
}

int postgres_get_copy(const PGresult *rows, int row, int column, char **ret, size_t *ret_len,
                      struct error *err)
{
    size_t len = (size_t)PQgetlength(rows, row, column);
    char *copy = NULL;
    if (!PQgetisnull(rows, row, column) &&
        !(copy = record_copy(PQgetvalue(rows, row, column), len, err)))
        return -1;
    *ret = copy;
    if (ret_len)
        *ret_len = copy ? len : 0;
    return 0;
}
