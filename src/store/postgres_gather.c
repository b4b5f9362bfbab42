/* Executions that are accepted together, several in a statement: for PostgreSQL a statement costs about as much as the row that it
 * writes. */
#include "store/postgres.h"
#include "store/record.h"

#include <assert.h>
#include <string.h>

/* A larger payload goes by itself: what waits in the pipeline is bounded statement by statement. */
#define PAYLOAD_MAX (16UL * 1024)
/* Of a row: RECORD_HEAD, payload, owner. */
#define ROW_ARGUMENTS (RECORD_HEAD_END + 2)

static const char what[] = "writing an execution";

static int bind_row(struct postgres_gathered *gathered, const struct execution *execution,
                    const char *payload, size_t payload_len, const char *owner, struct error *err)
{
    struct postgres_arguments *arguments = &gathered->rows[gathered->count].arguments;
    struct buffer *error = &gathered->rows[gathered->count].error;
    struct buffer *metrics = &gathered->rows[gathered->count].metrics;
    memset(arguments, 0, sizeof(*arguments));
    buffer_init(error, RECORD_DETAIL_MAX);
    buffer_init(metrics, RECORD_DETAIL_MAX);
    gathered->count++;
    if (postgres_bind_head(arguments, execution, error, metrics, err) < 0) {
        buffer_deinit(error);
        buffer_deinit(metrics);
        gathered->count--;
        return -1;
    }
    postgres_bind_bytes(arguments, payload ? payload : "", payload_len);
    postgres_bind_text(arguments, owner);
    assert(arguments->count == ROW_ARGUMENTS);
    return 0;
}

void postgres_drop_gathered(struct postgres_store *store)
{
    while (store->gathered.count > 0) {
        store->gathered.count--;
        buffer_deinit(&store->gathered.rows[store->gathered.count].error);
        buffer_deinit(&store->gathered.rows[store->gathered.count].metrics);
    }
}

static int send_all(struct postgres_store *store, struct error *err)
{
    struct postgres_gathered *gathered = &store->gathered;
    const char *values[POSTGRES_GATHERED_MAX * ROW_ARGUMENTS];
    int lengths[POSTGRES_GATHERED_MAX * ROW_ARGUMENTS];
    int formats[POSTGRES_GATHERED_MAX * ROW_ARGUMENTS];
    size_t bytes = 0;
    for (size_t i = 0; i < POSTGRES_GATHERED_MAX; i++) {
        const struct postgres_arguments *row = &gathered->rows[i].arguments;
        memcpy(values + i * ROW_ARGUMENTS, row->values, ROW_ARGUMENTS * sizeof(values[0]));
        memcpy(lengths + i * ROW_ARGUMENTS, row->lengths, ROW_ARGUMENTS * sizeof(lengths[0]));
        memcpy(formats + i * ROW_ARGUMENTS, row->formats, ROW_ARGUMENTS * sizeof(formats[0]));
        bytes += row->bytes;
    }
    return postgres_send(store, POSTGRES_ACCEPT_SEVERAL, POSTGRES_GATHERED_MAX * ROW_ARGUMENTS,
                         values, lengths, formats, bytes, what, NULL, err);
}

int postgres_send_gathered(struct postgres_store *store, struct error *err)
{
    struct postgres_gathered *gathered = &store->gathered;
    int status = 0;
    if (gathered->count == POSTGRES_GATHERED_MAX) {
        status = send_all(store, err);
    } else {
        for (int i = 0; i < gathered->count && status == 0; i++) {
            const struct postgres_arguments *row = &gathered->rows[i].arguments;
            status = postgres_send(store, POSTGRES_ACCEPT_EXECUTION, row->count, row->values,
                                   row->lengths, row->formats, row->bytes, what, NULL, err);
        }
    }
    postgres_drop_gathered(store);
    return status;
}

int postgres_gather(struct postgres_store *store, const struct execution *execution,
                    const char *payload, size_t payload_len, const char *owner, struct error *err)
{
    if (bind_row(&store->gathered, execution, payload, payload_len, owner, err) < 0)
        return -1;
    if (store->gathered.count < POSTGRES_GATHERED_MAX && payload_len <= PAYLOAD_MAX)
        return 0;
    return postgres_send_gathered(store, err);
}
