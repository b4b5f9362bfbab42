/* Every verb's row, each defined in the file that runs it (verb_<name>.c). */
#pragma once

#include "cli/cli.h"

extern const struct cli_verb cli_verb_up;
extern const struct cli_verb cli_verb_new;
extern const struct cli_verb cli_verb_deploy;
extern const struct cli_verb cli_verb_invoke;
extern const struct cli_verb cli_verb_list;
extern const struct cli_verb cli_verb_describe;
extern const struct cli_verb cli_verb_rm;
extern const struct cli_verb cli_verb_logs;
extern const struct cli_verb cli_verb_executions;
extern const struct cli_verb cli_verb_workers;
extern const struct cli_verb cli_verb_workers_drain;
extern const struct cli_verb cli_verb_workers_resume;
extern const struct cli_verb cli_verb_dlq_list;
extern const struct cli_verb cli_verb_dlq_show;
extern const struct cli_verb cli_verb_dlq_redrive;
extern const struct cli_verb cli_verb_dlq_purge;
extern const struct cli_verb cli_verb_tokens_create;
extern const struct cli_verb cli_verb_tokens_list;
extern const struct cli_verb cli_verb_tokens_rm;
extern const struct cli_verb cli_verb_callback_redrive;
extern const struct cli_verb cli_verb_bundle;
extern const struct cli_verb cli_verb_image_import;
extern const struct cli_verb cli_verb_image_list;
extern const struct cli_verb cli_verb_image_rm;
extern const struct cli_verb cli_verb_completion;
extern const struct cli_verb cli_verb_man;
