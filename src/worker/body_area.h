/* Memory that the worker and one instance's adapter have both mapped, so that a large payload is copied once on its way in, and a large
 * result once on its way out, in place of twice each through the kernel. init/protocol.h has what the two say about it.
 *
 * It belongs to one instance and carries one body at a time, either way. Its size is sealed, so no access of the worker's can fail
 * because the other side cut it. What is in it is the instance's to change at any moment: body_area_get() copies, and only the copy
 * is to be looked at. Pages count as memory of whoever touches them first, the worker or the instance: a worker grants no more of it than a
 * sixteenth of the function's memory (body_area_size()), and body_area_empty() gives the pages back.
 *
 * Life cycle: body_area_new(), the descriptor is passed once and closed, body_area_free(). Loop thread only. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Smaller bodies go over the socket. */
#define BODY_AREA_MIN (256UL * 1024)

struct body_area;

/* How large it is to be for bodies of up to `body_max` bytes of a function with so much memory; 0: it gets none. */
size_t body_area_size(size_t body_max, int64_t memory_mb);
struct body_area *body_area_new(size_t size, struct error *err);
/* Accepts NULL. */
void body_area_free(struct body_area *area);
/* To be passed to the other side; -1 once it was closed. */
int body_area_fd(const struct body_area *area);
/* The other side has it. */
void body_area_close_fd(struct body_area *area);
size_t body_area_capacity(const struct body_area *area);
/* Before a body of `len` bytes, which is <= the capacity, is put there; false: the system has no memory for it now. */
bool body_area_make_room(struct body_area *area, size_t len);
/* `at` + `len` <= what there is room for. */
void body_area_put(struct body_area *area, const char *from, size_t at, size_t len);
/* `at` + `len` <= the capacity. */
void body_area_get(const struct body_area *area, char *to, size_t at, size_t len);
/* Gives back its pages; not any more when the other side has made that slow. Accepts NULL. */
void body_area_empty(struct body_area *area);
