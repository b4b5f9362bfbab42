/* Whole trees: cloned by hard links, copied with a digest, measured. Trees are walked by descriptors;
 * no link in them is followed. Folders nested deeper than TREE_MAX_DEPTH are refused, since a
 * descriptor is open for each level. */
#pragma once

#include "oci/layer.h"
#include "oci/tree_writer.h"

#define TREE_MAX_DEPTH 256

/* Makes in the empty folder `to` a tree like that in `from`: own folders with the same times, the
 * files and links themselves linked (or copied, where the file system takes no more links to one).
 * *budget is lowered by the entries made; at 0 it is ERROR_PAYLOAD_TOO_LARGE. Both are borrowed. */
int tree_clone(int from, int to, uint64_t *budget, struct error *err);
/* Copies through the writer, files with their content, as a layer's entries would be written, and
 * without devices, fifos, sockets. The same content gives the same digest ("sha256:…"): of names,
 * types, modes, times, targets and bytes in sorted order. */
int tree_copy(int from, struct tree_writer *writer, char ret_digest[DIGEST_LEN + 1],
              struct error *err);
/* The bytes of all files. */
int tree_measure(int root, uint64_t *ret_bytes, struct error *err);
