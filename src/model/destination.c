/* Reading a destination: the parts are cut off from behind (protocol, ports), what is left is the host. */
#include "model/destination.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_MAX 63

static int refuse(struct error *err, const char *text, const char *why)
{
    return error_set(err, ERROR_INVALID_REQUEST,
                     "\"%.80s\" %s; right is HOST[:PORT[-PORT]][/tcp or /udp], such as "
                     "\"10.0.0.0/8:443\", \"192.168.1.5:5432/tcp\" or \"example.org:443\"",
                     text, why);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number of 1 to 5 digits that fills `len`; -1 when it is none or above `max`. */
static long parse_number(const char *text, size_t len, long max)
{
    long number = 0;

    if (len == 0 || len > 5)
        return -1;
    for (size_t i = 0; i < len; i++) {
        if (!is_digit(text[i]))
            return -1;
        number = number * 10 + (text[i] - '0');
    }
    return number <= max ? number : -1;
}

/* Ends `*len` before "/tcp" or "/udp". */
static void cut_protocol(const char *text, size_t *len, struct destination *ret)
{
    const char *end = text + *len - 4;

    ret->tcp = *len < 4 || memcmp(end, "/udp", 4) != 0;
    ret->udp = *len < 4 || memcmp(end, "/tcp", 4) != 0;
    if (ret->tcp != ret->udp)
        *len -= 4;
}

/* Ends `*len` before ":PORT" or ":PORT-PORT". -1: there is a colon, and no ports behind it. */
static int cut_ports(const char *text, size_t *len, struct destination *ret)
{
    const char *colon = memchr(text, ':', *len);

    ret->port_first = 1;
    ret->port_last = UINT16_MAX;
    if (!colon)
        return 0;
    const char *ports = colon + 1, *end = text + *len,
               *dash = memchr(ports, '-', (size_t)(end - ports));
    long first = parse_number(ports, (size_t)((dash ? dash : end) - ports), UINT16_MAX);
    long last = dash ? parse_number(dash + 1, (size_t)(end - dash - 1), UINT16_MAX) : first;
    if (first < 1 || last < first)
        return -1;
    ret->port_first = (uint16_t)first;
    ret->port_last = (uint16_t)last;
    *len = (size_t)(colon - text);
    return 0;
}

int network_range_parse(const char *text, size_t len, uint32_t *ret_first, uint32_t *ret_last,
                        struct error *err)
{
    char address[INET_ADDRSTRLEN];
    struct in_addr parsed;
    const char *slash = memchr(text, '/', len);
    size_t address_len = slash ? (size_t)(slash - text) : len;
    long bits = slash ? parse_number(slash + 1, len - address_len - 1, 32) : 32;

    snprintf(address, sizeof(address), "%.*s", (int)address_len, text);
    if (address_len >= sizeof(address) || bits < 0 || inet_pton(AF_INET, address, &parsed) != 1)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "\"%.*s\" is no IPv4 address or network such as 10.0.0.0/8",
                         (int)(len < 64 ? len : 64), text);
    uint32_t host_bits = bits == 32 ? 0 : UINT32_MAX >> bits;
    if (ntohl(parsed.s_addr) & host_bits)
        return error_set(err, ERROR_INVALID_REQUEST,
                         "network \"%.*s\" has bits set beyond its first %ld", (int)len, text,
                         bits);
    *ret_first = ntohl(parsed.s_addr);
    *ret_last = *ret_first | host_bits;
    return 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool label_valid(const char *label, size_t len)
{
    if (len == 0 || len > LABEL_MAX || label[0] == '-' || label[len - 1] == '-')
        return false;
    for (size_t i = 0; i < len; i++)
        if (!is_digit(label[i]) && (lower(label[i]) < 'a' || lower(label[i]) > 'z') &&
            label[i] != '-' && label[i] != '_')
            return false;
    return true;
}

/* Labels with dots between them; the last one is no number, so that no broken address is a name. */
static bool name_valid(const char *text, size_t len)
{
    const char *label = text, *end = text + len;

    if (len == 0 || len > DESTINATION_NAME_MAX)
        return false;
    for (;;) {
        const char *dot = memchr(label, '.', (size_t)(end - label));
        if (!label_valid(label, (size_t)((dot ? dot : end) - label)))
            return false;
        if (!dot)
            return !is_digit(label[0]) || strspn(label, "0123456789") < (size_t)(end - label);
        label = dot + 1;
    }
}

static char *lower_copy(const char *text, size_t len)
{
    char *copy = strndup(text, len);

    for (char *c = copy; c && *c; c++)
        *c = lower(*c);
    return copy;
}

static int read_host(const char *text, size_t len, struct destination *ret, struct error *err)
{
    bool numeric = len > 0 && memchr(text, '/', len);
    if (strspn(text, "0123456789.") >= len)
        numeric = len > 0;
    if (numeric)
        return network_range_parse(text, len, &ret->first, &ret->last, err);
    if (len > 1 && text[len - 1] == '.')
        len--;
    if (!name_valid(text, len))
        return refuse(err, ret->text, "has no valid host");
    ret->name = lower_copy(text, len);
    return ret->name ? 0 : error_set(err, ERROR_INTERNAL, "out of memory");
}

static int parse(struct destination *ret, struct error *err)
{
    size_t len = strlen(ret->text);
    const char *colon;

    if (len > DESTINATION_TEXT_MAX)
        return refuse(err, ret->text, "is too long");
    cut_protocol(ret->text, &len, ret);
    colon = memchr(ret->text, ':', len);
    if (ret->text[0] == '[' ||
        (colon && memchr(colon + 1, ':', len - (size_t)(colon + 1 - ret->text))))
        return refuse(err, ret->text, "looks like IPv6, which is off inside functions");
    if (cut_ports(ret->text, &len, ret) < 0)
        return refuse(err, ret->text, "has no valid port after its colon (1 to 65535, or a range)");
    return read_host(ret->text, len, ret, err);
}

int destination_parse(const char *text, struct destination *ret, struct error *err)
{
    struct destination read = {.text = strdup(text)};

    if (!read.text)
        return error_set(err, ERROR_INTERNAL, "out of memory");
    if (parse(&read, err) < 0) {
        destination_deinit(&read);
        return -1;
    }
    *ret = read;
    return 0;
}

void destination_deinit(struct destination *destination)
{
    free(destination->text);
    free(destination->name);
    *destination = (struct destination){0};
}

void destinations_deinit(struct destinations *list)
{
    for (size_t i = 0; i < list->count; i++)
        destination_deinit(&list->items[i]);
    free(list->items);
    *list = (struct destinations){0};
}

int destinations_copy(struct destinations *to, const struct destinations *from)
{
    *to = (struct destinations){0};
    if (from->count == 0)
        return 0;
    to->items = calloc(from->count, sizeof(*to->items));
    if (!to->items)
        return -1;
    for (size_t i = 0; i < from->count; i++) {
        struct destination *item = &to->items[to->count++];
        *item = from->items[i];
        item->text = strdup(from->items[i].text);
        item->name = from->items[i].name ? strdup(from->items[i].name) : NULL;
        if (!item->text || (from->items[i].name && !item->name)) {
            destinations_deinit(to);
            return -1;
        }
    }
    return 0;
}

bool destinations_have_names(const struct destinations *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].name)
            return true;
    return false;
}
