/* The names that functions may reach (network_allow), resolved by the platform and kept up to date while anybody watches
 * them. An address counts for some minutes after a name server last told it, because functions and their libraries keep it,
 * too. Loop thread only. */
#pragma once

#include "model/destination.h"
#include "worker/network_filter.h"

#include <uv.h>

#define NAME_ADDRESSES_MAX 16 /* kept of one name */

struct names;
struct names_watch;

/* `servers` is copied. */
struct names *names_new(uv_loop_t *loop, const struct name_servers *servers, struct error *err);
/* When nobody watches any more. Accepts NULL. */
void names_free(struct names *names);

/* Watches the names in `list` (copied). `changed` is called, never from inside this call, when all of them have been asked for once, and then
 * whenever an address of one comes or goes. */
struct names_watch *names_watch(struct names *names, const struct destinations *list,
                                void (*changed)(void *data), void *data, struct error *err);
/* Accepts NULL. */
void names_unwatch(struct names_watch *watch);
/* What is known of `name`, which is one of the list; borrowed until the next event. */
size_t names_addresses(const struct names_watch *watch, const char *name,
                       const uint32_t **ret_addresses);
