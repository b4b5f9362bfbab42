/* The controller's settings: one table, which also makes --help and docs/configuration.md. */
#pragma once

#include "base/settings.h"

struct controller_config {
    char *listen;
    char *data_dir;
    char *database_url;                 /* "": sqlite in data_dir */
    char *tls_cert_file, *tls_key_file; /* "": plain HTTP */
    char *worker_token;                 /* "": made at the first start */
    int64_t payload_max_bytes;
    int64_t result_max_bytes;
    int64_t log_max_bytes;
    int64_t archive_max_bytes;
    int64_t archive_unpacked_max_mb;
    int64_t archive_max_files;
    int64_t queue_length;
    int64_t queue_length_per_function;
    int64_t queue_max_mb;
    int64_t unwritten_max_mb;
    int64_t queue_wait_ms;
    int64_t worker_lost_ms;
    int64_t worker_reconnect_ms;
    int64_t async_attempts;
    int64_t lease_ms;
    int64_t async_queue_length;
    int64_t idempotency_hours;
    int64_t dead_letter_hours;
    char *callback_allow;   /* networks; "": none but the internet's */
    char *callback_ca_file; /* "": the system's */
    int64_t callback_timeout_ms;
    int64_t callback_attempts;
    int64_t callback_backoff_ms;
    int64_t callback_age_hours;
    int64_t callback_concurrency, callback_per_host;
    int64_t callback_result_max_bytes;
    int64_t drain_ms;
    int64_t connections;
    int64_t connections_per_client;
    int64_t rate_limit, rate_burst;
    int64_t body_memory_mb;
    int64_t retention_hours;
    int64_t retention_count;
    char *log_level;
    char *log_format;
};

extern const struct settings_spec controller_settings;
/* malloc'd; NULL when out of memory. */
char *controller_database_url(const struct controller_config *config);
