/* What a name server answers: anything may come, by itself, and behind a header (of its flags and its number of records, the first four bytes) that
 * repeats the question. */
#include "worker/dns_message.h"

#include <stdlib.h>
#include <string.h>

#define OPT 11 /* at the end of a query */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_answer(const uint8_t *data, size_t size, const uint8_t *query, size_t query_len)
{
    struct dns_answer answer;
    struct error err = {0};

    if (dns_answer_read(data, size, query, query_len, &answer, &err) == 0) {
        if (answer.count == 0 || answer.count > DNS_ADDRESSES_MAX)
            abort();
    } else if (err.code == ERROR_NONE || !err.message[0]) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t query[DNS_QUERY_MAX];
    size_t query_len = dns_query_write(0x1234, "ab.org", query), question = query_len - OPT;

    read_answer(data, size, query, query_len);
    if (size < 4)
        return 0;
    uint8_t *whole = malloc(question + size - 4); /* of its own: a byte too far is seen */
    if (!whole)
        return 0;
    memcpy(whole, query, question);
    memcpy(whole + 2, data, 2);
    memcpy(whole + 6, data + 2, 2);
    memcpy(whole + question, data + 4, size - 4);
    read_answer(whole, question + size - 4, query, query_len);
    free(whole);
    return 0;
}
