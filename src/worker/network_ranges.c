/* Destinations without overlaps, as the kernel's sets of concatenated ranges need them: the ports are cut where any range
 * begins or ends, and in each span the addresses are merged. */
#include "worker/network_filter.h"

#include "base/cleanup.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

int filter_range_compare(const void *a, const void *b)
{
    const struct filter_range *one = a, *two = b;

    if (one->protocol != two->protocol)
        return one->protocol < two->protocol ? -1 : 1;
    if (one->port_first != two->port_first)
        return one->port_first < two->port_first ? -1 : 1;
    if (one->port_last != two->port_last)
        return one->port_last < two->port_last ? -1 : 1;
    if (one->first != two->first)
        return one->first < two->first ? -1 : 1;
    return one->last == two->last ? 0 : one->last < two->last ? -1 : 1;
}

struct range_list {
    struct filter_range *items;
    size_t count, last; /* `last`: where the items of the last span of ports begin */
};

static int compare_bounds(const void *a, const void *b)
{
    const uint32_t *one = a, *two = b;

    return *one < *two ? -1 : *one > *two;
}

/* The merged addresses of all `ranges` (sorted by address) that hold the ports from..to of a protocol. */
static int append_span(struct range_list *list, const struct filter_range *ranges, size_t count,
                       const struct filter_range *span)
{
    size_t begin = list->count;

    for (size_t i = 0; i < count; i++) {
        struct filter_range *top = list->count > begin ? &list->items[list->count - 1] : NULL;
        if (ranges[i].protocol != span->protocol || ranges[i].port_first > span->port_first ||
            ranges[i].port_last < span->port_last)
            continue;
        if (top && (top->last == UINT32_MAX || ranges[i].first <= top->last + 1)) {
            top->last = ranges[i].last > top->last ? ranges[i].last : top->last;
            continue;
        }
        if (list->count == FILTER_RANGES_MAX)
            return -1;
        list->items[list->count] = *span;
        list->items[list->count].first = ranges[i].first;
        list->items[list->count++].last = ranges[i].last;
    }
    return 0;
}

/* Two adjoining spans of ports with the same addresses are one. */
static void join_spans(struct range_list *list, size_t begin)
{
    size_t len = list->count - begin;
    struct filter_range *last = &list->items[list->last], *now = &list->items[begin];

    bool same = len > 0 && begin - list->last == len && last->protocol == now->protocol &&
                last->port_last + 1 == now->port_first;
    for (size_t i = 0; same && i < len; i++)
        same = last[i].first == now[i].first && last[i].last == now[i].last;
    if (!same) {
        list->last = begin;
        return;
    }
    for (size_t i = 0; i < len; i++)
        last[i].port_last = now[i].port_last;
    list->count = begin;
}

static int compare_addresses(const void *a, const void *b)
{
    const struct filter_range *one = a, *two = b;

    return compare_bounds(&one->first, &two->first);
}

static int append_protocol(struct range_list *list, const struct filter_range *ranges, size_t count,
                           uint8_t protocol, uint32_t *bounds)
{
    size_t bound_count = 0;

    for (size_t i = 0; i < count; i++) {
        bounds[bound_count++] = ranges[i].port_first;
        bounds[bound_count++] = ranges[i].port_last + 1u;
    }
    qsort(bounds, bound_count, sizeof(*bounds), compare_bounds);
    for (size_t i = 0; i + 1 < bound_count; i++) {
        size_t begin = list->count;
        struct filter_range span = {.protocol = protocol,
                                    .port_first = (uint16_t)bounds[i],
                                    .port_last = (uint16_t)(bounds[i + 1] - 1)};
        if (bounds[i] == bounds[i + 1])
            continue;
        if (append_span(list, ranges, count, &span) < 0)
            return -1;
        join_spans(list, begin);
    }
    return 0;
}

int filter_ranges_disjoint(const struct filter_range *ranges, size_t count,
                           struct filter_range **ret, size_t *ret_count, struct error *err)
{
    autofree struct filter_range *sorted = calloc(count + 1, sizeof(*sorted));
    autofree uint32_t *bounds = calloc(2 * count + 1, sizeof(*bounds));
    struct range_list list = {.items = calloc(FILTER_RANGES_MAX, sizeof(*list.items))};

    if (!sorted || !bounds || !list.items) {
        free(list.items);
        return error_set(err, ERROR_INTERNAL, "out of memory");
    }
    if (count > 0)
        memcpy(sorted, ranges, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), compare_addresses);
    if (append_protocol(&list, sorted, count, IPPROTO_TCP, bounds) < 0 ||
        append_protocol(&list, sorted, count, IPPROTO_UDP, bounds) < 0) {
        free(list.items);
        return error_set(err, ERROR_INVALID_REQUEST,
                         "network_allow comes to more than %d rules: use fewer different ports, or "
                         "networks instead of single addresses",
                         FILTER_RANGES_MAX);
    }
    qsort(list.items, list.count, sizeof(*list.items), filter_range_compare);
    *ret = list.items;
    *ret_count = list.count;
    return 0;
}
