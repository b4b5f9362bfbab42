/* Doubly linked lists of objects that carry their own links: O(1) to take out of the middle, no
 * memory of their own. An object may be in as many lists as it has links. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *next,
        *previous; /* of the head: first and last; of one that is in no list: itself */
};

#define list_entry(link_, type_, member_) ((type_ *)((char *)(link_)-offsetof(type_, member_)))
#define list_for_each(link_, list_)                                                                \
    for (struct list *link_ = (list_)->next, *link_##_next = link_->next; link_ != (list_);        \
         link_ = link_##_next, link_##_next = link_->next)

static inline void list_init(struct list *list)
{
    list->next = list->previous = list;
}

static inline bool list_empty(const struct list *list)
{
    return list->next == list;
}

static inline void list_append(struct list *list, struct list *link)
{
    link->previous = list->previous;
    link->next = list;
    list->previous->next = link;
    list->previous = link;
}

static inline void list_prepend(struct list *list, struct list *link)
{
    list_append(list->next, link);
}

/* Takes it out of whatever list it is in, if any. */
static inline void list_remove(struct list *link)
{
    link->previous->next = link->next;
    link->next->previous = link->previous;
    list_init(link);
}

/* NULL when empty. */
static inline struct list *list_first(const struct list *list)
{
    return list_empty(list) ? NULL : list->next;
}
