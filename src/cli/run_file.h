/* The file by which `faas up` tells commands of this machine where its controller is and which token
 * it takes: {"url": …, "token_file": …, "pid": …}, one for each `faas up` that runs, named after its
 * process. `faas up` removes it; when it is killed, its controller does (FAAS_RUN_FILE). */
#pragma once

#include "base/json.h"

#include <sys/types.h>

#define RUN_FILE_FOLDER "/run/faas"

/* malloc'd; NULL when out of memory. */
char *run_file_path(pid_t pid);
int run_file_write(const char *path, const char *url, const char *token_file, struct error *err);
/* The one whose address is `url`; NULL: the one that became ready last. Removes those whose `faas up`
 * is dead (their controller was killed with it). json_free() it; NULL when there is none. */
struct json *run_file_find(const char *url);
