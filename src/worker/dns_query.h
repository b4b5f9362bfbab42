/* One question to the name servers, over UDP: each is asked in turn until one answers. Loop thread only. */
#pragma once

#include "worker/dns_message.h"
#include "worker/network_filter.h"

#include <uv.h>

struct dns_query;

/* Exactly one of `answer` and `err` is not NULL; never from inside dns_query_start(). */
typedef void dns_query_done_fn(void *data, const struct dns_answer *answer,
                               const struct error *err);

/* Valid until `done`. NULL: `done` is never called. */
struct dns_query *dns_query_start(uv_loop_t *loop, const struct name_servers *servers,
                                  const char *name, dns_query_done_fn *done, void *data,
                                  struct error *err);
/* Ends it without `done`. */
void dns_query_cancel(struct dns_query *query);
