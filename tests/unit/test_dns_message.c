/* worker/dns_message.h: a question as RFC 1035 has it, and answers of servers good and bad. */
#include "worker/dns_message.h"

#include <criterion/criterion.h>
#include <string.h>

static uint8_t query[DNS_QUERY_MAX];
static size_t query_len;
static uint8_t message[2048];
static size_t message_len;

/* An answer to the query for "ab.org" with this header's flags and number of records, still without records. */
static void begin_answer(unsigned flags, unsigned records)
{
    query_len = dns_query_write(0x1234, "ab.org", query);
    message_len = query_len - 11;
    memcpy(message, query, message_len);
    message[2] = (uint8_t)(flags >> 8);
    message[3] = (uint8_t)flags;
    message[7] = (uint8_t)records;
    message[11] = 0;
}

static void append(const char *bytes, size_t len)
{
    memcpy(message + message_len, bytes, len);
    message_len += len;
}

#define APPEND(bytes) append((bytes), sizeof(bytes) - 1)

static int read_answer(struct dns_answer *ret, struct error *err)
{
    return dns_answer_read(message, message_len, query, query_len, ret, err);
}

static void assert_refused(enum error_code code)
{
    struct dns_answer answer;
    struct error err = {0};

    cr_assert_eq(read_answer(&answer, &err), -1);
    cr_assert_eq(err.code, code, "%s", err.message);
}

Test(dns_message, a_query_is_as_the_standard_has_it)
{
    static const char wanted[] =
        "\x12\x34\x01\0\0\1\0\0\0\0\0\1\2ab\3org\0\0\1\0\1\0\0\x29\x04\xd0\0\0\0\0\0\0";

    cr_assert_eq(dns_query_write(0x1234, "ab.org", query), sizeof(wanted) - 1);
    cr_assert_arr_eq(query, wanted, sizeof(wanted) - 1);
}

Test(dns_message, what_is_no_name_has_no_query)
{
    char name[400];

    cr_assert_eq(dns_query_write(1, "", query), 0);
    cr_assert_eq(dns_query_write(1, "a..b", query), 0);
    memset(name, 'a', 64);
    name[64] = '\0';
    cr_assert_eq(dns_query_write(1, name, query), 0);
    memset(name, 'a', sizeof(name) - 1);
    for (size_t i = 10; i < sizeof(name); i += 10)
        name[i] = '.';
    name[399] = '\0';
    cr_assert_eq(dns_query_write(1, name, query), 0);
}

Test(dns_message, addresses_behind_an_alias_are_read)
{
    struct dns_answer answer;
    struct error err = {0};

    begin_answer(0x8180, 3);
    APPEND("\xc0\x0c\0\5\0\1\0\0\0\x3c\0\4\1x\xc0\x0f");
    APPEND("\1x\xc0\x0f\0\1\0\1\0\0\0\x1e\0\4\x0a\1\2\3");
    APPEND("\xc0\x20\0\1\0\1\0\0\0\x28\0\4\x0a\1\2\4");
    cr_assert_eq(read_answer(&answer, &err), 0, "%s", err.message);
    cr_assert_eq(answer.count, 2);
    cr_assert_eq(answer.addresses[0], 0x0a010203);
    cr_assert_eq(answer.addresses[1], 0x0a010204);
    cr_assert_eq(answer.ttl_s, 30);
}

Test(dns_message, letters_may_come_back_in_another_case)
{
    struct dns_answer answer;

    begin_answer(0x8180, 1);
    message[13] = 'A';
    APPEND("\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2\3\4");
    cr_assert_eq(read_answer(&answer, NULL), 0);
}

Test(dns_message, no_more_addresses_than_fit)
{
    struct dns_answer answer;

    begin_answer(0x8180, 40);
    for (int i = 0; i < 40; i++)
        APPEND("\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2\3\4");
    cr_assert_eq(read_answer(&answer, NULL), 0);
    cr_assert_eq(answer.count, DNS_ADDRESSES_MAX);
}

Test(dns_message, failures_are_told_apart)
{
    begin_answer(0x8183, 0);
    assert_refused(ERROR_NOT_FOUND);
    begin_answer(0x8180, 0);
    assert_refused(ERROR_NOT_FOUND);
    begin_answer(0x8182, 0);
    assert_refused(ERROR_UNAVAILABLE);
    begin_answer(0x8185, 0);
    assert_refused(ERROR_UNAVAILABLE);
}

Test(dns_message, what_answers_another_question_is_no_answer)
{
    begin_answer(0x8180, 0);
    message[0] ^= 1;
    assert_refused(ERROR_INVALID_REQUEST);
    begin_answer(0x0180, 0);
    assert_refused(ERROR_INVALID_REQUEST);
    begin_answer(0x8180, 0);
    message[13] = 'x';
    assert_refused(ERROR_INVALID_REQUEST);
    begin_answer(0x8180, 0);
    message_len--;
    assert_refused(ERROR_INVALID_REQUEST);
    message_len = 0;
    assert_refused(ERROR_INVALID_REQUEST);
}

Test(dns_message, records_cut_short_are_refused)
{
    begin_answer(0x8180, 1);
    size_t bare = message_len;
    APPEND("\xc0\x0c\0\1\0\1\0\0\0\1\0\4\1\2\3\4");
    for (size_t whole = message_len; message_len > bare; message_len--)
        if (message_len < whole)
            assert_refused(ERROR_INVALID_REQUEST);
    begin_answer(0x8180, 1);
    APPEND("\xc0\x0c\0\1\0\1\0\0\0\1\xff\xff\1\2\3\4");
    assert_refused(ERROR_INVALID_REQUEST);
    begin_answer(0x8180, 1);
    APPEND("\x40");
    assert_refused(ERROR_INVALID_REQUEST);
}
