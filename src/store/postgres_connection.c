/* The connection to PostgreSQL: making it, what a session must be like, and saying where without saying the password. */
#include "base/cleanup.h"
#include "base/log.h"
#include "store/postgres.h"

#include <stdlib.h>
#include <string.h>

/* Commits must be on the disk, whatever the server's default; a controller that hangs with a transaction open must not
 * hold its locks for ever. */
static const char session_settings[] =
    "SELECT set_config('synchronous_commit', 'on', false)"
    "  WHERE current_setting('synchronous_commit') = 'off';"
    "SET idle_in_transaction_session_timeout = '60s';"
    "SET lock_timeout = '" POSTGRES_MIGRATION_LOCK_TIMEOUT "';"
    "SET default_transaction_isolation = 'read committed'; SET statement_timeout = 0";

static const char working_settings[] = "SET lock_timeout = '" POSTGRES_LOCK_TIMEOUT "'";

/* libpq writes notices to stderr otherwise. */
static void ignore_notice(void *data, const char *message)
{
    (void)data;
    (void)message;
}

void postgres_disconnect(struct postgres_store *store)
{
    PQfinish(store->pg);
    store->pg = NULL;
    store->pending_count = 0;
    postgres_drop_gathered(store);
    store->pending_bytes = 0;
    store->in_transaction = false;
    memset(&store->failure, 0, sizeof(store->failure));
}

int postgres_execute(struct postgres_store *store, const char *sql, PGresult **ret,
                     struct error *err)
{
    PGresult *result = NULL, *last = NULL;
    struct error failure = {0};
    if (!PQsendQuery(store->pg, sql))
        return postgres_lose(store, err, "the connection broke");
    do {
        if (postgres_next(store, &result, &failure) < 0)
            break;
        if (result && PQresultStatus(result) == PGRES_FATAL_ERROR && !failure.code)
            postgres_fail(store, result, "preparing the database", &failure);
        if (result) {
            PQclear(last);
            last = result;
        }
    } while (result);
    if (failure.code || !ret) {
        PQclear(last);
        last = NULL;
    }
    if (ret)
        *ret = last;
    if (failure.code && err)
        *err = failure;
    return failure.code ? -1 : 0;
}

/* libpq's own messages name host, port, user and database, and never the password; the first line says it. */
static int refuse(struct postgres_store *store, struct error *err)
{
    char message[400];
    snprintf(message, sizeof(message), "%s", PQerrorMessage(store->pg));
    message[strcspn(message, "\n")] = '\0';
    return error_set(err, ERROR_UNAVAILABLE, "connecting to PostgreSQL: %s", message);
}

static int check_server(struct postgres_store *store, struct error *err)
{
    const char *encoding = PQparameterStatus(store->pg, "server_encoding");
    if (PQserverVersion(store->pg) < 120000)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the database server must be PostgreSQL 12 or newer, not %d",
                         PQserverVersion(store->pg) / 10000);
    if (!encoding || strcmp(encoding, "UTF8") != 0)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "the database's encoding must be UTF8, not %s (CREATE DATABASE faas "
                         "ENCODING 'UTF8' TEMPLATE template0)",
                         encoding ? encoding : "unknown");
    return 0;
}

PGconn *postgres_new_connection(const char *url)
{
    /* What stands before dbname can be set by the URL, what stands behind it cannot. */
    const char *const keywords[] = {
        "connect_timeout",  "keepalives_idle",  "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "fallback_application_name",
        "dbname",           "client_encoding",  NULL};
    const char *const values[] = {POSTGRES_CONNECT_TIMEOUT_S, "10", "5",    "3", "15000",
                                  "faas-controller",          url,  "UTF8", NULL};
    PGconn *connection = PQconnectdbParams(keywords, values, 1);
    if (connection)
        PQsetNoticeProcessor(connection, ignore_notice, NULL);
    return connection;
}

static int open_connection(struct postgres_store *store, struct error *err)
{
    store->broken = false;
    store->pg = postgres_new_connection(store->url);
    if (!store->pg)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (PQstatus(store->pg) != CONNECTION_OK)
        return refuse(store, err);
    if (PQsetnonblocking(store->pg, 1) < 0)
        return refuse(store, err);
    return check_server(store, err);
}

int postgres_connect(struct postgres_store *store, struct error *err)
{
    if (store->pg && !store->broken && PQstatus(store->pg) == CONNECTION_OK)
        return 0;
    postgres_disconnect(store);
    if (open_connection(store, err) < 0 ||
        postgres_execute(store, session_settings, NULL, err) < 0 ||
        postgres_migrate(store, postgres_schema_version, err) < 0 ||
        postgres_execute(store, working_settings, NULL, err) < 0)
        goto fail;
    if (!PQenterPipelineMode(store->pg)) {
        refuse(store, err);
        goto fail;
    }
    if (postgres_prepare(store, err) < 0)
        goto fail;
    log_info("connected to PostgreSQL", LOG_STR("host", PQhost(store->pg)),
             LOG_STR("port", PQport(store->pg)), LOG_STR("database", PQdb(store->pg)),
             LOG_STR("user", PQuser(store->pg)));
    return 0;
fail:
    postgres_disconnect(store);
    return -1;
}
