/* What code archives and image layers share of libarchive: a reader for a few formats only, file
 * names as raw bytes, and the step from one entry to the tree writer.
 *
 * libarchive converts names to the thread's locale and, in a UTF-8 one, also changes how accents
 * are composed. Names are bytes here, so tar is read in the "C" locale: plain headers are not
 * converted, and for a pax header that cannot be, libarchive takes the bytes (with a warning). Zip
 * names that are marked as UTF-8 need "C.UTF-8". */
#pragma once

#include "oci/tree_writer.h"

#include <locale.h>

struct archive;
struct archive_entry;

enum archive_reader_format { ARCHIVE_READER_TAR, ARCHIVE_READER_ZIP };

/* The thread's locale as libarchive needs it; *ret_previous is for archive_locale_leave(). */
void archive_locale_enter(enum archive_reader_format format, locale_t *ret_previous);
void archive_locale_leave(const locale_t *previous);
#define with_archive_locale(format)                                                                \
    with_cleanup(archive_locale_leave) locale_t previous_locale_;                                  \
    archive_locale_enter((format), &previous_locale_)

/* A reader without its source: the caller opens it. `filters`: gzip and zstd too, else plain bytes
 * only. NULL when out of memory. */
struct archive *archive_reader_new(enum archive_reader_format format, bool filters);
void archive_reader_free(struct archive *const *reader);

/* The next entry: 1, 0 at the end, -1. */
int archive_reader_next(struct archive *reader, enum archive_reader_format format,
                        struct archive_entry **ret_entry, struct error *err);
/* Writes the entry under `path` (normalised). Devices, fifos and sockets: -1 with a message when
 * the writer's manner is that of archives, else 0 and nothing written. */
int archive_reader_write(struct archive *reader, struct archive_entry *entry, const char *path,
                         struct tree_writer *writer, struct error *err);
/* libarchive's last words about `reader` as an error: `what` is damaged. */
int archive_reader_failed(struct archive *reader, const char *what, struct error *err);
