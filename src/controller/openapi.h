/* docs/openapi.yaml, as it was when this program was built. */
#pragma once

#include <stddef.h>

extern const char openapi_text[]; /* not NUL-terminated */
extern const size_t openapi_len;
