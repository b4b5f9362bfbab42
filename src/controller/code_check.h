/* Whether code can be what its definition says it is: the kind of archive, that it is sound, and that the file which
 * the function starts with is there. Blocking, for pool threads: an archive is unpacked for a moment. */
#pragma once

#include "model/function.h"
#include "oci/archive.h"

/* `scratch` is a folder that exists; what is made in it is gone again afterwards. Errors have the field
 * "/code" and say what is expected. */
int code_check(const struct function_spec *spec, const void *code, size_t len, const char *scratch,
               const struct archive_limits *limits, struct error *err);
