/* DNS messages (RFC 1035, section 4): a question for the IPv4 addresses of a name, and its answer, which is taken as hostile. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define DNS_QUERY_MAX 300
#define DNS_ANSWER_MAX 1232 /* asked for by EDNS (RFC 6891): what passes unfragmented */
#define DNS_ADDRESSES_MAX 16

struct dns_answer {
    uint32_t addresses[DNS_ADDRESSES_MAX]; /* host byte order; more are left out */
    size_t count;
    uint32_t ttl_s; /* the shortest of theirs */
};

/* `name` without a trailing dot, labels as in model/destination.h. Returns the length; 0 for a name that is none. */
size_t dns_query_write(uint16_t id, const char *name, uint8_t out[DNS_QUERY_MAX]);
/* ERROR_NOT_FOUND: there is no such name, or it has no address. ERROR_UNAVAILABLE: the server cannot tell.
 * ERROR_INVALID_REQUEST: this is no answer to that query. */
int dns_answer_read(const uint8_t *data, size_t len, const uint8_t *query, size_t query_len,
                    struct dns_answer *ret, struct error *err);
