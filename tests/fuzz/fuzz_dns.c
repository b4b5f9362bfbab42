/* What a name server answers: anything may come. */
#include "worker/dns_message.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t query[DNS_QUERY_MAX];
    size_t query_len = dns_query_write(0x1234, "ab.org", query);
    struct dns_answer answer;
    struct error err = {0};

    if (dns_answer_read(data, size, query, query_len, &answer, &err) == 0) {
        if (answer.count == 0 || answer.count > DNS_ADDRESSES_MAX)
            abort();
    } else if (err.code == ERROR_NONE || !err.message[0]) {
        abort();
    }
    return 0;
}
