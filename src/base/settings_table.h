/* What settings.c (loading) and settings_help.c (documentation) share: how one row is shown. */
#pragma once

#include "base/settings.h"

#define SETTING_FLAG_SIZE 64
/* "--listen" for CONTROLLER_LISTEN under the prefix CONTROLLER_. */
void setting_flag(const struct settings_spec *spec, const struct setting *row,
                  char out[SETTING_FLAG_SIZE]);
#define SETTING_ALLOWED_SIZE 160
/* "1 to 100 (ms)", "true or false", "container, simple"; "" for any string. */
void setting_allowed(const struct setting *row, char out[SETTING_ALLOWED_SIZE]);
