/* One chain of layers as a root file system: its identity and its mount points. */
#pragma once

#include "oci/image_store.h"
#include "oci/layer.h"

/* ChainID(n) from ChainID(n-1) (NULL for the first layer) and DiffID(n), both "sha256:…"; as 64
 * hexadecimal digits (image-spec, config.md, "Layer ChainID"). */
void image_chain_id(const char *parent, const char *diff_id, char out[SHA256_HEX_LEN + 1]);
/* Makes the mount points in the root file system that `root` is, where they are missing. */
int image_chain_make_mount_points(int root, const struct image_mount_point *points, size_t count,
                                  struct error *err);
