/* Code archives: what a stranger hands in as a function's code, unpacked without trust, and folders
 * packed into archives.
 *
 * Which kind it is comes from the bytes alone. Unpacking is all or nothing: the destination
 * appears, complete, by one rename, or not at all. An archive with an entry that looks like an
 * attack is refused as a whole, with the entry's name and the reason (ERROR_INVALID_REQUEST):
 *
 *     refused     absolute paths, "..", symbolic links that are absolute or lead out of the
 *                 archive's folder, entries below a symbolic link of the archive, hard links to
 *                 anything but an earlier file of the archive, devices, fifos, sockets, the same
 *                 file twice, encrypted or damaged entries, sizes that lie, data in what is no file
 *     normalised  modes: files become 0644, or 0755 when anybody may execute them, folders 0755 (so
 *                 setuid, setgid and sticky bits are gone); the owner is whoever unpacks; xattrs
 *                 and ACLs are dropped. Modification times are kept.
 *     over a cap  ERROR_PAYLOAD_TOO_LARGE; the cap is on bytes written, whatever the headers claim
 *
 * No check rests on the text of a path alone: the kernel resolves each one beneath the destination
 * and through no symbolic link (openat2(2), RESOLVE_BENEATH), so Linux 5.6 is needed.
 *
 * All functions block; call them from any thread. */
#pragma once

#include "base/buffer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum archive_kind {
    ARCHIVE_KIND_FILE, /* none of those below: one source file (or program) */
    ARCHIVE_KIND_ZIP,
    ARCHIVE_KIND_TAR,
    ARCHIVE_KIND_TAR_GZIP,    /* gzip data; that a tar is in it shows when it is unpacked */
    ARCHIVE_KIND_TAR_ZSTD,    /* likewise */
    ARCHIVE_KIND_UNSUPPORTED, /* an archive of a kind that is refused: bzip2, xz, 7z, rar */
};

enum archive_kind archive_detect(const void *bytes, size_t len);
/* "zip", "tar", "tar.gz", "tar.zst", "file", "unsupported archive". */
const char *archive_kind_name(enum archive_kind kind);

/* Zero means the default. */
struct archive_limits {
    uint64_t max_packed_bytes;   /* 64 MiB */
    uint64_t max_unpacked_bytes; /* 512 MiB, of all files together; holes count as written */
    uint64_t max_files;          /* 65,536 entries of whatever type, implied folders included */
    uint64_t max_path_bytes;     /* 1024, of one entry's path and of one link's target */
    uint64_t max_depth;          /* 64 path components */
};

/* What was unpacked; for logs and cache accounting. */
struct archive_totals {
    uint64_t bytes; /* of all files */
    uint64_t files; /* entries of whatever type */
};

/* Unpacks to the folder `destination`, which must not exist; its parent must. A single file, and an
 * archive with nothing in it, are refused. `limits` and `ret_totals` may be NULL. A process that is
 * killed meanwhile leaves a folder ".unpack-*" beside it; nothing is synced to the disk. */
int archive_extract(const void *bytes, size_t len, const char *destination,
                    const struct archive_limits *limits, struct archive_totals *ret_totals,
                    struct error *err);
/* Makes the folder `destination` likewise, with one file `name` (mode 0755 or 0644) of these bytes:
 * for code that is one source file. */
int archive_extract_file(const void *bytes, size_t len, const char *name, bool executable,
                         const char *destination, struct error *err);

/* Appends a tar.gz of what is in `directory` to `out`, with the same bytes for the same content:
 * sorted, times 0, no owner, modes 0644 and 0755. Symbolic links are kept as links and never
 * followed; ".git" is left out, at any depth; a device, fifo or socket is an error. The tree may be
 * a stranger's. `max_bytes` caps the packed size (ERROR_PAYLOAD_TOO_LARGE), as does out->max; the
 * limits on files and depth are archive_extract()'s defaults. */
int archive_pack_directory(const char *directory, size_t max_bytes, struct buffer *out,
                           struct error *err);
/* The same with one file of it, as `name`. */
int archive_pack_file(const char *path, const char *name, size_t max_bytes, struct buffer *out,
                      struct error *err);
